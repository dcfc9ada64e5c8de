"""What MGCMA and MCUR add to the objective, each against its formula worked out in plain Python, and at its edges."""

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
from miar.models.encoder import Encoded
from miar.models.target import TargetSpec
from miar.objectives.combination import CombinationContrast, categories, combination_codes, combination_loss
from miar.objectives.contrastive import TEMPERATURE_RANGE, Temperature, symmetric_info_nce
from miar.objectives.distillation import TEMPERATURE, distillation_loss
from miar.objectives.distribution import SCALE_RANGE, DistributionAlignment, Gaussian, wasserstein
from miar.objectives.sample_weights import WEIGHT_RANGE, sample_weights, signed_strength
from miar.objectives.task import classification_loss, regression_loss
from miar.objectives.uncertainty import VarianceHead, beta_nll, entropy

NUMBER = TargetSpec("sentiment", base=0.5, deviation=2.0)
CLASSES = TargetSpec("mood", math.nan, math.nan, ("a", "b", "c"), (0.2, 0.3, 0.5))


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# --- Distributions ----------------------------------------------------------------------------------------


def square_root(matrix: np.ndarray) -> np.ndarray:
    values, vectors = np.linalg.eigh(matrix)
    return (vectors * np.sqrt(values)) @ vectors.T


def test_wasserstein_is_that_of_gaussians_with_these_covariances() -> None:
    """|mu_1 - mu_2|^2 + tr(S_1 + S_2 - 2 (S_1^1/2 S_2 S_1^1/2)^1/2), which holds for any covariances."""
    first, second = (Gaussian(draw(n, 3, seed=n), draw(n, 3, seed=n + 9).abs() + 0.1) for n in (4, 2))
    found = wasserstein(first, second)
    assert found.shape == (4, 2)
    for i, j in product(range(4), range(2)):
        one, other = (np.diag(each.sigma[k].double().numpy() ** 2) for each, k in ((first, i), (second, j)))
        cross = square_root(square_root(one) @ other @ square_root(one))
        means = float((first.mean[i] - second.mean[j]).double().square().sum())
        assert float(found[i, j]) == pytest.approx(means + np.trace(one + other - 2 * cross), rel=1e-4)
    torch.testing.assert_close(wasserstein(first, first).diagonal(), torch.zeros(4), atol=1e-5, rtol=0)


def sequences(count: int, *names: str) -> dict[str, Encoded]:
    made = {}
    for seed, name in enumerate(names):
        mask = torch.arange(5) < torch.arange(1, count + 1)[:, None].clamp_max(5)
        made[name] = Encoded(torch.where(mask[..., None], draw(count, 5, 8, seed=seed), 0.0), mask)
    return made


def all_present(made: dict[str, Encoded], count: int) -> dict[str, torch.Tensor]:
    return {name: torch.ones(count, dtype=torch.bool) for name in made}


def made_alignment(*names: str) -> DistributionAlignment:
    torch.manual_seed(3)
    return DistributionAlignment(names, 8, 4)


@torch.no_grad()
def test_distribution_alignment_by_hand() -> None:
    module, made = made_alignment("text", "audio"), sequences(4, "text", "audio")
    near = torch.eye(4, dtype=torch.bool)
    near[0, 2] = near[2, 0] = True
    gaussians = {name: module.heads[name](made[name]) for name in made}
    similarity = np.zeros((4, 4))
    for i, j in product(range(4), range(4)):
        text, audio = gaussians["text"], gaussians["audio"]
        distance = (text.mean[i] - audio.mean[j]).square().sum() + (text.sigma[i] - audio.sigma[j]).square().sum()
        similarity[i, j] = -float(module.scale) * float(distance) / 4
    expected = 0.0
    for table in (similarity, similarity.T):
        for i in range(4):
            others = [j for j in range(4) if j == i or not near[i, j]]
            expected += (math.log(sum(math.exp(table[i, j]) for j in others)) - table[i, i]) / 8
    found = module(made, all_present(made, 4), near)
    assert float(found) == pytest.approx(expected, rel=1e-4)
    table = torch.from_numpy(similarity)
    assert float(symmetric_info_nce(table + 7.5, near)) == pytest.approx(expected, rel=1e-4), "b cancels"


def test_distributions_align_every_pair_over_the_clips_that_have_both() -> None:
    names = ("text", "audio", "face")
    module, made = made_alignment(*names), sequences(6, *names)
    near, present = torch.eye(6, dtype=torch.bool), all_present(made, 6)
    pairs = [("text", "audio"), ("text", "face"), ("audio", "face")]
    each = [float(module({name: made[name] for name in pair}, present, near)) for pair in pairs]
    assert float(module(made, present, near)) == pytest.approx(sum(each) / 3, rel=1e-5)
    present["audio"][:3] = False
    made["audio"].steps[:3] = float("nan")
    rest = {name: Encoded(made[name].steps[3:], made[name].mask[3:]) for name in ("text", "audio")}
    expected = float(module(rest, {name: one[3:] for name, one in present.items()}, near[3:, 3:]))
    assert float(module({name: made[name] for name in ("text", "audio")}, present, near)) == pytest.approx(
        expected, rel=1e-5
    )


def test_without_a_pair_there_is_nothing_to_align() -> None:
    module, made = made_alignment("text", "audio"), sequences(4, "text", "audio")
    near, present = torch.eye(4, dtype=torch.bool), all_present(made, 4)
    assert float(module({"text": made["text"]}, present, near)) == 0.0
    present["audio"][1:] = False
    assert float(module(made, present, near)) == 0.0, "one clip has both: nothing to tell it from"


def test_distributions_are_drawn_together_and_their_scale_stays_above_0() -> None:
    module, made = made_alignment("text", "audio"), sequences(16, "text", "audio")
    near, present = torch.eye(16, dtype=torch.bool), all_present(made, 16)
    optimizer = torch.optim.Adam(module.parameters(), 1e-2)
    values = []
    for _ in range(60):
        optimizer.zero_grad()
        loss = module(made, present, near)
        loss.backward()
        optimizer.step()
        values.append(float(loss))
    assert all(parameter.grad is not None for parameter in module.parameters())
    assert values[-1] < 0.5 * values[0]
    for extreme in (-1e3, 1e3):
        with torch.no_grad():
            module.log_scale.fill_(extreme)
        assert SCALE_RANGE[0] * 0.999 <= float(module.scale) <= SCALE_RANGE[1] * 1.001


def test_temperatures_stay_above_0() -> None:
    temperature = Temperature()
    for extreme in (-1e3, 1e3):
        with torch.no_grad():
            temperature.log.fill_(extreme)
        low, high = TEMPERATURE_RANGE
        assert low * 0.999 <= math.exp(float(temperature())) <= high * 1.001


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
    assert float(loss) == pytest.approx(sum((one - other) ** 2 for one, other in pairs) / 10, rel=1e-5)
    subset, whole = draw(2, 3).requires_grad_(), draw(2, 3, seed=1).requires_grad_()
    loss = distillation_loss(subset, whole, classes=True)
    expected = 0.0
    for row in range(2):
        said, meant = (np.exp(each[row].detach().double().numpy() / TEMPERATURE) for each in (subset, whole))
        said, meant = said / said.sum(), meant / meant.sum()
        expected += float((meant * np.log(meant / said)).sum()) * TEMPERATURE**2 / 2
    assert float(loss) == pytest.approx(expected, rel=1e-5)
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
