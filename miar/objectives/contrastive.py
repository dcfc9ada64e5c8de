"""Contrastive alignment of the modalities of one clip.

[paper] MIAR aligns modalities by contrastive learning. Our reading: symmetric InfoNCE (van den Oord et al.
2018; Radford et al. 2021) between the shared representations of every two modalities, in which clips with
nearly the same label are not negatives, since pushing them apart would work against the task.
"""

from collections.abc import Mapping
from itertools import combinations

import torch
import torch.nn.functional as F
from torch import Tensor


def info_nce(first: Tensor, second: Tensor, log_temperature: Tensor, not_negative: Tensor) -> Tensor:
    """Symmetric InfoNCE; pairs (i, i) are positive.

    L = 1/2 [CE(S, i) + CE(S^T, i)],  S_ij = u_i . v_j / t

    Args:
        first, second: (n, p) of unit length.
        log_temperature: log t, learned.
        not_negative: (n, n) bool, pairs (i, j), i != j, to leave out of the denominator; symmetric.
    """
    similarity = first @ second.T * torch.exp(-log_temperature)
    own = torch.eye(len(first), dtype=torch.bool, device=first.device)
    similarity = similarity.masked_fill(not_negative & ~own, -torch.inf)
    positive = torch.arange(len(first), device=first.device)
    return 0.5 * (F.cross_entropy(similarity, positive) + F.cross_entropy(similarity.T, positive))


def near_labels(target: Tensor, tolerance: float) -> Tensor:
    """(n, n) bool: pairs of clips whose targets differ by at most ``tolerance``; 0 means the same class."""
    return (target[:, None] - target[None, :]).abs() <= tolerance


def alignment_loss(
    shared: Mapping[str, Tensor], present: Mapping[str, Tensor], near: Tensor, log_temperature: Tensor
) -> Tensor:
    """Mean of :func:`info_nce` over every two modalities, each over the clips that have both; 0 where none do.

    Args:
        shared: modality -> u_m (B, p).
        present: modality -> (B,) bool.
        near: (B, B) bool, pairs that are no negatives.
    """
    terms = []
    for first, second in combinations(shared, 2):
        both = torch.nonzero(present[first] & present[second]).squeeze(1)
        if len(both) >= 2:
            masked = near[both][:, both]
            terms.append(info_nce(shared[first][both], shared[second][both], log_temperature, masked))
    return torch.stack(terms).mean() if terms else log_temperature.new_zeros(())
