"""What stands in a table's folder beside its live files."""

from collections.abc import Collection
from dataclasses import dataclass

from storage.files import Files
from storage.history import History, Named


@dataclass(frozen=True)
class Bystanders:
    """The Parquet files of a table's folder that are not live."""

    orphans: list[str]
    """Shards that no version has ever named, sorted: staged and never registered, or left by a commit that died."""
    replaced: dict[str, Named]
    """Files that left the table, sorted by name."""


def bystanders(files: Files, table: str, past: History, live: Collection[str]) -> Bystanders:
    """Told from the log. Under the guard, with the log as it is then, no commit in the making is among them.

    Args:
        past: the log from its first entry on.
        live: the newest version's files: of one whose own entry is gone, a checkpoint may know, and readers with it.
    """
    others = sorted({name for name in files.entries(table) if name.endswith(".parquet")}.difference(live))
    known = past.files
    return Bystanders(
        orphans=[name for name in others if name not in known],
        replaced={name: known[name] for name in others if name in known and known[name].removed_ms is not None},
    )
