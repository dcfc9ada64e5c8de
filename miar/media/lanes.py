"""What happens to each stream of a file: decode its packets, place its frames in time, hand them to open
spans."""

import heapq
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import Any, Generic, TypeVar

import av.error
import numpy as np
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.packet import Packet
from av.video.frame import VideoFrame as DecodedFrame
from av.video.stream import VideoStream

from miar.config import MediaLimits
from miar.media.clock import FileClock, StreamClock
from miar.media.decode import Span, SpanFrame, VideoFrame, VideoRequest
from miar.media.errors import MediaError, MediaProblem
from miar.media.opening import check_side
from miar.media.picture import Converter, FrameSampler, Picture
from miar.media.skipping import CannotSkipError, LateStart
from miar.media.sound import ClipSound, Samples, mono

CONTINUOUS_S = 0.02
"""Sound whose time stamp is off by less than this goes on without a gap: containers round stamps to 1 ms or
worse."""

_GAPLESS = frozenset({"flac", "wav", "w64", "aiff", "mp3", "aac"})
"""Containers of sound alone, without pauses: a gap in one is a part that could not be read."""

CutT = TypeVar("CutT", ClipSound, FrameSampler)


def end_s(span: Span) -> float:
    return math.inf if span.end_ms is None else span.end_ms / 1000


class Lane(ABC, Generic[CutT]):
    """One decoded stream and the spans that are open on it."""

    def __init__(
        self, stream: AudioStream | VideoStream, clock: FileClock, spans: Sequence[Span], limits: MediaLimits
    ) -> None:
        self.stream = stream
        self.limits = limits
        self.clock = StreamClock(clock)
        self.lost: list[tuple[float, float]] = []
        """(from, to) in s: packets that did not decode."""
        self._spans = spans
        self._waiting = sorted(range(len(spans)), key=lambda index: spans[index].start_ms, reverse=True)
        self._open: dict[int, CutT] = {}
        self._ends: list[tuple[float, int]] = []

    @property
    def is_done(self) -> bool:
        """No span needs anything further of this stream."""
        return not self._waiting and not self._open

    def decode(self, packet: "Packet[Any] | None") -> Iterator[SpanFrame | int]:
        """Decode one packet; ``None`` for what the decoder still holds. Yields frames, and spans that are
        complete."""
        try:
            frames = self.stream.decode(packet)  # pyright: ignore[reportArgumentType]
        except (av.error.EOFError, av.error.BlockingIOError):
            return
        except av.error.FFmpegError:
            self._lose(packet)
            return
        for frame in frames:
            yield from self._take(frame)

    def catch_up(self) -> Iterator[SpanFrame | int]:
        """No further packet comes: decode those that were held back."""
        yield from ()

    def close(self) -> Iterator[SpanFrame | int]:
        """The stream is over: complete every span that is left."""
        self._open_until(math.inf)
        yield from self._close_until(math.inf)

    def lost_s(self, start_s: float, stop_s: float) -> float:
        """How much between two times did not decode, in s."""
        return sum(max(0.0, min(stop_s, stop) - max(start_s, start)) for start, stop in self.lost)

    @abstractmethod
    def _take(self, frame: Any) -> Iterator[SpanFrame | int]: ...

    @abstractmethod
    def _new_cut(self, span: Span) -> CutT: ...

    @abstractmethod
    def _finish(self, index: int, cut: CutT) -> Iterator[SpanFrame]: ...

    def _seconds(self, ticks: int | None) -> float | None:
        """A time stamp in s. Frames from a decoder's last flush know their stamp, but no longer its unit."""
        base = self.stream.time_base
        return None if ticks is None or base is None else float(ticks * base)

    def _place(self, ticks: int | None) -> float:
        time_s = self.clock.place(self._seconds(ticks))
        if time_s > self.limits.max_duration_s:
            raise MediaError(
                MediaProblem.OVER_LIMIT,
                f"longer than the limit of {self.limits.max_duration_s:g} s; the rest is left",
            )
        return time_s

    def _open_until(self, time_s: float) -> None:
        while self._waiting and self._spans[self._waiting[-1]].start_ms / 1000 < time_s:
            index = self._waiting.pop()
            self._open[index] = self._new_cut(self._spans[index])
            heapq.heappush(self._ends, (end_s(self._spans[index]), index))

    def _close_until(self, time_s: float) -> Iterator[SpanFrame | int]:
        while self._ends and self._ends[0][0] <= time_s:
            index = heapq.heappop(self._ends)[1]
            yield from self._finish(index, self._open.pop(index))
            yield index

    def _lose(self, packet: "Packet[Any] | None") -> None:
        if packet is None:
            return
        start_s = self.clock.place(self._seconds(packet.pts))
        self._mark_lost(start_s, start_s + (self._seconds(packet.duration) or 0.0))

    def _mark_lost(self, start_s: float, stop_s: float) -> None:
        if self.lost and self.lost[-1][0] <= start_s <= self.lost[-1][1] + CONTINUOUS_S:
            start_s = self.lost.pop()[0]
        self.lost.append((start_s, stop_s))


class AudioLane(Lane[ClipSound]):
    """The audio stream."""

    def __init__(
        self, stream: AudioStream, clock: FileClock, spans: Sequence[Span], limits: MediaLimits, rate: int
    ) -> None:
        super().__init__(stream, clock, spans, limits)
        self._rate = rate
        self._file_rate = stream.codec_context.sample_rate
        self._has_no_gaps = stream.container.format.name in _GAPLESS
        self._next: int | None = None
        self.clips: dict[int, tuple[Samples, int]] = {}
        """Of complete spans: the sound, and how many samples were neither finite."""

    def _take(self, frame: AudioFrame) -> Iterator[SpanFrame | int]:
        if frame.sample_rate != self._file_rate:
            self._change_rate(frame.sample_rate)
        start_s = self._place(frame.pts)
        position = round(start_s * self._file_rate)
        if self._next is not None and abs(position - self._next) <= CONTINUOUS_S * self._file_rate:
            position = self._next
        elif self._next is not None and self._has_no_gaps and position > self._next:
            self._mark_lost(self._next / self._file_rate, start_s)
        samples = mono(frame)
        self._next = max(position + len(samples), self._next or 0)
        time_s = self._next / self._file_rate
        self.clock.advance(time_s)
        self._open_until(time_s)
        self._feed(position, samples)
        yield from self._close_until(time_s)

    def _feed(self, position: int, samples: Samples) -> None:
        bad = None
        if not np.isfinite(samples).all():
            bad = ~np.isfinite(samples)
            samples = np.where(bad, np.float32(0), samples)
        for cut in self._open.values():
            cut.feed(position, samples, bad)

    def _change_rate(self, rate: int) -> None:
        """The decoder found out the true rate, or the stream changes it: what is open cannot be one
        signal."""
        now_s = self.clock.end_s
        if now_s is not None:
            self.lost += [(now_s, end_s(self._spans[index])) for index in self._open]
        self._file_rate = rate
        self._next = None

    def _new_cut(self, span: Span) -> ClipSound:
        first = round(span.start_ms * self._file_rate / 1000)
        last = None if span.end_ms is None else round(span.end_ms * self._file_rate / 1000)
        return ClipSound(first, last, self._file_rate, self._rate)

    def _finish(self, index: int, cut: ClipSound) -> Iterator[SpanFrame]:
        self.clips[index] = cut.close(), cut.bad_samples
        yield from ()


class VideoLane(Lane[FrameSampler]):
    """The video stream."""

    def __init__(
        self,
        stream: VideoStream,
        clock: FileClock,
        spans: Sequence[Span],
        limits: MediaLimits,
        request: VideoRequest,
        *,
        may_skip: bool,
    ) -> None:
        """``may_skip``: whether to leave out what comes long before the first span (:mod:`miar.media.skipping`)."""
        super().__init__(stream, clock, spans, limits)
        skips = may_skip and LateStart.is_worth_it(spans, limits.max_duration_s)
        self._late = LateStart(spans, clock.zero_s) if skips else None
        self._begins_by_s = math.inf
        self._fps = request.fps
        self._converter = Converter(request.max_side, stream.sample_aspect_ratio)
        rate = stream.average_rate or stream.guessed_rate or Fraction(25)
        self._nominal_s = float(1 / rate) if rate > 0 else 0.04
        self._last_start_s = -math.inf
        self.frame_counts: dict[int, int] = {}

    def decode(self, packet: "Packet[Any] | None") -> Iterator[SpanFrame | int]:
        """As of any stream.

        Raises:
            CannotSkipError: the file has to be decoded from its beginning; nothing was yielded yet.
        """
        if self._late is None or packet is None:
            yield from super().decode(packet)
        elif self._late.take(packet):
            yield from self.catch_up()

    def catch_up(self) -> Iterator[SpanFrame | int]:
        late, self._late = self._late, None
        if late is not None:
            self._begins_by_s = late.until_s
            for packet in late.held():
                yield from super().decode(packet)

    def _take(self, frame: DecodedFrame) -> Iterator[SpanFrame | int]:
        check_side(frame.width, frame.height, self.limits)
        start_s = self._place(frame.pts)
        if start_s > self._begins_by_s:
            raise CannotSkipError
        self._begins_by_s = math.inf
        length_s = self._seconds(frame.duration) or self._nominal_s
        if start_s <= self._last_start_s:
            return  # out of order: it was to be shown before a frame that has been
        self._last_start_s = start_s
        self.clock.advance(start_s + length_s)
        if frame.is_corrupt:
            self._mark_lost(start_s, start_s + length_s)
            return
        self._open_until(start_s + length_s)
        picture = Picture(frame, start_s, start_s + length_s, self._converter)
        for index, sampler in self._open.items():
            yield from self._frames(index, sampler.push(picture))
        yield from self._close_until(start_s)

    def _frames(self, index: int, wanted: list[tuple[Picture, float]]) -> Iterator[SpanFrame]:
        for picture, time_s in wanted:
            self.frame_counts[index] = self.frame_counts.get(index, 0) + 1
            yield SpanFrame(index, VideoFrame(picture.rgb(), time_s))

    def _new_cut(self, span: Span) -> FrameSampler:
        return FrameSampler(span.start_ms / 1000, end_s(span), self._fps)

    def _finish(self, index: int, cut: FrameSampler) -> Iterator[SpanFrame]:
        yield from self._frames(index, cut.close())
