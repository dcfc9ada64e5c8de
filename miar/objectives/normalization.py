"""Drawing the distributions of the modalities together.

[paper] MIAR aligns modalities by normalization. Our reading: the first two moments of the shared
representations over a batch are drawn together, as in deep CORAL (Sun & Saenko 2016) with the means beside
the covariances.
"""

from collections.abc import Mapping
from itertools import combinations

import torch
from torch import Tensor

MIN_CLIPS = 16
"""Fewer clips of a modality than this say too little about its covariance."""


def moment_distance(first: Tensor, second: Tensor) -> Tensor:
    """|mean_1 - mean_2|^2 + |C_1 - C_2|_F^2 of two samples (n, p) and (m, p).

    CORAL's factor 1 / (4 p^2) is left out: the rows are of unit length, so both terms are at most 4 as they
    stand.
    """
    means = (first.mean(0) - second.mean(0)).square().sum()
    return means + (torch.cov(first.T) - torch.cov(second.T)).square().sum()


def normalization_loss(shared: Mapping[str, Tensor], present: Mapping[str, Tensor]) -> Tensor:
    """Mean of :func:`moment_distance` over every two modalities with at least :data:`MIN_CLIPS` clips each; else 0.

    Args:
        shared: modality -> u_m (B, p); present: modality -> (B,) bool.
    """
    samples = {name: shared[name][present[name]] for name in shared}
    enough = [sample for sample in samples.values() if len(sample) >= MIN_CLIPS]
    terms = [moment_distance(first, second) for first, second in combinations(enough, 2)]
    if not terms:
        return next(iter(shared.values())).new_zeros(())
    return torch.stack(terms).mean()
