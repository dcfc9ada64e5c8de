"""One ``.csd`` file of the CMU-MultimodalSDK: HDF5, ``<root>/data/<key>/{features,intervals}`` and ``<root>/metadata``.

A key is a video, or ``video[3]`` for the fourth segment of one. Features are frames of numbers, or words. What is read
at a time is one key, so memory does not grow with the file. A link out of the file is not followed.
"""

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from miar.errors import UserError

_SEGMENT = re.compile(r"(?P<video>.+)\[(?P<number>\d{1,9})\]")


def split_key(key: str) -> tuple[str, int | None]:
    """``video[3]`` -> ``("video", 3)``; ``video`` -> ``("video", None)``."""
    found = _SEGMENT.fullmatch(key)
    return (found["video"], int(found["number"])) if found else (key, None)


@dataclass(frozen=True)
class CsdEntry:
    """The frames of one key."""

    features: NDArray[Any]
    """(n_frames, n_columns), numbers or bytes."""
    intervals: NDArray[np.float64]
    """(n_frames, 2) start and end in seconds from the video's start."""

    @property
    def centres(self) -> NDArray[np.float64]:
        """(n_frames,) seconds from the video's start."""
        return self.intervals.mean(axis=1)


class CsdFile:
    """A computational sequence, open for reading; close it, or use it as a context manager."""

    def __init__(self, path: Path) -> None:
        """Open a file.

        Raises:
            UserError: no such file, or no computational sequence in it.
        """
        if not path.is_file():
            raise UserError(f"no such file: {path}; give a .csd file")
        self.path = path
        try:
            self._file = h5py.File(path, "r")
        except OSError as error:
            raise UserError(f"cannot read {path} as a .csd file: {' '.join(str(error).split())}") from error
        with self._readable():
            self.root, self._group = self._find_root()
            self._data = self._inside(self._group, "data", h5py.Group)
            self.keys: list[str] = sorted(self._data)
            self.metadata = self._metadata()

    def __enter__(self) -> "CsdFile":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def entry(self, key: str) -> CsdEntry:
        """Read the frames of one key.

        Raises:
            UserError: features and intervals do not fit each other, or are links out of the file.
        """
        with self._readable():
            group = self._inside(self._data, key, h5py.Group)
            features = np.asarray(self._inside(group, "features", h5py.Dataset)[()])
            intervals = np.asarray(self._inside(group, "intervals", h5py.Dataset)[()])
        if features.ndim == 1:
            features = features[:, None]
        if intervals.ndim != 2 or intervals.shape[1:] != (2,) or features.ndim != 2 or len(features) != len(intervals):
            shapes = " and ".join(" x ".join(map(str, each.shape)) for each in (features, intervals))
            raise UserError(
                f"{self.path}: features and intervals of {key!r} are {shapes}; they should be frames x columns and "
                "frames x 2"
            )
        return CsdEntry(features, intervals.astype(np.float64))

    def column_names(self, width: int) -> tuple[str, ...] | None:
        """The metadata's ``dimension names``, where they name every column once."""
        names = self.metadata.get("dimension names")
        if not isinstance(names, list) or len(names) != width or not all(isinstance(name, str) for name in names):
            return None
        return tuple(names) if len(set(names)) == width else None

    def _find_root(self) -> tuple[str, h5py.Group]:
        for name in map(str, self._file):
            group = self._inside(self._file, name, h5py.Group)
            if "data" in group:
                return name, group
        raise UserError(f"{self.path} holds no computational sequence: no group in it has 'data'")

    def _inside(self, group: h5py.Group, name: str, kind: type) -> Any:
        """A member of the group that lies in this file."""
        if not isinstance(group.get(name, getlink=True), h5py.HardLink):
            raise UserError(f"{self.path}: {group.name}/{name} is not there, or is a link; links are not followed")
        member = group[name]
        if not isinstance(member, kind):
            raise UserError(f"{self.path}: {member.name} is no {kind.__name__.lower()}; is it a .csd file?")
        if isinstance(member, h5py.Dataset) and (member.is_virtual or member.external):
            raise UserError(f"{self.path}: {member.name} lies in another file; only what is in this one is read")
        return member

    def _metadata(self) -> dict[str, Any]:
        """What can be read of it; each value is JSON in a dataset of one text."""
        found: dict[str, Any] = {}
        if "metadata" not in self._group:
            return found
        described = self._inside(self._group, "metadata", h5py.Group)
        for name in map(str, described):
            member = self._inside(described, name, h5py.HLObject)
            if isinstance(member, h5py.Dataset) and member.shape == (1,):
                text = member[0].decode("utf-8", "replace") if isinstance(member[0], bytes) else str(member[0])
                try:
                    found[name] = json.loads(text)
                except json.JSONDecodeError:
                    found[name] = text
        return found

    @contextmanager
    def _readable(self) -> Iterator[None]:
        try:
            yield
        except (OSError, KeyError, RuntimeError, ValueError, MemoryError) as error:
            raise UserError(f"cannot read {self.path}: {' '.join(str(error).split())}") from error


def words_of(features: NDArray[Any], path: Path) -> Sequence[str]:
    """The words of some frames, without the SDK's mark for a pause (``sp``).

    Raises:
        UserError: these are no words.
    """
    if features.dtype.kind not in "SUO":
        raise UserError(f"{path} holds numbers, not words; name the file of the words")
    words = [word.decode("utf-8", "replace") if isinstance(word, bytes) else str(word) for word in features[:, 0]]
    return [word.strip() for word in words if word.strip() not in ("", "sp")]
