"""From extractions to the rows of a feature table."""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa

from miar.descriptors import Descriptor, table_of
from miar.features.contract import Extraction, FeatureSet, Status
from storage import FEATURE_SETS, TableSpec, feature_table


def feature_spec(feature_set: FeatureSet) -> TableSpec:
    """The store's table for one feature set."""
    return feature_table(
        feature_set.table,
        n_columns=len(feature_set.columns),
        summary_columns=feature_set.summary_columns,
        quality_columns=feature_set.quality_columns,
        pooled_dim=feature_set.pooled_dim or None,
    )


def described_spec(descriptor: Descriptor) -> TableSpec:
    """The same, from the row of ``feature_sets`` that describes it."""
    return feature_table(
        table_of(descriptor),
        n_columns=len(descriptor["columns"]),
        summary_columns=descriptor["summary_columns"],
        quality_columns=descriptor["quality_columns"],
        pooled_dim=descriptor["pooled_dim"] or None,
    )


def descriptor_row(feature_set: FeatureSet) -> pa.Table:
    """The row of ``feature_sets`` that says what the table holds."""
    row = {
        "extractor": feature_set.extractor,
        "config_hash": feature_set.config_hash,
        "modality": feature_set.modality.value,
        "columns": list(feature_set.columns),
        "rate_hz": feature_set.rate_hz,
        "summary_columns": list(feature_set.summary_columns),
        "quality_columns": list(feature_set.quality_columns),
        "pooled_dim": feature_set.pooled_dim,
        "layers": feature_set.layers,
        "voiced_columns": list(feature_set.voiced_columns),
        "config": json.dumps(feature_set.config, sort_keys=True),
        "library_versions": json.dumps(feature_set.library_versions, sort_keys=True),
        "weights": json.dumps(feature_set.weights, sort_keys=True),
        "created_at": datetime.now(UTC),
        "state": "active",
    }
    return pa.Table.from_pylist([row], schema=FEATURE_SETS.schema)


def feature_rows(
    feature_set: FeatureSet,
    extractions: Sequence[tuple[str, Extraction]],
    identities: Mapping[str, Mapping[str, Any]],
    run_id: str,
) -> pa.Table:
    """Rows for the ``ok`` and ``missing`` extractions; ``failed`` ones have no row here.

    Args:
        extractions: (clip_id, extraction) pairs.
        identities: clip_id -> ``corpus_id``, ``source_id`` and this feature set's ``input_hash``.
    """
    schema = feature_spec(feature_set).schema
    kept = [(clip_id, one) for clip_id, one in extractions if one.status is not Status.FAILED]
    found = [one for _, one in kept]
    now = datetime.now(UTC)
    columns: dict[str, Any] = {
        "clip_id": [clip_id for clip_id, _ in kept],
        "corpus_id": [identities[clip_id]["corpus_id"] for clip_id, _ in kept],
        "source_id": [identities[clip_id]["source_id"] for clip_id, _ in kept],
        "input_hash": [identities[clip_id]["input_hash"] for clip_id, _ in kept],
        "status": [one.status.value for one in found],
        "reason": [one.reason for one in found],
        "n_frames": [None if one.values is None else len(one.values) for one in found],
        "values": _lists([one.values for one in found]),
        "times": _lists([one.times for one in found]),
        "pooled": _lists([one.pooled for one in found]),
        "run_id": [run_id] * len(kept),
        "extracted_at": [now] * len(kept),
    }
    for name in feature_set.summary_columns:
        columns[name] = [_finite(one.summary.get(name)) for one in found]
    for name in feature_set.quality_columns:
        columns[name] = [_finite(one.quality.get(name)) for one in found]
    arrays = [
        values if isinstance(values, pa.Array) else pa.array(values, schema.field(name).type)
        for name, values in ((name, columns[name]) for name in schema.names)
    ]
    return pa.Table.from_arrays(arrays, schema=schema)


def _lists(arrays: Sequence[np.ndarray | None]) -> pa.Array:
    """Ragged arrays as one ``list<float32>`` column, flattened in C order, without a Python object per number."""
    sizes = [0 if array is None else array.size for array in arrays]
    offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int32)
    present = [np.ravel(array) for array in arrays if array is not None]
    flat = np.concatenate(present) if present else np.empty(0)
    absent = pa.array([array is None for array in arrays], pa.bool_())
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(flat.astype(np.float32)), mask=absent)


def _finite(value: float | None) -> float | None:
    """What a reference gives as NaN is missing here, not a number."""
    return None if value is None or not np.isfinite(value) else float(value)
