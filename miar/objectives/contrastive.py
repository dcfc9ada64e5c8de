"""Contrastive alignment of the modalities of one clip.

[paper] MIAR aligns modalities by contrastive learning; MGCMA's instance level is a contrastive mapping of speech-text
pairs. Our reading of both: symmetric InfoNCE (van den Oord et al. 2018; Radford et al. 2021) between the shared
representations of every two modalities (of MIAR's feature tokens, or of MGCMA's pooled sequences), in which clips with
nearly the same label are not negatives, since pushing them apart would work against the task.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from itertools import combinations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

INITIAL_TEMPERATURE = 0.2
TEMPERATURE_RANGE = (0.05, 1.0)


class Temperature(nn.Module):
    """A learned temperature t, above 0: calling it gives log t, kept within :data:`TEMPERATURE_RANGE`."""

    def __init__(self) -> None:
        super().__init__()
        self.log = nn.Parameter(torch.tensor(math.log(INITIAL_TEMPERATURE)))

    def forward(self) -> Tensor:
        low, high = TEMPERATURE_RANGE
        return self.log.clamp(math.log(low), math.log(high))


def info_nce(first: Tensor, second: Tensor, log_temperature: Tensor, not_negative: Tensor) -> Tensor:
    """Symmetric InfoNCE of S_ij = u_i . v_j / t.

    Args:
        first, second: (n, p) of unit length.
        log_temperature: log t, learned.
        not_negative: see :func:`symmetric_info_nce`.
    """
    return symmetric_info_nce(first @ second.T * torch.exp(-log_temperature), not_negative)


def symmetric_info_nce(similarity: Tensor, not_negative: Tensor) -> Tensor:
    """L = 1/2 [CE(S, i) + CE(S^T, i)]; pairs (i, i) are positive.

    Args:
        similarity: (n, n) S.
        not_negative: (n, n) bool, pairs (i, j), i != j, to leave out of the denominator; symmetric.
    """
    own = torch.eye(len(similarity), dtype=torch.bool, device=similarity.device)
    similarity = similarity.masked_fill(not_negative & ~own, -torch.inf)
    positive = torch.arange(len(similarity), device=similarity.device)
    return 0.5 * (F.cross_entropy(similarity, positive) + F.cross_entropy(similarity.T, positive))


def near_labels(target: Tensor, tolerance: float) -> Tensor:
    """(n, n) bool: pairs of clips whose targets differ by at most ``tolerance``; 0 means the same class."""
    return (target[:, None] - target[None, :]).abs() <= tolerance


def over_pairs(
    names: Iterable[str],
    present: Mapping[str, Tensor],
    near: Tensor,
    loss: Callable[[str, str, Tensor, Tensor], Tensor],
) -> Tensor:
    """Mean of ``loss`` over every two modalities that at least two clips have both; 0 where there is no such pair.

    Args:
        present: modality -> (B,) bool.
        near: (B, B) bool, pairs that are no negatives.
        loss: of two modalities, the positions (n,) of the clips that have both, and ``near`` among them (n, n).
    """
    terms = []
    for first, second in combinations(names, 2):
        both = torch.nonzero(present[first] & present[second]).squeeze(1)
        if len(both) >= 2:
            terms.append(loss(first, second, both, near[both][:, both]))
    return torch.stack(terms).mean() if terms else torch.zeros((), device=near.device)


def alignment_loss(
    shared: Mapping[str, Tensor], present: Mapping[str, Tensor], near: Tensor, log_temperature: Tensor
) -> Tensor:
    """:func:`info_nce` :func:`over_pairs` of modalities.

    Args:
        shared: modality -> u_m (B, p).
        present: modality -> (B,) bool.
        near: (B, B) bool, pairs that are no negatives.
    """

    def pair(first: str, second: str, both: Tensor, masked: Tensor) -> Tensor:
        return info_nce(shared[first][both], shared[second][both], log_temperature, masked)

    return over_pairs(shared, present, near, pair)
