"""Which rows are the same: keys as single strings, rows compared by value, and an index of where each key
lives.

Everything is vectorised: a million clips are a million rows here, and a loop per row would take longer than
the work.
"""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from storage.arrow import pc


def identity(rows: pa.Table, columns: Sequence[str]) -> pa.ChunkedArray:
    """One string per row, (n_rows,): two are equal exactly where all of ``columns`` are.

    A single column is its own identity. Several are joined as ``<length>:<value>``, which no value can forge.
    """
    if len(columns) == 1:
        return rows[columns[0]]
    parts = [part for name in columns for part in (pc.cast(pc.binary_length(rows[name]), pa.string()), rows[name])]
    return pc.binary_join_element_wise(*parts, ":")


def first_occurrence(ids: pa.ChunkedArray) -> pa.ChunkedArray:
    """(n,) booleans: True where an id stands for the first time."""
    first = pc.index_in(ids, value_set=ids.combine_chunks())
    return pc.equal(first, pa.array(np.arange(len(ids), dtype=np.int32)))


def equal_rows(left: pa.Table, right: pa.Table) -> pa.Array:
    """(n_rows,) booleans: where the two tables, of one schema and length, hold the same values.

    Null equals null and NaN equals NaN: the question is whether writing ``left`` over ``right`` changes
    anything.
    """
    same = pa.array(np.ones(left.num_rows, dtype=bool))
    for name in left.schema.names:
        same = pc.and_(same, _equal_values(left[name].combine_chunks(), right[name].combine_chunks()))
    return same


def _equal_values(left: pa.Array, right: pa.Array) -> pa.Array:
    if pa.types.is_list(left.type):
        return _equal_lists(left, right)
    same = pc.fill_null(pc.equal(left, right), False)
    if pa.types.is_floating(left.type):
        same = pc.or_(same, pc.fill_null(pc.and_(pc.is_nan(left), pc.is_nan(right)), False))
    return pc.or_(same, pc.and_(pc.is_null(left), pc.is_null(right)))


def _equal_lists(left: pa.Array, right: pa.Array) -> pa.Array:
    same = _equal_values(pc.list_value_length(left), pc.list_value_length(right))
    left, right = left.filter(same), right.filter(same)
    differs = pc.invert(_equal_values(pc.list_flatten(left), pc.list_flatten(right)))
    result = same.to_numpy(zero_copy_only=False).copy()
    candidates = np.flatnonzero(result)
    result[candidates[pc.unique(pc.list_parent_indices(left).filter(differs)).to_numpy()]] = False
    return pa.array(result)


class KeyIndex:
    """Which live file holds which key.

    Files never change once they are in the log, so what was read from one is kept until the file leaves the
    table; a commit costs one read of the keys that it added, not of all keys.
    """

    def __init__(self, columns: Sequence[str], payload: Sequence[str]) -> None:
        """``columns`` make the key; ``payload`` columns are kept beside it."""
        self._columns = tuple(columns)
        self._payload = tuple(payload)
        self._files: list[str] = []
        self._numbers: dict[str, int] = {}
        self._rows: pa.Table | None = None

    def unknown(self, live: set[str]) -> set[str]:
        """The files of ``live`` whose keys have not been read yet."""
        return live - self._numbers.keys()

    def retain(self, live: set[str]) -> None:
        """Forget the files that are no longer live."""
        gone = [number for name, number in self._numbers.items() if name not in live]
        if gone and self._rows is not None:
            self._rows = self._rows.filter(pc.invert(pc.is_in(self._rows["file"], pa.array(gone, pa.int32()))))
        for number in gone:
            del self._numbers[self._files[number]]

    def add(self, names: set[str], rows: pa.Table) -> None:
        """``rows``: the key and payload columns of the files ``names``, and ``__filename``."""
        added_files = sorted(names)
        first = len(self._files)
        # A file that left and came back gets a new number: its old one is forgotten with its rows.
        self._numbers |= {name: first + n for n, name in enumerate(added_files)}
        self._files += added_files
        columns = {"id": identity(rows, self._columns)}
        columns |= {name: rows[name] for name in self._payload}
        numbers = pc.index_in(rows["__filename"], value_set=pa.array(added_files, pa.string()))
        columns["file"] = pc.cast(pc.add(numbers, first), pa.int32())
        added = pa.table(columns)
        self._rows = added if self._rows is None else pa.concat_tables([self._rows, added])

    def find(self, ids: pa.Array | pa.ChunkedArray) -> pa.Table:
        """The live rows whose key is among ``ids``: ``id``, the payload columns and ``file`` (its name)."""
        if self._rows is None:
            names = ("id", *self._payload, "file")
            return pa.table({name: pa.array([], pa.string()) for name in names})
        found = self._rows.filter(pc.is_in(self._rows["id"], value_set=_array(ids)))
        names = pc.take(pa.array(self._files, pa.string()), found["file"])
        return found.set_column(found.schema.get_field_index("file"), "file", names)


def _array(values: pa.Array | pa.ChunkedArray) -> pa.Array:
    return values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
