"""What a model predicts for each clip from each subset of the modalities that the clip has.

Clips are encoded once; the up to seven subsets share that encoding, and only the fusion is run again. Clips
with the same modalities and of similar length share a batch, so that no subset is computed for a clip that
cannot have it and little is padded. A batch is bounded by its padded frames: what is computed for it then fits into
the processor's caches, however long the clips are. What is kept is a few numbers per clip.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from miar.data.batches import MODALITIES, Batch
from miar.data.dataset import ClipDataset
from miar.models.output import TrainingRecord
from miar.models.target import TargetSpec
from miar.scoring.shapley import subsets_of, to_masks

Array = NDArray[np.float64]
BATCH_FRAMES = {"cpu": 2**14, "cuda": 2**16}
"""Padded frames of all modalities in one batch, by the kind of device. Measured on a CPU: from 2 ** 13 to 2 ** 15 cost
the same, 2 ** 16 a fifth more, 2 ** 12 a tenth. Not measured on a GPU. A single clip always goes through."""
SUBSETS = 2 ** len(MODALITIES)
"""Subsets of the modalities, the empty one included. A subset is a bit mask: bit i is ``MODALITIES[i]``."""


class FusionOutput(Protocol):
    """What scoring reads of a model's output for B clips."""

    @property
    def prediction(self) -> Tensor:
        """(B,) in label units, or a class index; NaN for a clip without any modality."""
        ...

    @property
    def token_weights(self) -> Tensor:
        """(B, 1 + M): joint, then :data:`MODALITIES`."""
        ...

    @property
    def probabilities(self) -> Tensor | None:
        """(B, C) for classes."""
        ...

    @property
    def available(self) -> Tensor:
        """(B, M) the modalities that were read."""
        ...


class FusionModel(Protocol):
    """What scoring needs of a model."""

    training: bool
    target: TargetSpec
    record: TrainingRecord

    @property
    def device(self) -> torch.device: ...
    def encode(self, batch: Batch) -> Any: ...
    def fuse(self, encoded: Any, available: Tensor) -> FusionOutput: ...
    def check_feature_sets(self, given: Mapping[str, Mapping[str, Any]]) -> None: ...
    def to(self, device: torch.device) -> Any: ...
    def train(self, mode: bool = True) -> Any: ...


@dataclass(frozen=True)
class SubsetPredictions:
    """N clips by subsets of modalities. What counts of a clip are the subsets of what the model read of it
    (:attr:`masks`); NaN where one was not asked for."""

    available: NDArray[np.bool_]
    """(N, M) the modalities that the model read."""
    prediction: Array
    """(N, SUBSETS) in label units, or a class index."""
    worth: Array
    """(N, SUBSETS) what contributions are shares of. For a number, the prediction; for classes, the
    probability of the class that all of the clip's modalities together make likeliest. The empty subset is
    worth what the training clips say: their mean, or that class's share of them."""
    token_weights: Array
    """(N, 1 + M) how the tokens of all of a clip's modalities were mixed."""

    @classmethod
    def empty(cls, n: int) -> "SubsetPredictions":
        """``n`` clips without any modality."""
        table = np.full((n, SUBSETS), np.nan)
        weights = np.full((n, 1 + len(MODALITIES)), np.nan)
        return cls(np.zeros((n, len(MODALITIES)), np.bool_), table, table.copy(), weights)

    @property
    def masks(self) -> NDArray[np.intp]:
        """(N,) each clip's own modalities, as a subset."""
        return to_masks(self.available)

    def put(self, rows: NDArray[np.intp], part: "SubsetPredictions") -> None:
        """Write ``part`` into ``rows``."""
        self.available[rows] = part.available
        self.prediction[rows] = part.prediction
        self.worth[rows] = part.worth
        self.token_weights[rows] = part.token_weights

    def given(self, subset: int) -> Array:
        """(N,) predictions from what each clip has of ``subset``; NaN where it has none of it."""
        return _at(self.prediction, self.masks & subset)

    def own(self) -> Array:
        """(N,) predictions from all that each clip has."""
        return _at(self.prediction, self.masks)


def predict_subsets(
    model: FusionModel,
    dataset: ClipDataset,
    *,
    batch_size: int = 256,
    device: torch.device | str = "auto",
    explain: bool = True,
) -> SubsetPredictions:
    """Predict every clip of ``dataset`` from its modalities, and with ``explain`` from each subset of them.

    The result does not depend on ``batch_size`` beyond float32's rounding.

    Args:
        batch_size: most clips in a batch; :data:`BATCH_FRAMES` bounds it as well.
        device: ``auto`` is a GPU where there is one, else where the model is. The model is put back
        afterwards.

    Raises:
        FeatureMismatchError: the features are not those that the model was trained on.
    """
    model.check_feature_sets(dataset.feature_sets)
    result = SubsetPredictions.empty(len(dataset))
    with _at_work(model, device) as place:
        for rows in _batches(dataset, batch_size, BATCH_FRAMES.get(place.type, BATCH_FRAMES["cpu"])):
            result.put(rows, _predict_batch(model, dataset.batch(rows), place, explain))
    return result


def _batches(dataset: ClipDataset, batch_size: int, max_frames: int) -> Iterator[NDArray[np.intp]]:
    """Positions of the clips of each batch, longest first; clips without any modality are left out."""
    masks, frames = to_masks(dataset.available), dataset.frames()
    order = np.lexsort((-frames.sum(axis=1), masks))
    for mask in np.unique(masks[masks > 0]):
        alike = order[masks[order] == mask]
        start = 0
        while start < len(alike):
            # The longest in each modality so far, padded by how many there are so far.
            window = alike[start : start + batch_size]
            padded = np.maximum.accumulate(frames[window], axis=0).sum(axis=1) * np.arange(1, len(window) + 1)
            size = max(1, int(np.searchsorted(padded, max_frames, side="right")))
            yield window[:size]
            start += size


def _predict_batch(model: FusionModel, batch: Batch, device: torch.device, explain: bool) -> SubsetPredictions:
    """``batch``: clips of one and the same modalities."""
    held = int(to_masks(batch.available[:1].numpy())[0])
    batch = batch.to(device)
    encoded = model.encode(batch)
    whole = model.fuse(encoded, batch.available)
    likeliest = None if whole.probabilities is None else whole.prediction.nan_to_num().long()[:, None]
    result = SubsetPredictions.empty(len(batch))
    for subset in subsets_of(held)[:-1] if explain else []:
        part = model.fuse(encoded, batch.available & _members(subset, device))
        result.prediction[:, subset] = part.prediction.cpu()
        result.worth[:, subset] = _worth(part, likeliest).cpu()
    result.available[:] = whole.available.cpu()
    rows, masks = np.arange(len(batch)), result.masks
    result.prediction[rows, masks] = whole.prediction.cpu()
    result.worth[rows, masks] = _worth(whole, likeliest).cpu()
    result.token_weights[:] = whole.token_weights.cpu()
    result.worth[:, 0] = model.target.base if likeliest is None else _shares(model.target, likeliest)
    return result


def _members(subset: int, device: torch.device) -> Tensor:
    """(M,) bool"""
    return torch.tensor([bool(subset >> index & 1) for index in range(len(MODALITIES))], device=device)


def _worth(output: FusionOutput, likeliest: Tensor | None) -> Tensor:
    """(B,)"""
    if likeliest is None or output.probabilities is None:
        return output.prediction
    return output.probabilities.gather(1, likeliest).squeeze(1)


def _shares(target: TargetSpec, likeliest: Tensor) -> Array:
    """(B,) share of each clip's class among the training clips."""
    return np.asarray(target.class_shares, np.float64)[likeliest.squeeze(1).cpu().numpy()]


def _at(table: Array, columns: NDArray[np.intp]) -> Array:
    return table[np.arange(len(table)), columns]


@contextmanager
def _at_work(model: FusionModel, device: torch.device | str) -> Iterator[torch.device]:
    """The model in evaluation mode on ``device``, without gradients and in full float32; then back as it
    was."""
    home, training, precision = model.device, model.training, torch.get_float32_matmul_precision()
    if device == "auto":
        place = torch.device("cuda") if torch.cuda.is_available() else home
    else:
        place = torch.device(device)
    model.to(place)
    model.train(False)
    torch.set_float32_matmul_precision("highest")
    try:
        # TF32 would move scores by 1e-3 between a GPU and a CPU, and between batches.
        with torch.inference_mode(), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            yield place
    finally:
        torch.set_float32_matmul_precision(precision)
        model.to(home)
        model.train(training)
