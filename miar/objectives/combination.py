"""MCUR's MCB-CL: contrast by category and by combination of modalities.

[paper] (MCUR, arXiv 2605.06245) clips with the same emotion category *and* the same available modalities are drawn
together. Our reading: supervised contrast (Khosla et al. 2020) over all views of a batch, in which the same category
under another combination is neither drawn near nor pushed away:

    P(i) = {p != i: category and combination of i}        N(i) = {another category, under any combination}
    l_i  = -1/|P(i)| sum_{p in P(i)} log [exp(z_i z_p / t) / sum_{a in P(i), N(i)} exp(z_i z_a / t)]
    L    = mean of l_i over the i that have a positive

Categories of a number: negative, zero, positive; or bins along its scale.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from miar.models.target import TargetSpec
from miar.objectives.contrastive import Temperature


def categories(target: Tensor, spec: TargetSpec, width: float) -> Tensor:
    """(n,) integers, equal for targets of one category.

    Args:
        target: (n,) labels as they are: values, or class indices.
        width: of a bin in training deviations, one of them around the training mean; 0: negative, zero, positive.
    """
    if spec.classes:
        return target.long()
    if not width:
        return target.sign().long()
    return ((target - spec.base) / (width * spec.deviation)).round().long()


def combination_codes(available: Tensor) -> Tensor:
    """(n, M) bool -> (n,) one integer per combination of modalities."""
    return (available.long() << torch.arange(available.shape[1], device=available.device)).sum(1)


def combination_loss(
    points: Tensor, category: Tensor, combination: Tensor, log_temperature: Tensor
) -> tuple[Tensor, Tensor]:
    """The loss, 0 where no view has a positive, and the share of views that have none.

    Args:
        points: (n, p) z of unit length.
        category, combination: (n,) integers.
    """
    same = category[:, None] == category[None]
    own = torch.eye(len(points), dtype=torch.bool, device=points.device)
    positive = same & (combination[:, None] == combination[None]) & ~own
    anchors = positive.any(1)
    if not anchors.any():
        return points.new_zeros(()), points.new_ones(())
    similarity = points[anchors] @ points.T * torch.exp(-log_temperature)
    positive = positive[anchors]
    similarity = similarity.masked_fill(~(positive | ~same[anchors]), -torch.inf)
    log_share = similarity.log_softmax(1)
    per_anchor = torch.where(positive, log_share, 0.0).sum(1) / positive.sum(1)
    return -per_anchor.mean(), 1.0 - anchors.float().mean()


class CombinationContrast(nn.Module):
    """The loss, its projection z = normalize(W LayerNorm(fused)), and its temperature."""

    def __init__(self, width: int, shared_width: int) -> None:
        super().__init__()
        self.project = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, shared_width))
        self.temperature = Temperature()

    def forward(self, fused: Tensor, category: Tensor, available: Tensor) -> tuple[Tensor, Tensor]:
        """:func:`combination_loss` of n views.

        Args:
            fused: (n, d) what a model makes of each view.
            category: (n,) integers.
            available: (n, M) the modalities of each view, at least one.
        """
        points = F.normalize(self.project(fused.float()), dim=-1)
        return combination_loss(points, category, combination_codes(available), self.temperature())
