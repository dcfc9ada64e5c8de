"""Ridge regression in closed form, with a penalty chosen by cross-validation over groups.

Features come in named blocks, one per modality. Everything is fitted on the rows given to :func:`fit_ridge`:
means and deviations, which columns vary, the scaling of blocks and the penalty.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Blocks = dict[str, Array]
"""Block name -> (N, D) features, NaN where a value is not there."""

LIMIT = 5.0
"""Deviations at which features are clipped, as in the models: a pitch that jumps an octave would rule a line."""

PENALTIES = tuple(10.0 ** (step / 2) for step in range(-4, 13))
"""Half decades from .01 to 1e6; features are standardised, so a penalty compares with the number of rows."""
FOLDS = 5


@dataclass(frozen=True)
class _BlockScaler:
    """How one block becomes columns that ridge can read: standardised, 0 where a value is not there."""

    mean: Array
    scale: Array
    """(D,) 1 / deviation; 0 for a column that does not vary."""
    indicate: bool
    """Whether a column says which clips lack the block; only where that differs between the fitted clips."""

    @classmethod
    def fit(cls, block: Array) -> "_BlockScaler":
        known = np.isfinite(block)
        count = np.maximum(known.sum(axis=0), 1)
        mean = np.where(known, block, 0).sum(axis=0) / count
        deviation = np.sqrt(np.where(known, (block - mean) ** 2, 0).sum(axis=0) / count)
        dead = deviation <= 1e-6 * np.maximum(np.abs(mean), 1e-6)
        absent = ~known.any(axis=1)
        scale = np.where(dead, 0, 1 / np.where(dead, 1, deviation))
        return cls(mean, scale, bool(absent.any() and not absent.all()))

    def __call__(self, block: Array) -> Array:
        known = np.isfinite(block)
        columns = np.where(known, (np.where(known, block, 0) - self.mean) * self.scale, 0).clip(-LIMIT, LIMIT)
        if not self.indicate:
            return columns
        absent = ~known.any(axis=1, keepdims=True)
        return np.concatenate([columns, absent.astype(np.float64)], axis=1)


@dataclass(frozen=True)
class Ridge:
    """A fitted ridge regression over blocks."""

    scalers: dict[str, _BlockScaler]
    balanced: bool
    """Whether blocks count alike, however many columns they have."""
    penalty: float
    center: Array
    weights: Array
    intercept: float

    def predict(self, blocks: Blocks) -> Array:
        """(N,) predictions for the rows of ``blocks``."""
        return (_design(self.scalers, blocks, self.balanced) - self.center) @ self.weights + self.intercept


def solve_ridge(design: Array, target: Array, penalties: Sequence[float]) -> Array:
    """Minimise ``|y - X w|^2 + penalty |w|^2`` for each of P penalties, by one decomposition.

    Args:
        design: (N, D), centred.
        target: (N,), centred.
        penalties: P numbers above 0.

    Returns:
        (D, P) weights.
    """
    tall = design.shape[0] > design.shape[1]
    # Whichever of X'X (D, D) and XX' (N, N) is smaller: far cheaper than a decomposition of X, and exact enough
    # where the penalty keeps away from 0.
    values, vectors = np.linalg.eigh(design.T @ design if tall else design @ design.T)
    shrunk = 1 / (np.maximum(values, 0)[:, None] + np.asarray(penalties)[None, :])
    if tall:
        return vectors @ (shrunk * (vectors.T @ (design.T @ target))[:, None])
    return design.T @ (vectors @ (shrunk * (vectors.T @ target)[:, None]))


def fit_ridge(blocks: Blocks, target: Array, groups: Sequence[Hashable]) -> tuple[Ridge, Array]:
    """Fit on all rows, with the penalty and the scaling of blocks that predict left-out groups best.

    Args:
        blocks: block name -> (N, D).
        target: (N,), finite.
        groups: (N,) rows of one group (a speaker, a video) are left out together.

    Returns:
        The regression, and (N,) its out-of-fold predictions under the chosen setting.

    Raises:
        ValueError: fewer than two groups.
    """
    folds = group_folds(groups)
    scalings = (False, True) if len(blocks) > 1 else (False,)
    candidates = {balanced: _out_of_fold(blocks, target, folds, balanced) for balanced in scalings}
    errors = {key: np.square(guess - target[:, None]).mean(axis=0) for key, guess in candidates.items()}
    balanced = min(scalings, key=lambda key: errors[key].min())
    best = int(errors[balanced].argmin())
    model = _fit(blocks, target, balanced, [PENALTIES[best]])[0]
    return model, candidates[balanced][:, best]


def group_folds(groups: Sequence[Hashable], n_folds: int = FOLDS) -> NDArray[np.intp]:
    """(N,) fold of each row: groups stay whole; from the largest on, each joins the smallest fold so far.

    Raises:
        ValueError: fewer than two groups.
    """
    sizes: dict[Hashable, int] = {}
    for group in groups:
        sizes[group] = sizes.get(group, 0) + 1
    if len(sizes) < 2:
        raise ValueError("cross-validation needs at least two groups")
    load = [0] * min(n_folds, len(sizes))
    fold_of: dict[Hashable, int] = {}
    for group in sorted(sizes, key=lambda name: -sizes[name]):
        fold_of[group] = load.index(min(load))
        load[fold_of[group]] += sizes[group]
    return np.array([fold_of[group] for group in groups], np.intp)


def _out_of_fold(blocks: Blocks, target: Array, folds: NDArray[np.intp], balanced: bool) -> Array:
    """(N, P) predictions of each row by regressions that saw nothing of its group."""
    predictions = np.empty((len(target), len(PENALTIES)))
    for fold in range(folds.max() + 1):
        held = folds == fold
        models = _fit({name: block[~held] for name, block in blocks.items()}, target[~held], balanced, PENALTIES)
        rows = {name: block[held] for name, block in blocks.items()}
        design = _design(models[0].scalers, rows, balanced) - models[0].center
        weights = np.stack([model.weights for model in models], axis=1)
        predictions[held] = design @ weights + models[0].intercept
    return predictions


def _fit(blocks: Blocks, target: Array, balanced: bool, penalties: Sequence[float]) -> list[Ridge]:
    scalers = {name: _BlockScaler.fit(block) for name, block in blocks.items()}
    design = _design(scalers, blocks, balanced)
    center, intercept = design.mean(axis=0), float(target.mean())
    weights = solve_ridge(design - center, target - intercept, penalties)
    return [
        Ridge(scalers, balanced, penalty, center, weights[:, index], intercept)
        for index, penalty in enumerate(penalties)
    ]


def _design(scalers: dict[str, _BlockScaler], blocks: Blocks, balanced: bool) -> Array:
    parts = [scaler(blocks[name]) for name, scaler in scalers.items()]
    if balanced:
        widest = max(part.shape[1] for part in parts)
        parts = [part * np.sqrt(widest / part.shape[1]) for part in parts]
    return np.concatenate(parts, axis=1)
