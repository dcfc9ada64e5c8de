"""The log of a table from its first entry on, and the checkpoints that gather it into one file.

Notable: readers start from a checkpoint; nothing here does, so that a wrong checkpoint can be told from a right one.
"""

import contextlib
import json
from dataclasses import dataclass, field, replace
from typing import Any

from deltalake import DeltaTable
from deltalake.exceptions import DeltaError

from storage.errors import StoreError, one_line
from storage.files import Files

LOG = "_delta_log"
CHECKPOINT_EVERY = 20
"""Commits. Without checkpoints every reader replays the whole log."""

_LAST_CHECKPOINT = f"{LOG}/_last_checkpoint"


def checkpoint_if_due(files: Files, name: str, committed: int) -> None:
    """Write a checkpoint after every :data:`CHECKPOINT_EVERY` commits.

    A checkpoint only makes reading faster: the commit stands whether or not it can be written.
    """
    if (committed + 1) % CHECKPOINT_EVERY == 0:
        with contextlib.suppress(StoreError):
            write_checkpoint(files, name)


def write_checkpoint(files: Files, name: str) -> None:
    """Gather the log of the newest version into one file.

    Raises:
        StoreError: the log cannot be read, or the file cannot be written.
    """
    try:
        DeltaTable(files.url(name)).create_checkpoint()
    except (DeltaError, OSError) as error:
        raise StoreError(f"cannot write a checkpoint of the table {name}: {one_line(error)}") from error


def checkpoint_version(files: Files, name: str) -> int | None:
    """The version of the checkpoint that readers start from; ``None`` where there is none that can be read."""
    try:
        version = int(json.loads(files.read(f"{name}/{_LAST_CHECKPOINT}"))["version"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return version if files.size(f"{name}/{_checkpoint_name(version)}") else None


def checkpoints(files: Files, name: str) -> list[str]:
    """Checkpoint files, oldest first, named within the table's folder."""
    return [f"{LOG}/{entry}" for entry in files.entries(f"{name}/{LOG}") if ".checkpoint." in entry]


def begun(files: Files, name: str) -> bool:
    """Whether the table has had a commit: anything of its log is there, if not its first entry."""
    entries = files.entries(f"{name}/{LOG}")
    return any(_version_of(entry) is not None or ".checkpoint." in entry for entry in entries)


def _checkpoint_name(version: int) -> str:
    return f"{LOG}/{version:020}.checkpoint.parquet"


def drop_checkpoints(files: Files, name: str) -> None:
    """Take all checkpoints away, so that readers replay the log itself, which is kept whole."""
    files.remove(f"{name}/{_LAST_CHECKPOINT}")
    for checkpoint in checkpoints(files, name):
        files.remove(f"{name}/{checkpoint}")


@dataclass
class Named:
    """What the log has said of one file."""

    size: int
    statistics: dict[str, Any] = field(default_factory=dict)
    removed_ms: int | None = None
    """When it left the table, in ms since 1970; ``None``: it is live."""


@dataclass
class History:
    """The log, read entry by entry without the help of a checkpoint."""

    version: int = -1
    files: dict[str, Named] = field(default_factory=dict)
    """Every file that any version has named."""
    missing: list[int] = field(default_factory=list)
    """Versions whose entry is gone or empty."""

    @property
    def live(self) -> dict[str, Named]:
        return {name: named for name, named in self.files.items() if named.removed_ms is None}


def history(files: Files, name: str, known: History | None = None) -> History:
    """Everything that the log of a table has said; the log is kept whole, so nothing is forgotten.

    Args:
        known: what was read before, to be brought up to date.

    Raises:
        StoreError: an entry cannot be read.
    """
    found = known or History()
    for entry in files.entries(f"{name}/{LOG}"):
        version = _version_of(entry)
        if version is None or version <= found.version:
            continue
        try:
            actions = [json.loads(line) for line in files.read(f"{name}/{LOG}/{entry}").splitlines()]
            for action in actions:
                _follow(found.files, action)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise StoreError(f"{name}/{LOG}/{entry} cannot be read; restore it from a backup") from error
        # Every commit says something: an entry without a word was cut off with the power.
        found.missing += range(found.version + 1, version if actions else version + 1)
        found.version = version
    return found


def _version_of(entry: str) -> int | None:
    """``None`` for what else stands among the entries of a log."""
    return int(entry[:-5]) if entry.endswith(".json") and entry[:-5].isdigit() else None


def _follow(named: dict[str, Named], action: dict[str, Any]) -> None:
    """Of one commit, the removals are written before the additions."""
    if remove := action.get("remove"):
        earlier = named.get(remove["path"], Named(remove.get("size") or 0))
        named[remove["path"]] = replace(earlier, removed_ms=remove.get("deletionTimestamp") or 0)
    elif add := action.get("add"):
        named[add["path"]] = Named(add["size"], json.loads(add.get("stats") or "{}"))
