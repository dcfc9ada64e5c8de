"""Verification of one table: its log, its checkpoint, and every live file of it from end to end.

Memory holds a batch of rows at a time, and the list of the table's files.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pyarrow as pa

from storage import log, receipts
from storage.arrow import pc
from storage.bystanders import bystanders
from storage.commits import Guard
from storage.errors import SEE_VERIFY, StoreError, one_line
from storage.files import Files
from storage.findings import Finding
from storage.history import CHECKPOINT_EVERY, History, Named, checkpoint_version, checkpoints, history
from storage.repair import Repair, row_rules
from storage.schema import INPUT_HASH, TableSpec
from storage.shards import check_shard, file_batches, open_shard, read_keys

_RESTORE = "restore it from a backup"
_EXTRACT = "`--repair` takes it out of the table, and the next refresh makes its rows anew"


class TableCheck:
    """Checks one table; what it found stands in :attr:`findings`."""

    def __init__(self, files: Files, spec: TableSpec, guard: Guard) -> None:
        self.spec = spec
        self.findings: list[Finding] = []
        self.readable: list[str] = []
        """Live files whose rows can be read."""
        self.rows = 0
        self._files = files
        self._guard = guard
        self._repair = Repair(files, spec, guard)
        self._anew = spec.name.startswith("features/")
        self._past: History | None = None
        """The log from its first entry on; ``None`` while it is not known to be whole."""

    def run(self) -> None:
        """Read everything."""
        for name, named in sorted(self._live().items()):
            self._check_file(name, named)

    def _live(self) -> dict[str, Named]:
        """The table's files as the log names them, after checking that its parts agree."""
        table = self.spec.name
        past = self._history()
        with self._guard():
            past = past and self._history(past)
            try:
                version = log.load(self._files, self.spec)
            except StoreError as error:
                self._blame_log(past, one_line(error).removesuffix(SEE_VERIFY))
                return past.live if past else {}
        seen = dict(zip(version.names, version.live["size_bytes"].to_pylist(), strict=True))
        if past is not None and version.next_number > past.version + 1:
            # A checkpoint is made from the log: it is not the checkpoint that is wrong.
            self._name_lost(range(past.version + 1, version.next_number))
            past = None
        self._past = past
        if past is None:
            return {name: Named(size) for name, size in seen.items()}
        if past.version != version.number or seen != {name: named.size for name, named in past.live.items()}:
            self._add(
                "checkpoint",
                f"{table}/_delta_log",
                f"the checkpoint says other than the log: {len(seen)} files at version {version.number},"
                f" not {len(past.live)} at version {past.version}",
                "`--repair` makes it anew from the log",
                self._repair.rebuild_checkpoint,
            )
        elif past.version - (checkpoint_version(self._files, table) or -1) > 2 * CHECKPOINT_EVERY:
            self._add(
                "checkpoint",
                f"{table}/_delta_log",
                f"no checkpoint that can be read covers the last {2 * CHECKPOINT_EVERY} commits",
                "`--repair` or `miar maintain` writes it",
                self._repair.rebuild_checkpoint,
            )
        return past.live

    def _history(self, known: History | None = None) -> History | None:
        """``None`` where the log is not whole, so that it cannot be the judge of the checkpoint."""
        table = self.spec.name
        try:
            past = history(self._files, table, known)
        except StoreError as error:
            self._add("log", f"{table}/_delta_log", str(error).removesuffix(f"; {_RESTORE}"), _RESTORE)
            return None
        self._name_lost(past.missing)
        return None if past.missing else past

    def _name_lost(self, numbers: Iterable[int]) -> None:
        for number in numbers:
            where = f"{self.spec.name}/_delta_log/{number:020}.json"
            self._add("log", where, "the entry is gone or empty", _RESTORE)

    def _blame_log(self, past: History | None, reason: str) -> None:
        whole = past is not None and checkpoints(self._files, self.spec.name)
        self._add(
            "checkpoint" if whole else "log",
            f"{self.spec.name}/_delta_log",
            f"the table cannot be opened: {reason}",
            "`--repair` makes the checkpoint anew from the log" if whole else _RESTORE,
            self._repair.rebuild_checkpoint if whole else None,
        )

    def _check_file(self, name: str, named: Named) -> None:
        path = f"{self.spec.name}/{name}"
        size = self._files.size(path)
        if size is None:
            lost = "the next refresh makes its rows anew" if self._anew else "its rows are lost unless it is restored"
            todo = f"`--repair` takes it out of the table, so that reads work again; {lost}"
            what, mend = "the log names it, and it is not there", partial(self._repair.drop, name)
            self._add("file missing", path, what, todo, mend)
            return
        try:
            if problem := self._wrong_columns(path):
                self._unusable("columns", name, problem)
                return
            facts = _Facts(self.spec)
            for batch in file_batches(self._files, self.spec, name):
                facts.take(pa.Table.from_batches([batch]))
        except (pa.ArrowException, OSError) as error:
            changed = "" if size == named.size else f" of {size} bytes, not {named.size},"
            self._unusable("file unreadable", name, f"the file{changed} cannot be read: {one_line(error)}")
            return
        self.readable.append(name)
        self.rows += facts.rows
        self._judge(name, size, named, facts)

    def _judge(self, name: str, size: int, named: Named, facts: "_Facts") -> None:
        path = f"{self.spec.name}/{name}"
        for rule, (count, first) in facts.broken.items():
            self._add(
                "rows",
                path,
                f"{rule} in {count} rows, first {first}",
                "`--repair` leaves them out, and the next refresh makes them anew" if self._anew else _RESTORE,
                partial(self._repair.drop_broken_rows, name) if self._anew else None,
            )
        wrong = [f"it has {size} bytes, not {named.size}"] if size != named.size else []
        if named.statistics and not wrong:
            wrong = facts.against(named.statistics)
        if wrong:
            self._add(
                "statistics",
                path,
                f"the log says otherwise: {'; '.join(wrong)}",
                "`--repair` writes its rows anew",
                partial(self._repair.write_anew, name),
            )

    def _wrong_columns(self, path: str) -> str | None:
        with open_shard(self._files, path) as file:
            found = file.schema_arrow.remove_metadata()
        required = {*self.spec.skipping_columns, *((INPUT_HASH,) if self.spec.n_columns is not None else ())}
        if lacking := sorted(required - set(found.names)):
            return f"it has no {', '.join(lacking)}"
        for column in found:
            if column.name not in self.spec.schema.names:
                return f"it has a column {column.name}, which the table does not have"
            if not self.spec.schema.field(column.name).equals(column):
                return f"its column {column.name} is {column.type}, not {self.spec.schema.field(column.name).type}"
        return None

    def _unusable(self, kind: str, name: str, what: str) -> None:
        path, mend = f"{self.spec.name}/{name}", partial(self._repair.drop, name)
        if self._anew:
            self._add(kind, path, what, _EXTRACT, mend)
        else:
            self._add(kind, path, what, f"{_RESTORE}, or delete it and repair the store: its rows are lost then")

    def check_orphans(self) -> None:
        """Shards that wait to be adopted: one that cannot be is of no use to anybody."""
        if self._past is None:
            return
        table = self.spec.name
        with self._guard():
            past = self._history(self._past)
            found = bystanders(self._files, table, past, past.live).orphans if past else []
            in_hand = receipts.in_hand(self._files, table)
        for name in (name for name in found if name not in in_hand):
            try:
                read_keys(self._files, self.spec, name)
                check_shard(self._files, self.spec, name)
            except StoreError as error:
                problem = str(error).removeprefix(f"{table}/{name} ")
                what = f"a shard that was never registered, and cannot be: {problem}"
                rows = ", and the next refresh makes its rows anew" if self._anew else "; the table never had its rows"
                todo = f"`--repair` deletes it{rows}"
                self._add("orphan", f"{table}/{name}", what, todo, partial(self._repair.drop_orphan, name))

    def _add(self, kind: str, where: str, what: str, todo: str, mend: Any = None) -> None:
        self.findings.append(Finding(kind, where, what, todo, mend))


@dataclass
class _Facts:
    """What a file's rows say of themselves, gathered batch by batch."""

    spec: TableSpec
    rows: int = 0
    broken: dict[str, tuple[int, str]] = field(default_factory=dict)
    """Rule -> how many rows break it, and the key of the first."""
    least: dict[str, Any] = field(default_factory=dict)
    most: dict[str, Any] = field(default_factory=dict)
    nulls: dict[str, int] = field(default_factory=dict)

    def take(self, rows: pa.Table) -> None:
        self.rows += rows.num_rows
        for rule, wrong in row_rules(rows, self.spec).items():
            if count := pc.sum(wrong).as_py():
                earlier, first = self.broken.get(rule, (0, str(rows.filter(wrong)[self.spec.key[0]][0])))
                self.broken[rule] = (earlier + count, first)
        for name in self.spec.skipping_columns:
            found = pc.min_max(rows[name]).as_py()
            self.nulls[name] = self.nulls.get(name, 0) + rows[name].null_count
            if found["min"] is not None:
                self.least[name] = min(self.least.get(name, found["min"]), found["min"])
                self.most[name] = max(self.most.get(name, found["max"]), found["max"])

    def against(self, said: dict[str, Any]) -> list[str]:
        """How the statistics that the log has of the file are wrong."""
        wrong = [f"{self.rows} rows, not {said.get('numRecords')}"] if said.get("numRecords") != self.rows else []
        for name in self.spec.skipping_columns:
            own = (self.least.get(name), self.most.get(name), self.nulls.get(name, 0))
            logged = tuple(said.get(part, {}).get(name) for part in ("minValues", "maxValues", "nullCount"))
            if own != logged:
                wrong.append(f"{name} from {own[0]} to {own[1]} with {own[2]} nulls, not {logged}")
        return wrong
