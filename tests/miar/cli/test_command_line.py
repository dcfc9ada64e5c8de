"""What commands print and refuse, as a person or a script meets it."""

import json
import sys
from pathlib import Path

import pyarrow as pa
import pytest
from made_jobs import FEATURE_SETS, carry_out, plan

from miar import synth
from miar.cli import corpora
from miar.pipeline.rows import feature_spec
from storage import SCORES, Store


def _assert_one_line(found: tuple[object, str, str], *parts: str) -> None:
    code, out, err = found
    assert (code, out) == (2, "")
    (line,) = err.splitlines()
    assert all(part in line for part in parts), line


def test_the_demo_s_json_is_all_that_stands_on_stdout(miar, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(synth, "make_corpus", lambda *_, **__: None, raising=False)
    monkeypatch.setattr(corpora, "run_flow", lambda *_, **__: {"refresh": {}, "score": {}, "evaluate": {}})
    code, out, err = miar("demo", "--out", tmp_path / "demo", "--json")
    assert not code
    assert set(json.loads(out)) == {"refresh", "score", "evaluate", "store", "report"}
    assert "a corpus of talking faces" in err


def test_a_setting_that_is_no_yaml_is_one_line(miar, tmp_path: Path):
    store = Store.create(tmp_path / "store")
    for option in ("--training", "--model"):
        found = miar("train", store.uri, "--labels", "y", "--out", tmp_path / "model", option, "x=[1")
        _assert_one_line(found, f"{option} x: '[1'")


def test_a_configuration_without_a_corpus_to_refresh_is_refused(miar, tmp_path: Path):
    (tmp_path / "config.yaml").write_text("execution: {workers: 1}\n")
    found = miar("score", tmp_path / "store", "--model", tmp_path / "model", "--config", tmp_path / "config.yaml")
    _assert_one_line(found, "--corpus")


@pytest.mark.parametrize(
    "arguments",
    [
        ["table", "nowhere.csv"],
        ["mmsa", "nowhere.pkl"],
        ["csd", "nowhere.csd", "--labels", "y=Labels"],
    ],
)
def test_a_mistyped_file_leaves_no_store_behind(miar, tmp_path: Path, arguments: list[str]):
    found = miar("import", *arguments, "--store", tmp_path / "store")
    _assert_one_line(found, "nowhere")
    assert not (tmp_path / "store").exists()


def test_mistyped_features_leave_no_store_behind(miar, tmp_path: Path):
    (tmp_path / "made.csv").write_text("clip_id,y\na,1\n")
    found = miar("import", "table", tmp_path / "made.csv", "--store", tmp_path / "store", "--feature", "sound:x")
    _assert_one_line(found, "--feature takes KIND:NAME=COLUMN")
    assert not (tmp_path / "store").exists()


def test_status_counts_clips_that_are_there(miar, tmp_path: Path):
    root, store = tmp_path / "corpus", Store.create(tmp_path / "store")
    root.mkdir()
    for name in "abc":
        (root / f"{name}.wav").write_bytes(name.encode())
    carry_out(store, plan(store, root))
    ids = store.table(feature_spec(FEATURE_SETS["text"])).read(["clip_id"])["clip_id"].to_pylist()
    scores = [
        {"clip_id": one, "model_id": "m", "label": "y", "input_hash": "h", "status": "scored", "available": "text"}
        for one in ids
    ]
    store.table(SCORES).merge(pa.Table.from_pylist(scores, schema=SCORES.schema))
    (root / "c.wav").unlink()
    carry_out(store, plan(store, root))
    code, out, _ = miar("status", store.uri, "--json")
    assert not code
    found = json.loads(out)
    assert [one["clips"] for one in found["corpora"]] == [2]
    assert [one["clips"] for one in found["features"]] == [{"ok": 2}] * 3
    assert [one["clips"] for one in found["scores"]] == [2]


def test_a_table_that_cannot_be_imported_leaves_no_store(miar, tmp_path):
    (tmp_path / "empty.csv").touch()
    _assert_one_line(miar("import", "table", tmp_path / "empty.csv", "--store", tmp_path / "store"), "empty")
    assert not (tmp_path / "store").exists()


def test_a_refresh_of_what_another_makes_is_refused_before_anything_is_started(miar, tmp_path, monkeypatch):
    from miar.features.configs import OpenSmileConfig
    from miar.features.registry import feature_set_of
    from miar.pipeline.refresh import lock_name

    monkeypatch.setitem(sys.modules, "flows.refresh_features", None)
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / "a.wav").write_bytes(b"RIFF")
    store = Store.create(tmp_path / "store")
    with store.lock(lock_name("corpus", feature_set_of(OpenSmileConfig()))):
        found = miar("refresh", tmp_path / "corpus", "--store", tmp_path / "store", "--only", "audio")
    _assert_one_line(found, "refresh of opensmile")
    assert not list((tmp_path / "store" / "_staging").glob("*"))
