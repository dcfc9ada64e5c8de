"""Evaluating a trained model on a store: its figures stand, whatever becomes of the baselines beside them."""

import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from miar.pipeline.evaluate import evaluate_model
from miar.pipeline.train import plan_training, train_model
from storage import CLIPS, Store

SYSTEMS = {"ridge text", "ridge audio", "ridge face", "ridge text+audio+face", "late fusion of ridges"}


@pytest.fixture
def store(made_store: Store, tmp_path: Path) -> Store:
    """A store of one speaker's clips."""
    shutil.copytree(Path(made_store.uri.removeprefix("file://")), tmp_path / "store")
    store = Store.open(str(tmp_path / "store"))
    change_clips(store, speaker="one")
    return store


def change_clips(store: Store, **columns: Any) -> None:
    rows = store.table(CLIPS).read().to_pylist()
    store.table(CLIPS).merge(pa.Table.from_pylist([row | columns for row in rows], schema=CLIPS.schema))


def trained(store: Store, out: Path) -> str:
    training = {"epochs": 1, "min_clips": 4, "device": "cpu"}
    model = {"width": 16, "heads": 2, "shared_width": 8, "gate_steps": 2}
    train_model(store, plan_training(store, label="sentiment", out=out, model=model, training=training))
    return str(out)


def test_one_speaker_has_baselines_and_intervals_too(store: Store, tmp_path: Path) -> None:
    result = evaluate_model(store, trained(store, tmp_path / "model"))
    assert set(result["baselines"]) == SYSTEMS
    assert result["warnings"] == []
    assert result["intervals"]["mae"]["n_groups"] > 1


def test_without_training_clips_the_models_figures_stand_alone(store: Store, tmp_path: Path) -> None:
    model = trained(store, tmp_path / "model")
    whole = evaluate_model(store, model)
    clips = store.table(CLIPS).read().to_pylist()
    rows = [row | {"split": "test" if row["split"] == "test" else None} for row in clips]
    store.table(CLIPS).merge(pa.Table.from_pylist(rows, schema=CLIPS.schema))
    result = evaluate_model(store, model, snapshot=store.snapshots.take().id)
    assert result["overall"] == whole["overall"]
    assert result["baselines"] == {}
    (line,) = result["warnings"]
    assert line.endswith("the baselines need at least two labelled clips in the split 'train'")
    assert all(name in line for name in SYSTEMS)
