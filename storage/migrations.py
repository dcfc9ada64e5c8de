"""The format of a store, and the steps that bring an older one forward.

A step takes the store from one format to the next. It may be killed anywhere and run again: it does its work first,
and the format file, which is replaced at once, says last that it is done. Steps run under the guard that commits
take, so one process at a time makes them and no table moves meanwhile. Reading an older store needs no step.
"""

import json
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from storage.errors import StoreError
from storage.files import Files

FORMAT_FILE = "miar-store.json"
FORMAT_VERSION = 2

Step = Callable[[Files, dict[str, Any]], dict[str, Any]]
"""Does what has to be done in the store, and returns what the format file says afterwards, but for ``version``."""


@dataclass(frozen=True)
class StoreFormat:
    """What the format file says."""

    version: int
    id: str | None
    """Stays with the store wherever it is moved; ``None`` before format 2."""


def start(files: Files) -> None:
    """Write the format file of a new store; of several that do so at once, one wins."""
    record = {"format": "miar-store", "version": FORMAT_VERSION, "id": uuid.uuid4().hex}
    files.create(FORMAT_FILE, _text({**record, "created_at": datetime.now(UTC).isoformat()}))


def read_format(files: Files) -> StoreFormat:
    """The format of the store.

    Raises:
        StoreError: the format file cannot be read, or a newer version wrote it.
    """
    tree = _read(files)
    return StoreFormat(tree["version"], tree.get("id"))


def bring_forward(files: Files) -> StoreFormat:
    """Run the steps that are left, oldest first. The caller holds the guard.

    Raises:
        StoreError: as :func:`read_format`, or the store cannot be written.
    """
    tree = _read(files)
    while tree["version"] < FORMAT_VERSION:
        tree = {**STEPS[tree["version"]](files, tree), "version": tree["version"] + 1}
        files.write(FORMAT_FILE, _text(tree))
    return read_format(files)


def _read(files: Files) -> dict[str, Any]:
    try:
        tree = json.loads(files.read(FORMAT_FILE))
        tree["version"] = int(tree["version"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{files.path(FORMAT_FILE)} cannot be read; restore it from a backup") from error
    if not 1 <= tree["version"] <= FORMAT_VERSION:
        raise StoreError(
            f"{files.root} was written by a newer version (format {tree['version']},"
            f" this one reads {FORMAT_VERSION}); upgrade miar"
        )
    return tree


def _text(tree: Mapping[str, Any]) -> str:
    return json.dumps(tree) + "\n"


def _name_the_store(files: Files, tree: dict[str, Any]) -> dict[str, Any]:
    """Format 2: a store has an id of its own, and its age: this file was written once, when the store was made."""
    written_ns = files.modified_ns(FORMAT_FILE)
    assert written_ns is not None, "the step was handed what stands in this file"
    born = datetime.fromtimestamp(written_ns / 1e9, UTC)
    return {**tree, "id": uuid.uuid4().hex, "created_at": born.isoformat()}


STEPS: dict[int, Step] = {1: _name_the_store}
"""Format -> the step from there to the next."""
