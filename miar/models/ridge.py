"""Ridge regression in closed form, with penalties chosen by cross-validation over groups.

Features come in named blocks, one per modality. Everything is fitted on the rows given to :func:`fit_ridge`:
means and deviations, which columns vary, the scaling of blocks and the penalties. Several targets share one design
and its decomposition, and each has a penalty of its own.
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
    """(D,) 1 / deviation, or 1; 0 for a column that does not vary."""
    indicate: bool
    """Whether a column says which clips lack the block; only where that differs between the fitted clips."""
    limit: float
    """Deviations at which columns are clipped."""

    @classmethod
    def fit(cls, block: Array, standardise: bool) -> "_BlockScaler":
        known = np.isfinite(block)
        count = np.maximum(known.sum(axis=0), 1)
        mean = np.where(known, block, 0).sum(axis=0) / count
        deviation = np.sqrt(np.where(known, (block - mean) ** 2, 0).sum(axis=0) / count)
        dead = deviation <= 1e-6 * np.maximum(np.abs(mean), 1e-6)
        absent = ~known.any(axis=1)
        scale = np.where(dead, 0, 1 / np.where(dead, 1, deviation) if standardise else 1)
        limit = LIMIT if standardise else np.inf
        return cls(mean, scale, bool(absent.any() and not absent.all()), limit)

    def __call__(self, block: Array) -> Array:
        known = np.isfinite(block)
        columns = np.where(known, (np.where(known, block, 0) - self.mean) * self.scale, 0)
        columns = columns.clip(-self.limit, self.limit)
        if not self.indicate:
            return columns
        absent = ~known.any(axis=1, keepdims=True)
        return np.concatenate([columns, absent.astype(np.float64)], axis=1)


@dataclass(frozen=True)
class Ridge:
    """Fitted ridge regressions of O targets over blocks."""

    scalers: dict[str, _BlockScaler]
    balanced: bool
    """Whether blocks count alike, however many columns they have."""
    penalties: Array
    """(O,)"""
    center: Array
    weights: Array
    """(columns of the design, O)"""
    intercept: Array
    """(O,)"""

    def predict(self, blocks: Blocks) -> Array:
        """(N, O) predictions for the rows of ``blocks``."""
        return (_design(self.scalers, blocks, self.balanced) - self.center) @ self.weights + self.intercept

    def affine(self) -> tuple[Array, Array]:
        """Weights (D, O) and bias (O,) that say the same of the columns of the one block as they come.

        For a regression on one block without unknown values, fitted with ``standardise=False``: clipping is not affine.
        """
        (scaler,) = self.scalers.values()
        if scaler.limit < np.inf or scaler.indicate:
            raise ValueError("a regression that clips its features, or tells which are absent, is not affine in them")
        weights = scaler.scale[:, None] * self.weights
        return weights, self.intercept - self.center @ self.weights - scaler.mean @ weights


def solve_ridge(design: Array, targets: Array, penalties: Sequence[float]) -> Array:
    """Minimise ``|y - X w|^2 + penalty |w|^2`` for each of P penalties and O targets, by one decomposition.

    Args:
        design: (N, D), centred.
        targets: (N, O), centred.
        penalties: P numbers above 0.

    Returns:
        (P, D, O) weights.
    """
    tall = design.shape[0] > design.shape[1]
    # Whichever of X'X (D, D) and XX' (N, N) is smaller: far cheaper than a decomposition of X, and exact enough
    # where the penalty keeps away from 0.
    values, vectors = np.linalg.eigh(design.T @ design if tall else design @ design.T)
    turned = vectors.T @ (design.T @ targets if tall else targets)
    shrunk = turned / (np.maximum(values, 0)[:, None] + np.asarray(penalties)[:, None, None])
    return vectors @ shrunk if tall else design.T @ (vectors @ shrunk)


def fit_ridge(
    blocks: Blocks, targets: Array, groups: Sequence[Hashable], *, standardise: bool = True
) -> tuple[Ridge, Array]:
    """Fit on all rows, with the penalty of each target and the scaling of blocks that predict left-out groups best.

    Args:
        blocks: block name -> (N, D).
        targets: (N, O), finite.
        groups: (N,) rows of one group (a speaker, a video) are left out together.
        standardise: ``False`` where features are standardised and clipped already, and are to be read as they come.

    Returns:
        The regression, and (N, O) its out-of-fold predictions under the chosen setting.

    Raises:
        ValueError: fewer than two groups.
    """
    folds = group_folds(groups)
    scalings = (False, True) if len(blocks) > 1 else (False,)
    candidates = {balanced: _out_of_fold(blocks, targets, folds, balanced, standardise) for balanced in scalings}
    errors = {key: np.square(guess - targets).mean(axis=1) for key, guess in candidates.items()}  # (P, O)
    balanced = min(scalings, key=lambda key: errors[key].min(axis=0).sum())
    chosen, outputs = errors[balanced].argmin(axis=0), np.arange(targets.shape[1])
    scalers, center, intercept, weights = _fit(blocks, targets, balanced, standardise)
    model = Ridge(scalers, balanced, np.asarray(PENALTIES)[chosen], center, weights[chosen, :, outputs].T, intercept)
    return model, candidates[balanced][chosen, :, outputs].T


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


def _out_of_fold(blocks: Blocks, targets: Array, folds: NDArray[np.intp], balanced: bool, standardise: bool) -> Array:
    """(P, N, O) predictions of each row by regressions that saw nothing of its group."""
    predictions = np.empty((len(PENALTIES), *targets.shape))
    for fold in range(folds.max() + 1):
        held = folds == fold
        seen = {name: block[~held] for name, block in blocks.items()}
        scalers, center, intercept, weights = _fit(seen, targets[~held], balanced, standardise)
        design = _design(scalers, {name: block[held] for name, block in blocks.items()}, balanced) - center
        predictions[:, held] = design @ weights + intercept
    return predictions


def _fit(
    blocks: Blocks, targets: Array, balanced: bool, standardise: bool
) -> tuple[dict[str, _BlockScaler], Array, Array, Array]:
    """Scalers, centre of the design, intercept (O,), and weights (P, columns, O) for each of :data:`PENALTIES`."""
    scalers = {name: _BlockScaler.fit(block, standardise) for name, block in blocks.items()}
    design = _design(scalers, blocks, balanced)
    center, intercept = design.mean(axis=0), targets.mean(axis=0)
    return scalers, center, intercept, solve_ridge(design - center, targets - intercept, PENALTIES)


def _design(scalers: dict[str, _BlockScaler], blocks: Blocks, balanced: bool) -> Array:
    parts = [scaler(blocks[name]) for name, scaler in scalers.items()]
    if balanced:
        widest = max(part.shape[1] for part in parts)
        parts = [part * np.sqrt(widest / part.shape[1]) for part in parts]
    return np.concatenate(parts, axis=1)
