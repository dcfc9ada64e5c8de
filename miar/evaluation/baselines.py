"""The strongest simple things that a fusion model has to beat: ridge regression on pooled features.

Pooled is the mean over frames, for audio and face also the deviation, and the feature set's named per-clip
values. Nothing is ever fitted on the clips that are predicted.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from miar.data.dataset import ClipDataset, ModalityData
from miar.errors import UserError
from miar.models.ridge import Blocks, fit_ridge

Array = NDArray[np.float64]


def ridge_baseline(train: ClipDataset, test: ClipDataset, modalities: Sequence[str]) -> Array:
    """Predict ``test`` by ridge on the pooled features of ``modalities``, side by side.

    The penalty is chosen by cross-validation inside ``train``, over :meth:`ClipDataset.groups`. A modality that a
    clip lacks is replaced by the mean, and a column says so.

    Returns:
        (N_test,) in label units.

    Raises:
        UserError: fewer than two labelled clips to learn from, or a modality that ``train`` or ``test`` does not
            hold.
    """
    labelled = _labelled(train)
    model, _ = fit_ridge(_blocks(labelled, modalities), labelled.targets[:, None], labelled.groups())
    return model.predict(_blocks(test, modalities))[:, 0]


def late_fusion_baseline(train: ClipDataset, test: ClipDataset, modalities: Sequence[str]) -> Array:
    """Predict ``test`` by one ridge per modality, and a ridge over those (stacking; Wolpert, 1992).

    The second stage learns from predictions of clips that the first stage did not see. Arguments, result and
    errors as in :func:`ridge_baseline`; a clip without a modality has no such prediction.
    """
    labelled = _labelled(train)
    targets, groups = labelled.targets[:, None], labelled.groups()
    seen, unseen = {}, {}
    for modality in modalities:
        fitting, scoring = _blocks(labelled, [modality]), _blocks(test, [modality])
        model, out_of_fold = fit_ridge(fitting, targets, groups)
        seen[modality] = _where_present(out_of_fold, fitting[modality])
        unseen[modality] = _where_present(model.predict(scoring), scoring[modality])
    fusion, _ = fit_ridge(seen, targets, groups)
    return fusion.predict(unseen)[:, 0]


def pooled_features(data: ModalityData, *, deviation: bool) -> Array:
    """One vector per clip: mean over frames, with ``deviation`` also the deviation, then the per-clip values.

    Returns:
        (N, P), NaN where a value is not known and throughout where the clip lacks the modality.
    """
    width = data.sequences.columns
    pooled = np.full((len(data.sequences), width * (2 if deviation else 1)), np.nan)
    for index in np.flatnonzero(data.available & (data.sequences.lengths > 0)):
        frames = data.sequences[int(index)].astype(np.float64)
        known = np.isfinite(frames)
        count = known.sum(axis=0)
        frames = np.where(known, frames, 0)
        mean = np.divide(frames.sum(axis=0), count, out=np.full(width, np.nan), where=count > 0)
        pooled[index, :width] = mean
        if deviation:
            squares = np.where(known, (frames - mean) ** 2, 0).sum(axis=0)
            pooled[index, width:] = np.sqrt(np.divide(squares, count, out=np.full(width, np.nan), where=count > 0))
    if data.summary is None:
        return pooled
    summary = np.where(data.available[:, None], data.summary, np.nan)
    return np.concatenate([pooled, summary], axis=1)


def _blocks(dataset: ClipDataset, modalities: Sequence[str]) -> Blocks:
    if missing := [name for name in modalities if name not in dataset.modalities]:
        held = ", ".join(dataset.modalities) or "none"
        raise UserError(f"the dataset has no {', '.join(missing)}; it holds: {held}")
    # How far tokens of a sentence lie apart says little; for sound and face, movement is half of the matter.
    return {name: pooled_features(dataset.modalities[name], deviation=name != "text") for name in modalities}


def _labelled(train: ClipDataset) -> ClipDataset:
    labelled = train.subset(train.labelled)
    if len(labelled) < 2:
        raise UserError("the baselines need at least two labelled clips in the split 'train'")
    return labelled


def _where_present(predictions: Array, block: Array) -> Array:
    """``predictions`` (N, 1), NaN for clips that lack the block."""
    return np.where(np.isfinite(block).any(axis=1, keepdims=True), predictions, np.nan)
