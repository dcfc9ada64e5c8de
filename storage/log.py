"""The Delta log of one table: which files are live, and commits that either happen whole or not at all.

Notable: a commit is made on the version that it was planned on (``max_commit_retries=0``), because
deltalake would otherwise rebase a stale plan and double rows; nothing ever cleans the log, since snapshots
and time travel need it.
"""

import contextlib
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.dataset as ds
from deltalake import DeltaTable, Schema
from deltalake.exceptions import DeltaError
from deltalake.transaction import (
    AddAction,
    CommitProperties,
    PostCommitHookProperties,
    RemoveAction,
    create_table_with_add_actions,
)

from storage.errors import StoreError
from storage.files import Files
from storage.schema import TableSpec
from storage.shards import statistics

CHECKPOINT_EVERY = 20
"""Commits. Without checkpoints every reader replays the whole log."""

_LOG = "_delta_log"
_NO_RETRY = CommitProperties(max_commit_retries=0)
_NO_HOOKS = PostCommitHookProperties(create_checkpoint=False, cleanup_expired_logs=False)


class ConflictError(Exception):
    """The table has moved on since the plan was made; make a new plan."""


@dataclass(frozen=True)
class Version:
    """The table as one version of its log has it; ``delta`` is ``None`` before the first commit."""

    delta: DeltaTable | None
    live: pa.Table
    """One row per live file: path, size_bytes, num_records, and min/max of the skipping columns."""

    @property
    def number(self) -> int | None:
        return None if self.delta is None else self.delta.version()

    @property
    def next_number(self) -> int:
        """The number of a commit on this version."""
        return 0 if self.delta is None else self.delta.version() + 1

    @property
    def names(self) -> list[str]:
        return self.live["path"].to_pylist()


def exists(files: Files, name: str) -> bool:
    """Whether the table has had its first commit. The log is never cleaned, so its first entry stays."""
    return files.size(f"{name}/{_LOG}/{0:020}.json") is not None


def load(files: Files, spec: TableSpec) -> Version:
    """The newest version.

    Raises:
        StoreError: the table was written with other columns.
    """
    if not exists(files, spec.name):
        return Version(None, pa.table({"path": pa.array([], pa.string()), "size_bytes": pa.array([], pa.int64())}))
    delta = DeltaTable(files.url(spec.name))
    if not pa.schema(delta.schema().to_arrow()).equals(spec.schema):
        raise StoreError(f"the table {spec.name} was written with other columns than are asked for now")
    return Version(delta, pa.table(delta.get_add_actions(flatten=True)))


def dataset(files: Files, spec: TableSpec, version: Version) -> ds.Dataset:
    """The live rows of a version, with each file's statistics attached, so that filters skip files."""
    if version.delta is None:
        return ds.dataset(spec.schema.empty_table())
    return version.delta.to_pyarrow_dataset(filesystem=files.filesystem(spec.name), schema=spec.schema)


def commit(files: Files, spec: TableSpec, version: Version, *, removed: Sequence[str], added: Sequence[str]) -> None:
    """Replace files of ``version`` by others, all at once. ``added`` stand in the table's folder already.

    Raises:
        ConflictError: another commit came first; this one left no trace.
        StoreError: the log cannot be written.
    """
    now = time.time_ns() // 1_000_000
    sizes = dict(zip(version.names, version.live["size_bytes"].to_pylist(), strict=True))
    adds = [_add(files, spec, name, now) for name in added]
    removes = [RemoveAction(name, True, now, sizes[name], {}) for name in removed]
    schema = Schema.from_arrow(spec.schema)
    try:
        if version.delta is None:
            create_table_with_add_actions(
                files.url(spec.name),
                schema,
                adds,
                configuration=_configuration(spec),
                commit_properties=_NO_RETRY,
                post_commithook_properties=_NO_HOOKS,
            )
        else:
            version.delta.create_write_transaction(
                [*removes, *adds],
                "append",
                schema,
                commit_properties=_NO_RETRY,
                post_commithook_properties=_NO_HOOKS,
            )
    except (DeltaError, OSError) as error:
        if load(files, spec).number != version.number:
            raise ConflictError(str(error)) from error
        reason = " ".join(str(error).split())
        raise StoreError(f"cannot write the log of the table {spec.name}: {reason}") from error


def _configuration(spec: TableSpec) -> dict[str, str | None]:
    """The log is never cleaned; and readers must know which columns have statistics, or their filters lose rows."""
    return {
        "delta.enableExpiredLogCleanup": "false",
        "delta.dataSkippingStatsColumns": ",".join(spec.skipping_columns),
    }


def _add(files: Files, spec: TableSpec, name: str, now_ms: int) -> AddAction:
    size = files.size(f"{spec.name}/{name}")
    if size is None:
        raise StoreError(f"{spec.name}/{name} cannot be registered: there is no such file")
    return AddAction(name, size, {}, now_ms, True, statistics(files, spec, name))


def checkpoint_if_due(files: Files, spec: TableSpec, committed: int) -> None:
    """Write a checkpoint after every :data:`CHECKPOINT_EVERY` commits.

    A checkpoint only makes reading faster: the commit stands whether or not it can be written.
    """
    if (committed + 1) % CHECKPOINT_EVERY == 0:
        with contextlib.suppress(DeltaError, OSError):
            DeltaTable(files.url(spec.name)).create_checkpoint()


def ever_added(files: Files, name: str) -> set[str]:
    """Every file that any version of the log has named; the log is kept whole, so it knows them all."""
    names: set[str] = set()
    for entry in files.entries(f"{name}/{_LOG}"):
        if entry.endswith(".json") and entry[:-5].isdigit():
            actions = (json.loads(line) for line in files.read(f"{name}/{_LOG}/{entry}").splitlines())
            names.update(action["add"]["path"] for action in actions if "add" in action)
    return names
