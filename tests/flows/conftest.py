"""A small corpus, a store refreshed from it and a model trained on it, made once and copied for each test."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from flow_helpers import CLIPS

from storage import Store

SEED = 11


@dataclass(frozen=True)
class Workspace:
    """A corpus and the store that was made from it; a test may change both."""

    root: Path

    @property
    def corpus(self) -> Path:
        return self.root / "corpus"

    @property
    def store_path(self) -> Path:
        return self.root / "store"

    @property
    def model(self) -> Path:
        return self.root / "model"

    @property
    def store(self) -> Store:
        return Store.open(str(self.store_path))


@pytest.fixture(scope="session")
def prefect_server() -> Iterator[None]:
    from prefect.testing.utilities import prefect_test_harness

    with prefect_test_harness(server_startup_timeout=300):
        yield


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, prefect_server: None) -> Workspace:
    """Made once by the real flow; never changed."""
    from flows.corpus_to_scores import corpus_to_scores
    from miar.synth import make_corpus

    space = Workspace(tmp_path_factory.mktemp("finished"))
    make_corpus(space.corpus, clips=CLIPS, seed=SEED)
    corpus_to_scores(
        str(space.corpus),
        str(space.store_path),
        "sentiment",
        str(space.model),
        report=str(space.root / "report.html"),
        config={"execution": {"workers": 2, "shard_seconds": 3}},
        training={"epochs": 3, "min_clips": 4},
    )
    return space


@pytest.fixture
def space(finished: Workspace, tmp_path: Path) -> Workspace:
    """A copy of the finished workspace, file times kept."""
    copy = Workspace(tmp_path)
    for name in ("corpus", "store", "model"):
        shutil.copytree(finished.root / name, tmp_path / name)
    return copy
