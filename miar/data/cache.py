"""Memory-mapped copies of a snapshot's features, for many epochs.

    <folder>/<snapshot id>-<hash of the feature sets>/
      manifest.json        format, a checksum of the clips, size and SHA-256 of every file
      <modality>/*.npy     values (all frames, float32) in the order of the table's rows, where each clip's frames
                           start, what of it is available, its summary, and the table's row index

A copy appears at once and whole (written beside, then renamed), by one process while others wait; all processes map the
same pages. One that is damaged, or of another format, is made again. Copies are not removed by themselves: a folder
of this one is yours to delete whenever no process needs it.
"""

import hashlib
import io
import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from filelock import FileLock
from numpy.typing import NDArray

from miar.data.dataset import Descriptor, ModalityData, Ragged
from miar.data.feature_rows import FeatureRows, RowIndex
from miar.descriptors import table_of
from miar.errors import UserError

FORMAT = 2
MANIFEST = "manifest.json"
COPY_VALUES = 2**22
"""Copied at a time (16 MiB of float32)."""


class CachedRows:
    """One feature table out of the cache; as :class:`FeatureRows`. A worker process maps the files anew."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        names = [path.stem for path in folder.glob("*.npy")]
        arrays = {name: np.asarray(np.load(folder / f"{name}.npy", mmap_mode="r")) for name in names}
        self.index = RowIndex(arrays["row"], arrays["present"], arrays["frames"], arrays["group_starts"])
        self._data = ModalityData(
            Ragged(arrays["values"], arrays["starts"], arrays["frames"]), arrays["available"], arrays.get("summary")
        )

    def read(self, positions: NDArray[np.int64]) -> ModalityData:
        """The features of the clips at ``positions``: views of the mapped frames."""
        return self._data.subset(positions)

    def __reduce__(self) -> tuple[type["CachedRows"], tuple[Path]]:
        return CachedRows, (self._folder,)


def cached_rows(
    folder: Path,
    snapshot_id: str,
    feature_sets: Mapping[str, Descriptor],
    clip_ids: pa.Array,
    source: Callable[[str], FeatureRows],
) -> dict[str, CachedRows]:
    """The copy of a snapshot's features, made if it is not there, not whole, or not of these clips.

    Args:
        source: modality -> the rows to copy; called only where there is something to copy.

    Raises:
        UserError: the cache cannot be written.
    """
    tables = {name: table_of(one) for name, one in feature_sets.items()}
    place = folder / f"{snapshot_id}-{_digest(tables)[:16]}"
    expected = {"format": FORMAT, "snapshot_id": snapshot_id, "tables": tables, "clips": _digest(clip_ids.to_pylist())}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / f".{place.name}.lock"):
            if not _whole(place, expected):
                shutil.rmtree(place, ignore_errors=True)
                _make(place, expected, {name: source(name) for name in tables})
    except OSError as error:
        raise UserError(
            f"the cache {folder} cannot be written ({error.strerror or error}): make room, or choose another folder"
        ) from error
    return {name: CachedRows(place / name) for name in tables}


def _whole(place: Path, expected: Mapping[str, Any]) -> bool:
    """Every file is there in its size, and those that were touched since still have their checksum."""
    try:
        manifest = json.loads((place / MANIFEST).read_text(encoding="ascii"))
        if {name: manifest[name] for name in expected} != expected:
            return False
        return all(_unchanged(place / name, *known) for name, known in manifest["files"].items())
    except (FileNotFoundError, NotADirectoryError, ValueError, KeyError, TypeError):
        return False


def _unchanged(path: Path, size: int, modified_ns: int, sha256: str) -> bool:
    found = path.stat()
    return found.st_size == size and (found.st_mtime_ns == modified_ns or _file_sha256(path) == sha256)


def _make(place: Path, expected: Mapping[str, Any], sources: Mapping[str, FeatureRows]) -> None:
    draft = place.parent / f".{place.name}.{uuid.uuid4().hex}"
    try:
        files: dict[str, tuple[int, int, str]] = {}
        for name, rows in sources.items():
            (draft / name).mkdir(parents=True)
            for path, sha256 in _write(draft / name, rows):
                found = path.stat()
                files[f"{name}/{path.name}"] = (found.st_size, found.st_mtime_ns, sha256)
        _write_file(draft / MANIFEST, [json.dumps({**expected, "files": files}).encode("ascii")])
        os.rename(draft, place)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _write(folder: Path, rows: FeatureRows) -> Iterator[tuple[Path, str]]:
    """Write one modality; yields each file with its checksum."""
    index = rows.index
    count = len(index.row)
    starts, available = np.zeros(count, np.int64), np.zeros(count, np.bool_)
    parts: list[tuple[NDArray[np.int64], NDArray[np.float32]]] = []

    def values() -> Iterator[bytes | memoryview]:
        yield _header((int(index.frames.sum()), rows.width))
        done = 0
        for positions in _in_order(index, rows.width):
            data = rows.read(positions)
            flat, offsets = data.sequences.joined()
            starts[positions] = offsets[:-1] + done
            available[positions] = data.available
            if data.summary is not None:
                parts.append((positions, data.summary))
            done += len(flat)
            yield flat.data.cast("B") if flat.size else b""

    yield folder / "values.npy", _write_file(folder / "values.npy", values())
    arrays = {
        "starts": starts,
        "available": available,
        "row": index.row,
        "present": index.present,
        "frames": index.frames,
        "group_starts": index.group_starts,
    }
    if rows.summary_columns:
        arrays["summary"] = np.full((count, len(rows.summary_columns)), np.nan, np.float32)
        for positions, summary in parts:
            arrays["summary"][positions] = summary
    for name, array in arrays.items():
        path = folder / f"{name}.npy"
        yield path, _write_file(path, [_header(array.shape, array.dtype), array.tobytes()])


def _in_order(index: RowIndex, width: int) -> Iterator[NDArray[np.int64]]:
    """Positions of the clips with features, in storage order, about :data:`COPY_VALUES` values at a time."""
    ordered = index.storage_order(np.arange(len(index.row)))
    part = np.cumsum(index.frames[ordered] * width) // COPY_VALUES
    return (one for one in np.split(ordered, np.flatnonzero(np.diff(part)) + 1) if len(one))


def _header(shape: tuple[int, ...], dtype: Any = np.float32) -> bytes:
    """What a ``.npy`` file of a C-ordered array starts with."""
    buffer = io.BytesIO()
    description = np.lib.format.dtype_to_descr(np.dtype(dtype))
    np.lib.format.write_array_header_2_0(buffer, {"descr": description, "fortran_order": False, "shape": shape})
    return buffer.getvalue()


def _write_file(path: Path, pieces: Iterable[bytes | memoryview]) -> str:
    """Plain writes, not through a map: a full disk is then an error. Returns the SHA-256."""
    digest = hashlib.sha256()
    with path.open("wb") as file:
        for piece in pieces:
            digest.update(piece)
            file.write(piece)
        file.flush()
        os.fsync(file.fileno())
    return digest.hexdigest()


def _file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode("ascii")).hexdigest()
