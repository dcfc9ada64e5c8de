"""The task itself: a number, or a class."""

import torch
import torch.nn.functional as F
from torch import Tensor


def regression_loss(prediction: Tensor, target: Tensor, huber_delta: float) -> Tensor:
    """Mean Huber loss (Huber 1964): e^2 / 2 up to ``huber_delta``, linear beyond; infinity gives e^2 / 2 throughout.

    Args:
        prediction, target: (n,) in deviations from the training mean.
    """
    if huber_delta == float("inf"):
        return 0.5 * F.mse_loss(prediction, target)
    return F.huber_loss(prediction, target, delta=huber_delta)


def classification_loss(logits: Tensor, target: Tensor, smoothing: float) -> Tensor:
    """Mean cross-entropy; ``logits`` (n, C), ``target`` (n,) class indices, label smoothing (Szegedy et al. 2016)."""
    return F.cross_entropy(logits, target.to(torch.int64), label_smoothing=smoothing)
