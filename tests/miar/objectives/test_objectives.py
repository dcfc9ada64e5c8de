"""Each objective against its formula, and its limits."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from miar.objectives.contrastive import alignment_loss, info_nce, near_labels
from miar.objectives.normalization import MIN_CLIPS, moment_distance, normalization_loss
from miar.objectives.task import classification_loss, regression_loss


def units(count: int, width: int, seed: int) -> torch.Tensor:
    return F.normalize(torch.randn(count, width, generator=torch.Generator().manual_seed(seed)), dim=-1)


def test_info_nce_by_hand() -> None:
    first, second = units(5, 3, 0), units(5, 3, 1)
    temperature = 0.3
    keep = np.ones((5, 5), bool)
    keep[0, 2] = keep[2, 0] = False
    scores = np.exp((first @ second.T).numpy() / temperature) * keep
    rows = -np.log(np.diag(scores) / scores.sum(1)).mean()
    columns = -np.log(np.diag(scores) / scores.sum(0)).mean()
    found = info_nce(first, second, torch.tensor(math.log(temperature)), torch.from_numpy(~keep))
    assert float(found) == pytest.approx((rows + columns) / 2, rel=1e-5)


def test_info_nce_draws_pairs_together_and_learns_its_temperature() -> None:
    first = units(8, 4, 0).requires_grad_()
    log_temperature = torch.tensor(math.log(0.2), requires_grad=True)
    none = torch.zeros(8, 8, dtype=torch.bool)
    second = units(8, 4, 1)
    info_nce(F.normalize(first, dim=-1), second, log_temperature, none).backward()
    assert first.grad is not None
    assert log_temperature.grad is not None
    assert log_temperature.grad != 0
    with torch.no_grad():
        closer = F.normalize(first - 0.5 * first.grad / first.grad.norm(), dim=-1)
        before, after = (info_nce(one, second, log_temperature, none) for one in (first, closer))
    assert after < before


def test_near_labels_are_no_negatives() -> None:
    near = near_labels(torch.tensor([0.0, 0.4, 2.0]), 0.5)
    assert near.tolist() == [[True, True, False], [True, True, False], [False, False, True]]
    everything = torch.ones(6, 6, dtype=torch.bool)
    assert float(info_nce(units(6, 4, 0), units(6, 4, 1), torch.tensor(0.0), everything)) == 0.0


def test_alignment_reads_only_clips_that_have_both() -> None:
    shared = {name: units(10, 4, seed) for seed, name in enumerate(("text", "audio", "face"))}
    present = {name: torch.ones(10, dtype=torch.bool) for name in shared}
    present["audio"][:4] = False
    present["face"][:] = False
    near = torch.zeros(10, 10, dtype=torch.bool)
    found = alignment_loss(shared, present, near, torch.tensor(0.0))
    expected = info_nce(shared["text"][4:], shared["audio"][4:], torch.tensor(0.0), near[4:, 4:])
    assert float(found) == pytest.approx(float(expected))
    shared["face"] = torch.full((10, 4), float("nan"))
    assert float(alignment_loss(shared, present, near, torch.tensor(0.0))) == pytest.approx(float(expected))
    present["audio"][:] = False
    assert float(alignment_loss(shared, present, near, torch.tensor(0.0))) == 0.0


def test_moment_distance_by_hand() -> None:
    first, second = units(20, 3, 0), units(30, 3, 1)
    expected = (
        np.square(first.mean(0) - second.mean(0)).sum()
        + np.square(np.cov(first.T.numpy()) - np.cov(second.T.numpy())).sum()
    )
    assert float(moment_distance(first, second)) == pytest.approx(float(expected), rel=1e-4)
    assert float(moment_distance(first, first)) == 0.0


def test_normalization_needs_enough_clips_of_each() -> None:
    shared = {"text": units(40, 4, 0), "audio": units(40, 4, 1), "face": units(40, 4, 2)}
    present = {name: torch.ones(40, dtype=torch.bool) for name in shared}
    present["face"][MIN_CLIPS - 1 :] = False
    found = normalization_loss(shared, present)
    assert float(found) == pytest.approx(float(moment_distance(shared["text"], shared["audio"])))
    present["audio"][MIN_CLIPS - 1 :] = False
    assert float(normalization_loss(shared, present)) == 0.0
    present["audio"][MIN_CLIPS - 1] = True
    expected = moment_distance(shared["text"], shared["audio"][:MIN_CLIPS])
    assert float(normalization_loss(shared, present)) == pytest.approx(float(expected))


def test_task_losses() -> None:
    prediction, target = torch.tensor([0.0, 0.0]), torch.tensor([0.5, 3.0])
    assert float(regression_loss(prediction, target, 1.0)) == pytest.approx((0.125 + 2.5) / 2)
    assert float(regression_loss(prediction, target, float("inf"))) == pytest.approx((0.125 + 4.5) / 2)
    logits = torch.tensor([[2.0, 0.0, -1.0]])
    assert float(classification_loss(logits, torch.tensor([0.0]), 0.0)) == pytest.approx(
        float(torch.logsumexp(logits, 1) - 2.0)
    )
