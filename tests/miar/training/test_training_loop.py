"""Fitting a model end to end on made clips."""

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from made_clips import as_classes, made_dataset

from miar.data.batches import modality_subsets
from miar.data.dataset import ClipDataset
from miar.errors import ConfigError, UserError
from miar.evaluation.metrics import correlation
from miar.models.miar import MIAR, MIARConfig
from miar.models.system import System
from miar.training.config import TrainingConfig
from miar.training.loop import EpochReport, fit
from miar.training.modality_dropout import drop_modalities
from miar.training.optimizer import AveragedWeights, build_optimizer, build_schedule

SMALL = MIARConfig(width=16, heads=2, shared_width=8)
SHORT = TrainingConfig(epochs=2, batch_size=16, device="cpu")


def predictions(model: System, dataset: ClipDataset) -> np.ndarray:
    with torch.inference_mode():
        return model(dataset.batch(np.arange(len(dataset)))).prediction.numpy()


def test_a_fit_learns_and_beats_its_modalities() -> None:
    train, valid, test = (made_dataset(n, seed=seed, missing=0.1) for n, seed in ((160, 1), (60, 2), (200, 3)))
    config = TrainingConfig(epochs=25, learning_rate=3e-3, device="cpu")
    result = fit(SMALL, train, valid, config)
    known = test.available.any(axis=1)
    together = correlation(predictions(result.model, test)[known], test.targets[known])
    assert together > 0.7
    complete = made_dataset(200, seed=4)
    batch = complete.batch(np.arange(200))
    for index in range(3):
        alone = torch.zeros(200, 3, dtype=torch.bool)
        alone[:, index] = True
        single = result.model(batch.with_available(alone)).prediction.detach().numpy()
        assert 0.3 < correlation(single, complete.targets) < together


def test_the_same_seed_gives_the_same_model() -> None:
    train, valid = made_dataset(48, seed=1, missing=0.2), made_dataset(20, seed=2)
    torch.manual_seed(5)
    first = fit(SMALL, train, valid, SHORT)
    state = torch.get_rng_state()
    torch.manual_seed(6)
    second = fit(SMALL, train, valid, SHORT)
    torch.manual_seed(5)
    assert torch.equal(state, torch.get_rng_state()), "a caller's own generator is put back"
    for (name, one), other in zip(first.model.state_dict().items(), second.model.state_dict().values(), strict=True):
        assert torch.equal(one, other), name
    other_seed = fit(SMALL, train, valid, replace(SHORT, seed=1)).model
    assert not torch.equal(other_seed.head.weight, first.model.head.weight)


def test_validation_clips_choose_the_epoch_and_fit_nothing() -> None:
    train, valid = made_dataset(48, seed=1), made_dataset(20, seed=2)
    moved = made_dataset(20, seed=2)
    for data in moved.modalities.values():
        data.sequences.values[:] = data.sequences.values * 50 + 9
    config = replace(SHORT, epochs=1)
    plain, perturbed = fit(SMALL, train, valid, config), fit(SMALL, train, moved, config)
    assert plain.metrics["valid_mae"] != perturbed.metrics["valid_mae"]
    for name, value in plain.model.state_dict().items():
        assert torch.equal(value, perturbed.model.state_dict()[name]), name


def test_clips_that_cannot_be_used_are_left_out_and_counted() -> None:
    train, valid = made_dataset(50, seed=1), made_dataset(20, seed=2)
    targets = train.targets.copy()
    targets[:3], targets[3] = np.nan, np.inf
    for data in train.modalities.values():
        data.available[10:12] = False
    reports: list[EpochReport] = []
    result = fit(SMALL, replace(train, targets=targets), valid, SHORT, on_epoch=reports.append)
    assert result.counts["train"] == 44
    assert result.counts["train_unlabelled"] == 4
    assert result.counts["train_empty"] == 2
    assert len(result.model.record.training_clip_ids) == 44
    assert [report.epoch for report in reports] == [1, 2]
    assert all(np.isfinite(list(report.losses.values())).all() for report in reports)
    assert result.best_epoch == max(report.epoch for report in reports if report.is_best)


def test_patience_ends_training_and_the_best_weights_are_kept() -> None:
    train, valid = made_dataset(48, seed=1), made_dataset(24, seed=2)
    shuffled = replace(valid, targets=np.random.default_rng(0).permutation(valid.targets))
    result = fit(SMALL, train, shuffled, TrainingConfig(epochs=60, patience=3, learning_rate=1e-2, device="cpu"))
    assert len(result.history) == result.best_epoch + 3 < 60
    errors = [report.validation["mae"] for report in result.history]
    assert errors[result.best_epoch - 1] == min(errors)
    mae = np.abs(predictions(result.model, shuffled) - shuffled.targets).mean()
    assert mae == pytest.approx(min(errors), rel=1e-4)


def test_classes_are_learned() -> None:
    train, valid = (as_classes(made_dataset(n, seed=seed, noise=0.4)) for n, seed in ((160, 1), (60, 2)))
    result = fit(SMALL, train, valid, TrainingConfig(epochs=20, learning_rate=3e-3, device="cpu"))
    share = max(np.bincount(valid.targets.astype(int))) / len(valid)
    assert result.metrics["valid_accuracy"] > share + 0.1
    assert set(np.unique(predictions(result.model, valid))) <= {0.0, 1.0, 2.0}
    assert result.model.classes == ("negative", "neutral", "positive")
    assert sum(result.model.target.class_shares) == pytest.approx(1.0)


def test_a_class_that_training_has_not_is_unlabelled_in_validation() -> None:
    train, valid = as_classes(made_dataset(60, seed=1)), as_classes(made_dataset(30, seed=2))
    renamed = replace(valid, classes=("negative", "unheard of", "positive"))
    counts = fit(SMALL, train, renamed, SHORT).counts
    assert counts["valid_unlabelled"] == (valid.targets == 1).sum() > 0
    assert counts["valid"] == (valid.targets != 1).sum()


def test_every_objective_reaches_the_weights() -> None:
    train, valid = made_dataset(64, seed=1), made_dataset(20, seed=2)
    config = replace(SHORT, epochs=1, batch_size=32)
    full = fit(SMALL, train, valid, config).model
    for part in ("aux_weight", "contrastive_weight", "normalization_weight"):
        without = fit(replace(SMALL, **{part: 0.0}), train, valid, config).model
        assert not torch.equal(full.adapter("text").project.weight, without.adapter("text").project.weight), part


def test_the_best_model_and_the_curves_stand_in_the_folder_after_every_epoch(tmp_path: Path) -> None:
    train, valid = made_dataset(48, seed=1), made_dataset(20, seed=2)
    seen: list[int] = []

    def look(report: EpochReport) -> None:
        curves = json.loads((tmp_path / "out" / "history.json").read_text())
        seen.append(len(curves))
        MIAR.from_pretrained(tmp_path / "out")

    result = fit(SMALL, train, valid, SHORT, on_epoch=look, out_dir=tmp_path / "out")
    assert seen == [1, 2]
    assert not [path.name for path in (tmp_path / "out").iterdir() if path.name.endswith(".part")]
    kept = MIAR.from_pretrained(tmp_path / "out")
    assert np.array_equal(predictions(kept, valid), predictions(result.model, valid))
    assert kept.record.metrics["valid_mae"] == result.metrics["valid_mae"]
    assert kept.record.validation_clip_ids == frozenset(valid.clip_ids)


def refused(match: str, train: ClipDataset, valid: ClipDataset, **change: int) -> None:
    with pytest.raises(UserError, match=match) as caught:
        fit(SMALL, train, valid, replace(SHORT, **change))
    assert "\n" not in str(caught.value)


def test_what_cannot_be_trained_is_refused_in_one_line() -> None:
    train, valid = made_dataset(48, seed=1), made_dataset(20, seed=2)
    unlabelled = np.full(48, np.nan)
    refused("no clip has a label named 'sentiment'", replace(train, targets=unlabelled), valid.subset([]))
    refused("0 training clips", replace(train, targets=unlabelled), valid)
    refused("12 training clips have a label and features, 20 are needed", train.subset(np.arange(12)), valid)
    refused("no validation clip", train, valid.subset([]))
    refused("same sentiment label", replace(train, targets=np.ones(48)), valid)
    refused("5 clips stand in training and validation", train, train.subset(np.arange(5)))
    with pytest.raises(ConfigError):
        TrainingConfig(modality_dropout=1.5)
    with pytest.raises(ConfigError):
        TrainingConfig(epochs=0)


def test_a_modality_that_no_training_clip_has_is_left_out() -> None:
    train, valid = made_dataset(48, seed=1), made_dataset(20, seed=2)
    train.modalities["face"].available[:] = False
    model = fit(SMALL, train, valid, SHORT).model
    assert tuple(model.feature_sets) == ("text", "audio")


def test_a_validation_clip_with_nothing_that_training_has_is_left_out() -> None:
    train, valid = made_dataset(48, seed=1), made_dataset(20, seed=2)
    train.modalities["face"].available[:] = False
    valid.modalities["text"].available[:1] = False
    valid.modalities["audio"].available[:1] = False
    result = fit(SMALL, train, valid, SHORT)
    assert (result.counts["valid"], result.counts["valid_empty"]) == (19, 1)
    assert np.isfinite(result.metrics["valid_mae"])


def test_a_class_of_no_training_clip_is_none_of_the_models() -> None:
    train, valid = as_classes(made_dataset(60, seed=1)), as_classes(made_dataset(30, seed=2))
    wider = ("elated", *train.classes)
    result = fit(SMALL, train.with_classes(wider), valid.with_classes(wider), SHORT)
    assert result.model.classes == train.classes
    assert result.counts["valid"] == len(valid)


def test_training_that_diverges_says_so_and_leaves_its_curves(tmp_path: Path) -> None:
    config = replace(SHORT, epochs=1, learning_rate=1e30, adapter_rate=1e6, weight_decay=1e30)
    with pytest.raises(UserError, match="lower the learning rate"):
        fit(SMALL, made_dataset(48, seed=1), made_dataset(20, seed=2), config, out_dir=tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["history.json"]
    assert len(json.loads((tmp_path / "out" / "history.json").read_text())) == 1


@given(
    st.lists(st.tuples(st.booleans(), st.booleans(), st.booleans()), min_size=1, max_size=20),
    st.floats(0, 1),
    st.integers(0, 1000),
)
@settings(max_examples=60, deadline=None)
def test_modality_dropout_leaves_a_subset_and_never_nothing(rows: list, share: float, seed: int) -> None:
    available = torch.tensor(rows)
    shown = drop_modalities(available, share, torch.Generator().manual_seed(seed))
    assert not (shown & ~available).any()
    assert torch.equal(shown.any(1), available.any(1))


def test_modality_dropout_reaches_every_subset_alike() -> None:
    available = torch.tensor([[True, True, True], [True, False, True]]).repeat_interleave(7000, 0)
    shown = drop_modalities(available, 1.0, torch.Generator().manual_seed(0))
    codes = (shown * torch.tensor([1, 2, 4])).sum(1)
    full, pair = torch.bincount(codes[:7000], minlength=8), torch.bincount(codes[7000:], minlength=8)
    assert full[0] == 0
    assert (full[1:] - 1000).abs().max() < 150
    assert pair.nonzero().flatten().tolist() == [1, 4, 5]
    kept = drop_modalities(available, 0.0, torch.Generator().manual_seed(0))
    assert torch.equal(kept, available)
    assert modality_subsets().shape == (7, 3)


def test_only_matrices_decay_and_the_rate_rises_and_falls() -> None:
    model = MIAR.for_dataset(SMALL, made_dataset(30))
    optimizer = build_optimizer([model], TrainingConfig(weight_decay=0.1))
    adapters, decayed, free = optimizer.param_groups
    assert adapters["lr"] == pytest.approx(0.1 * decayed["lr"])
    assert {id(p) for p in adapters["params"]} == {id(p) for p in model.adapters.parameters() if p.dim() >= 2}
    assert all(p.dim() >= 2 for p in decayed["params"])
    assert all(p.dim() < 2 for p in free["params"])
    assert free["weight_decay"] == 0
    counts = [len(group["params"]) for group in optimizer.param_groups]
    assert sum(counts) == sum(p.requires_grad for p in model.parameters())
    schedule = build_schedule(optimizer, 100, TrainingConfig(learning_rate=1.0, warmup_share=0.1))
    rates = []
    for _ in range(100):
        rates.append(schedule.get_last_lr()[-1])
        optimizer.step()
        schedule.step()
    assert int(np.argmax(rates)) in (9, 10)
    assert all(earlier >= later for earlier, later in pairwise(rates[10:]))
    assert rates[-1] < 0.02


def test_averaged_weights_follow_and_smooth() -> None:
    model = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.zeros_(model.weight)
    averaged = AveragedWeights(model, 0.5)
    torch.nn.init.ones_(model.weight)
    values = []
    for _ in range(30):
        averaged.update(model)
        values.append(float(averaged.model.weight.detach()))
    assert values[0] == pytest.approx(1 - 1 / 11)
    assert values[-1] == pytest.approx(1.0, abs=1e-4)
    immediate = AveragedWeights(model, 0.0)
    torch.nn.init.constant_(model.weight, 3.0)
    immediate.update(model)
    assert float(immediate.model.weight.detach()) == 3.0
