"""One feature table of a snapshot: where each clip's row stands, and reading rows by row group.

Nothing is read twice that is asked for in storage order: row groups that were just decoded are held for the next call,
up to :data:`HELD_BYTES`, since the clips of two calls often share one.
"""

import itertools
import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
from numpy.typing import NDArray

from miar.data.current import input_column, stale
from miar.data.dataset import Descriptor, ModalityData, Ragged
from miar.descriptors import table_of
from miar.errors import UserError
from storage import Snapshot
from storage.arrow import pc, readable

HELD_BYTES = 64 * 2**20
"""Of decoded row groups, between two calls; a row group of the store has at most 16 MiB or one row."""


@dataclass(frozen=True)
class RowIndex:
    """Where the rows of N clips stand in one table, in the order in which its files are read."""

    row: NDArray[np.int64]
    """(N,) number of the clip's row in the table; -1 for a clip without one that was made from what it is now."""
    present: NDArray[np.bool_]
    """(N,) whether that row holds features: its status is ``ok``."""
    frames: NDArray[np.int64]
    """(N,) 0 where not present."""
    group_starts: NDArray[np.int64]
    """(G + 1,) first row of each row group, then the number of rows."""

    @property
    def group(self) -> NDArray[np.int64]:
        """(N,) row group of each clip; -1 for a clip without a row."""
        return np.searchsorted(self.group_starts, self.row, side="right") - 1

    def storage_order(self, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """Indices into ``positions`` of the clips with features here, as their rows follow each other."""
        present = np.flatnonzero(self.present[positions])
        return present[np.argsort(self.row[positions[present]])]


class FeatureRows:
    """Reads one feature table for the clips of a reader. Threads may share it."""

    def __init__(
        self,
        snapshot: Snapshot,
        descriptor: Descriptor,
        clip_ids: pa.Array,
        inputs: Mapping[str, pa.ChunkedArray] | None = None,
        *,
        timed: bool = False,
    ) -> None:
        """One scan of the table's keys.

        Args:
            clip_ids: the reader's N clips.
            timed: whether the frames' times are read as well, for :meth:`read_timed`.
            inputs: :data:`miar.data.current.INPUTS` of each; a row that was made from something else is left out.
        """
        self.width = len(descriptor["columns"])
        self.summary_columns = list(descriptor.get("summary_columns") or ())
        self._columns = ["values", *self.summary_columns, *(["times"] if timed else [])]
        self._table = table_of(descriptor)
        self._dataset = snapshot.dataset(self._table)
        self._fragments: list[Any] = list(self._dataset.get_fragments())
        with readable(self._table):
            self._groups = [(file, group.id) for file, one in enumerate(self._fragments) for group in one.row_groups]
            sizes = [group.num_rows for one in self._fragments for group in one.row_groups]
            keys = self._dataset.to_table(columns=["clip_id", "status", "n_frames", "input_hash"])
        made_from = (inputs or {}).get(input_column(descriptor) or "")
        self.index = _index(keys, np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)]), clip_ids, made_from)
        self._start_holding()

    def read(self, positions: NDArray[np.int64]) -> ModalityData:
        """The features of the clips at ``positions``."""
        return self._data(positions)[0]

    def read_timed(self, positions: NDArray[np.int64]) -> tuple[ModalityData, NDArray[np.float32]]:
        """The features of the clips at ``positions``, and of each frame of their flat array when it is: (frames,)."""
        data, table = self._data(positions)
        return data, _flat(table["times"])

    def _data(self, positions: NDArray[np.int64]) -> tuple[ModalityData, pa.Table]:
        """And the rows that the flat array is of, one after the other."""
        chosen = self.index.storage_order(positions)
        table, places = self._rows(self.index.row[positions[chosen]])
        frames = pc.fill_null(pc.list_value_length(table["values"]), 0).to_numpy().astype(np.int64) // self.width
        starts, lengths = np.zeros(len(positions), np.int64), np.zeros(len(positions), np.int64)
        starts[chosen], lengths[chosen] = (np.cumsum(frames) - frames)[places], frames[places]
        sequences = Ragged(_flat(table["values"]).reshape(-1, self.width), starts, lengths)
        summary = None
        if self.summary_columns:
            summary = np.full((len(positions), len(self.summary_columns)), np.nan, np.float32)
            for column, name in enumerate(self.summary_columns):
                summary[chosen, column] = table[name].to_numpy()[places]
        return ModalityData.from_values(sequences, summary), table

    def _rows(self, rows: NDArray[np.int64]) -> tuple[pa.Table, NDArray[np.int64]]:
        """A table that holds the rows of these ascending numbers, and where in it each stands.

        A row group is copied only where most of it is not asked for.
        """
        starts = self.index.group_starts
        groups, first = np.unique(np.searchsorted(starts, rows, side="right") - 1, return_index=True)
        tables = self._load(groups.tolist())
        parts, places, before = [], [rows[:0]], 0
        for group, start, end in zip(groups.tolist(), first, np.append(first, len(rows))[1:], strict=True):
            part, wanted = tables[group], rows[start:end] - starts[group]
            if 2 * len(wanted) < part.num_rows:
                part, wanted = part.take(pa.array(wanted)), np.arange(len(wanted))
            parts.append(part)
            places.append(wanted + before)
            before += part.num_rows
        empty = pa.schema([self._dataset.schema.field(name) for name in self._columns]).empty_table()
        return pa.concat_tables([empty, *parts]), np.concatenate(places)

    def _load(self, groups: list[int]) -> dict[int, pa.Table]:
        with self._lock:
            found = {group: self._held.pop(group) for group in groups if group in self._held}
            found |= self._decode([group for group in groups if group not in found])
            self._held |= {group: found[group] for group in groups}
            size = sum(part.nbytes for part in self._held.values())
            while size > HELD_BYTES:
                size -= self._held.popitem(last=False)[1].nbytes
        return found

    def _decode(self, groups: list[int]) -> dict[int, pa.Table]:
        if not groups:
            return {}
        by_file = itertools.groupby((self._groups[group] for group in groups), key=lambda place: place[0])
        parts = [self._fragments[file].subset(row_group_ids=[id_ for _, id_ in ids]) for file, ids in by_file]
        dataset = ds.FileSystemDataset(parts, self._dataset.schema, ds.ParquetFileFormat(), parts[0].filesystem)
        with readable(self._table):
            table = dataset.to_table(columns=self._columns)
        sizes = np.diff(self.index.group_starts)[groups]
        return {
            group: table.slice(start, size)
            for group, start, size in zip(groups, np.cumsum(sizes) - sizes, sizes.tolist(), strict=True)
        }

    def _start_holding(self) -> None:
        self._held: OrderedDict[int, pa.Table] = OrderedDict()
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        """What a worker process is given: no lock, and nothing that was decoded."""
        return {name: value for name, value in vars(self).items() if name not in ("_held", "_lock")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._start_holding()


def quality_column(
    snapshot: Snapshot,
    descriptors: dict[str, Descriptor],
    indices: Mapping[str, RowIndex],
    name: str,
    clip_ids: pa.Array,
) -> NDArray[np.float64]:
    """(N,) one quality value of each clip, NaN where it has none.

    Args:
        indices: modality -> where the clips' rows stand.
        name: ``quality_voiced_share``; ``face.quality_frames`` where several modalities have a column of that name.

    Raises:
        UserError: no feature set has that column, or several have it; the text names what there is.
    """
    held = [(one, column) for one in descriptors for column in descriptors[one].get("quality_columns") or ()]
    found = [(one, column) for one, column in held if name in (column, f"{one}.{column}")]
    if len(found) != 1:
        there = ", ".join(f"{one}.{column}" for one, column in found or held) or "none"
        raise UserError(f"{len(found) or 'no'} feature sets have the quality column {name!r}; there are: {there}")
    modality, column = found[0]
    rows = snapshot.read(table_of(descriptors[modality]), columns=["clip_id", column])
    places = pc.fill_null(pc.index_in(clip_ids, value_set=rows["clip_id"]), -1).to_numpy()
    values = np.append(rows[column].to_numpy().astype(np.float64), np.nan)[places]
    return np.where(indices[modality].row < 0, np.nan, values)


def _index(
    keys: pa.Table, group_starts: NDArray[np.int64], clip_ids: pa.Array, made_from: pa.ChunkedArray | None
) -> RowIndex:
    positions = pc.fill_null(pc.index_in(keys["clip_id"], value_set=clip_ids), -1).to_numpy()
    if made_from is not None:
        positions = np.where(stale(keys["input_hash"], made_from, positions), -1, positions)
    rows = np.flatnonzero(positions >= 0)
    places = positions[rows]
    row, present = np.full(len(clip_ids), -1, np.int64), np.zeros(len(clip_ids), np.bool_)
    row[places] = rows
    ok = pc.fill_null(pc.equal(keys["status"], "ok"), False)
    present[places] = ok.to_numpy(zero_copy_only=False)[rows]
    frames = np.zeros(len(clip_ids), np.int64)
    frames[places] = pc.fill_null(keys["n_frames"], 0).to_numpy()[rows]
    return RowIndex(row, present, np.where(present, frames, 0), group_starts)


def _flat(column: pa.ChunkedArray) -> NDArray[np.float32]:
    """All numbers of a list column; not copied where they stand in one chunk."""
    parts = [chunk.flatten().to_numpy(zero_copy_only=False) for chunk in column.chunks if len(chunk)]
    return parts[0] if len(parts) == 1 else np.concatenate([np.empty(0, np.float32), *parts])
