"""AdamW with warm-up and cosine, and averaged weights."""

import copy
import math
from typing import Generic, TypeVar

import torch
from torch import nn

from miar.training.config import TrainingConfig

Model = TypeVar("Model", bound=nn.Module)


def build_optimizer(modules: list[nn.Module], config: TrainingConfig) -> torch.optim.AdamW:
    """AdamW (Loshchilov & Hutter 2019).

    Weight decay falls on matrices alone, not on norms, biases, gates or scalars; matrices that read features directly
    (named ``adapters.*``) learn at ``config.adapter_rate`` of the learning rate.
    """
    adapters, matrices, vectors = [], [], []
    for name, parameter in (item for module in modules for item in module.named_parameters()):
        if not parameter.requires_grad:
            continue
        group = vectors if parameter.dim() < 2 else adapters if name.startswith("adapters.") else matrices
        group.append(parameter)
    rate, decay = config.learning_rate, config.weight_decay
    groups = [
        {"params": adapters, "weight_decay": decay, "lr": rate * config.adapter_rate},
        {"params": matrices, "weight_decay": decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=rate)


def build_schedule(
    optimizer: torch.optim.Optimizer, steps: int, config: TrainingConfig
) -> torch.optim.lr_scheduler.LambdaLR:
    """Linear warm-up, then a cosine down to 1 % of the peak at the last step."""
    warmup = max(1, round(config.warmup_share * steps))

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        progress = min(1.0, (step - warmup) / max(1, steps - warmup))
        return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * progress))

    return torch.optim.lr_scheduler.LambdaLR(optimizer, factor)


class AveragedWeights(Generic[Model]):
    """An exponential moving average of a model's weights (Polyak & Juditsky 1992), warmed up over the first steps."""

    def __init__(self, model: Model, decay: float) -> None:
        self.decay = decay
        self.step = 0
        self.model = copy.deepcopy(model).eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Draw the average towards ``model``; early steps count more, so the start is soon forgotten."""
        self.step += 1
        decay = min(self.decay, self.step / (self.step + 10))
        for averaged, current in zip(self.model.parameters(), model.parameters(), strict=True):
            averaged.lerp_(current, 1.0 - decay)
