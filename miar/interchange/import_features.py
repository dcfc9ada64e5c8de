"""Features that a file brings, as rows of a feature table.

Two passes over the file: the first looks at everything and holds a hash per clip, so that nothing is written if
anything is refused; the second, where rows are new, stages them a block at a time and registers them in one commit.
Memory does not grow with the number of clips, as far as the reader's blocks are bounded.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from miar.errors import UserError
from miar.features.contract import FeatureSet
from miar.hashing import stable_key
from miar.interchange.blocks import FeatureBlock, IncomingFeature, Layout, check_width
from miar.pipeline.rows import descriptor_row, feature_spec
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
    """One feature set of the file, and which of its rows the store does not hold yet."""

    feature_set: FeatureSet
    is_new: bool
    changed: NDArray[np.bool_]
    """(n_clips,)"""
    hashes: list[str]
    """Input hash per clip."""
    counts: FeatureCounts
    warnings: list[str]
    feature: IncomingFeature


def feature_changes(
    store: Store, feature: IncomingFeature, corpus_id: str, clips: Sequence[str], sources: Sequence[str]
) -> FeatureChanges:
    """Read a feature through and compare it with the store's.

    Args:
        clips: clip ids; ``sources``: the user's own, in the order of the feature's blocks.

    Raises:
        UserError: widths differ, or no clip has a value.
    """
    seen = _Seen(feature, sources)
    for block in feature.blocks():
        seen.add(block)
    described = seen.feature_set()
    chosen = pc.field("corpus_id") == corpus_id
    live = store.table(feature_spec(described)).read(columns=["clip_id", "input_hash"], filter=chosen)
    stored = dict(zip(live["clip_id"].to_pylist(), live["input_hash"].to_pylist(), strict=True))
    changed = np.array([stored.get(clip) != key for clip, key in zip(clips, seen.hashes, strict=True)], np.bool_)
    missing = {name: n for name, n in seen.reasons.items() if name is not None}
    counts = FeatureCounts(seen.reasons[None], dict(sorted(missing.items())), int(changed.sum()))
    return FeatureChanges(described, _is_new(store, described), changed, seen.hashes, counts, seen.warnings(), feature)


class _Seen:
    """What the first pass keeps of a feature."""

    def __init__(self, feature: IncomingFeature, sources: Sequence[str]) -> None:
        self.feature = feature
        self.sources = sources
        self.hashes: list[str] = []
        self.reasons: Counter[str | None] = Counter()
        self.dropped = 0
        self.layout: Layout = "sequence"
        self.columns = feature.columns
        self.first = ""
        """The first clip with a value, for messages about widths."""

    def add(self, block: FeatureBlock) -> None:
        if block.n_frames.any():
            clip = self.sources[len(self.hashes) + int(np.argmax(block.n_frames > 0))]
            if self.columns is None:
                self.columns, self.layout = block.columns, block.layout
            self.first = self.first or clip
            one, other = (len(self.columns), self.first), (len(block.columns), clip)
            check_width(self.feature.label, self.feature.where, one, other)
        self.hashes += block.input_hashes()
        self.reasons.update(block.reasons)
        self.dropped += block.dropped_frames

    def feature_set(self) -> FeatureSet:
        feature = self.feature
        if self.columns is None:
            reasons = ", ".join(sorted(str(reason) for reason in self.reasons))
            raise UserError(
                f"{feature.label}: {feature.where} has no usable value in any clip ({reasons}); choose another"
            )
        return FeatureSet(
            extractor=feature.name,
            modality=feature.kind,
            columns=self.columns,
            rate_hz=None,
            config={**feature.config, "layout": self.layout},
        )

    def warnings(self) -> list[str]:
        if not self.dropped:
            return []
        return [
            f"{self.feature.label}: {self.dropped} vectors hold a NaN or an infinity and were left out; "
            f"{self.reasons['not_finite']} clips have none left and count as missing"
        ]


def _is_new(store: Store, described: FeatureSet) -> bool:
    chosen = (pc.field("extractor") == described.extractor) & (pc.field("config_hash") == described.config_hash)
    stored = store.table(FEATURE_SETS).read(columns=["state"], filter=chosen)
    return stored["state"].to_pylist() != ["active"]


def write_features(
    store: Store, changes: FeatureChanges, corpus_id: str, clips: Sequence[str], sources: Sequence[str], run_id: str
) -> None:
    """Stage the changed rows block by block, register them in one commit, then describe the feature set."""
    if changes.changed.any():
        table = store.table(feature_spec(changes.feature_set))
        shards = [
            table.stage(rows, run_id=run_id, name=_shard_name(rows))
            for rows in _changed_rows(changes, corpus_id, clips, sources, run_id)
        ]
        wanted = pa.table({"clip_id": list(clips), "input_hash": changes.hashes})
        table.register(shards, wanted=wanted.filter(pa.array(changes.changed)))
        store.clear_staging(run_id)
    if changes.is_new:
        # The rows first: a descriptor never promises a table that a crash kept from being made.
        store.table(FEATURE_SETS).merge(descriptor_row(changes.feature_set))


def _changed_rows(
    changes: FeatureChanges, corpus_id: str, clips: Sequence[str], sources: Sequence[str], run_id: str
) -> Iterator[pa.Table]:
    start = 0
    for block in changes.feature.blocks():
        part = slice(start, start + len(block.n_frames))
        start = part.stop
        if changes.changed[part].any():
            identity = {
                "clip_id": list(clips[part]),
                "corpus_id": [corpus_id] * len(block.n_frames),
                "source_id": list(sources[part]),
                "input_hash": changes.hashes[part],
            }
            rows = _feature_rows(block, identity, run_id, feature_spec(changes.feature_set).schema)
            yield rows.filter(pa.array(changes.changed[part]))


def _shard_name(rows: pa.Table) -> str:
    return "import-" + stable_key([rows["clip_id"].to_pylist(), rows["input_hash"].to_pylist()])[:24]


def _feature_rows(block: FeatureBlock, identity: dict[str, list[str]], run_id: str, schema: pa.Schema) -> pa.Table:
    width = block.values.shape[1]
    is_missing = block.n_frames == 0
    n = len(block.n_frames)
    columns: dict[str, Any] = {
        **{name: pa.array(values, pa.string()) for name, values in identity.items()},
        "status": pa.array(["missing" if missing else "ok" for missing in is_missing]),
        "reason": pa.array(block.reasons, pa.string()),
        "n_frames": pa.array(block.n_frames, pa.int32(), mask=is_missing),
        "values": _lists(block.ends * width, block.values.reshape(-1), is_missing),
        "times": _lists(block.ends, block.times, is_missing),
        "pooled": pa.nulls(n, pa.list_(pa.float32())),
        "run_id": pa.array([run_id] * n),
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
