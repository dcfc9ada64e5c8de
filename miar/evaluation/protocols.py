"""How a model is measured on clips it has never seen.

One pass over the clips gives the predictions from every subset of their modalities; every protocol below
reads from that table. A subset is fixed at test time: a clip is shown what it has of the subset, and one that
has nothing of it is counted, not scored.
"""

from collections.abc import Hashable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from miar.data.batches import MODALITIES
from miar.data.dataset import ClipDataset
from miar.errors import UserError
from miar.evaluation.bootstrap import Interval, bootstrap_intervals
from miar.evaluation.metrics import (
    Metrics,
    ReliabilityBin,
    classification_metrics,
    confusion_matrix,
    expected_calibration_error,
    regression_metrics,
    reliability_bins,
)
from miar.scoring.scorer import describe_available
from miar.scoring.shapley import subsets_of
from miar.scoring.subsets import FusionModel, SubsetPredictions, predict_subsets

Array = NDArray[np.float64]

LEAST_CLIPS_PER_SPEAKER = 5
"""Speakers with fewer clips are left out of the summary by speaker: their figures would be noise."""


@dataclass(frozen=True)
class Spread:
    """One figure over speakers."""

    speakers: int
    """With enough clips, and for whom the figure is defined."""
    mean: float
    deviation: float
    """Population standard deviation."""
    least: float
    greatest: float


@dataclass(frozen=True)
class Calibration:
    """How far the probability of the likeliest class can be taken at its word."""

    ece: float | None
    bins: list[ReliabilityBin]


@dataclass(frozen=True)
class Evaluation:
    """What one model does on one set of clips. Every :class:`Metrics` counts the clips it leaves out."""

    overall: Metrics
    """From all that each clip has."""
    intervals: dict[str, Interval | None]
    """95 % intervals of ``corr`` and ``mae`` over samples of whole speakers (videos); empty for classes."""
    subsets: dict[str, Metrics]
    """``text``, ``text+face`` ...: from these modalities alone."""
    patterns: dict[str, Metrics]
    """The overall predictions, by what clips have: ``text+audio+face``, ``text+audio`` ..."""
    speakers: dict[str, Spread]
    """Metric -> its spread over speakers; empty where clips name none."""
    confusion: list[list[int]]
    """Rows: true classes, columns: predicted ones; empty for a number."""
    calibration: Calibration | None
    """Of classes; ``None`` for a number."""
    classes: tuple[str, ...]
    unlabelled: int
    """Clips without a label of the model's: not measured."""
    validation_clips: int
    """Measured clips that chose the model's epoch: their figures flatter it."""
    training_clips: int
    """Measured clips that the model was fitted to; 0 unless a report on the training set was asked for."""

    def to_json(self) -> dict[str, Any]:
        """A JSON-able tree. Groups of metrics are flat, with ``n`` and ``not_scored``; why one is null is
        under ``undefined``, by its path (``subsets.face.corr``)."""
        groups = {"overall": self.overall}
        groups |= {f"subsets.{name}": metrics for name, metrics in self.subsets.items()}
        groups |= {f"patterns.{name}": metrics for name, metrics in self.patterns.items()}
        return {
            "overall": _flat(self.overall),
            "intervals": {name: each and asdict(each) for name, each in self.intervals.items()},
            "subsets": {name: _flat(metrics) for name, metrics in self.subsets.items()},
            "patterns": {name: _flat(metrics) for name, metrics in self.patterns.items()},
            "speakers": {name: asdict(spread) for name, spread in self.speakers.items()},
            "confusion": self.confusion,
            "calibration": self.calibration and asdict(self.calibration),
            "classes": list(self.classes),
            "clips": {
                "unlabelled": self.unlabelled,
                "validation": self.validation_clips,
                "training": self.training_clips,
            },
            "undefined": {
                f"{group}.{name}": reason
                for group, metrics in groups.items()
                for name, reason in metrics.undefined.items()
            },
        }


def evaluate(
    model: FusionModel,
    dataset: ClipDataset,
    *,
    label_range: tuple[float, float] | None = None,
    training_report: bool = False,
    batch_size: int = 256,
    device: torch.device | str = "auto",
    seed: int = 0,
) -> Evaluation:
    """Measure ``model`` on the labelled clips of ``dataset``.

    Args:
        label_range: the range that labels are defined on; Acc-7, Acc-5 and Acc-2 are there for -3..3 alone.
        training_report: allow clips that the model was fitted to.
        device: ``auto`` is a GPU where there is one, else where the model is.
        seed: of the bootstrap.

    Raises:
        UserError: no labelled clip, a label of another kind than the model's, or clips that the model was
        fitted to. FeatureMismatchError: the features are not those that the model was trained on.
    """
    classes = model.target.classes
    labelled = _labelled(dataset, classes, model.target.label)
    trained_on = _shared(labelled, model.record.training_clip_ids)
    if trained_on and not training_report:
        raise UserError(
            f"{trained_on} of the {len(labelled)} clips were used to train this model, which would flatter "
            "it: evaluate a split that it has not seen"
        )
    predicted = predict_subsets(model, labelled, batch_size=batch_size, device=device)
    measure = _Measure(classes, label_range)
    target, own = labelled.targets, predicted.own()
    scored = np.isfinite(own)
    intervals = {}
    if not classes:
        groups = _pick(labelled.groups(), scored)
        intervals = bootstrap_intervals(target[scored], own[scored], groups, seed=seed)
    confidence = predicted.worth[np.arange(len(own)), predicted.masks]
    return Evaluation(
        overall=measure(target, own),
        intervals=intervals,
        subsets=_by_subset(measure, target, predicted),
        patterns=_by_pattern(measure, target, predicted),
        speakers=_by_speaker(measure, target, own, labelled.speakers),
        confusion=confusion_matrix(target, own, n_classes=len(classes)).tolist() if classes else [],
        calibration=_calibration(target, own, confidence) if classes else None,
        classes=classes,
        unlabelled=len(dataset) - len(labelled),
        validation_clips=_shared(labelled, model.record.validation_clip_ids),
        training_clips=trained_on,
    )


@dataclass(frozen=True)
class _Measure:
    """The metrics of the kind of label at hand."""

    classes: tuple[str, ...]
    label_range: tuple[float, float] | None

    def __call__(self, target: Array, prediction: Array) -> Metrics:
        if self.classes:
            return classification_metrics(target, prediction, n_classes=len(self.classes))
        return regression_metrics(target, prediction, label_range=self.label_range)


def _labelled(dataset: ClipDataset, classes: tuple[str, ...], label: str) -> ClipDataset:
    """The clips that the model's label is known for, classes numbered as the model does."""
    if bool(dataset.classes) != bool(classes):
        kinds = ("classes", "a number") if classes else ("a number", "classes")
        raise UserError(f"the model predicts {kinds[0]} and the labels are {kinds[1]}: evaluate on '{label}'")
    if classes and dataset.classes != classes:
        dataset = dataset.with_classes(classes)
    if not dataset.labelled.any():
        raise UserError(f"no clip to evaluate has the label '{label}': check the split and the label table")
    return dataset.subset(dataset.labelled)


def _by_subset(measure: _Measure, target: Array, predicted: SubsetPredictions) -> dict[str, Metrics]:
    held = int(np.bitwise_or.reduce(predicted.masks, initial=0))
    subsets = sorted(subsets_of(held), key=lambda subset: (subset.bit_count(), subset))
    return {_name(subset): measure(target, predicted.given(subset)) for subset in subsets}


def _by_pattern(measure: _Measure, target: Array, predicted: SubsetPredictions) -> dict[str, Metrics]:
    masks, own = predicted.masks, predicted.own()
    patterns = sorted(np.unique(masks[masks > 0]).tolist(), key=lambda mask: (-mask.bit_count(), mask))
    return {_name(mask): measure(target[masks == mask], own[masks == mask]) for mask in patterns}


def _by_speaker(measure: _Measure, target: Array, own: Array, speakers: Sequence[str | None]) -> dict[str, Spread]:
    rows: dict[str, list[int]] = {}
    for index, speaker in enumerate(speakers):
        if speaker is not None and np.isfinite(own[index]):
            rows.setdefault(speaker, []).append(index)
    measured = [
        measure(target[chosen], own[chosen]) for chosen in rows.values() if len(chosen) >= LEAST_CLIPS_PER_SPEAKER
    ]
    spreads = {}
    for name in ("wa", "ua") if measure.classes else ("mae", "corr"):
        values = np.array([each[name] for each in measured if each[name] is not None], np.float64)
        if len(values):
            extremes = float(values.min()), float(values.max())
            spreads[name] = Spread(len(values), float(values.mean()), float(values.std()), *extremes)
    return spreads


def _calibration(target: Array, own: Array, confidence: Array) -> Calibration:
    scored = np.isfinite(own)
    bins = reliability_bins(np.clip(confidence[scored], 0, 1), (own == target)[scored])
    return Calibration(expected_calibration_error(bins), bins)


def _shared(dataset: ClipDataset, clip_ids: frozenset[str]) -> int:
    return sum(clip_id in clip_ids for clip_id in dataset.clip_ids)


def _pick(values: list[Hashable], chosen: NDArray[np.bool_]) -> list[Hashable]:
    return [value for value, take in zip(values, chosen, strict=True) if take]


def _name(mask: int) -> str:
    return describe_available(np.array([[bool(mask >> index & 1) for index in range(len(MODALITIES))]]))[0]


def _flat(metrics: Metrics) -> dict[str, float | int | None]:
    return {"n": metrics.n, "not_scored": metrics.left_out, **metrics}
