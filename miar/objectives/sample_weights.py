"""MCUR's SUGR: how much each clip's task loss weighs, by how uncertain the model is about it.

[paper] (MCUR, arXiv 2605.06245) sample-wise weights from uncertainty, adapting during training. Our reading:

    u_i  uncertainty of the prediction, no gradient       z_i = (u_i - mean u) / deviation of u, over the batch
    w_i  = clip(c e^{s z_i}, 1/2, 2), c such that the mean of w is 1

s is above 0 where uncertain clips weigh more. Whether they should, and when, is a setting.
"""

import torch
from torch import Tensor

from miar.models.config import SystemConfig

WEIGHT_RANGE = (0.5, 2.0)
LIMIT = 30.0
"""Of s z, far beyond what the bounds let through: it keeps the exponential finite."""


def signed_strength(config: SystemConfig, progress: float) -> float:
    """s after a share ``progress`` of the training; 0 where all clips weigh alike.

    ``certain`` and ``uncertain`` rise to their strength over the warm-up; ``certain_first`` goes from the one to the
    other on its way, and is at 0 in the middle.
    """
    warmup = config.sample_weighting_warmup
    strength = config.sample_weighting_strength * (min(1.0, progress / warmup) if warmup else 1.0)
    directions = {"off": 0.0, "certain": -1.0, "uncertain": 1.0, "certain_first": 2.0 * progress - 1.0}
    return directions[config.sample_weighting] * strength


def sample_weights(uncertainty: Tensor, strength: float) -> Tensor:
    """(n,) weights of mean 1, each within :data:`WEIGHT_RANGE`; all 1 where the uncertainties are the same.

    Args:
        uncertainty: (n,) finite; no gradient reaches it.
    """
    uncertainty = uncertainty.detach().double()
    if not strength or len(uncertainty) < 2 or not (deviation := uncertainty.std(correction=0)) > 1e-9:
        return torch.ones_like(uncertainty).float()
    z = (uncertainty - uncertainty.mean()) / deviation
    raw = torch.exp((strength * z).clamp(-LIMIT, LIMIT))
    return (_factor(raw) * raw).clamp(*WEIGHT_RANGE).float()


def _factor(raw: Tensor) -> Tensor:
    """c: the mean of clip(c raw) is piecewise linear in c, so it is solved between two of its corners."""
    low, high = WEIGHT_RANGE
    corners = torch.cat([low / raw, high / raw]).sort().values
    means = (corners[:, None] * raw).clamp(low, high).mean(1)  # from low to high
    after = int((means < 1.0).sum())
    before = after - 1
    share = (1.0 - means[before]) / (means[after] - means[before])
    return corners[before] + share * (corners[after] - corners[before])
