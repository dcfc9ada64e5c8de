"""Which snapshot, and which feature sets of it, a step reads."""

from collections.abc import Mapping, Sequence

from miar.descriptors import Descriptor, active, newest_active, table_of
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
    usable = active(snapshot.feature_sets, snapshot.tables())
    if not usable:
        raise UserError(f"snapshot {snapshot.id} holds no features: run `miar refresh` first")
    if not chosen:
        return _in_order(newest_active(usable, snapshot.tables()))
    rows: dict[str, Descriptor] = {}
    for name in chosen:
        row = next((row for row in usable if name in _names(row)), None)
        if row is None:
            known = sorted({one for row in usable for one in _names(row)})
            raise UserError(f"no features called '{name}' in snapshot {snapshot.id}; there are: {', '.join(known)}")
        if row["modality"] in rows:
            raise ConfigError(f"'{name}' is one feature set too many of {row['modality']}: choose one per modality")
        rows[row["modality"]] = row
    return _in_order(rows)


def trainable(snapshot: Snapshot, tables: Sequence[str]) -> list[str]:
    """Of these feature tables those that a model can be trained on: the first of each modality that the snapshot holds.

    All of them where it holds none, so that :func:`choose_feature_sets` says what is not there.
    """
    held = {table_of(row): row["modality"] for row in active(snapshot.feature_sets, snapshot.tables())}
    first: dict[str, str] = {}
    for table in tables:
        if table in held:
            first.setdefault(held[table], table)
    return list(first.values()) or list(tables)


def _in_order(rows: Mapping[str, Descriptor]) -> dict[str, str]:
    return {modality.value: table_of(rows[modality]) for modality in Modality if modality in rows}


def _names(row: Descriptor) -> set[str]:
    extractor = row["extractor"]
    return {row["modality"], extractor, f"{extractor}/{row['config_hash']}", table_of(row)}
