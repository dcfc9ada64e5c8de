"""The faces of one clip over time: which is which, which one the clip is about, and what is kept of them.

- **Tracks.** The faces of a frame are matched with those of before by their boxes: first the pairs whose boxes overlap
  by at least :data:`MIN_OVERLAP` (intersection over union with the last box), best pairs first; then the nearest
  pairs whose centres are no farther apart than the larger box is high. A face that is still left starts a track,
  unless only one track was ever seen and the face is alone: then it is the one that left and returns, wherever it does.
  No one is recognised: two people in turn at the same place are one track.
- **The chosen face** is one track over the whole clip, chosen at its end. ``largest``: the one whose box areas sum to
  most over the frames. ``speaking``: the one with the largest movement of the mouth, which is the deviation over time
  of AU25 + AU26 (lips part, jaw drops) times the share of frames that show the face; of equals the largest.
- A face with a value that is not finite is no face. Numbers alone are kept, never pictures.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from miar.features.action_units import ACTION_UNITS, summarise_units
from miar.features.configs import MediaPipeConfig, PyFeatConfig
from miar.features.contract import Extraction, FloatArray, Status
from miar.features.face_quality import FACE_QUALITY, Box, area

MIN_OVERLAP = 0.3
POSE = ("pitch", "yaw", "roll")
"""The last columns of every face extractor, in degrees."""
MOUTH = tuple(ACTION_UNITS.index(unit) for unit in ("AU25", "AU26"))

FaceConfig = MediaPipeConfig | PyFeatConfig


@dataclass(frozen=True, slots=True)
class Face:
    """One face in one frame."""

    box: Box
    numbers: FloatArray
    """What the extractor makes the sequence's row of."""
    quality: FloatArray
    """:data:`FACE_QUALITY`, and what the extractor measures besides."""


@dataclass(slots=True)
class _Track:
    box: Box
    """Where it was last."""
    area: float = 0.0
    """Sum over its frames, in square pixels."""
    times: list[float] = field(default_factory=list)
    numbers: list[FloatArray] = field(default_factory=list)
    quality: list[FloatArray] = field(default_factory=list)

    def add(self, time_s: float, face: Face) -> None:
        self.box = face.box
        self.area += area(face.box)
        self.times.append(time_s)
        self.numbers.append(face.numbers)
        self.quality.append(face.quality)


def sequence_columns(config: FaceConfig, columns: Sequence[str]) -> tuple[str, ...]:
    """``columns``, the face's number before them where all faces are wanted."""
    return ("face", *columns) if config.all_faces else tuple(columns)


def quality_columns(config: FaceConfig, others: Sequence[str] = ()) -> tuple[str, ...]:
    """Names of a clip's quality values. ``others``: what the extractor measures besides."""
    several = ("quality_faces",) if config.num_faces > 1 else ()
    return ("quality_frames", "quality_face_share", *several, *FACE_QUALITY, *others)


class ClipFaces:
    """Collects one clip's faces, frame by frame."""

    def __init__(
        self,
        config: FaceConfig,
        values_of: Callable[[FloatArray], tuple[FloatArray, FloatArray]],
        others: Sequence[str] = (),
    ) -> None:
        """
        Args:
            values_of: (n, k) numbers of n frames -> (n, n_columns) rows and (n, 20) action units.
            others: names of the quality values that follow :data:`FACE_QUALITY`.
        """
        self._config = config
        self._values_of = values_of
        self._measured = (*FACE_QUALITY, *others)
        self._frames = 0
        self._tracks: list[_Track] = []

    def add(self, time_s: float, faces: Sequence[Face]) -> None:
        """One frame, with or without faces."""
        self._frames += 1
        faces = [face for face in faces if np.isfinite(face.numbers).all()]
        for face, number in zip(faces, self._match(faces), strict=True):
            if number is None:
                self._tracks.append(_Track(face.box))
            self._tracks[-1 if number is None else number].add(time_s, face)

    def extraction(self) -> Extraction:
        """Rows and summaries of the chosen face."""
        if not self._frames:
            return Extraction.missing("no_video_stream", {"quality_frames": 0.0})
        if not self._tracks:
            return Extraction.missing("no_face", self._counts(0))
        read = [self._values_of(np.stack(track.numbers)) for track in self._tracks]
        ranks = sorted(range(len(read)), key=lambda i: self._rank(self._tracks[i], read[i][1]), reverse=True)
        chosen = self._tracks[ranks[0]]
        means = np.stack(chosen.quality).mean(axis=0)
        wanted = ranks if self._config.all_faces else ranks[:1]
        values, times = self._rows([(self._tracks[i], read[i][0]) for i in wanted])
        return Extraction(
            Status.OK,
            values=values,
            times=times,
            summary=summarise_units(read[ranks[0]][1]),
            quality={
                **self._counts(len(chosen.times)),
                **dict(zip(self._measured, map(float, means), strict=True)),
            },
        )

    def _match(self, faces: Sequence[Face]) -> list[int | None]:
        """Per face its track's number, or ``None`` for a new one."""
        if len(faces) == len(self._tracks) == 1:
            return [0]
        found: list[int | None] = [None] * len(faces)
        for closeness in (_overlap_or_none, _nearness_or_none):
            pairs = [
                (close, i, j)
                for i, face in enumerate(faces)
                for j, track in enumerate(self._tracks)
                if (close := closeness(face.box, track.box)) is not None
            ]
            for _, i, j in sorted(pairs, key=lambda pair: -pair[0]):
                if found[i] is None and j not in found:
                    found[i] = j
        return found

    def _rank(self, track: _Track, units: FloatArray) -> tuple[float, float]:
        if self._config.face == "largest":
            return track.area, 0.0
        movement = float(units[:, MOUTH].sum(axis=1).std()) * len(track.times) / self._frames
        return movement, track.area

    def _counts(self, with_face: int) -> dict[str, float]:
        counts = {"quality_frames": float(self._frames), "quality_face_share": with_face / self._frames}
        if self._config.num_faces > 1:
            counts["quality_faces"] = sum(len(track.times) for track in self._tracks) / self._frames
        return counts

    def _rows(self, faces: list[tuple[_Track, FloatArray]]) -> tuple[FloatArray, FloatArray]:
        """Rows and times in order of time; where all faces are wanted, of one time by the faces' numbers."""
        times = np.concatenate([np.asarray(track.times, dtype=np.float32) for track, _ in faces])
        values = np.concatenate([rows for _, rows in faces])
        if self._config.all_faces:
            numbers = np.repeat(np.arange(len(faces)), [len(rows) for _, rows in faces])
            order = np.lexsort((numbers, times))
            values, times = np.column_stack([numbers, values])[order], times[order]
        return np.ascontiguousarray(values, dtype=np.float32), times


def overlap(one: Box, other: Box) -> float:
    """Intersection over union, 0..1; 0 where neither box has an area."""
    shared = area(np.concatenate([np.maximum(one[:2], other[:2]), np.minimum(one[2:], other[2:])]))
    union = area(one) + area(other) - shared
    return shared / union if union > 0 else 0.0


def _overlap_or_none(one: Box, other: Box) -> float | None:
    shared = overlap(one, other)
    return shared if shared >= MIN_OVERLAP else None


def _nearness_or_none(one: Box, other: Box) -> float | None:
    """The negative distance of the centres, if it is at most the larger box's height."""
    apart = float(np.hypot(*((one[:2] + one[2:]) - (other[:2] + other[2:])))) / 2
    return -apart if apart <= max(one[3] - one[1], other[3] - other[1]) else None
