"""MGCMA's distribution level against its formula in plain Python, and at its edges."""

import math
from itertools import product

import numpy as np
import pytest
import torch

from miar.models.encoder import Encoded
from miar.objectives.contrastive import TEMPERATURE_RANGE, Temperature, symmetric_info_nce
from miar.objectives.distribution import SCALE_RANGE, DistributionAlignment, Gaussian, wasserstein


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


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


@torch.no_grad()
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
        values.append(float(loss.detach()))
    assert all(parameter.grad is not None for parameter in module.parameters())
    assert values[-1] < 0.5 * values[0]
    for extreme in (-1e3, 1e3):
        with torch.no_grad():
            module.log_scale.fill_(extreme)
        assert SCALE_RANGE[0] * 0.999 <= float(module.scale.detach()) <= SCALE_RANGE[1] * 1.001


def test_temperatures_stay_above_0() -> None:
    temperature = Temperature()
    for extreme in (-1e3, 1e3):
        with torch.no_grad():
            temperature.log.fill_(extreme)
        low, high = TEMPERATURE_RANGE
        assert low * 0.999 <= math.exp(float(temperature().detach())) <= high * 1.001
