"""Scores for a data set: one row per clip, with what each modality contributed.

Contributions are exact Shapley values over the subsets of the modalities that the clip has. For a number they
are in label units and sum to the prediction less the training mean. For classes they are shares of
probability: the prediction is the probability of the likeliest class, the base that class's share of the
training clips.
"""

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from miar.data.batches import MODALITIES
from miar.data.dataset import ClipDataset
from miar.models.output import TOKENS
from miar.scoring.shapley import shapley_values, to_masks
from miar.scoring.subsets import SUBSETS, FusionModel, SubsetPredictions, predict_subsets

CONTRIBUTIONS = tuple(f"contribution_{name}" for name in MODALITIES)
WEIGHTS = tuple(f"weight_{name}" for name in TOKENS)
SCORE_SCHEMA = pa.schema(
    [
        pa.field("clip_id", pa.string(), nullable=False),
        pa.field("status", pa.string(), nullable=False),
        pa.field("reason", pa.string()),
        pa.field("prediction", pa.float64()),
        pa.field("category", pa.string()),
        pa.field("available", pa.string()),
        pa.field("base", pa.float64()),
        *(pa.field(name, pa.float64()) for name in (*CONTRIBUTIONS, *WEIGHTS)),
    ]
)
"""Named as in the store's ``scores`` table."""


def score_dataset(
    model: FusionModel,
    dataset: ClipDataset,
    *,
    batch_size: int = 256,
    device: torch.device | str = "auto",
    explain: bool = True,
) -> pa.Table:
    """Score every clip of ``dataset``, in its order.

    Args:
        device: ``auto`` is a GPU where there is one, else where the model is.
        explain: also compute the contributions; without them scoring is a single pass.

    Returns:
        A table of :data:`SCORE_SCHEMA`. ``status`` is ``scored``, or ``not_scored`` with a reason:
        ``nothing_to_score`` (no modality that the model reads) or ``not_finite`` (the model gave no number).
        A contribution is null where the clip lacks the modality; token weights say how tokens were mixed,
        which is a diagnostic and not what a modality was worth.

    Raises:
        FeatureMismatchError: the features are not those that the model was trained on.
    """
    predicted = predict_subsets(model, dataset, batch_size=batch_size, device=device, explain=explain)
    return score_table(dataset.clip_ids, predicted, classes=model.target.classes, explain=explain)


def score_table(
    clip_ids: list[str], predicted: SubsetPredictions, *, classes: tuple[str, ...] = (), explain: bool = True
) -> pa.Table:
    """Lay predictions out as rows of :data:`SCORE_SCHEMA`."""
    rows, masks = np.arange(len(clip_ids)), predicted.masks
    value = predicted.worth[rows, masks]
    scored = (masks > 0) & np.isfinite(value)
    reasons = np.where(masks == 0, "nothing_to_score", "not_finite")
    columns = {
        "clip_id": pa.array(clip_ids, pa.string()),
        "status": pa.array(np.where(scored, "scored", "not_scored").tolist(), pa.string()),
        "reason": pa.array(reasons.tolist(), pa.string(), mask=scored),
        "prediction": _floats(value, scored),
        "category": _categories(predicted.own(), classes, scored),
        "available": pa.array(describe_available(predicted.available), pa.string(), mask=masks == 0),
        "base": _floats(predicted.worth[:, 0], scored),
    }
    shares = contributions(predicted) if explain else np.full((len(rows), len(MODALITIES)), np.nan)
    for index, name in enumerate(CONTRIBUTIONS):
        columns[name] = _floats(shares[:, index], scored)
    for index, name in enumerate(WEIGHTS):
        columns[name] = _floats(predicted.token_weights[:, index], scored)
    return pa.table(columns, schema=SCORE_SCHEMA)


def contributions(predicted: SubsetPredictions) -> NDArray[np.float64]:
    """(N, M) Shapley values of the modalities that each clip has; NaN for the others."""
    values = np.full(predicted.available.shape, np.nan)
    masks = predicted.masks
    for mask in np.unique(masks[masks > 0]):
        chosen = masks == mask
        values[chosen] = shapley_values(predicted.worth[chosen], int(mask))
    return values


def describe_available(available: NDArray[np.bool_]) -> list[str]:
    """(N, M) -> ``text+audio+face``, ``text+face`` ...; an empty text for a clip without any."""
    names = ["+".join(name for index, name in enumerate(MODALITIES) if mask >> index & 1) for mask in range(SUBSETS)]
    return [names[mask] for mask in to_masks(available).tolist()]


def _floats(values: NDArray[np.float64], scored: NDArray[np.bool_]) -> pa.Array:
    return pa.array(values, pa.float64(), mask=~(scored & np.isfinite(values)))


def _categories(predicted: NDArray[np.float64], classes: tuple[str, ...], scored: NDArray[np.bool_]) -> pa.Array:
    if not classes:
        return pa.nulls(len(predicted), pa.string())
    names = [classes[int(index)] if known else None for index, known in zip(predicted, scored, strict=True)]
    return pa.array(names, pa.string())
