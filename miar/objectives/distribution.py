"""MGCMA's distribution level: each sequence a Gaussian, those of one clip drawn together.

[paper] (MGCMA, arXiv 2412.20821) Gaussian representations of speech and text, their 2-Wasserstein distance, and a
similarity made of it that is trained contrastively. Our reading:

    N_m        = N(mu_m, diag sigma_m^2), mu and log sigma by learned heads on the pooled sequence H_m
    W2^2(m, n) = |mu_m - mu_n|^2 + |sigma_m - sigma_n|^2        (Givens & Shortt 1984, diagonal covariances)
    Sim        = -a W2^2 / d + b, a > 0 learned
    L          = symmetric InfoNCE on Sim over the clips of a batch

b is the same for every pair, so it cancels in InfoNCE's softmax, and there is none to learn here.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from miar.models.blocks import AttentionPool
from miar.models.encoder import Encoded
from miar.objectives.contrastive import over_pairs, symmetric_info_nce

INITIAL_SCALE = 5.0
SCALE_RANGE = (0.5, 50.0)
"""Of a: the reciprocal of a temperature."""
LOG_SIGMA_RANGE = (-5.0, 3.0)


@dataclass
class Gaussian:
    """N(mu, diag sigma^2) of n sequences."""

    mean: Tensor
    """(n, p)"""
    sigma: Tensor
    """(n, p), above 0."""

    def of(self, rows: Tensor) -> "Gaussian":
        """Those at ``rows``."""
        return Gaussian(self.mean[rows], self.sigma[rows])


def wasserstein(first: Gaussian, second: Gaussian) -> Tensor:
    """(n, m) squared 2-Wasserstein distances W2^2 between n and m Gaussians with diagonal covariance."""
    one, other = (torch.cat([each.mean, each.sigma], dim=1) for each in (first, second))
    squares = one.square().sum(1)[:, None] + other.square().sum(1)[None]
    return (squares - 2 * one @ other.T).clamp_min(0.0)


class GaussianHead(nn.Module):
    """One sequence to one Gaussian: H (B, L, d), mask (B, L) -> p dimensions."""

    def __init__(self, width: int, shared_width: int) -> None:
        super().__init__()
        self.pool = AttentionPool(width, 1, 0.0)
        self.out = nn.Linear(width, 2 * shared_width)

    def forward(self, sequence: Encoded) -> Gaussian:
        mean, log_sigma = self.out(self.pool(sequence.steps.float(), sequence.mask)).chunk(2, dim=-1)
        return Gaussian(mean, log_sigma.clamp(*LOG_SIGMA_RANGE).exp())


class DistributionAlignment(nn.Module):
    """The loss, its heads, and its scale a."""

    def __init__(self, modalities: tuple[str, ...], width: int, shared_width: int) -> None:
        super().__init__()
        self.shared_width = shared_width
        self.heads = nn.ModuleDict({name: GaussianHead(width, shared_width) for name in modalities})
        self.log_scale = nn.Parameter(torch.tensor(math.log(INITIAL_SCALE)))

    @property
    def scale(self) -> Tensor:
        """a"""
        low, high = SCALE_RANGE
        return self.log_scale.clamp(math.log(low), math.log(high)).exp()

    def forward(self, sequences: Mapping[str, Encoded], present: Mapping[str, Tensor], near: Tensor) -> Tensor:
        """Mean over every two modalities, each over the clips that have both; 0 where none do.

        Args:
            sequences: modality -> H_m (B, L_m, d).
            present: modality -> (B,) bool.
            near: (B, B) bool, pairs of clips that are no negatives.
        """
        gaussians = {name: self.heads[name](sequence) for name, sequence in sequences.items()}

        def pair(first: str, second: str, both: Tensor, masked: Tensor) -> Tensor:
            distance = wasserstein(gaussians[first].of(both), gaussians[second].of(both)) / self.shared_width
            return symmetric_info_nce(-self.scale * distance, masked)

        return over_pairs(gaussians, present, near, pair)
