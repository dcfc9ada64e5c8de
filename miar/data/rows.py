"""Clips as Arrow rows, one per clip with all its features: the way to pandas, polars, DuckDB and others."""

from typing import Any

import numpy as np
import pyarrow as pa

from miar.data.dataset import ClipDataset, Descriptor, ModalityData


def row_schema(clips: pa.Schema, feature_sets: dict[str, Descriptor], classes: tuple[str, ...]) -> pa.Schema:
    """The columns of ``clips``, ``label`` (a number, or the name of a class), and for each modality a list of frames
    and its named per-clip values, ``<modality>_<name>``."""
    fields = [*clips, pa.field("label", pa.string() if classes else pa.float64())]
    for name, descriptor in feature_sets.items():
        fields.append(pa.field(name, pa.list_(pa.list_(pa.float32(), len(descriptor["columns"])))))
        fields += [pa.field(column, pa.float32()) for column in _summary_names(name, descriptor)]
    return pa.schema(fields)


def to_rows(clips: pa.RecordBatch, dataset: ClipDataset, schema: pa.Schema) -> pa.RecordBatch:
    """``dataset`` as rows of ``schema``; what a clip does not have is null.

    Args:
        clips: a row for each clip of ``dataset``, in the same order.
    """
    columns: dict[str, Any] = {name: clips[name] for name in clips.schema.names}
    columns["label"] = _labels(dataset)
    for name, data in dataset.modalities.items():
        columns[name] = _frames(data)
        for index, column in enumerate(_summary_names(name, dataset.feature_sets[name])):
            assert data.summary is not None
            columns[column] = pa.array(data.summary[:, index], from_pandas=True)
    return pa.RecordBatch.from_arrays([columns[name] for name in schema.names], schema=schema)


def _labels(dataset: ClipDataset) -> pa.Array:
    targets = pa.array(dataset.targets, from_pandas=True)
    if not dataset.classes:
        return targets
    return pa.array(dataset.classes, pa.string()).take(targets.cast(pa.int64()))


def _frames(data: ModalityData) -> pa.Array:
    """list<fixed_size_list<float32>>; null for a clip without a frame."""
    flat, offsets = data.sequences.joined()
    frames = pa.FixedSizeListArray.from_arrays(pa.array(flat.reshape(-1)), data.sequences.columns)
    absent = pa.array(np.diff(offsets) == 0)
    return pa.ListArray.from_arrays(pa.array(offsets.astype(np.int32)), frames, mask=absent)


def _summary_names(modality: str, descriptor: Descriptor) -> list[str]:
    return [f"{modality}_{column}" for column in descriptor.get("summary_columns") or ()]
