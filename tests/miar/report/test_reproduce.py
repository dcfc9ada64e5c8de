"""The commands that a report gives: typed again, they do what the store's runs did."""

import html
import json
import re
import shlex
import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest
import yaml

from miar.cli.options import parse_settings, split_list
from miar.config import PipelineConfig, load_config, parse_config
from miar.features.contract import Modality
from miar.models.config import CONFIGS
from miar.pipeline.evaluate import evaluate_model
from miar.pipeline.runs import latest_runs
from miar.pipeline.score import plan_scoring, score_chunk
from miar.pipeline.train import plan_training, train_model
from miar.report import write_report
from storage import RUNS, SCORES, Store


def page(store: Store, folder: Path) -> str:
    return html.unescape(write_report(store, folder / "r.html").read_text("utf-8"))


def commands(store: Store, folder: Path) -> list[str]:
    found = re.search(r"<pre><code>(.*?)</code></pre>", page(store, folder), re.DOTALL)
    assert found
    return found[1].splitlines()


def options(command: str, name: str) -> list[str]:
    """What a command gives for an option, each time."""
    words = shlex.split(command)
    return [after for word, after in pairwise(words) if word == f"--{name}"]


def test_training_takes_snapshot_and_settings_of_the_run_that_made_the_model(made, tmp_path: Path) -> None:
    refresh, train, evaluate, score, report = commands(made.store, tmp_path)
    assert refresh == f"miar refresh {shlex.quote(str(made.root))} --store {made.store.uri} --corpus-id demo"
    assert options(train, "snapshot") == ["trained-on"]
    assert options(train, "labels") == ["sentiment"]
    assert options(train, "model") == ["width=32"]
    assert set(options(train, "training")) == {"seed=7", "loss=mse", "learning_rate=1e-05"}
    assert evaluate == f"miar evaluate MODEL --store {made.store.uri} --split test"
    assert options(score, "snapshot") == ["snap-1"]
    assert report.startswith("miar report")


@pytest.mark.parametrize("system", CONFIGS)
def test_typed_again_the_training_is_planned_as_it_was(made_store: Store, tmp_path: Path, system: str) -> None:
    """A real training, evaluation and scoring, of settings and feature sets that are not the default."""
    shutil.copytree(Path(made_store.uri.removeprefix("file://")), tmp_path / "store")
    store = Store.open(str(tmp_path / "store"))
    plan = plan_training(
        store,
        label="mood",
        out=tmp_path / "model",
        features=["text", "opensmile"],
        system=system,
        model={"width": 16, "heads": 2, "shared_width": 8, "gate_steps": 2, "layer_mix": False},
        training={"epochs": 1, "min_clips": 4, "device": "cpu", "learning_rate": 1e-5},
    )
    trained = train_model(store, plan)
    later = store.snapshots.take()
    evaluate_model(store, str(plan.out))
    job = plan_scoring(store, str(plan.out), run_id="score-1", snapshot=later.id)
    for number in range(job["chunks"]):
        score_chunk(Path(job["folder"]), number)
    train, evaluate, score, _ = commands(store, tmp_path)
    again = plan_training(
        store,
        label=options(train, "labels")[0],
        out=tmp_path / "again",
        snapshot=options(train, "snapshot")[0],
        features=split_list(options(train, "features")),
        system=(options(train, "system") or ["miar"])[0],
        model=parse_settings(options(train, "model"), "--model"),
        training=parse_settings(options(train, "training"), "--training"),
    )
    assert again.to_json() == plan.to_json()
    assert train_model(store, again)["model_id"] == trained["model_id"]
    assert trained["model_id"].startswith(f"{system}-mood-")
    scored = store.table(SCORES).read(["model_id", "status"], pc.field("run_id") == "score-1").to_pylist()
    assert {row["model_id"] for row in scored} == {trained["model_id"]}
    assert "scored" in {row["status"] for row in scored}
    assert options(evaluate, "snapshot") == []
    assert options(score, "snapshot") == [later.id]


def test_a_refresh_comes_with_the_settings_that_were_not_the_default(
    fill_store: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = fill_store(tmp_path)
    tree = {"corpus": {"segment_by": "file", "split": {"seed": 3}}, "execution": {"workers": 7}}
    config = parse_config(tree).only({Modality.TEXT, Modality.AUDIO})
    row = {
        "run_id": "refresh-2",
        "kind": "refresh",
        "corpus_id": "other",
        "state": "completed",
        "started_at": datetime(2027, 1, 1, tzinfo=UTC),
        "config": json.dumps({"root": "s3://bucket/other", **config.model_dump(mode="json")}),
        "result": "{}",
    }
    failed = row | {"run_id": "refresh-3", "state": "failed", "corpus_id": "broken"}
    made.store.table(RUNS).merge(pa.Table.from_pylist([row, failed], schema=RUNS.schema))
    _, written, refresh, *_ = commands(made.store, tmp_path)
    _, text, _, file = shlex.split(written)
    assert refresh == f"miar refresh s3://bucket/other --store {made.store.uri} --config {file}"
    monkeypatch.chdir(tmp_path)
    Path(file).write_text(text)
    again = load_config(file)
    assert again.model_copy(update={"execution": config.execution}) == config
    assert "execution" not in yaml.safe_load(text)
    assert again.execution == PipelineConfig().execution


def test_a_model_that_was_trained_elsewhere_is_said_to_be(fill_store: Callable, tmp_path: Path) -> None:
    made = fill_store(tmp_path)
    (train,) = latest_runs(made.store, "train")
    keys = pa.table({"run_id": [train["run_id"]]})
    made.store.table(RUNS).merge(RUNS.schema.empty_table(), delete_keys=keys)
    lines = commands(made.store, tmp_path)
    assert not any(line.startswith("miar train") for line in lines)
    evaluate = next(line for line in lines if line.startswith("miar evaluate"))
    assert options(evaluate, "snapshot") == ["trained-on"]
    assert "How this model was trained is not recorded here" in page(made.store, tmp_path)


def test_the_snapshot_that_was_scored_last_is_scored_again(fill_store: Callable, tmp_path: Path) -> None:
    """Ids of snapshots are no numbers: the last by time, not by the alphabet."""
    made = fill_store(tmp_path)
    first, *_ = made.store.table(SCORES).read().to_pylist()
    later = first | {"snapshot_id": "a-later-one", "scored_at": datetime(2027, 1, 1, tzinfo=UTC)}
    made.store.table(SCORES).merge(pa.Table.from_pylist([later], schema=SCORES.schema))
    score = next(line for line in commands(made.store, tmp_path) if line.startswith("miar score"))
    assert options(score, "snapshot") == ["a-later-one"]
