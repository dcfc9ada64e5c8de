"""A training set is read again from its snapshot, byte for byte, whatever became of the store meanwhile."""

import os
import time
from pathlib import Path

import numpy as np
import pyarrow as pa

from miar.data.dataset import ClipDataset
from miar.data.from_store import load_dataset
from storage import CLIPS, FEATURE_SETS, LABELS, Store, feature_table

TABLE = "features/opensmile/0123456789abcdef"
SPEC = feature_table(TABLE, n_columns=4, summary_columns=["loud_mean"], quality_columns=[])
CLIPS_N = 60


def rows(input_hash: str, indices: range) -> pa.Table:
    """What an extractor makes of ``input_hash``: sound that differs from clip to clip."""
    made = []
    for index in indices:
        draw = np.random.default_rng([index, int(input_hash)])
        frames = int(draw.integers(1, 9))
        row = dict.fromkeys(SPEC.schema.names) | {"clip_id": f"clip{index:02}", "corpus_id": "made", "status": "ok"}
        row |= {"input_hash": input_hash, "n_frames": frames, "values": draw.normal(size=frames * 4).tolist()}
        made.append(row | {"times": [0.1 * frame for frame in range(frames)], "loud_mean": float(draw.normal())})
    return pa.Table.from_pylist(made, schema=SPEC.schema)


def refresh(store: Store, input_hash: str, indices: range) -> None:
    """Small shards, as a nightly refresh leaves them."""
    table = store.table(SPEC)
    for start in range(indices.start, indices.stop, 7):
        part = rows(input_hash, range(start, min(start + 7, indices.stop)))
        shard = table.stage(part, run_id="r", name=f"shard-{input_hash}-{start}")
        table.register([shard], wanted=part.select(["clip_id", "input_hash"]))


def catalogue(store: Store, value: float, indices: range) -> None:
    blank = dict.fromkeys(CLIPS.schema.names) | {
        "corpus_id": "made",
        "video_id": "v",
        "split": "train",
        "state": "live",
    }
    clips = [blank | {"clip_id": f"clip{index:02}", "segment": index} for index in indices]
    store.table(CLIPS).merge(pa.Table.from_pylist(clips, schema=CLIPS.schema))
    blank = dict.fromkeys(LABELS.schema.names) | {"name": "mood", "corpus_id": "made"}
    labels = [blank | {"clip_id": f"clip{index:02}", "value": value + index} for index in indices]
    store.table(LABELS).merge(pa.Table.from_pylist(labels, schema=LABELS.schema))


def as_bytes(dataset: ClipDataset) -> list[bytes]:
    """Everything that training reads."""
    found = [repr((dataset.clip_ids, dataset.splits, dataset.snapshot_id)).encode(), dataset.targets.tobytes()]
    for data in dataset.modalities.values():
        found += [data.sequences.values.tobytes(), data.sequences.lengths.tobytes(), data.available.tobytes()]
        found.append(b"" if data.summary is None else data.summary.tobytes())
    return found


def test_a_training_set_is_byte_identical_after_refreshes_merged_files_and_vacuum(tmp_path: Path) -> None:
    store = Store.create(tmp_path / "store")
    descriptor = dict.fromkeys(FEATURE_SETS.schema.names) | {"extractor": "opensmile", "modality": "audio", "layers": 1}
    descriptor |= {"config_hash": "0123456789abcdef", "columns": list("abcd"), "summary_columns": ["loud_mean"]}
    descriptor |= {"voiced_columns": [], "state": "active", "created_at": np.datetime64("2026-01-01", "us").item()}
    store.table(FEATURE_SETS).merge(pa.Table.from_pylist([descriptor], schema=FEATURE_SETS.schema))
    catalogue(store, 0.0, range(CLIPS_N))
    refresh(store, "1", range(CLIPS_N))
    before = as_bytes(load_dataset(store.snapshots.take("paper"), label="mood"))
    files = {path: path.read_bytes() for path in Path(store.table(SPEC).path).glob("*.parquet")}
    for round_ in range(2, 5):
        refresh(store, str(round_), range(round_ * 5, round_ * 5 + 20))
        catalogue(store, float(round_), range(CLIPS_N + round_))
        for path in (tmp_path / "store").rglob("*"):
            if path.is_file():
                os.utime(path, (time.time() - 9e6,) * 2)
        assert store.maintain(retention_days=0.0).summary()["removed"]["replaced"] > 0
    assert len(store.table(SPEC).file_uris()) == 1
    assert {path for path in files if path.exists()} == set(files), "what the snapshot pins stays"
    again = Store.open(store.uri).snapshots.open("paper")
    again.verify()
    assert as_bytes(load_dataset(again, label="mood")) == before
    now = load_dataset(store.snapshots.take("now-different"), label="mood")
    assert as_bytes(now) != before
    store.snapshots.remove("paper")
    store.maintain(retention_days=0.0)
    assert not any(path.exists() for path in files), "nobody needs them any more"
    assert as_bytes(load_dataset(store.snapshots.open("now-different"), label="mood")) == as_bytes(now)
