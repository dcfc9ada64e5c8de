"""A training that is stopped takes no finished model's place."""

import shutil
from pathlib import Path

import pytest

from miar.errors import UserError
from miar.pipeline.progress import watched_by
from miar.pipeline.train import UNFINISHED, plan_training, train_model
from storage import Store


@pytest.fixture
def store(made_store: Store, tmp_path: Path) -> Store:
    shutil.copytree(Path(made_store.uri), tmp_path / "store")
    return Store.open(tmp_path / "store")


def test_a_finished_model_stays_until_another_is_finished(store: Store, tmp_path: Path) -> None:
    settings = {"width": 16, "heads": 2, "gate_steps": 0}

    def train(epochs: int, seed: int) -> dict:
        training = {"epochs": epochs, "min_clips": 4, "device": "cpu", "seed": seed}
        return train_model(
            store, plan_training(store, label="sentiment", out=tmp_path / "model", model=settings, training=training)
        )

    def stop(what: str, done: float, total: float) -> None:
        if what == "epochs" and done == 2:
            raise KeyboardInterrupt

    def held() -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in (tmp_path / "model").iterdir() if path.is_file()}

    first = train(1, seed=0)
    finished = held()
    with watched_by(stop), pytest.raises(KeyboardInterrupt):
        train(5, seed=1)
    assert held() == finished
    assert (tmp_path / "model" / UNFINISHED / "model.safetensors").is_file()
    second = train(1, seed=1)
    assert second["model_id"] != first["model_id"]
    assert not (tmp_path / "model" / UNFINISHED).exists()
    assert held().keys() == finished.keys()


@pytest.mark.parametrize("name", ["learning_rate", "clip_norm", "huber_delta"])
def test_a_rate_that_is_no_number_is_one_line(store: Store, tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match="must be finite and above 0"):
        plan_training(store, label="sentiment", out=tmp_path / "model", training={name: float("nan")})
