"""Verification of a whole store: tables from end to end, keys across files, snapshots with their checksums.

Notable: nothing is taken on trust. The log is replayed without its checkpoint, every page is read with its checksum,
and rows are counted against what the log says. A repair is followed by another look: what is said to be mended was seen
to be right.
"""

from storage import inventory, log
from storage.catalog import FOLDER, SnapshotCatalog
from storage.commits import Guard
from storage.errors import SEE_VERIFY, StoreError, one_line
from storage.file_checks import TableCheck
from storage.files import Files
from storage.findings import Finding, Verification
from storage.history import begun
from storage.key_checks import check_keys
from storage.schema import CLIPS, FEATURE_SETS, TableSpec

_ROUNDS = 3
"""A mend may bring to light what it hid: a file that can be read again may hold keys that stand twice."""


class Verifier:
    """Looks at everything, and mends what is safe."""

    def __init__(self, files: Files, guard: Guard, catalog: SnapshotCatalog) -> None:
        self._files = files
        self._guard = guard
        self._catalog = catalog

    def verify(self) -> Verification:
        """Look, and change nothing. Memory is bounded whatever the size of the store."""
        result = Verification()
        described, known = self._described()
        checks = [TableCheck(self._files, spec, self._guard) for spec in self._specs(described, result)]
        # Clips last: a clip is written before its features.
        for check in sorted(checks, key=lambda check: check.spec.name == CLIPS.name):
            check.run()
            check.check_orphans()
            result.findings += check.findings
            result.tables += 1
            result.files += len(check.readable)
            result.rows += check.rows
        result.findings += check_keys(self._files, self._guard, checks)
        if known:
            result.findings += self._undescribed(checks, described)
        self._check_snapshots(result)
        result.findings.sort(key=lambda finding: (finding.where, finding.kind))
        return result

    def repair(self) -> Verification:
        """Mend what is safe, look again, and say what was mended and what is left.

        Raises:
            StoreError: the store cannot be written.
        """
        found = self.verify()
        wrong = {(finding.kind, finding.where): finding for finding in found.findings}
        for _ in range(_ROUNDS):
            mends = [finding.mend for finding in found.findings if finding.mend is not None]
            if not mends:
                break
            for mend in mends:
                mend()
            before = found.findings
            found = self.verify()
            wrong |= {(finding.kind, finding.where): finding for finding in found.findings}
            if found.findings == before:
                break
        left = {(finding.kind, finding.where) for finding in found.findings}
        found.repaired = [finding for key, finding in wrong.items() if key not in left]
        return found

    def _described(self) -> tuple[list[dict[str, object]], bool]:
        """The feature sets' descriptors, and whether they can be read: if not, the check of their table says why."""
        try:
            return inventory.descriptors(self._files), True
        except StoreError:
            return [], False

    def _specs(self, described: list[dict[str, object]], result: Verification) -> list[TableSpec]:
        specs: list[TableSpec] = []
        pinned = self._pinned_tables()
        for name in inventory.table_folders(self._files):
            if not log.exists(self._files, name):
                if begun(self._files, name) or name in pinned:
                    what = "the first entry of the log is gone, and with it the table"
                    result.findings.append(Finding("log", f"{name}/_delta_log", what, "restore it from a backup"))
                elif self._has_files_alone(name):
                    what = "there are files and no log: it is gone, or the table's first commit was killed"
                    todo = "restore the log from a backup, or refresh again, which writes the table anew"
                    result.findings.append(Finding("log", f"{name}/_delta_log", what, todo))
                continue
            try:
                specs.append(inventory.spec_of(self._files, name, described))
            except StoreError as error:
                what = f"the table cannot be opened: {one_line(error).removesuffix(SEE_VERIFY)}"
                result.findings.append(Finding("log", f"{name}/_delta_log", what, "restore it from a backup"))
        return specs

    def _pinned_tables(self) -> set[str]:
        """Tables that a snapshot reads: each has had a commit."""
        try:
            return set(self._catalog.pinned())
        except StoreError:
            return set()  # the check of the snapshots says which record cannot be read

    def _has_files_alone(self, name: str) -> bool:
        """Whether a table of the catalogue holds files and nothing of a log. Shards of feature tables may, until the
        run that wrote them, or the next, registers them."""
        return "/" not in name and any(entry.endswith(".parquet") for entry in self._files.entries(name))

    def _undescribed(self, checks: list[TableCheck], described: list[dict[str, object]]) -> list[Finding]:
        names = {inventory.descriptor_spec(row).name for row in described}
        return [
            Finding(
                "descriptor",
                check.spec.name,
                f"the table {FEATURE_SETS.name} does not describe it, so widths could not be checked",
                "refresh with the configuration that made it, which describes it again",
            )
            for check in checks
            if check.spec.name.startswith("features/") and check.spec.name not in names
        ]

    def _check_snapshots(self, result: Verification) -> None:
        seen: dict[tuple[str, int, str], str | None] = {}
        for name in self._catalog.record_files():
            try:
                record = self._catalog.load(name)
            except StoreError:
                what = "the record of a snapshot cannot be read"
                todo = "restore it from a backup, or remove it: the snapshot is lost then"
                result.findings.append(Finding("snapshot record", f"{FOLDER}/{name}", what, todo))
                continue
            if record is None:
                continue
            result.snapshots += 1
            for table, pinned in record.tables.items():
                for file in pinned.files:
                    path = f"{table}/{file.name}"
                    key = (path, file.size, file.sha256)
                    if key not in seen:
                        seen[key] = self._wrong(*key)
                    if problem := seen[key]:
                        called = record.info.name or record.id
                        todo = f"restore it from a backup, or `miar snapshots {self._files.root} --remove {record.id}`"
                        what = f"snapshot {called} needs it, and {problem}"
                        result.findings.append(Finding("snapshot file", path, what, todo))

    def _wrong(self, path: str, size: int, sha256: str) -> str | None:
        found = self._files.size(path)
        if found is None:
            return "it is not there"
        if found != size:
            return f"it has {found} bytes, not {size}"
        try:
            return None if self._files.sha256(path) == sha256 else "its checksum is another"
        except OSError as error:
            return f"it cannot be read: {error.strerror or error}"
