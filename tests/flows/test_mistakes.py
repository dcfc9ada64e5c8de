"""A user's mistake is one line that says what to do, exit code 2, found out before Prefect is started for it."""

import sys
from pathlib import Path

import pytest

from storage import Store

pytestmark = pytest.mark.xdist_group("prefect")


@pytest.fixture
def miar(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Run the command line here, where no flow can be imported; returns the one line on stderr, after exit code 2."""
    from miar.cli import main

    for flow in ("refresh_features", "train", "evaluate", "score_corpus", "corpus_to_scores"):
        monkeypatch.setitem(sys.modules, f"flows.{flow}", None)

    def run(*arguments: object) -> str:
        monkeypatch.setattr(sys, "argv", ["miar", *map(str, arguments)])
        with pytest.raises(SystemExit) as leave:
            main()
        assert leave.value.code == 2
        (line,) = capsys.readouterr().err.splitlines()
        return line

    return run


TRAINING = {
    "label": (["--labels", "sentment"], "there are: "),
    "features": (["--labels", "sentiment", "--features", "voice"], "no features called 'voice'"),
    "two of a modality": (["--labels", "sentiment", "--features", "audio,opensmile"], "one feature set too many"),
    "system": (["--labels", "sentiment", "--system", "mair"], "choose one of miar"),
    "field": (["--labels", "sentiment", "--model", "widht=64"], "did you mean 'width'?"),
    "type": (["--labels", "sentiment", "--training", "epochs=many"], "training: epochs: Input should be a valid int"),
    "value": (["--labels", "sentiment", "--model", "width=7"], "must be a multiple of 2 x heads"),
    "pair": (["--labels", "sentiment", "--model", "width"], "--model takes NAME=VALUE"),
    "snapshot": (["--labels", "sentiment", "--snapshot", "last-year"], "no snapshot is called last-year"),
}


@pytest.mark.parametrize("mistake", TRAINING)
def test_train(miar, finished, tmp_path: Path, mistake: str):
    options, says = TRAINING[mistake]
    assert says in miar("train", finished.store_path, *options, "--out", tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_train_into_a_file(miar, finished, tmp_path: Path):
    (tmp_path / "model").touch()
    line = miar("train", finished.store_path, "--labels", "sentiment", "--out", tmp_path / "model")
    assert "is a file" in line


def test_evaluate(miar, finished, tmp_path: Path):
    other = Store.create(str(tmp_path / "other"))
    for arguments, says in (
        ([finished.model, "--store", finished.store_path, "--split", "tset"], "there are: test, train, valid"),
        ([tmp_path / "nowhere", "--store", finished.store_path], "nowhere"),
        ([finished.model, "--store", tmp_path], "is not a store"),
        ([finished.model, "--store", other.uri], f"`miar snapshot {other.uri} --name today`"),
    ):
        assert says in miar("evaluate", *arguments)


def test_score(miar, finished, tmp_path: Path):
    other = Store.create(str(tmp_path / "other"))
    line = miar("score", other.uri, "--model", finished.model)
    assert "holds no features" in line
    assert f"`miar refresh --store {other.uri}`" in line


def test_refresh(miar, tmp_path: Path):
    config = tmp_path / "config.yaml"
    for text, says in (
        ("execution: {wokers: 3}", "did you mean 'workers'?"),
        ("extractors: [{extractor: opensmile, feature_sett: x}]", "did you mean 'feature_set'?"),
        ("colour: blue", "there are: corpus, execution, extractors, on_unavailable"),
        ("execution: {workers: none}", "execution.workers: Input should be a valid integer"),
        ("- 1\n- {", "is not valid YAML"),
    ):
        config.write_text(text)
        assert says in miar("refresh", tmp_path, "--store", tmp_path / "store", "--config", config)
    assert "nowhere" in miar("refresh", tmp_path / "nowhere", "--store", tmp_path / "store")
    assert not (tmp_path / "store").exists()
