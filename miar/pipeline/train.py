"""Train a model on a snapshot and keep what it came from."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from miar.errors import ConfigError, UserError
from miar.pipeline.progress import advance
from miar.pipeline.runs import new_run_id, recorded_run
from miar.pipeline.selection import choose_feature_sets, open_snapshot
from storage import Store

SYSTEMS = ("miar",)
"""The systems that `miar train --system` knows."""


def train_model(
    store: Store,
    *,
    label: str,
    out: Path,
    snapshot: str | None = None,
    features: Sequence[str] | None = None,
    system: str = "miar",
    model: Mapping[str, Any] | None = None,
    training: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Train on the snapshot's ``train`` split, stop on its ``valid`` split, and save the model in ``out``.

    Args:
        label: name of the label in the store.
        out: folder for the model; it may exist, the model in it is then replaced.
        snapshot: id or name; ``None`` takes one now.
        features: see :func:`choose_feature_sets`.
        model: fields of ``MIARConfig`` to change from their defaults.
        training: fields of ``TrainingConfig`` to change from their defaults.

    Returns:
        ``model_id``, ``model``, ``snapshot_id``, ``metrics`` on the validation split, counts of clips.

    Raises:
        UserError: no such label, snapshot or features; too few labelled clips.
    """
    if system not in SYSTEMS:
        raise ConfigError(f"there is no system '{system}': choose one of {', '.join(SYSTEMS)}")
    # torch takes seconds to import: only what trains pays for it.
    from miar.data.from_store import load_dataset
    from miar.models.miar import MIARConfig
    from miar.training.loop import TrainingConfig, fit

    model_config = _configured(MIARConfig, model, "model")
    training_config = _configured(TrainingConfig, training, "training")
    pinned = open_snapshot(store, snapshot)
    tables = choose_feature_sets(pinned, features)
    config = {
        "label": label,
        "system": system,
        "snapshot": pinned.id,
        "features": tables,
        "model": asdict(model_config),
        "training": asdict(training_config),
    }
    with recorded_run(store, "train", run_id=new_run_id("train"), corpus_id=None, config=config) as result:
        dataset = load_dataset(pinned, label=label, feature_sets=tables, labelled_only=True)
        fitted = fit(
            model_config,
            dataset.where_split("train"),
            dataset.where_split("valid"),
            training_config,
            on_epoch=lambda report: advance("epochs", report.epoch, training_config.epochs),
            out_dir=out,
        )
        if len(fitted.history) < training_config.epochs:
            advance("epochs", training_config.epochs, training_config.epochs)
        fitted.model.save_pretrained(out)
        result.update(
            model_id=model_id(fitted.model),
            model=str(out.resolve()),
            label=label,
            system=system,
            snapshot_id=pinned.id,
            features=tables,
            clips={split: dataset.splits.count(split) for split in ("train", "valid", "test")},
            best_epoch=fitted.best_epoch,
            metrics=fitted.metrics,
        )
    return dict(result)


def model_id(model: Any) -> str:
    """``miar-sentiment-3f2a9c0d1e5b``: two models with the same id give the same scores."""
    from miar.models.pretrained import fingerprint

    return f"miar-{model.target.label}-{fingerprint(model)[:12]}"


def load_model(source: str) -> Any:
    """A trained model from a local folder or a hub id."""
    from miar.models.miar import MIAR

    return MIAR.from_pretrained(source)


def feature_tables_of(model: Any) -> dict[str, str]:
    """Modality -> feature table that the model was trained on."""
    return {
        modality: f"features/{one['extractor']}/{one['config_hash']}" for modality, one in model.feature_sets.items()
    }


def _configured(kind: type[Any], fields: Mapping[str, Any] | None, section: str) -> Any:
    from pydantic import TypeAdapter, ValidationError

    try:
        return TypeAdapter(kind).validate_python(dict(fields or {}))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise ConfigError(f"{section}.{key}: {first['msg']}") from error
    except UserError as error:
        raise ConfigError(f"{section}: {error}") from error
