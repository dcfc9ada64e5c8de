"""Which clips a corpus of ``.csd`` files has, and which frames of a file belong to each."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from miar.errors import UserError
from miar.interchange.csd_file import CsdEntry, CsdFile, split_key


@dataclass(frozen=True)
class CsdClip:
    """One segment of a video, or a whole one."""

    name: str
    """``video[number]``, or the video where that is the clip."""
    video: str
    number: int
    start_s: float | None = None
    end_s: float | None = None
    """``None``: the whole video."""

    @property
    def start_ms(self) -> int:
        return 0 if self.start_s is None else round(self.start_s * 1000)

    @property
    def end_ms(self) -> int | None:
        return None if self.end_s is None else round(self.end_s * 1000)


def clips_of_labels(file: CsdFile) -> tuple[list[CsdClip], list[NDArray[Any]]]:
    """Each interval of a label file is a clip; its row of labels stands beside it.

    Raises:
        UserError: a clip without times, with several rows of labels, or twice; labels that are no numbers.
    """
    clips: list[CsdClip] = []
    rows: list[NDArray[Any]] = []
    for key in file.keys:
        entry = file.entry(key)
        if entry.features.dtype.kind not in "biuf":
            raise UserError(f"{file.path}: the labels of {key!r} are no numbers; name another file for the labels")
        if not np.isfinite(entry.intervals).all():
            raise UserError(f"{file.path}: an interval of {key!r} has no time, so its clip cannot be found; mend it")
        clips += _clips_of_entry(file, key, entry)
        rows += list(entry.features)
    _check_once(file, clips)
    return clips, rows


def _clips_of_entry(file: CsdFile, key: str, entry: CsdEntry) -> Iterator[CsdClip]:
    video, number = split_key(key)
    if number is not None and len(entry.intervals) != 1:
        raise UserError(f"{file.path}: {key!r} has {len(entry.intervals)} rows of labels; a clip has one")
    for row, (start, end) in enumerate(entry.intervals.tolist()):
        if start < 0 or end < start:
            raise UserError(f"{file.path}: {key!r} has an interval from {start:g} s to {end:g} s; mend it")
        position = row if number is None else number
        yield CsdClip(f"{video}[{position}]", video, position, start, end)


def clips_of_features(files: Sequence[CsdFile]) -> list[CsdClip]:
    """Without labels every key is a clip; times are counted from its earliest interval, or from a video's start.

    Raises:
        UserError: there is no key at all, or a key is both a whole video and cut into segments.
    """
    starts: dict[str, float] = {}
    for file in files:
        for key in file.keys:
            starts.setdefault(key, np.inf)
            if split_key(key)[1] is not None:
                intervals = file.entry(key).intervals
                earliest = np.nanmin(intervals) if np.isfinite(intervals).any() else np.inf
                starts[key] = min(starts[key], float(earliest))
    if not starts:
        raise UserError("the files have no entry; nothing to import")
    clips = []
    for key in sorted(starts, key=lambda key: (split_key(key)[0], split_key(key)[1] or 0)):
        video, number = split_key(key)
        if number is not None and video in starts:
            raise UserError(f"{video!r} is a whole video in one file and cut in another; name a label file to cut by")
        start = starts[key] if np.isfinite(starts[key]) else None
        clips.append(CsdClip(key, video, number or 0, start))
    return clips


def _check_once(file: CsdFile, clips: Sequence[CsdClip]) -> None:
    seen: set[str] = set()
    for clip in clips:
        if clip.name in seen:
            raise UserError(f"{file.path}: clip {clip.name!r} stands there twice; keep one of them")
        seen.add(clip.name)
    if not clips:
        raise UserError(f"{file.path} has no interval, so there is no clip; name another file for the labels")


class ClipFrames:
    """Finds the frames of clips in one file. The last video read is kept, so clips should come video by video."""

    def __init__(self, file: CsdFile) -> None:
        self._file = file
        self._keys = set(file.keys)
        self._video: str | None = None
        self._entry: CsdEntry | None = None

    def of(self, clip: CsdClip) -> CsdEntry | None:
        """The clip's frames, possibly none; ``None`` where the file has neither clip nor video."""
        if clip.name in self._keys:
            return self._file.entry(clip.name)
        if clip.video not in self._keys:
            return None
        if self._video != clip.video or self._entry is None:
            self._video, self._entry = clip.video, self._file.entry(clip.video)
        start = -np.inf if clip.start_s is None else clip.start_s
        end = np.inf if clip.end_s is None else clip.end_s
        centres = self._entry.centres
        inside = (centres >= start) & (centres < end)
        return CsdEntry(self._entry.features[inside], self._entry.intervals[inside])
