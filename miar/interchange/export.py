"""Write one table of the store, or of a snapshot, as a file of rows.

``csv``, ``parquet`` and ``jsonl`` hold the table as it is; ``frames`` has a row per frame of a feature table, and
``summaries`` a row per clip with the named numbers alone. Rows are streamed, so that a table larger than memory can be
exported; the file appears when it is complete.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from miar.errors import UserError
from miar.interchange.long_rows import frame_rows, summary_rows
from miar.interchange.view import View
from miar.replacing import replacing
from storage import Snapshot, Store
from storage.arrow import pc

FORMATS = ("csv", "parquet", "jsonl", "frames", "summaries")

BatchWriter = Callable[[pa.RecordBatch], None]


def export_table(store: Store, table: str, *, format: str, out: str | Path, snapshot: Snapshot | None = None) -> int:
    """Write ``table`` to the file ``out`` and return how many rows were written.

    Args:
        table: ``clips``, ``labels``, ``scores``, ``failures``, ``runs``, ``feature_sets``, a feature table's
            full name, or ``features/<extractor>`` for its newest configuration.
        format: one of :data:`FORMATS`. Lists stand as JSON in csv and as arrays in the others. ``frames`` and
            ``summaries`` are Parquet where ``out`` ends so, else csv.
        snapshot: read this instead of the store's present state.

    Raises:
        UserError: no such table, an unknown format, or an ``out`` that cannot be written.
    """
    if format not in FORMATS:
        raise UserError(f"cannot export as {format!r}; choose one of {', '.join((*FORMATS, 'mmsa', 'datasets'))}")
    path = Path(out)
    schema, batches = _source(View(store, snapshot), table, format)
    if format in ("frames", "summaries"):
        format = "parquet" if path.suffix.lower() in (".parquet", ".pq") else "csv"
    rows = 0
    with replacing(path) as temporary, _writer(format, temporary, schema) as write:
        for batch in batches:
            write(batch)
            rows += batch.num_rows
    return rows


# --- Where the rows come from -----------------------------------------------------------------------------


def _source(view: View, table: str, format: str) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
    """The schema of what is written, and its rows in batches."""
    name = view.full_name(table)
    if format in ("frames", "summaries"):
        if not name.startswith("features/"):
            raise UserError(f"{name} has no {format}; name a feature table, features/NAME")
        rows = frame_rows if format == "frames" else summary_rows
        return rows(view, name)
    batches = view.batches(name)
    first = next(batches, None)
    if first is None:
        return view.spec(name).schema, iter(())
    return first.schema, chain([first], batches)


# --- Where they go ----------------------------------------------------------------------------------------


@contextmanager
def _writer(format: str, path: Path, schema: pa.Schema) -> Iterator[BatchWriter]:
    if format == "parquet":
        texts: Any = [field.name for field in schema if pa.types.is_string(field.type)]
        with pq.ParquetWriter(path, schema, compression="zstd", use_dictionary=texts) as parquet:
            # A row group each: `write_batch` would hold a million rows before it writes one.
            yield lambda batch: parquet.write_table(pa.Table.from_batches([batch]))
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
