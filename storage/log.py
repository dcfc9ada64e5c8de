"""The Delta log of one table: which files are live, and commits that either happen whole or not at all.

Notable: a commit is made on the version that it was planned on (``max_commit_retries=0``), because
deltalake would otherwise rebase a stale plan and double rows; nothing ever cleans the log, since snapshots
and time travel need it.
"""

import contextlib
import time
from collections.abc import Iterator, Sequence
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

from storage.errors import SEE_VERIFY, AccessError, StoreError, one_line
from storage.files import Files
from storage.history import LOG
from storage.schema import INPUT_HASH, TableSpec
from storage.shards import statistics

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
    lacking: tuple[str, ...] = ()
    """Columns that the table was made without: null in every row until the table has them."""

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
    return files.size(f"{name}/{LOG}/{0:020}.json") is not None


def open_table(files: Files, name: str) -> DeltaTable:
    """The newest version of a table that has had a commit, whatever its columns.

    Raises:
        AccessError: its log cannot be read.
    """
    try:
        return files.persistently(lambda: DeltaTable(files.url(name)))
    except (DeltaError, OSError) as error:
        raise AccessError(f"cannot read the log of the table {name}: {one_line(error)}{SEE_VERIFY}") from error


def live_files(table: DeltaTable) -> list[tuple[str, int]]:
    """(name, bytes) of the files of a version, sorted by name."""
    live = pa.table(table.get_add_actions(flatten=True)).select(["path", "size_bytes"]).sort_by("path")
    return list(zip(*live.to_pydict().values(), strict=True))


def load(files: Files, spec: TableSpec) -> Version:
    """The newest version. A table that was made before some columns were thought of is read with nulls in them.

    Raises:
        StoreError: the table was written with other columns, or its log cannot be read.
    """
    if not exists(files, spec.name):
        return Version(None, pa.table({"path": pa.array([], pa.string()), "size_bytes": pa.array([], pa.int64())}))
    delta = open_table(files, spec.name)
    columns = pa.schema(delta.schema().to_arrow())
    if unknown := [name for name in columns.names if name not in spec.schema.names]:
        raise StoreError(
            f"the table {spec.name} was written with other columns than are asked for now: it has"
            f" {', '.join(unknown)}; upgrade miar if a newer version wrote it"
        )
    if other := [name for name in columns.names if not columns.field(name).equals(spec.schema.field(name))]:
        kinds = ", ".join(f"{name} is {columns.field(name).type}" for name in other)
        raise StoreError(f"the table {spec.name} was written with other columns than are asked for now: {kinds}")
    lacking = tuple(name for name in spec.schema.names if name not in columns.names)
    if required := [name for name in lacking if name in (*spec.skipping_columns, INPUT_HASH)]:
        raise StoreError(
            f"the table {spec.name} was written with other columns than are asked for now: it has no"
            f" {', '.join(required)}, which cannot be added to rows that are there"
        )
    return Version(delta, pa.table(delta.get_add_actions(flatten=True)), lacking)


def add_columns(files: Files, spec: TableSpec, version: Version) -> None:
    """Give the table the columns that it lacks. No file is touched: where a file has no such column, it reads null.

    Raises:
        ConflictError: another commit came first.
        AccessError: the log cannot be written.
    """
    assert version.delta is not None, "a table that is not there lacks nothing"
    added = [field for field in Schema.from_arrow(spec.schema).fields if field.name in version.lacking]
    with _one_version(files, spec, version):
        version.delta.alter.add_columns(added, commit_properties=_NO_RETRY, post_commithook_properties=_NO_HOOKS)


def dataset(files: Files, spec: TableSpec, version: Version) -> ds.Dataset:
    """The live rows of a version, with each file's statistics attached, so that filters skip files."""
    if version.delta is None:
        return ds.dataset(spec.schema.empty_table())
    return version.delta.to_pyarrow_dataset(filesystem=files.filesystem(spec.name), schema=spec.schema)


def commit(
    files: Files,
    spec: TableSpec,
    version: Version,
    *,
    removed: Sequence[str],
    added: Sequence[str],
    data_change: bool = True,
) -> None:
    """Replace files of ``version`` by others, all at once. ``added`` stand in the table's folder already.

    ``data_change`` false: the rows stay as they were, they only stand in other files.

    Raises:
        ConflictError: another commit came first; this one left no trace.
        AccessError: the log cannot be written.
    """
    now = time.time_ns() // 1_000_000
    sizes = dict(zip(version.names, version.live["size_bytes"].to_pylist(), strict=True))
    adds = [_add(files, spec, name, now, data_change) for name in added]
    removes = [RemoveAction(name, data_change, now, sizes[name], {}) for name in removed]
    schema = Schema.from_arrow(spec.schema)
    with _one_version(files, spec, version):
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
    # What a caller is told is done must not be gone, or torn, after a power cut.
    files.settle(f"{spec.name}/{LOG}/{version.next_number:020}.json")


@contextlib.contextmanager
def _one_version(files: Files, spec: TableSpec, version: Version) -> Iterator[None]:
    """The body writes the version after ``version``, or nothing.

    What stands in the log afterwards tells which: a network may lose the answer to a commit that was made. Its writer
    then hears of a conflict with itself, and its next plan finds the work done.
    """
    try:
        yield
    except (DeltaError, OSError) as error:
        if load(files, spec).number != version.number:
            raise ConflictError(str(error)) from error
        reason = one_line(error)
        raise AccessError(f"cannot write the log of the table {spec.name}: {reason}") from error


def _configuration(spec: TableSpec) -> dict[str, str | None]:
    """The log is never cleaned; and readers must know which columns have statistics, or their filters lose rows."""
    return {
        "delta.enableExpiredLogCleanup": "false",
        "delta.dataSkippingStatsColumns": ",".join(spec.skipping_columns),
    }


def _add(files: Files, spec: TableSpec, name: str, now_ms: int, data_change: bool) -> AddAction:
    size = files.size(f"{spec.name}/{name}")
    if size is None:
        raise StoreError(f"{spec.name}/{name} cannot be registered: there is no such file")
    return AddAction(name, size, {}, now_ms, data_change, statistics(files, spec, name))
