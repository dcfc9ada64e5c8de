"""Scoring a store in chunks: the same scores as at once, each row read once, a bounded memory."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.compute as pc
import pytest

import storage.shards
from miar.data import feature_rows, reading
from miar.data.reading import SnapshotReader
from miar.data.selection import Selection
from miar.errors import UserError
from miar.models.config import MIARConfig
from miar.models.miar import MIAR
from miar.pipeline import score
from miar.scoring.scorer import CONTRIBUTIONS, WEIGHTS, score_dataset
from storage import CLIPS, FEATURE_SETS, LABELS, SCORES, Snapshot, Store, feature_table

NUMBERS = ("prediction", "base", *CONTRIBUTIONS, *WEIGHTS)
SMALL = MIARConfig(width=16, heads=2, shared_width=8, gate_steps=2)


def saved_model(snapshot: Snapshot, folder: Path) -> MIAR:
    reader = SnapshotReader(snapshot, label="sentiment")
    model = MIAR.for_dataset(SMALL, reader.load(Selection(splits=["train"], labelled=True)))
    model.save_pretrained(folder)
    return MIAR.from_pretrained(folder)


def score_all(store: Store, model: Path, run_id: str, snapshot: Snapshot) -> dict[str, Any]:
    plan = score.plan_scoring(store, str(model), run_id=run_id, snapshot=snapshot.id)
    for number in range(plan["chunks"]):
        score.score_chunk(Path(plan["folder"]), number)
    return plan


def test_chunks_score_as_the_whole_and_read_each_row_once(
    made: Snapshot,
    made_store: Store,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    decoded: list[tuple[int, int]],
) -> None:
    model = saved_model(made, tmp_path)
    monkeypatch.setattr(score, "CLIPS_PER_CHUNK", 7)
    plan = score_all(made_store, tmp_path, "first", made)
    assert plan["chunks"] == -(-plan["clips"] // 7) > 5
    assert len(decoded) == len(set(decoded)) > 20
    whole = SnapshotReader(made).load()
    expected = {row["clip_id"]: row for row in score_dataset(model, whole).to_pylist()}
    rows = made_store.table(SCORES).read().to_pylist()
    assert len(rows) == len(expected) == plan["clips"]
    splits = dict(zip(whole.clip_ids, whole.splits, strict=True))
    for row in rows:
        one = expected[row["clip_id"]]
        assert {name: row[name] for name in ("status", "reason", "category", "available")} == {
            name: one[name] for name in ("status", "reason", "category", "available")
        }
        for name in NUMBERS:
            assert row[name] == pytest.approx(one[name], abs=1e-6), name
        assert row["split"] == splits[row["clip_id"]]
        assert (row["run_id"], row["snapshot_id"], row["label"]) == ("first", made.id, "sentiment")
    version = made_store.table(SCORES).version()
    assert score_all(made_store, tmp_path, "second", made)["chunks"] == 0
    assert made_store.table(SCORES).version() == version


def test_a_model_that_was_replaced_is_read_anew(made_store: Store, tmp_path: Path) -> None:
    """In one process, as flows that are served run: what scores is what stands in the folder, under its own name."""
    shutil.copytree(Path(made_store.uri.removeprefix("file://")), tmp_path / "store")
    store, folder = Store.open(str(tmp_path / "store")), tmp_path / "model"
    snapshot = store.snapshots.take()
    saved_model(snapshot, folder)
    late = score.plan_scoring(store, str(folder), run_id="late", snapshot=snapshot.id)
    first = score_all(store, folder, "first", snapshot)
    reader = SnapshotReader(snapshot, label="sentiment", feature_sets={"text": "features/text/aaaa"})
    MIAR.for_dataset(SMALL, reader.load(Selection(labelled=True))).save_pretrained(folder)
    with pytest.raises(UserError, match="was replaced while it was scoring: score again"):
        score.score_chunk(Path(late["folder"]), 0)
    second = score_all(store, folder, "second", snapshot)
    assert second["model_id"] != first["model_id"]
    expected = score_dataset(MIAR.from_pretrained(folder), reader.load()).to_pylist()
    rows = store.table(SCORES).read(filter=pc.field("run_id") == "second").to_pylist()
    assert {row["clip_id"]: row["prediction"] for row in rows} == pytest.approx(
        {row["clip_id"]: row["prediction"] for row in expected}, abs=1e-6
    )


def big_snapshot(folder: Path, clips: int, frames: int) -> tuple[Store, Snapshot]:
    """One table of sound, ``clips`` x ``frames`` x 25 numbers."""
    store, draw = Store.create(folder), np.random.default_rng(0)
    ids = [f"c{index:05d}" for index in range(clips)]
    rows = [{"clip_id": one, "corpus_id": "a", "video_id": one, "split": "train", "state": "live"} for one in ids]
    labels = [{"clip_id": one, "name": "sentiment", "corpus_id": "a", "value": draw.normal()} for one in ids[:40]]
    columns = [f"lld{index}" for index in range(25)]
    spec = feature_table("features/opensmile/bbbb", n_columns=25, summary_columns=[], quality_columns=[])
    descriptor = {"extractor": "opensmile", "config_hash": "bbbb", "modality": "audio", "columns": columns}
    descriptor |= {"summary_columns": [], "layers": 1, "voiced_columns": [], "state": "active"}
    descriptor |= {"created_at": np.datetime64("2026-01-01", "us").item()}
    for table, made in ((CLIPS, rows), (LABELS, labels), (FEATURE_SETS, [descriptor])):
        store.table(table).merge(pa.Table.from_pylist(made, schema=table.schema))
    names, handle, size = [], store.table(spec), clips // 8
    for start in range(0, clips, size):
        part = ids[start : start + size]
        given: dict[str, Any] = {"clip_id": part, "corpus_id": ["a"] * len(part), "input_hash": part}
        given |= {"status": ["ok"] * len(part), "n_frames": [frames] * len(part)}
        for name, width in (("values", 25), ("times", 1)):
            offsets = pa.array(np.arange(len(part) + 1, dtype=np.int32) * frames * width)
            flat = draw.standard_normal(len(part) * frames * width, np.float32)
            given[name] = pa.ListArray.from_arrays(offsets, pa.array(flat))
        columns_of = {field.name: given.get(field.name, pa.nulls(len(part), field.type)) for field in spec.schema}
        names.append(handle.stage(pa.table(columns_of).cast(spec.schema), run_id="r", name=f"s{start}"))
    handle.register(names, wanted=pa.table({"clip_id": ids, "input_hash": ids}))
    return store, store.snapshots.take()


def test_memory_does_not_grow_with_the_clips(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """120 MB of features in 30 chunks: what is held after a few chunks is what is held at the end."""
    monkeypatch.setattr(storage.shards, "ROW_GROUP_BYTES", 2**20)
    monkeypatch.setattr(feature_rows, "HELD_BYTES", 2**22)
    monkeypatch.setattr(reading, "CHUNK_VALUES", 2**20)
    store, snapshot = big_snapshot(tmp_path / "store", clips=1200, frames=1000)
    saved_model(snapshot, tmp_path / "model")
    plan = score.plan_scoring(store, str(tmp_path / "model"), run_id="run", snapshot=snapshot.id)
    assert plan["chunks"] >= 28
    held = []
    for number in range(plan["chunks"]):
        score.score_chunk(Path(plan["folder"]), number)
        held.append(psutil.Process().memory_info().rss / 1e6)
    assert max(held[5:]) - held[4] < 40, held
