"""Bootstrap confidence intervals that respect who speaks.

Clips of one speaker or video resemble each other, so whole groups are drawn, with replacement, never single
clips (the cluster bootstrap; Field and Welsh, 2007). The figures of a sample follow from sums per group, so
that thousands of samples cost one matrix product.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from miar.evaluation.metrics import is_constant

Array = NDArray[np.float64]

_DRAWN_AT_ONCE = 2**22
"""Most counts (samples x groups) in memory at a time: 32 MiB."""


@dataclass(frozen=True)
class Interval:
    """A percentile interval."""

    low: float
    high: float
    level: float
    n_groups: int


def bootstrap_intervals(
    target: ArrayLike,
    prediction: ArrayLike,
    groups: Sequence[Hashable],
    *,
    n_samples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> dict[str, Interval | None]:
    """Intervals of ``corr`` and ``mae`` over samples of whole groups.

    Args:
        target: (N,) finite.
        prediction: (N,) finite.
        groups: (N,) the speaker or video of each clip.

    Returns:
        Metric -> interval; ``None`` where there are fewer than two groups, or the correlation is undefined.
    """
    truth, guess = np.asarray(target, np.float64), np.asarray(prediction, np.float64)
    order: dict[Hashable, int] = {}
    index = np.array([order.setdefault(group, len(order)) for group in groups], np.intp)
    if len(order) < 2:
        return {"corr": None, "mae": None}
    x, y = _standardised(truth), _standardised(guess)
    per_clip = [np.ones(len(truth)), np.abs(guess - truth), x, y, x * y, x * x, y * y]
    sums = [np.bincount(index, values, len(order)) for values in per_clip]
    per_group = np.stack(sums, axis=1, dtype=np.float64)
    means = _sampled_means(per_group, n_samples, np.random.default_rng(seed))
    figures = {"corr": _correlation(*means[:, 2:].T), "mae": means[:, 1]}
    return {name: _interval(values, level, len(order)) for name, values in figures.items()}


def _standardised(values: Array) -> Array:
    """Centred and of deviation 1, so that sums of squares keep their digits; NaN if constant."""
    if is_constant(values):
        return np.full_like(values, np.nan)
    return (values - values.mean()) / values.std()


def _sampled_means(per_group: Array, n_samples: int, generator: np.random.Generator) -> Array:
    """(S, K) mean per clip of the K sums of ``per_group`` (G, K); column 0 counts clips."""
    n_groups = len(per_group)
    chances = np.full(n_groups, 1 / n_groups)
    step = max(1, _DRAWN_AT_ONCE // n_groups)
    sums = [
        generator.multinomial(n_groups, chances, min(step, n_samples - start)).astype(np.float64) @ per_group
        for start in range(0, n_samples, step)
    ]
    totals = np.concatenate(sums)
    return totals / totals[:, :1]


def _correlation(x: Array, y: Array, xy: Array, xx: Array, yy: Array) -> Array:
    """(S,) Pearson's correlation from means of products; NaN where a sample happens to be constant."""
    spread_x, spread_y = xx - x**2, yy - y**2
    varies = (spread_x > 1e-9) & (spread_y > 1e-9)
    return (xy - x * y) / np.sqrt(np.where(varies, spread_x * spread_y, np.nan))


def _interval(values: Array, level: float, n_groups: int) -> Interval | None:
    defined = values[np.isfinite(values)]
    if len(defined) == 0:
        return None
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high), level, n_groups)
