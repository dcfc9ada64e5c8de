"""The score that early stopping goes by."""

import numpy as np
import torch

from miar.data.dataset import ClipDataset
from miar.models.miar import MIAR
from miar.objectives.miar import MIARObjective


@torch.inference_mode()
def validate(
    model: MIAR, objective: MIARObjective, valid: ClipDataset, batch_size: int
) -> tuple[dict[str, float], float]:
    """Measure ``model`` on labelled clips.

    Returns:
        (``mae`` and ``corr`` in label units, or ``loss`` and ``accuracy`` for classes; the one that is to fall)
    """
    predictions, logits, targets = [], [], []
    for batch in valid.batches(batch_size, sort_by_length=True):
        output = model(batch.to(model.device))
        predictions.append(output.prediction.cpu())
        logits.append(output.logits)
        targets.append(batch.target)
    prediction, target = torch.cat(predictions).numpy(), torch.cat(targets)
    if model.classes:
        loss = float(objective.task(torch.cat(logits), target.to(model.device)))
        return {"loss": loss, "accuracy": float((prediction == target.numpy()).mean())}, loss
    mae = float(np.abs(prediction - target.numpy()).mean())
    return {"mae": mae, "corr": correlation(prediction, target.numpy())}, mae


def correlation(prediction: np.ndarray, target: np.ndarray) -> float:
    """Pearson's r of two (N,) arrays; NaN where it does not exist: fewer than two clips, or one array is constant."""
    if len(target) < 2 or np.ptp(prediction) == 0 or np.ptp(target) == 0:
        return float("nan")
    return float(np.corrcoef(prediction, target)[0, 1])
