"""Receipts: who writes a shard has checked its rows, and notes the file that came of them.

Notable: a file of that size and modification time is what its writer left, as it is for a snapshot; whoever registers
it need not decode every page to know what was known when it was written. Without a receipt, or where either differs,
the file is read from end to end. A receipt also says that a shard is in hand: maintenance leaves it alone while the
receipt is young.
"""

import json
import time
from collections.abc import Iterable
from typing import Any

from storage.files import Files
from storage.schema import TableSpec

FOLDER = "_receipts"
IN_HAND_NS = 24 * 3600 * 10**9
"""A shard is registered within moments of being staged; one that still waits after this was left by a dead run."""


def claim(files: Files, spec: TableSpec, shard: str) -> None:
    """Say that a shard is about to stand in the folder, or to be registered, before it is put there or looked at."""
    files.write(_path(spec.name, shard), "{}\n", durable=False)


def write(files: Files, spec: TableSpec, shard: str) -> None:
    """Note that the shard holds rows that were checked."""
    files.write(_path(spec.name, shard), json.dumps(_receipt(files, spec, shard)) + "\n", durable=False)


def vouches(files: Files, spec: TableSpec, shard: str) -> bool:
    """Whether the shard's rows were checked against this spec and its file was not touched since."""
    try:
        noted = json.loads(files.read(_path(spec.name, shard)))
    except (OSError, ValueError):
        return False
    return noted == _receipt(files, spec, shard)


def drop(files: Files, spec: TableSpec, shards: Iterable[str]) -> None:
    """The shards are live, or gone."""
    for shard in shards:
        files.remove(_path(spec.name, shard))


def in_hand(files: Files, table: str) -> set[str]:
    """Shards that a running job may be about to register."""
    young = time.time_ns() - IN_HAND_NS
    folder = f"{FOLDER}/{table}"
    return {
        entry.removesuffix(".json")
        for entry in files.entries(folder)
        if entry.endswith(".json") and (files.modified_ns(f"{folder}/{entry}") or young) > young
    }


def _path(table: str, shard: str) -> str:
    return f"{FOLDER}/{table}/{shard}.json"


def _receipt(files: Files, spec: TableSpec, shard: str) -> dict[str, Any]:
    found = files.stat(f"{spec.name}/{shard}")
    return {
        "size": found and found.size,
        "modified_ns": found and found.modified_ns,
        "n_columns": spec.n_columns,
        "pooled_dim": spec.pooled_dim,
    }
