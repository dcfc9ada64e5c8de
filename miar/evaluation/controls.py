"""Controls: data from which one thing is taken away, so that what a model does without it can be seen."""

from dataclasses import replace

import numpy as np

from miar.data.dataset import ClipDataset
from miar.errors import UserError


def shuffle_modality(dataset: ClipDataset, modality: str, seed: int) -> ClipDataset:
    """Give every clip that has ``modality`` that of another clip.

    Which clips have it stays as it was, so only its content is lost. Labels and the other modalities stay.

    Raises:
        UserError: the dataset does not hold ``modality``.
    """
    if modality not in dataset.modalities:
        held = ", ".join(dataset.modalities) or "none"
        raise UserError(f"the dataset has no {modality} to shuffle; it holds: {held}")
    data = dataset.modalities[modality]
    # One random cycle through all of them: unlike a plain permutation, it leaves no clip its own.
    cycle = np.random.default_rng(seed).permutation(np.flatnonzero(data.available))
    source = np.arange(len(dataset))
    source[cycle] = np.roll(cycle, 1)
    return replace(dataset, modalities=dataset.modalities | {modality: data.subset(source)})


def shuffle_labels(dataset: ClipDataset, seed: int) -> ClipDataset:
    """Deal the labels out anew among the labelled clips: nothing is left to learn but their distribution."""
    labelled = np.flatnonzero(dataset.labelled)
    targets = dataset.targets.copy()
    targets[labelled] = targets[np.random.default_rng(seed).permutation(labelled)]
    return replace(dataset, targets=targets)
