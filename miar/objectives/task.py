"""The task itself: a number, or a class."""

import torch
import torch.nn.functional as F
from torch import Tensor


def regression_loss(prediction: Tensor, target: Tensor, huber_delta: float, weights: Tensor | None = None) -> Tensor:
    """Mean Huber loss (Huber 1964): e^2 / 2 up to ``huber_delta``, linear beyond; infinity gives e^2 / 2 throughout.

    Args:
        prediction, target: (n,) in deviations from the training mean.
        weights: (n,) of mean 1; ``None``: all clips count alike.
    """
    reduction = "mean" if weights is None else "none"
    if huber_delta == float("inf"):
        losses = 0.5 * F.mse_loss(prediction, target, reduction=reduction)
    else:
        losses = F.huber_loss(prediction, target, delta=huber_delta, reduction=reduction)
    return losses if weights is None else (weights * losses).mean()


def classification_loss(logits: Tensor, target: Tensor, smoothing: float, weights: Tensor | None = None) -> Tensor:
    """Mean cross-entropy, label smoothing (Szegedy et al. 2016).

    Args:
        logits: (n, C); target: (n,) class indices; weights: (n,) of mean 1; ``None``: all clips count alike.
    """
    reduction = "mean" if weights is None else "none"
    losses = F.cross_entropy(logits, target.to(torch.int64), label_smoothing=smoothing, reduction=reduction)
    return losses if weights is None else (weights * losses).mean()
