"""The score that early stopping goes by."""

import numpy as np
import torch

from miar.data.dataset import ClipDataset
from miar.evaluation.metrics import correlation
from miar.models.system import System
from miar.objectives.objective import Objective


@torch.inference_mode()
def validate(
    model: System, objective: Objective, valid: ClipDataset, batch_size: int
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
    return {"mae": mae, "corr": correlation(target.numpy(), prediction)}, mae
