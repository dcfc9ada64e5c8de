"""Which clips, modalities and classes can be trained on."""

from dataclasses import dataclass

import torch

from miar.data.dataset import ClipDataset
from miar.errors import UserError
from miar.models.config import SystemConfig
from miar.models.target import TargetSpec
from miar.objectives.combination import categories

SHOWN = 3


@dataclass
class Selection:
    """Labelled clips with at least one modality that training clips have, and how many were left out."""

    train: ClipDataset
    valid: ClipDataset
    counts: dict[str, int]


def select_clips(train: ClipDataset, valid: ClipDataset, min_clips: int) -> Selection:
    """Leave out clips without a label or without any modality, and refuse what cannot be trained on.

    What no training clip has is left out first, since nothing can be learned of it: a modality, and with it the
    validation clips that have nothing else; a class, whose validation clips count as unlabelled.

    Raises:
        UserError: no labels, too few clips, no validation clips, a clip that stands in both sets.
    """
    label = train.label or "label"
    if not train.labelled.any() and not valid.labelled.any():
        raise UserError(f"no clip has a label named {label!r}: check the label table, or name another label")
    seen = train.subset(train.labelled)
    names = [name for name, data in seen.modalities.items() if data.available.any()]
    classes = [name for index, name in enumerate(train.classes) if (seen.targets[seen.scorable] == index).any()]
    train, valid = (data.with_modalities(names).with_classes(classes) for data in (train, valid))
    counts: dict[str, int] = {}
    kept = {name: _usable(data, name, counts) for name, data in (("train", train), ("valid", valid))}
    if len(kept["train"]) < min_clips:
        raise UserError(
            f"{len(kept['train'])} training clips have a label and features, {min_clips} are needed: "
            "label more clips, or lower min_clips"
        )
    if not len(kept["valid"]):
        raise UserError("no validation clip has a label and features: put some clips into the split 'valid'")
    if shared := sorted(set(kept["train"].clip_ids) & set(kept["valid"].clip_ids)):
        raise UserError(
            f"{len(shared)} clips stand in training and validation ({', '.join(shared[:SHOWN])}): separate them"
        )
    return Selection(kept["train"], kept["valid"], counts)


def check_categories(config: SystemConfig, train: ClipDataset, target: TargetSpec) -> None:
    """Refuse a contrast by category where all training clips are of one: there would be nothing to tell apart.

    Raises:
        UserError: the labels are all negative, or all positive, or the bins are wider than their range.
    """
    if not config.combination_weight:
        return
    if len(categories(torch.from_numpy(train.targets), target, config.category_width).unique()) < 2:
        raise UserError(
            f"combination_weight draws clips of one category together, and all {target.label} labels are of one: set "
            "category_width to the width of a bin in standard deviations (1, say), or combination_weight to 0"
        )


def _usable(data: ClipDataset, name: str, counts: dict[str, int]) -> ClipDataset:
    labelled, has_any = data.labelled, data.available.any(axis=1)
    counts[name] = int((labelled & has_any).sum())
    counts[f"{name}_unlabelled"] = int((~labelled).sum())
    counts[f"{name}_empty"] = int((labelled & ~has_any).sum())
    return data.subset(labelled & has_any)
