"""Which snapshot, and which feature sets of it, a step reads."""

from collections.abc import Sequence
from typing import Any

from miar.errors import ConfigError, UserError
from miar.features.contract import Modality
from storage import Snapshot, Store


def open_snapshot(store: Store, name: str | None) -> Snapshot:
    """The named snapshot; ``None`` takes one of the store as it is now (the same content keeps its id)."""
    return store.snapshots.take() if name is None else store.snapshots.open(name)


def choose_feature_sets(snapshot: Snapshot, chosen: Sequence[str] | None) -> dict[str, str]:
    """Modality -> feature table of the snapshot.

    Args:
        chosen: modalities (``text``), extractors (``opensmile``) or whole feature sets (``text/3f2a...``); ``None``
            or empty: the newest feature set of each modality.

    Raises:
        UserError: the snapshot holds no features, or none of that name; the text lists those it holds.
        ConfigError: two of the chosen are of one modality.
    """
    newest_first = sorted(snapshot.feature_sets, key=lambda row: str(row["created_at"]), reverse=True)
    active = [row for row in newest_first if row["state"] == "active"]
    if not active:
        raise UserError(f"snapshot {snapshot.id} holds no features: run `miar refresh` first")
    if not chosen:
        return {modality: _table(row) for modality, row in reversed([(r["modality"], r) for r in active])}
    tables: dict[str, str] = {}
    for name in chosen:
        row = next((row for row in active if name in _names(row)), None)
        if row is None:
            known = sorted({one for row in active for one in _names(row)})
            raise UserError(f"no features called '{name}' in snapshot {snapshot.id}; there are: {', '.join(known)}")
        if row["modality"] in tables:
            raise ConfigError(f"'{name}' is one feature set too many of {row['modality']}: choose one per modality")
        tables[row["modality"]] = _table(row)
    return {modality.value: tables[modality] for modality in Modality if modality in tables}


def trainable(snapshot: Snapshot, tables: Sequence[str]) -> list[str]:
    """Of these feature tables those that a model can be trained on: the first of each modality that the snapshot holds.

    All of them where it holds none, so that :func:`choose_feature_sets` says what is not there.
    """
    held = {_table(row): row["modality"] for row in snapshot.feature_sets if row["state"] == "active"}
    first: dict[str, str] = {}
    for table in tables:
        if table in held:
            first.setdefault(held[table], table)
    return list(first.values()) or list(tables)


def _table(row: dict[str, Any]) -> str:
    return f"features/{row['extractor']}/{row['config_hash']}"


def _names(row: dict[str, Any]) -> set[str]:
    extractor = row["extractor"]
    return {row["modality"], extractor, f"{extractor}/{row['config_hash']}", _table(row)}
