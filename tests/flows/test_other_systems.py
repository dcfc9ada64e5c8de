"""MGCMA and MCUR by command, on a store that was made from media."""

import json
import signal
import sys
from collections.abc import Iterator

import pytest

from storage import SCORES

pytestmark = [pytest.mark.xdist_group("prefect"), pytest.mark.usefixtures("prefect_server")]


@pytest.fixture(autouse=True)
def own_signal_handler() -> Iterator[None]:
    """The command line sets one for its process."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: object) -> dict:
    from miar.cli import main

    monkeypatch.setattr(sys, "argv", ["miar", *map(str, arguments), "--json"])
    with pytest.raises(SystemExit) as leave:
        main()
    said = capsys.readouterr()
    assert not leave.value.code, said.err
    return json.loads(said.out)


@pytest.mark.parametrize("system", ["mgcma", "mcur"])
def test_trained_and_scored_by_command(space, system: str, monkeypatch, capsys):
    out = space.root / system
    settings = ["--training", "epochs=1", "--training", "min_clips=4", "--model", "width=16"]
    asked = ["--labels", "sentiment", "--system", system, "--out", out]
    trained = command(monkeypatch, capsys, "train", space.store_path, *asked, *settings)
    assert (trained["system"], trained["model_id"].split("-")[0]) == (system, system)
    assert json.loads((out / "config.json").read_text())["system"] == system
    scored = command(monkeypatch, capsys, "score", space.store_path, "--model", out)
    assert scored["model_id"] == trained["model_id"]
    rows = [row for row in space.store.table(SCORES).read().to_pylist() if row["model_id"] == trained["model_id"]]
    assert len(rows) == sum(scored["outcomes"].values())
    for row in rows:
        if row["status"] == "scored":
            parts = [row[f"contribution_{name}"] or 0 for name in ("text", "audio", "face")]
            assert sum(parts) == pytest.approx(row["prediction"] - row["base"], abs=1e-5)
