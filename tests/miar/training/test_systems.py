"""Every system through the same code: trained, scored with contributions, saved, loaded in another process."""

import json
import subprocess
import sys
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
import torch
from made_clips import as_classes, made_dataset

from miar.data.dataset import ClipDataset
from miar.errors import UserError
from miar.models.config import CONFIGS, MIARConfig, SystemConfig
from miar.models.system import System
from miar.models.systems import SYSTEMS
from miar.scoring.scorer import CONTRIBUTIONS, WEIGHTS, score_dataset
from miar.training.config import TrainingConfig
from miar.training.loop import fit

SIZE = {"width": 16, "heads": 2, "shared_width": 8, "pooled_readout": False}
"""Without the closed-form readout: what is learned, the trunk learns."""
COMBINED = MIARConfig(
    **SIZE,
    distribution_weight=0.05,
    combination_weight=0.05,
    distillation_weight=0.1,
    views=2,
    sample_weighting="certain_first",
)
SETTINGS = {name: kind(**SIZE) for name, kind in CONFIGS.items()} | {"combined": COMBINED}
OFF = {
    "encoder_layers": 0,
    "interaction_layers": 0,
    "layer_mix": False,
    "summaries": False,
    "token_weighting": False,
    "aux_weight": 0.0,
    "contrastive_weight": 0.0,
    "normalization_weight": 0.0,
    "distribution_weight": 0.0,
    "combination_weight": 0.0,
    "distillation_weight": 0.0,
    "views": 1,
    "sample_weighting": "off",
}
SHORT = TrainingConfig(epochs=1, batch_size=32, device="cpu")
QUICK = TrainingConfig(batch_size=16, learning_rate=1e-2, adapter_rate=1.0, device="cpu")


def clips(count: int, seed: int, *, missing: float = 0.1, classes: bool = False) -> ClipDataset:
    dataset = made_dataset(count, seed=seed, missing=missing, noise=0.5)
    dataset = as_classes(dataset) if classes else dataset
    return dataset.subset(dataset.scorable)


@pytest.mark.parametrize("name", ["mgcma", "mcur", "combined"])
def test_a_fit_beats_the_mean_by_far(name: str) -> None:
    train, valid, test = clips(80, 1), clips(20, 2), clips(100, 3)
    config = replace(QUICK, epochs=6)
    result = fit(SETTINGS[name], train, valid, config)
    assert type(result.model) is SYSTEMS[SETTINGS[name].system]
    with torch.inference_mode():
        guess = result.model(test.batch(np.arange(len(test)))).prediction.numpy()
    constant = np.abs(test.targets - train.targets.mean()).mean()
    assert np.abs(test.targets - guess).mean() < 0.6 * constant
    assert all(np.isfinite(list(report.losses.values())).all() for report in result.history)


@pytest.mark.parametrize("name", ["mgcma", "mcur"])
def test_classes_are_learned(name: str) -> None:
    train, valid = clips(80, 1, classes=True), clips(60, 2, classes=True)
    result = fit(SETTINGS[name], train, valid, replace(QUICK, epochs=6))
    share = np.bincount(valid.targets.astype(int)).max() / len(valid)
    assert result.metrics["valid_accuracy"] > share + 0.15


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("classes", [False, True])
def test_with_every_part_off_a_system_still_trains(name: str, classes: bool) -> None:
    train, valid = clips(48, 1, classes=classes), clips(20, 2, classes=classes)
    result = fit(replace(SETTINGS[name], **OFF), train, valid, replace(QUICK, epochs=10))
    assert set(result.history[0].losses) == {"total", "task"}
    assert result.history[-1].losses["task"] < 0.9 * result.history[0].losses["task"]


@pytest.mark.parametrize("change", [{"distribution_weight": 0.0}, {"contrastive_weight": 0.0}])
def test_mgcmas_levels_reach_the_weights(change: dict) -> None:
    assert_changes("mgcma", change)


@pytest.mark.parametrize(
    "change",
    [
        {"combination_weight": 0.0},
        {"distillation_weight": 0.0},
        {"views": 1},
        {"category_width": 0.3},
        {"sample_weighting": "off"},
        {"sample_weighting": "uncertain"},
        {"sample_weighting": "certain_first"},
        {"sample_weighting_warmup": 0.0},
    ],
)
def test_mcurs_parts_reach_the_weights(change: dict) -> None:
    assert_changes("mcur", change)


def assert_changes(name: str, change: dict) -> None:
    assert not torch.equal(text_weights(SETTINGS[name]), text_weights(replace(SETTINGS[name], **change)))


@lru_cache
def text_weights(config: SystemConfig) -> torch.Tensor:
    """Of a model trained for two steps."""
    return fit(config, clips(64, 1), clips(20, 2), SHORT).model.adapter("text").project.weight


def test_two_views_are_the_same_again_with_the_same_seed() -> None:
    train, valid = clips(48, 1), clips(20, 2)
    first, second = (fit(COMBINED, train, valid, SHORT).model.state_dict() for _ in range(2))
    for name, value in first.items():
        assert torch.equal(value, second[name]), name


def test_one_modality_trains_mgcma_by_the_task_alone() -> None:
    train, valid = (clips(count, seed).with_modalities(["audio"]) for count, seed in ((64, 1), (30, 2)))
    train, valid = train.subset(train.scorable), valid.subset(valid.scorable)
    result = fit(SETTINGS["mgcma"], train, valid, SHORT)
    losses = result.history[0].losses
    assert losses["contrastive"] == losses["distribution"] == 0.0
    assert losses["total"] == losses["task"]


def test_labels_of_one_sign_need_bins() -> None:
    train, valid = (replace(one, targets=one.targets + 100) for one in (clips(48, 1), clips(20, 2)))
    with pytest.raises(UserError, match="set category_width") as caught:
        fit(SETTINGS["mcur"], train, valid, SHORT)
    assert "\n" not in str(caught.value)
    losses = fit(replace(SETTINGS["mcur"], category_width=1.0), train, valid, SHORT).history[0].losses
    assert losses["combination"] > 0
    fit(replace(SETTINGS["mcur"], combination_weight=0.0), train, valid, SHORT)


def untrained(config: SystemConfig, dataset: ClipDataset) -> System:
    torch.manual_seed(0)
    model = SYSTEMS[config.system].for_dataset(config, dataset)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model.eval()


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("classes", [False, True])
def test_contributions_sum_to_what_they_explain(name: str, classes: bool) -> None:
    dataset = clips(40, 1, missing=0.3, classes=classes)
    rows = score_dataset(untrained(CONFIGS[name](**SIZE), dataset), dataset, device="cpu").to_pylist()
    assert {row["status"] for row in rows} == {"scored"}
    for row, available in zip(rows, dataset.available, strict=True):
        parts = [row[name] for name in CONTRIBUTIONS]
        assert [part is not None for part in parts] == available.tolist()
        assert sum(part or 0 for part in parts) == pytest.approx(row["prediction"] - row["base"], abs=1e-5)
        weights = [row[name] for name in WEIGHTS]
        assert sum(weights) == pytest.approx(1.0, abs=1e-5)
        assert (weights[0] == 0) == (name == "mgcma"), "it has no joint token"


IN_ANOTHER_PROCESS = """
import json, sys
import torch
torch.set_num_threads(1)
sys.path.insert(0, sys.argv[1])
from made_clips import made_dataset
from miar.models.system import System
from miar.scoring.scorer import score_dataset
dataset = made_dataset(30, seed=5, missing=0.2)
scores = {}
for folder in sys.argv[2:]:
    model = System.from_pretrained(folder)
    table = score_dataset(model, dataset, device="cpu")
    scores[type(model).__name__] = [repr(row) for row in table.to_pylist()]
print(json.dumps(scores))
"""


def test_another_process_gives_the_same_scores(tmp_path: Path) -> None:
    dataset = made_dataset(30, seed=5, missing=0.2)
    expected = {}
    for name, kind in CONFIGS.items():
        model = untrained(kind(width=16, heads=2, shared_width=8, gate_steps=2), dataset)
        model.save_pretrained(tmp_path / name)
        rows = score_dataset(model, dataset, device="cpu").to_pylist()
        expected[type(model).__name__] = [repr(row) for row in rows]
    here = Path(made_dataset.__code__.co_filename).parent
    command = [sys.executable, "-c", IN_ANOTHER_PROCESS, str(here), *(str(tmp_path / name) for name in CONFIGS)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == expected
