"""Exact Shapley values of the modalities of a clip (Shapley, 1953).

The players are the clip's available modalities; the worth of a coalition is what the model predicts from them
alone, and the worth of no modality is the training mean. With three players there are at most seven
predictions, so nothing is sampled or approximated.

A coalition is a bit mask over ``MODALITIES``: bit 0 text, bit 1 audio, bit 2 face.
"""

from math import factorial

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def subsets_of(mask: int) -> list[int]:
    """The non-empty subsets of ``mask``, ascending; the last one is ``mask`` itself."""
    return [subset for subset in range(1, mask + 1) if subset & mask == subset]


def to_masks(available: NDArray[np.bool_]) -> NDArray[np.intp]:
    """(N, M) availability -> (N,) bit masks."""
    return available.astype(np.intp) @ (1 << np.arange(available.shape[1], dtype=np.intp))


def shapley_values(worth: Array, mask: int) -> Array:
    """What each modality adds to the prediction, averaged over all orders in which modalities may join.

    Args:
        worth: (N, 2 ** M) worth of each coalition, 0 being the empty one. Only subsets of ``mask`` are read.
        mask: the modalities that these clips have.

    Returns:
        (N, M), NaN for modalities outside ``mask``. A row sums to ``worth[:, mask] - worth[:, 0]``.
    """
    n_modalities = worth.shape[1].bit_length() - 1
    players = mask.bit_count()
    values = np.full((len(worth), n_modalities), np.nan)
    for modality in range(n_modalities):
        player = 1 << modality
        if not mask & player:
            continue
        total = np.zeros(len(worth))
        others = mask & ~player
        for coalition in [0, *subsets_of(others)]:
            joined = coalition.bit_count()
            share = factorial(joined) * factorial(players - joined - 1) / factorial(players)
            total += share * (worth[:, coalition | player] - worth[:, coalition])
        values[:, modality] = total
    return values
