"""Ready-made features of a user's table, as rows of a feature table."""

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from miar.features.contract import FeatureSet
from miar.hashing import stable_key
from miar.interchange.import_columns import FeatureBlock, FeatureColumn
from miar.pipeline.rows import feature_spec
from storage import FEATURE_SETS, Store


@dataclass(frozen=True)
class FeatureCounts:
    """What one imported feature set holds after the import, over the clips of the file."""

    ok: int
    missing: dict[str, int]
    """Reason -> clips."""
    written: int
    """Rows that were new or differed from the store's."""


@dataclass
class FeatureChanges:
    """One feature set of the file, and its rows that the store does not hold yet."""

    feature_set: FeatureSet
    is_new: bool
    rows: pa.Table
    counts: FeatureCounts
    warnings: list[str]


def feature_changes(
    store: Store,
    feature: FeatureColumn,
    blocks: Sequence[FeatureBlock],
    corpus_id: str,
    clips: Sequence[str],
    sources: Sequence[str],
) -> FeatureChanges:
    """Compare the features that were read with the store's.

    Args:
        blocks: what :func:`~miar.interchange.import_columns.read_feature` gave, over all of ``clips``.
        clips: clip ids; ``sources``: the user's own, row by row.
    """
    filled = next(block for block in blocks if block.n_frames.any())
    described = FeatureSet(
        extractor=feature.name,
        modality=feature.kind,
        columns=filled.columns,
        rate_hz=None,
        config={"origin": "table", "layout": filled.layout},
    )
    spec = feature_spec(described)
    chosen = pc.field("corpus_id") == corpus_id
    live = store.table(spec).read(columns=["clip_id", "input_hash"], filter=chosen)
    stored = dict(zip(live["clip_id"].to_pylist(), live["input_hash"].to_pylist(), strict=True))
    parts: list[pa.Table] = []
    start = 0
    for block in blocks:
        ids = slice(start, start + len(block.n_frames))
        start = ids.stop
        rows = _feature_rows(block, clips[ids], sources[ids], corpus_id, spec.schema)
        keys = zip(clips[ids], rows["input_hash"].to_pylist(), strict=True)
        parts.append(rows.filter(pa.array([stored.get(clip) != key for clip, key in keys], pa.bool_())))
    changed = pa.concat_tables(parts)
    return FeatureChanges(
        described,
        _is_new(store, described),
        changed,
        _counts(blocks, changed.num_rows),
        _feature_warnings(feature, blocks),
    )


def _counts(blocks: Sequence[FeatureBlock], written: int) -> FeatureCounts:
    missing = Counter(reason for block in blocks for reason in block.reasons if reason is not None)
    ok = sum(int((block.n_frames > 0).sum()) for block in blocks)
    return FeatureCounts(ok, dict(sorted(missing.items())), written)


def _feature_warnings(feature: FeatureColumn, blocks: Sequence[FeatureBlock]) -> list[str]:
    dropped = sum(block.dropped_frames for block in blocks)
    lost = sum(block.reasons.count("not_finite") for block in blocks)
    if not dropped:
        return []
    return [
        f"{feature.kind}:{feature.name}: {dropped} vectors hold a NaN or an infinity and were left out; "
        f"{lost} clips have none left and count as missing"
    ]


def _is_new(store: Store, described: FeatureSet) -> bool:
    chosen = (pc.field("extractor") == described.extractor) & (pc.field("config_hash") == described.config_hash)
    stored = store.table(FEATURE_SETS).read(columns=["state"], filter=chosen)
    return stored["state"].to_pylist() != ["active"]


def _feature_rows(
    block: FeatureBlock, clips: Sequence[str], sources: Sequence[str], corpus_id: str, schema: pa.Schema
) -> pa.Table:
    """Rows of a feature table; ``run_id`` and ``extracted_at`` are filled in when they are written."""
    width = block.values.shape[1]
    is_missing = block.n_frames == 0
    ends = np.concatenate([[0], np.cumsum(block.n_frames)])
    # Frames of unknown rate are numbered: 0, 1, 2 ...
    times = np.arange(ends[-1]) - np.repeat(ends[:-1], block.n_frames)
    n = len(clips)
    columns: dict[str, Any] = {
        "clip_id": pa.array(clips),
        "corpus_id": pa.array([corpus_id] * n),
        "source_id": pa.array(sources),
        "input_hash": pa.array(_input_hashes(block, ends)),
        "status": pa.array(["missing" if missing else "ok" for missing in is_missing]),
        "reason": pa.array(block.reasons, pa.string()),
        "n_frames": pa.array(block.n_frames, pa.int32(), mask=is_missing),
        "values": _lists(ends * width, block.values.reshape(-1), is_missing),
        "times": _lists(ends, times.astype(np.float32), is_missing),
        "pooled": pa.nulls(n, pa.list_(pa.float32())),
        "run_id": pa.array([""] * n),
        "extracted_at": pa.array([datetime.now(UTC)] * n),
    }
    arrays = [_cast(columns[name.name], name.type) for name in schema]
    return pa.Table.from_arrays(arrays, schema=schema)


def _cast(array: pa.Array, kind: pa.DataType) -> pa.Array:
    return array if array.type == kind else array.cast(kind)


def _lists(ends: np.ndarray, values: np.ndarray, is_null: np.ndarray) -> pa.Array:
    return pa.ListArray.from_arrays(
        pa.array(ends, pa.int32()), pa.array(values), mask=pa.array(is_null) if is_null.any() else None
    )


def _input_hashes(block: FeatureBlock, ends: np.ndarray) -> list[str]:
    """What each row was made from: the values themselves, or the reason why there are none."""
    hashes = []
    for row, reason in enumerate(block.reasons):
        frames = block.values[ends[row] : ends[row + 1]]
        hashes.append(
            stable_key(["missing", reason]) if reason is not None else hashlib.sha256(frames.tobytes()).hexdigest()[:32]
        )
    return hashes
