"""Distillation within a model, from all modalities of a clip to a subset of them.

A reading that goes with MCUR (arXiv 2605.06245), not the paper's: what the model says of a clip with all that it has is
held fixed, and what it says of a subset is drawn towards it.
"""

import torch.nn.functional as F
from torch import Tensor

TEMPERATURE = 2.0
"""Softens classes, so that the unlikely ones count too (Hinton et al. 2015)."""


def distillation_loss(subset: Tensor, whole: Tensor, *, classes: bool) -> Tensor:
    """e^2 / 2 for a number, KL(whole || subset) t^2 at temperature t for classes; 0 for no clips.

    Args:
        subset: (n, O) logits from some of the modalities.
        whole: (n, O) logits from all of them; no gradient reaches it.
    """
    whole = whole.detach()
    if not len(subset):
        return subset.sum()
    if not classes:
        return 0.5 * F.mse_loss(subset, whole)
    said, meant = ((logits / TEMPERATURE).log_softmax(1) for logits in (subset, whole))
    return F.kl_div(said, meant, log_target=True, reduction="batchmean") * TEMPERATURE**2
