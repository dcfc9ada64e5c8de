"""A trained model, the feature sets it reads, and the snapshot it is to read them from."""

from collections.abc import Mapping
from typing import Any

from miar.errors import FeatureMismatchError, UserError
from miar.pipeline.selection import open_snapshot
from storage import Snapshot, Store


def load_model(source: str) -> Any:
    """A trained model of any system, from a local folder or a hub id."""
    from miar.models.system import System

    return System.from_pretrained(source)


def model_id(model: Any) -> str:
    """``miar-sentiment-3f2a9c0d1e5b``: two models with the same id give the same scores."""
    from miar.models.pretrained import fingerprint

    return f"{model.config_class.system}-{model.target.label}-{fingerprint(model)[:12]}"


def snapshot_to_score(store: Store, model: Any, name: str | None) -> Snapshot:
    """The named snapshot; ``None`` takes one now.

    Raises:
        StoreError: no such snapshot.
        FeatureMismatchError: it holds none of the feature sets that the model was trained on.
    """
    snapshot = open_snapshot(store, name)
    _refuse_other_features(store, snapshot, model.feature_tables)
    return snapshot


def snapshot_to_evaluate(store: Store, model: Any, name: str | None, split: str) -> Snapshot:
    """The named snapshot; ``None``: the one that the model was trained on.

    Raises:
        StoreError: no such snapshot.
        UserError: the store does not hold the snapshot that the model was trained on, or no clip is of that split.
        FeatureMismatchError: it holds none of the feature sets that the model was trained on.
    """
    if name is None and model.record.snapshot_id not in {one.id for one in store.snapshots.list()}:
        raise UserError(
            f"the model was trained on a snapshot that {store.uri} does not hold: to measure it on this store, take "
            f"one, `miar snapshot {store.uri} --name today`, and say --snapshot today"
        )
    snapshot = open_snapshot(store, name or model.record.snapshot_id)
    _refuse_other_features(store, snapshot, model.feature_tables)
    splits = set(snapshot.read("clips", columns=["split"])["split"].to_pylist()) - {None}
    if split not in splits:
        known = ", ".join(sorted(splits)) or "none"
        raise UserError(f"snapshot {snapshot.id} has no clip of split '{split}'; there are: {known}")
    return snapshot


def _refuse_other_features(store: Store, snapshot: Snapshot, tables: Mapping[str, str]) -> None:
    held = set(snapshot.tables())
    if not held & set(tables.values()):
        there = ", ".join(sorted(name for name in held if name.startswith("features/"))) or "no features"
        raise FeatureMismatchError(
            f"the model was trained on {', '.join(sorted(tables.values()))}, but snapshot {snapshot.id} holds {there}: "
            f"refresh with the extractors and settings that it was trained on, `miar refresh --store {store.uri}`"
        )
