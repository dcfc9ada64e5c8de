"""MIAR's objective: L = L_task + l_aux sum_k L_task,k + l_con L_con + l_norm L_norm."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from miar.data.batches import MODALITIES
from miar.models.config import MIARConfig
from miar.models.output import TOKENS, MIAROutput
from miar.models.target import TargetSpec
from miar.objectives.contrastive import alignment_loss, near_labels
from miar.objectives.normalization import normalization_loss
from miar.objectives.task import classification_loss, regression_loss

INITIAL_TEMPERATURE = 0.2
TEMPERATURE_RANGE = (0.05, 1.0)


@dataclass
class Losses:
    """The terms of one batch, before their weights, and their weighted sum."""

    total: Tensor
    task: Tensor
    aux: Tensor
    contrastive: Tensor
    normalization: Tensor

    def values(self) -> dict[str, float]:
        """Plain numbers by name."""
        return {name: float(value.detach()) for name, value in vars(self).items()}


class MIARObjective(nn.Module):
    """The objective and its one learned number, the temperature of the contrastive term."""

    def __init__(
        self,
        config: MIARConfig,
        target: TargetSpec,
        *,
        huber_delta: float,
        label_smoothing: float,
        near_label: float,
    ) -> None:
        """``near_label``: clips whose labels differ by at most this many deviations are no negatives."""
        super().__init__()
        self.config = config
        self.target = target
        self.huber_delta = huber_delta
        self.label_smoothing = label_smoothing
        self.near_label = 0.0 if target.classes else near_label
        self.log_temperature = nn.Parameter(torch.tensor(math.log(INITIAL_TEMPERATURE)))

    def forward(self, output: MIAROutput, target: Tensor) -> Losses:
        """``target`` (B,) finite: a value in label units, or a class index. Clips with no modality are left out."""
        target = self.scaled(target)
        read = output.available.any(1)
        zero = self.log_temperature.new_zeros(())
        task = self.task(output.logits[read], target[read])
        aux = self._aux(output, target) if self.config.aux_weight else zero
        present = {name: output.available[:, MODALITIES.index(name)] for name in output.shared}
        contrastive = normalization = zero
        if self.config.contrastive_weight:
            low, high = TEMPERATURE_RANGE
            log_temperature = self.log_temperature.clamp(math.log(low), math.log(high))
            near = near_labels(target, self.near_label)
            contrastive = alignment_loss(output.shared, present, near, log_temperature)
        if self.config.normalization_weight:
            normalization = normalization_loss(output.shared, present)
        total = (
            task
            + self.config.aux_weight * aux
            + self.config.contrastive_weight * contrastive
            + self.config.normalization_weight * normalization
        )
        return Losses(total, task, aux, contrastive, normalization)

    def scaled(self, target: Tensor) -> Tensor:
        """Labels as the head sees them: deviations from the training mean, or class indices as they are."""
        return target if self.target.classes else (target - self.target.base) / self.target.deviation

    def task(self, logits: Tensor, target: Tensor) -> Tensor:
        """Task loss of (n, O) logits for scaled targets (n,); 0 for no clips."""
        if not len(target):
            return logits.sum()
        if self.target.classes:
            return classification_loss(logits, target, self.label_smoothing)
        return regression_loss(logits.squeeze(-1), target, self.huber_delta)

    def _aux(self, output: MIAROutput, target: Tensor) -> Tensor:
        has = torch.cat([output.available.any(1, keepdim=True), output.available], 1)
        terms = [
            self.task(output.token_logits[:, index][has[:, index]], target[has[:, index]])
            for index in range(len(TOKENS))
        ]
        return torch.stack(terms).sum()
