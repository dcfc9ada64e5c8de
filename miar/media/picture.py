"""A file's pictures: which frames a clip takes, and how one becomes RGB."""

from fractions import Fraction

import numpy as np
from av.video.frame import VideoFrame as DecodedFrame
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

TIE_S = 0.002
"""Time stamps that containers round to 1 ms decide no tie."""


class Converter:
    """Turns decoded frames upright, to square pixels, to RGB, and to at most ``max_side`` pixels."""

    def __init__(self, max_side: int, pixel_aspect: Fraction | None) -> None:
        self._max_side = max_side
        self._pixel_aspect = float(pixel_aspect) if pixel_aspect else 1.0
        self._reformatter = VideoReformatter()

    def rgb(self, frame: DecodedFrame) -> NDArray[np.uint8]:
        """(height, width, 3)"""
        width, height = frame.width * self._pixel_aspect, float(frame.height)
        scale = min(1.0, self._max_side / max(width, height))
        size = max(1, round(width * scale)), max(1, round(height * scale))
        converted = self._reformatter.reformat(frame, width=size[0], height=size[1], format="rgb24", threads=1)
        quarter_turns = round(frame.rotation / 90) % 4
        return np.ascontiguousarray(np.rot90(converted.to_ndarray(), quarter_turns), dtype=np.uint8)


class Picture:
    """A decoded frame with its times on the presentation clock; converted once, when first asked for."""

    def __init__(self, frame: DecodedFrame, start_s: float, end_s: float, converter: Converter) -> None:
        self._frame: DecodedFrame | None = frame
        self._converter = converter
        self._rgb: NDArray[np.uint8] | None = None
        self.start_s = start_s
        self.end_s = end_s

    @property
    def centre_s(self) -> float:
        return (self.start_s + self.end_s) / 2

    def rgb(self) -> NDArray[np.uint8]:
        """(height, width, 3); clips that overlap share it, so it is not to be written to."""
        if self._rgb is None:
            assert self._frame is not None
            self._rgb = self._converter.rgb(self._frame)
            self._frame = None
        return self._rgb


class FrameSampler:
    """Picks one clip's frames: those nearest to a regular grid that starts at its first frame.

    A grid of its own, rather than one from the clip's start, keeps every frame of a video that has just the
    wanted
    rate, however its time stamps are rounded. A frame belongs to the clip in which its centre lies. A clip in
    which no
    centre lies takes the one frame that is on display longest.
    """

    def __init__(self, start_s: float, end_s: float, fps: float) -> None:
        self._start_s = start_s
        self._end_s = end_s
        self._step_s = 1 / fps
        self._first_centre_s: float | None = None
        self._due = 0
        self._last: Picture | None = None
        self._last_taken = False
        self._before: Picture | None = None
        self._after: Picture | None = None

    def push(self, picture: Picture) -> list[tuple[Picture, float]]:
        """Frames that are now known to be wanted, each with its time in s from the clip's start."""
        if picture.centre_s < self._start_s:
            self._before = picture
            return []
        if picture.centre_s >= self._end_s:
            self._after = self._after or picture
            return []
        wanted = self._nearest(picture)
        return [(chosen, chosen.centre_s - self._start_s) for chosen in wanted]

    def close(self) -> list[tuple[Picture, float]]:
        """What is still wanted when no further frame can belong to the clip."""
        if self._last is None:
            return self._on_display()
        due_s = self._due_s()
        is_near = due_s < min(self._end_s, self._last.end_s) and due_s - self._last.centre_s <= self._step_s / 2
        if self._last_taken or not is_near:
            return []
        return [(self._last, self._last.centre_s - self._start_s)]

    def _nearest(self, picture: Picture) -> list[Picture]:
        wanted: list[Picture] = []
        last, centre_s = self._last, picture.centre_s
        if last is None or self._first_centre_s is None:
            self._first_centre_s = centre_s
        elif self._due_s() <= centre_s and self._is_nearer(last, picture):
            wanted += [] if self._last_taken else [last]
        is_taken = False
        if self._due_s() <= centre_s:
            self._due = int((centre_s - self._first_centre_s) / self._step_s + 1e-9)
            is_taken = last is None or not self._is_nearer(last, picture)
            self._due += 1
        self._last, self._last_taken = picture, is_taken
        return [*wanted, picture] if is_taken else wanted

    def _is_nearer(self, last: Picture, picture: Picture) -> bool:
        """Whether ``last`` stands nearer to the point that is due; of two as near as time stamps can say, it
        does."""
        due_s = self._due_s()
        return due_s - last.centre_s <= picture.centre_s - due_s + TIE_S

    def _due_s(self) -> float:
        return (self._first_centre_s or 0.0) + self._due * self._step_s

    def _on_display(self) -> list[tuple[Picture, float]]:
        shown: list[tuple[float, float, Picture]] = []
        if self._before is not None:
            until_s = self._after.start_s if self._after else self._before.end_s
            shown.append((self._start_s, min(until_s, self._end_s), self._before))
        if self._after is not None:
            shown.append((max(self._after.start_s, self._start_s), self._end_s, self._after))
        shown = [part for part in shown if part[1] > part[0]]
        if not shown:
            return []
        start_s, end_s, picture = max(shown, key=lambda part: part[1] - part[0])
        return [(picture, (start_s + end_s) / 2 - self._start_s)]
