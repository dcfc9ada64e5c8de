"""Write one table of the store, or of a snapshot, as a csv, Parquet or JSON-lines file.

Rows are streamed, so that a table larger than memory can be exported; the file appears when it is complete.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from miar.errors import UserError
from miar.replacing import replacing
from storage import (
    CLIPS,
    FAILURES,
    FEATURE_SETS,
    LABELS,
    RUNS,
    SCORES,
    Snapshot,
    Store,
    TableSpec,
    feature_table,
)
from storage.arrow import pc

FORMATS = ("csv", "parquet", "jsonl")

PLAIN_TABLES: dict[str, TableSpec] = {spec.name: spec for spec in (CLIPS, LABELS, SCORES, FAILURES, RUNS, FEATURE_SETS)}

_ROWS = 16_384
_SEQUENCE_ROWS = 256
"""Rows held at once; a row of a feature table can be a megabyte."""

BatchWriter = Callable[[pa.RecordBatch], None]


def export_table(store: Store, table: str, *, format: str, out: str | Path, snapshot: Snapshot | None = None) -> int:
    """Write ``table`` to the file ``out`` and return how many rows it has.

    Args:
        table: ``clips``, ``labels``, ``scores``, ``failures``, ``runs``, ``feature_sets``, a feature table's
            full name, or ``features/<extractor>`` for its newest configuration.
        format: lists stand as JSON in csv and as arrays in the other two.
        snapshot: read this instead of the store's present state.

    Raises:
        UserError: no such table, an unknown format, or an ``out`` that cannot be written.
    """
    if format not in FORMATS:
        raise UserError(f"cannot export as {format!r}; choose one of {', '.join(FORMATS)}")
    path = Path(out)
    schema, batches = _source(store, table, snapshot)
    rows = 0
    with replacing(path) as temporary, _writer(format, temporary, schema) as write:
        for batch in batches:
            write(batch)
            rows += batch.num_rows
    return rows


# --- Where the rows come from -----------------------------------------------------------------------------


def _source(store: Store, table: str, snapshot: Snapshot | None) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
    """The schema of a table, and its rows in batches."""
    if snapshot is not None:
        descriptors = snapshot.feature_sets
        name = _full_name(table, snapshot.tables(), descriptors)
        batches = snapshot.batches(name, batch_size=_batch_size(name))
    else:
        descriptors = store.table(FEATURE_SETS).read().to_pylist()
        name = _full_name(table, [*PLAIN_TABLES, *store.feature_tables()], descriptors)
        batches = store.table(_spec(name, descriptors)).batches(batch_size=_batch_size(name))
    first = next(batches, None)
    if first is None:
        return _spec(name, descriptors).schema, iter(())
    return first.schema, chain([first], batches)


def _full_name(table: str, names: Sequence[str], descriptors: Sequence[Mapping[str, Any]]) -> str:
    """Resolve ``features/<extractor>`` to the newest active configuration's table."""
    if table in names:
        return table
    candidates = [
        (each["state"] == "active", each["created_at"], name)
        for each in descriptors
        if each["extractor"] == table.removeprefix("features/")
        and (name := f"features/{each['extractor']}/{each['config_hash']}") in names
    ]
    if table.startswith("features/") and candidates:
        return max(candidates)[2]
    short = sorted({name.rpartition("/")[0] for name in names if name.startswith("features/")})
    there = ", ".join([*(name for name in names if not name.startswith("features/")), *short])
    raise UserError(f"no table {table!r} to export; there are {there or 'none yet'}")


def _spec(name: str, descriptors: Sequence[Mapping[str, Any]]) -> TableSpec:
    if name in PLAIN_TABLES:
        return PLAIN_TABLES[name]
    _, extractor, config_hash = name.split("/")
    for each in descriptors:
        if (each["extractor"], each["config_hash"]) == (extractor, config_hash):
            return feature_table(
                name,
                n_columns=len(each["columns"]),
                summary_columns=each["summary_columns"],
                quality_columns=each["quality_columns"],
            )
    raise UserError(f"the store has no descriptor for {name!r}; run `miar refresh` to write it again")


def _batch_size(name: str) -> int:
    return _SEQUENCE_ROWS if name.startswith("features/") else _ROWS


# --- Where they go ----------------------------------------------------------------------------------------


@contextmanager
def _writer(format: str, path: Path, schema: pa.Schema) -> Iterator[BatchWriter]:
    if format == "parquet":
        with pq.ParquetWriter(path, schema, compression="zstd") as parquet:
            yield parquet.write_batch
    elif format == "csv":
        flat = pa.schema([(field.name, _csv_type(field.type)) for field in schema])
        with pa_csv.CSVWriter(path, flat) as csv:
            yield lambda batch: csv.write_batch(_flattened(batch, flat))
    else:
        with path.open("w", encoding="utf-8") as lines:
            yield lambda batch: lines.writelines(_json_lines(batch))


def _csv_type(kind: pa.DataType) -> pa.DataType:
    return pa.string() if pa.types.is_list(kind) else kind


def _flattened(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    columns = [_as_json(column) if pa.types.is_list(column.type) else column for column in batch.columns]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def _json_lines(batch: pa.RecordBatch) -> Iterator[str]:
    names = [json.dumps(name, ensure_ascii=False) for name in batch.schema.names]
    columns = [pc.fill_null(_as_json(column), "null").to_pylist() for column in batch.columns]
    for row in zip(*columns, strict=True):
        yield "{" + ", ".join(f"{name}: {value}" for name, value in zip(names, row, strict=True)) + "}\n"


def _as_json(array: pa.Array) -> pa.Array:
    """Each value as JSON text; null stays null. JSON has no NaN and no infinity: they become ``null``.

    Numbers are printed by Arrow: a float32 keeps its shortest form, and no Python object is made for each.
    """
    kind = array.type
    if pa.types.is_list(kind):
        items = pc.fill_null(_as_json(array.flatten()), "null")
        lengths = pc.fill_null(pc.list_value_length(array), 0).to_numpy(zero_copy_only=False)
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
        joined = pc.binary_join(pa.ListArray.from_arrays(offsets, items), ", ")
        text = pc.binary_join_element_wise("[", joined, "]", "")
        return pc.if_else(array.is_null(), pa.scalar(None, pa.string()), text)
    if pa.types.is_floating(kind):
        return pc.if_else(pc.is_finite(array), array.cast(pa.string()), pa.scalar(None, pa.string()))
    if pa.types.is_integer(kind):
        return array.cast(pa.string())
    if pa.types.is_timestamp(kind):
        array = pc.strftime(array, "%Y-%m-%dT%H:%M:%SZ")
    return pa.array(
        [None if value is None else json.dumps(value, ensure_ascii=False) for value in array.to_pylist()],
        pa.string(),
    )
