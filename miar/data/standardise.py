"""Mean and deviation of features, over the clips a model is trained on and no others."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from miar.data.dataset import Ragged

DEAD_DEVIATION = 1e-5
"""A column that varies less than this, or than 1e-6 of its own mean, carries nothing: its scale becomes 0."""
DEVIATION_FLOOR = 1e-4
"""Smallest deviation that a live column is divided by."""

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Moments:
    """How one set of columns is standardised: ``(x - mean) * scale``."""

    mean: FloatArray
    """(D,)"""
    scale: FloatArray
    """(D,) 1 / deviation; 0 for a dead column, which is thereby dropped."""


class _Sums:
    """Running count, mean and squared deviation per column (Chan et al. 1979), so no column loses its digits."""

    def __init__(self, columns: int) -> None:
        self.count = np.zeros(columns)
        self.mean = np.zeros(columns)
        self.squares = np.zeros(columns)

    def add(self, values: NDArray[np.floating], known: NDArray[np.bool_]) -> None:
        """``values`` and ``known`` (n, D)."""
        count = known.sum(axis=0).astype(np.float64)
        at_least_one = np.maximum(count, 1.0)
        clean = np.where(known, values, 0.0).astype(np.float64)
        mean = clean.sum(axis=0) / at_least_one
        squares = np.where(known, (clean - mean) ** 2, 0.0).sum(axis=0)
        total = np.maximum(self.count + count, 1.0)
        delta = mean - self.mean
        self.squares += squares + np.where(count > 0, delta**2 * self.count * count / total, 0.0)
        self.mean += np.where(count > 0, delta * count / total, 0.0)
        self.count += count

    def moments(self) -> Moments:
        deviation = np.sqrt(self.squares / np.maximum(self.count, 1.0))
        dead = deviation <= np.maximum(DEAD_DEVIATION, 1e-6 * np.abs(self.mean))
        return Moments(self.mean, np.where(dead, 0.0, 1.0 / np.maximum(deviation, DEVIATION_FLOOR)))


def sequence_moments(sequences: Ragged, voiced: NDArray[np.bool_], pitch: int | None = None) -> Moments:
    """Moments over all frames of all ``sequences``; non-finite values are left out.

    Args:
        voiced: (D,) columns that mean nothing in unvoiced frames, which are left out of their moments: most are 0
            there, the amplitudes of formants are -201.
        pitch: the column that is above 0 in voiced frames alone; needed where ``voiced`` has any.
    """
    sums = _Sums(sequences.columns)
    for index in np.flatnonzero(sequences.lengths).tolist():
        values = sequences[index]
        known = np.isfinite(values)
        if pitch is not None:
            known &= ~voiced | (values[:, [pitch]] > 0)
        sums.add(values, known)
    return sums.moments()


def vector_moments(vectors: NDArray[np.floating]) -> Moments:
    """Moments over the rows of ``vectors`` (N, S); non-finite values are left out."""
    sums = _Sums(vectors.shape[1])
    sums.add(vectors, np.isfinite(vectors))
    return sums.moments()
