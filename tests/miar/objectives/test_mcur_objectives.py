"""What MCUR adds to the objective, each part against its formula in plain Python, and at its edges."""

import math
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from miar.models.config import MCURConfig
from miar.models.target import TargetSpec
from miar.objectives.combination import CombinationContrast, categories, combination_codes, combination_loss
from miar.objectives.distillation import TEMPERATURE, distillation_loss
from miar.objectives.sample_weights import WEIGHT_RANGE, sample_weights, signed_strength
from miar.objectives.task import classification_loss, regression_loss
from miar.objectives.uncertainty import VarianceHead, beta_nll, entropy

NUMBER = TargetSpec("sentiment", base=0.5, deviation=2.0)
CLASSES = TargetSpec("mood", math.nan, math.nan, ("a", "b", "c"), (0.2, 0.3, 0.5))


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# --- Combinations -----------------------------------------------------------------------------------------


def by_hand(points: np.ndarray, category: list[int], combination: list[int], temperature: float) -> tuple[float, float]:
    count, losses = len(points), []
    for i in range(count):
        positive = [
            j for j in range(count) if j != i and (category[j], combination[j]) == (category[i], combination[i])
        ]
        negative = [j for j in range(count) if category[j] != category[i]]
        if not positive:
            continue
        scores = {j: math.exp(float(points[i] @ points[j]) / temperature) for j in positive + negative}
        losses.append(-sum(math.log(scores[j] / sum(scores.values())) for j in positive) / len(positive))
    return (sum(losses) / len(losses) if losses else 0.0), 1 - len(losses) / count


@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(1, 3)), min_size=1, max_size=12),
    st.floats(0.1, 1.0),
)
@settings(max_examples=80, deadline=None)
def test_combination_loss_by_hand(rows: list[tuple[int, int]], temperature: float) -> None:
    points = F.normalize(draw(len(rows), 4).double(), dim=1)
    category, combination = (list(column) for column in zip(*rows, strict=True))
    loss, skipped = combination_loss(
        points, torch.tensor(category), torch.tensor(combination), torch.tensor(math.log(temperature))
    )
    expected, expected_skipped = by_hand(points.numpy(), category, combination, temperature)
    assert float(loss) == pytest.approx(expected, rel=1e-5, abs=1e-6)
    assert float(skipped) == pytest.approx(expected_skipped, abs=1e-6)


def test_the_same_category_under_other_modalities_is_neither_near_nor_far() -> None:
    points = draw(4, 3).requires_grad_()
    category, combination = torch.tensor([0, 0, 0, 1]), torch.tensor([1, 1, 2, 1])
    loss, skipped = combination_loss(points, category, combination, torch.tensor(0.0))
    loss.backward()
    assert points.grad is not None
    assert torch.isfinite(points.grad).all()
    assert (points.grad[2] == 0).all(), "alone in its category and combination: no anchor, and no other's negative"
    assert (points.grad[[0, 1, 3]] != 0).any(1).all()
    assert float(skipped) == pytest.approx(0.5)


@pytest.mark.parametrize("count", [0, 1, 3])
def test_without_positives_every_view_is_skipped(count: int) -> None:
    module = CombinationContrast(8, 4)
    available = torch.ones(count, 3, dtype=torch.bool)
    loss, skipped = module(draw(count, 8), torch.arange(count), available)
    assert (float(loss), float(skipped)) == (0.0, 1.0)


def test_categories() -> None:
    assert categories(torch.tensor([2.0, 0.0, 2.0]), CLASSES, 0.0).tolist() == [2, 0, 2]
    values = torch.tensor([-2.4, -0.0, 0.0, 0.2, 3.0])
    assert categories(values, NUMBER, 0.0).tolist() == [-1, 0, 0, 1, 1]
    assert categories(values, NUMBER, 0.5).tolist() == [round((value - 0.5) / 1.0) for value in values.tolist()]
    every = torch.tensor(list(product([False, True], repeat=3)))
    assert len(set(combination_codes(every).tolist())) == 8


# --- Distillation -----------------------------------------------------------------------------------------


def test_distillation_by_hand() -> None:
    subset, whole = draw(5, 1).requires_grad_(), draw(5, 1, seed=1).requires_grad_()
    loss = distillation_loss(subset, whole, classes=False)
    pairs = zip(subset.flatten().tolist(), whole.flatten().tolist(), strict=True)
    assert float(loss.detach()) == pytest.approx(sum((one - other) ** 2 for one, other in pairs) / 10, rel=1e-5)
    subset, whole = draw(2, 3).requires_grad_(), draw(2, 3, seed=1).requires_grad_()
    loss = distillation_loss(subset, whole, classes=True)
    expected = 0.0
    for row in range(2):
        said, meant = (np.exp(each[row].detach().double().numpy() / TEMPERATURE) for each in (subset, whole))
        said, meant = said / said.sum(), meant / meant.sum()
        expected += float((meant * np.log(meant / said)).sum()) * TEMPERATURE**2 / 2
    assert float(loss.detach()) == pytest.approx(expected, rel=1e-5)
    loss.backward()
    assert subset.grad is not None
    assert whole.grad is None, "what all modalities say stays as it is"


@pytest.mark.parametrize("classes", [False, True])
def test_distillation_of_no_clips_and_of_the_same_is_0(classes: bool) -> None:
    none = draw(0, 3)
    assert float(distillation_loss(none, none, classes=classes)) == 0.0
    same = draw(4, 3)
    assert float(distillation_loss(same, same, classes=classes)) == pytest.approx(0.0, abs=1e-6)


# --- Uncertainty and weights ------------------------------------------------------------------------------


def test_entropy_and_beta_nll_by_hand() -> None:
    shares = np.array([[0.5, 0.25, 0.25], [1.0, 0.0, 0.0]])
    found = entropy(torch.from_numpy(np.log(np.maximum(shares, 1e-30))))
    np.testing.assert_allclose(found.numpy(), [1.5 * math.log(2), 0.0], atol=1e-9)
    error, log_variance = torch.tensor([0.5, -2.0]), torch.tensor([0.3, -1.0], requires_grad=True)
    loss = beta_nll(error, log_variance, beta=0.5)
    rows = [
        math.exp(v) ** 0.5 * (e**2 / (2 * math.exp(v)) + v / 2) for e, v in zip([0.5, -2.0], [0.3, -1.0], strict=True)
    ]
    assert float(loss) == pytest.approx(sum(rows) / 2, rel=1e-5)
    loss.backward()
    # The factor is held fixed: only the likelihood is differentiated.
    slopes = [math.exp(v) ** 0.5 * (1 - e**2 / math.exp(v)) / 4 for e, v in ((0.5, 0.3), (-2.0, -1.0))]
    assert log_variance.grad is not None
    np.testing.assert_allclose(log_variance.grad.numpy(), slopes, rtol=1e-4)


def test_the_variance_head_learns_where_errors_are_large_and_touches_nothing_else() -> None:
    torch.manual_seed(0)
    head, fused = VarianceHead(4), draw(400, 4).requires_grad_()
    wide = fused[:, 0].detach() > 0
    error = draw(400, seed=1) * torch.where(wide, 2.0, 0.2)
    optimizer = torch.optim.Adam(head.parameters(), 3e-2)
    for _ in range(200):
        optimizer.zero_grad()
        beta_nll(error, head(fused)).backward()
        optimizer.step()
    assert fused.grad is None
    guess = head(fused).detach()
    assert float(guess[wide].mean() - guess[~wide].mean()) > 1.0


@given(st.lists(st.floats(-50, 50), min_size=2, max_size=40), st.floats(-40, 40))
@settings(max_examples=150, deadline=None)
def test_sample_weights_have_mean_1_within_their_bounds(uncertainty: list[float], strength: float) -> None:
    given_ = torch.tensor(uncertainty, dtype=torch.float64)
    weights = sample_weights(given_, strength).double()
    assert float(weights.mean()) == pytest.approx(1.0, abs=1e-5)
    assert WEIGHT_RANGE[0] - 1e-6 <= float(weights.min())
    assert float(weights.max()) <= WEIGHT_RANGE[1] + 1e-6
    order = weights[given_.argsort()] * (1 if strength >= 0 else -1)
    assert (order.diff() >= -1e-6).all(), "uncertain clips weigh more where the strength is above 0"


def test_sample_weights_by_hand() -> None:
    uncertainty = torch.tensor([1.0, 2.0, 3.0, 10.0])
    z = (uncertainty - 4.0) / math.sqrt(((3**2) + (2**2) + 1 + 6**2) / 4)
    raw = [math.exp(0.7 * float(value)) for value in z]
    low, high = 0.0, 10.0
    for _ in range(80):
        middle = (low + high) / 2
        mean = sum(min(2.0, max(0.5, middle * one)) for one in raw) / 4
        low, high = (middle, high) if mean < 1 else (low, middle)
    expected = [min(2.0, max(0.5, low * one)) for one in raw]
    np.testing.assert_allclose(sample_weights(uncertainty, 0.7).numpy(), expected, rtol=1e-5)


def test_where_there_is_nothing_to_tell_apart_all_weigh_1() -> None:
    assert sample_weights(torch.full((5,), 3.3), 1.0).tolist() == [1.0] * 5
    assert sample_weights(torch.tensor([4.0]), 1.0).tolist() == [1.0]
    assert sample_weights(torch.zeros(0), 1.0).tolist() == []
    assert sample_weights(draw(5), 0.0).tolist() == [1.0] * 5
    assert not sample_weights(draw(5).requires_grad_(), 1.0).requires_grad


def test_the_schedule_of_sample_weights() -> None:
    config = MCURConfig(sample_weighting_strength=0.8, sample_weighting_warmup=0.5)
    found = {
        kind: [signed_strength(replace(config, sample_weighting=kind), progress) for progress in (0, 0.25, 0.5, 1)]
        for kind in ("off", "certain", "uncertain", "certain_first")
    }
    assert found["off"] == [0.0] * 4
    assert found["certain"] == pytest.approx([0.0, -0.4, -0.8, -0.8])
    assert found["uncertain"] == pytest.approx([0.0, 0.4, 0.8, 0.8])
    assert found["certain_first"] == pytest.approx([0.0, -0.2, 0.0, 0.8])
    assert signed_strength(replace(config, sample_weighting_warmup=0.0), 0.0) == pytest.approx(-0.8)


def test_task_losses_with_weights() -> None:
    prediction, target, weights = torch.tensor([0.0, 0.0]), torch.tensor([0.5, 3.0]), torch.tensor([1.5, 0.5])
    assert float(regression_loss(prediction, target, 1.0, weights)) == pytest.approx((1.5 * 0.125 + 0.5 * 2.5) / 2)
    squares = (1.5 * 0.125 + 0.5 * 4.5) / 2
    assert float(regression_loss(prediction, target, float("inf"), weights)) == pytest.approx(squares)
    logits, codes = draw(2, 3), torch.tensor([0.0, 2.0])
    each = [float(classification_loss(logits[[i]], codes[[i]], 0.1)) for i in range(2)]
    found = float(classification_loss(logits, codes, 0.1, weights))
    assert found == pytest.approx((1.5 * each[0] + 0.5 * each[1]) / 2, rel=1e-5)
