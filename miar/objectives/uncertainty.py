"""How uncertain a prediction is: entropy for classes, a learned variance for a number."""

import torch
from torch import Tensor, nn

BETA = 0.5
LOG_VARIANCE_RANGE = (-6.0, 6.0)


def entropy(logits: Tensor) -> Tensor:
    """(n, C) logits -> (n,) entropy of their softmax, in nats."""
    logs = logits.log_softmax(1)
    return -(logs.exp() * logs).sum(1)


def beta_nll(error: Tensor, log_variance: Tensor, beta: float = BETA) -> Tensor:
    """Mean of stop(sigma^{2 beta}) [e^2 / (2 sigma^2) + log(sigma^2) / 2]  (Seitzer et al. 2022, equation 5).

    Args:
        error: (n,) e, prediction less target.
        log_variance: (n,) log sigma^2.
        beta: 0 is the Gaussian likelihood; above it, clips of a large variance count for more than they do there.
    """
    likelihood = 0.5 * (error.square() * torch.exp(-log_variance) + log_variance)
    return (torch.exp(beta * log_variance).detach() * likelihood).mean()


class VarianceHead(nn.Module):
    """log sigma^2 = W LayerNorm(fused) + b, of a model's prediction of a number.

    It is fitted beside the model and changes nothing in it: no gradient leaves it.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.out = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 1))

    def forward(self, fused: Tensor) -> Tensor:
        """(n, d) -> (n,)"""
        return self.out(fused.detach().float()).squeeze(-1).clamp(*LOG_VARIANCE_RANGE)
