"""A feature table as rows of plain numbers: one per frame, or one per clip with its named numbers."""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from miar.interchange.view import View
from storage.arrow import pc

_OF_CLIP = ("clip_id", "source_id")
_FRAME = (*_OF_CLIP, "frame", "time")
_SUMMARY = (*_OF_CLIP, "corpus_id", "status", "reason", "n_frames")

FRAME_ROWS = 65_536
"""Frames written at once."""


def frame_rows(view: View, name: str) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
    """clip_id, source_id, frame (0, 1, 2 ...), time, then the feature's columns.

    The time is seconds from the clip's start; of a text encoder's tokens, the character at which each starts.

    A clip without frames has no row. A column that is called as one of the first four has the extractor's name before
    it.
    """
    each = view.descriptor(name)
    columns = [f"{each['extractor']}_{column}" if column in _FRAME else column for column in each["columns"]]
    schema = pa.schema(
        [
            *((column, pa.string()) for column in _OF_CLIP),
            ("frame", pa.int32()),
            ("time", pa.float32()),
            *((column, pa.float32()) for column in columns),
        ]
    )
    found = view.batches(name, [*_OF_CLIP, "n_frames", "values", "times"], pc.field("status") == "ok")
    return schema, (rows for batch in found for rows in _frames(batch, schema))


def _frames(batch: pa.RecordBatch, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    counts = batch.column("n_frames").to_numpy()
    owners = np.repeat(np.arange(len(counts)), counts)
    numbers = np.arange(len(owners)) - np.repeat(np.cumsum(counts) - counts, counts)
    width = len(schema) - len(_FRAME)
    values = batch.column("values").flatten().to_numpy().reshape(-1, width)
    times = batch.column("times").flatten()
    for start in range(0, len(owners), FRAME_ROWS):
        part = slice(start, start + FRAME_ROWS)
        arrays = [
            *(batch.column(name).take(pa.array(owners[part])) for name in _OF_CLIP),
            pa.array(numbers[part], pa.int32()),
            times[part],
            *(pa.array(column) for column in np.ascontiguousarray(values[part].T)),
        ]
        yield pa.RecordBatch.from_arrays(arrays, schema=schema)


def summary_rows(view: View, name: str) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
    """clip_id, source_id, corpus_id, status, reason, n_frames, then the named summaries and qualities of each clip."""
    spec = view.spec(name)
    each = view.descriptor(name)
    columns = [*_SUMMARY, *each["summary_columns"], *each["quality_columns"]]
    return pa.schema([spec.schema.field(column) for column in columns]), view.batches(name, columns)
