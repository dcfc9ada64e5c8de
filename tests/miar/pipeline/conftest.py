import sys
from pathlib import Path

import pytest
from made_jobs import CUES

from storage import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.create(tmp_path / "store")


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """Four videos of two cues each; nobody opens them, so any bytes will do."""
    root = tmp_path / "corpus"
    root.mkdir()
    for name in "abcd":
        (root / f"{name}.mp4").write_bytes(name.encode() * 100)
        (root / f"{name}.srt").write_text(CUES.format(name))
    return root


@pytest.fixture
def miar(miar, monkeypatch: pytest.MonkeyPatch):
    """The command line where no flow can be imported."""
    monkeypatch.setitem(sys.modules, "flows.refresh_features", None)
    return miar
