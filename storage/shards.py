"""Parquet files of a table: how they are encoded, written, checked and copied.

Notable: floats are BYTE_STREAM_SPLIT and zstd without dictionaries (a quarter smaller than plain on
features, and as fast to read); pages carry checksums; row groups are bounded in bytes, so a reader's memory
does not grow with a file.
"""

import contextlib
import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from storage.arrow import pc, readable
from storage.errors import StoreError, one_line
from storage.files import Files
from storage.keys import identity
from storage.schema import INPUT_HASH, TableSpec, check_keys, check_sequences

ROW_GROUP_BYTES = 16 * 2**20
FILE_BYTES = 128 * 2**20
FILE_ROWS = 50_000
"""A change of one row rewrites its file, so files stay small."""
BATCH_ROWS = 128
"""Rows at a time where sequences are copied or checked."""
SLICE_ROWS = 8192


def write_options(spec: TableSpec) -> dict[str, Any]:
    """Arguments of :class:`pyarrow.parquet.ParquetWriter` for every file of the table."""
    floats = [field for field in spec.schema if pa.types.is_floating(_leaf(field.type))]
    return {
        "compression": "zstd",
        "use_dictionary": False,
        "column_encoding": {_leaf_path(field): "BYTE_STREAM_SPLIT" for field in floats} or None,
        "write_statistics": list(spec.skipping_columns),
        "write_page_checksum": True,
    }


def _leaf(type_: pa.DataType) -> pa.DataType:
    return type_.value_type if pa.types.is_list(type_) else type_


def _leaf_path(field: pa.Field) -> str:
    return f"{field.name}.list.element" if pa.types.is_list(field.type) else field.name


class ShardWriter:
    """Writes one file, a row group at a time."""

    def __init__(self, path: str, spec: TableSpec) -> None:
        self._writer = pq.ParquetWriter(path, spec.schema, **write_options(spec))
        self._held: list[pa.RecordBatch] = []
        self._held_bytes = 0
        self.rows = 0
        self.bytes = 0
        """Before compression."""

    def write(self, batch: pa.RecordBatch) -> None:
        self._held.append(batch)
        self._held_bytes += batch.nbytes
        self.rows += batch.num_rows
        self.bytes += batch.nbytes
        if self._held_bytes >= ROW_GROUP_BYTES:
            self._flush()

    def close(self) -> None:
        self._flush()
        self._writer.close()

    def _flush(self) -> None:
        if self._held:
            group = pa.Table.from_batches(self._held)
            self._writer.write_table(group, row_group_size=group.num_rows)
        self._held, self._held_bytes = [], 0


def write_shard(path: str, rows: pa.Table, spec: TableSpec) -> None:
    """Write all rows to one file.

    Raises:
        StoreError: the file cannot be written (a full disk, a read-only folder).
    """
    write_shards(lambda: path, slices(rows), spec, roll=False)


def write_shards(
    new_path: Callable[[], str], batches: Iterable[pa.RecordBatch], spec: TableSpec, *, roll: bool = True
) -> None:
    """Write batches to files of bounded size, each at a path from ``new_path``; no rows, no file.

    Raises:
        StoreError: a file cannot be written (a full disk, a read-only folder).
    """
    writer: ShardWriter | None = None
    try:
        for batch in batches:
            if writer is None:
                writer = ShardWriter(new_path(), spec)
            writer.write(batch)
            if roll and (writer.rows >= FILE_ROWS or writer.bytes >= FILE_BYTES):
                writer.close()
                writer = None
        if writer is not None:
            writer.close()
    except OSError as error:
        raise StoreError(f"cannot write to the table {spec.name}: {one_line(error)}") from error


def slices(rows: pa.Table) -> Iterator[pa.RecordBatch]:
    """The rows in batches small enough for files and row groups to keep their bounds."""
    row_bytes = max(1, rows.nbytes // max(1, rows.num_rows))
    yield from rows.to_batches(max_chunksize=max(1, min(SLICE_ROWS, ROW_GROUP_BYTES // row_bytes)))


def read_batches(files: Files, spec: TableSpec, name: str) -> Iterator[pa.RecordBatch]:
    """Every row of one live file of the table, in order, with page checksums verified and null in columns it lacks.

    Raises:
        StoreError: the file cannot be read.
    """
    with readable(spec.name):
        yield from file_batches(files, spec, name)


def file_batches(files: Files, spec: TableSpec, name: str) -> Iterator[pa.RecordBatch]:
    """As :func:`read_batches`, for those who have a word of their own for a file that cannot be read.

    Raises:
        ArrowException, OSError: the file cannot be read.
    """
    rows = BATCH_ROWS if any(pa.types.is_list(field.type) for field in spec.schema) else SLICE_ROWS
    with open_shard(files, f"{spec.name}/{name}", page_checksum_verification=True) as file:
        for batch in file.iter_batches(batch_size=rows):
            yield _completed(batch, spec.schema)


def _completed(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    if batch.schema.names == schema.names:
        return batch
    names = set(batch.schema.names)
    columns = [batch[field.name] if field.name in names else pa.nulls(len(batch), field.type) for field in schema]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def select(
    batches: Iterable[pa.RecordBatch], spec: TableSpec, ids: pa.Array, *, keep: bool
) -> Iterator[pa.RecordBatch]:
    """The rows whose key is among ``ids`` (``keep``), or all others (not ``keep``)."""
    for batch in batches:
        chosen = pc.is_in(identity(pa.Table.from_batches([batch]), spec.key).combine_chunks(), value_set=ids)
        selected = batch.filter(chosen if keep else pc.invert(chosen))
        if selected.num_rows:
            yield selected


def read_keys(files: Files, spec: TableSpec, name: str) -> pa.Table:
    """``id`` of every row of a file, and its ``input_hash`` where the table has one, in the file's order.

    Its footer, columns and keys are checked first.

    Raises:
        StoreError: naming the file and what is wrong with it.
    """
    origin = f"{spec.name}/{name}"
    with _readable(files, origin), open_shard(files, origin) as file:
        found = file.schema_arrow.remove_metadata()
        if not found.equals(spec.schema):
            raise StoreError(f"{origin} cannot be registered: {_schema_problem(found, spec.schema)}")
        hashes = (INPUT_HASH,) if spec.hashed else ()
        keys = file.read(list(dict.fromkeys((*spec.key, *hashes))))
    check_keys(keys, spec, origin)
    return pa.table({"id": identity(keys, spec.key), **{name: keys[name] for name in hashes}})


def check_shard(files: Files, spec: TableSpec, name: str) -> None:
    """Read a file that wants to enter the log from end to end: pages, their checksums, the widths of its lists.

    The log itself checks nothing: a wrong file would be accepted, and every later read of the table would fail.

    Raises:
        StoreError: naming the file and what is wrong with it.
    """
    origin = f"{spec.name}/{name}"
    with _readable(files, origin):
        for batch in file_batches(files, spec, name):
            if spec.n_columns is not None:
                check_sequences(pa.Table.from_batches([batch]), spec, origin)


def open_shard(files: Files, name: str, **options: Any) -> pq.ParquetFile:
    """``name`` is relative to the store."""
    return pq.ParquetFile(name, filesystem=files.filesystem(), **options)


@contextlib.contextmanager
def _readable(files: Files, origin: str) -> Iterator[None]:
    if files.size(origin) is None:
        raise StoreError(f"{origin} cannot be registered: there is no such file")
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        reason = one_line(error)
        raise StoreError(f"{origin} cannot be registered: not a readable Parquet file ({reason})") from error


def _schema_problem(found: pa.Schema, expected: pa.Schema) -> str:
    missing = [name for name in expected.names if name not in found.names]
    unknown = [name for name in found.names if name not in expected.names]
    if missing or unknown:
        lists = f"missing: {', '.join(missing) or 'none'}; unknown: {', '.join(unknown) or 'none'}"
        return f"its columns differ ({lists})"
    for field in expected:
        if not found.field(field.name).equals(field):
            return f"its column {field.name} is {found.field(field.name).type}, not {field.type}"
    return "its columns stand in another order"


def statistics(files: Files, spec: TableSpec, name: str) -> str:
    """The statistics of a file as the Delta log writes them.

    They are complete for every skipping column, nulls included: of a column without a range, deltalake's dataset
    makes the condition ``column >= null``, and a filter on it loses rows.

    Raises:
        StoreError: the file is not there or cannot be read.
    """
    origin = f"{spec.name}/{name}"
    with _readable(files, origin), open_shard(files, origin) as file:
        rows = file.read(list(spec.skipping_columns))
    ranges = {column: pc.min_max(rows[column]).as_py() for column in spec.skipping_columns}
    return json.dumps(
        {
            "numRecords": rows.num_rows,
            "minValues": {column: found["min"] for column, found in ranges.items()},
            "maxValues": {column: found["max"] for column, found in ranges.items()},
            "nullCount": {column: rows[column].null_count for column in spec.skipping_columns},
        }
    )
