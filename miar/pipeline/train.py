"""Train a model on a snapshot and keep what it came from."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from miar.errors import ConfigError
from miar.pipeline.progress import advance
from miar.pipeline.runs import new_run_id, recorded_run
from miar.pipeline.selection import choose_feature_sets, open_snapshot
from miar.pipeline.trained import model_id
from miar.validation import validated
from storage import Snapshot, Store

if TYPE_CHECKING:
    from miar.models.config import SystemConfig
    from miar.models.system import System
    from miar.training.config import TrainingConfig


UNFINISHED = "unfinished"
"""Folder within the model's for the best so far: what is stopped on the way takes no finished model's place."""


@dataclass(frozen=True)
class TrainingPlan:
    """What a training run was asked for, checked against the store."""

    label: str
    system: str
    out: Path
    snapshot: Snapshot
    tables: dict[str, str]
    """Modality -> feature table."""
    model: SystemConfig
    training: TrainingConfig

    def to_json(self) -> dict[str, Any]:
        return {
            "label": self.label,
            "system": self.system,
            "snapshot": self.snapshot.id,
            "features": self.tables,
            "model": asdict(self.model),
            "training": asdict(self.training),
        }


def plan_training(
    store: Store,
    *,
    label: str,
    out: Path,
    snapshot: str | None = None,
    features: Sequence[str] | None = None,
    system: str = "miar",
    model: Mapping[str, Any] | None = None,
    training: Mapping[str, Any] | None = None,
) -> TrainingPlan:
    """Find out every mistake that can be found out before a feature is read.

    Args:
        label: name of the label in the store.
        out: folder for the model; it may exist, the model in it is then replaced.
        snapshot: id or name; ``None`` takes one now.
        features: see :func:`choose_feature_sets`.
        system: one of :data:`miar.models.config.CONFIGS`.
        model: fields of the system's configuration to change from their defaults.
        training: fields of ``TrainingConfig`` to change from their defaults.

    Raises:
        UserError: no such system, label, snapshot, features or field of a configuration; ``out`` is a file.
    """
    # torch takes seconds to import: only what trains pays for it.
    from miar.data.labels import read_label
    from miar.models.config import CONFIGS
    from miar.training.config import TrainingConfig

    if system not in CONFIGS:
        raise ConfigError(f"there is no system '{system}': choose one of {', '.join(CONFIGS)}")
    if out.exists() and not out.is_dir():
        raise ConfigError(f"--out is the folder for the model, but {out} is a file")
    model_config = validated(CONFIGS[system], dict(model or {}), "model")
    training_config = validated(TrainingConfig, dict(training or {}), "training")
    pinned = open_snapshot(store, snapshot)
    tables = choose_feature_sets(pinned, features)
    read_label(pinned, label)
    return TrainingPlan(label, system, out, pinned, tables, model_config, training_config)


def train_model(store: Store, plan: TrainingPlan) -> dict[str, Any]:
    """Train on the snapshot's ``train`` split, stop on its ``valid`` split, and save the model in ``plan.out``.

    Returns:
        ``model_id``, ``model``, ``snapshot_id``, ``metrics`` on the validation split, counts of clips.

    Raises:
        UserError: too few labelled clips.
    """
    from miar.data.from_store import load_dataset
    from miar.training.loop import fit

    epochs = plan.training.epochs
    shutil.rmtree(plan.out / UNFINISHED, ignore_errors=True)
    with recorded_run(store, "train", run_id=new_run_id("train"), corpus_id=None, config=plan.to_json()) as result:
        dataset = load_dataset(plan.snapshot, label=plan.label, feature_sets=plan.tables, labelled_only=True)
        fitted = fit(
            plan.model,
            dataset.where_split("train"),
            dataset.where_split("valid"),
            plan.training,
            on_epoch=lambda report: advance("epochs", report.epoch, epochs),
            out_dir=plan.out / UNFINISHED,
        )
        _finish(fitted.model, plan.out)
        if len(fitted.history) < epochs:
            advance("epochs", epochs, epochs)
        result.update(
            model_id=model_id(fitted.model),
            model=str(plan.out.resolve()),
            label=plan.label,
            system=plan.system,
            snapshot_id=plan.snapshot.id,
            features=plan.tables,
            clips={split: dataset.splits.count(split) for split in ("train", "valid", "test")},
            best_epoch=fitted.best_epoch,
            metrics=fitted.metrics,
        )
    return dict(result)


def _finish(model: System, out: Path) -> None:
    """Put the finished model and its curves into ``out``."""
    from miar.training.loop import HISTORY

    model.save_pretrained(out)
    (out / UNFINISHED / HISTORY).replace(out / HISTORY)
    shutil.rmtree(out / UNFINISHED, ignore_errors=True)
