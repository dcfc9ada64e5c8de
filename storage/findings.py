"""What a verification found: where, what, what to do, and how it is mended where that is safe."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

Mend = Callable[[], None]


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong."""

    kind: str
    """A word or two for scripts: ``file missing``, ``keys doubled``, ``snapshot file``..."""
    where: str
    """Path within the store, or a table's name."""
    what: str
    todo: str
    """What a person can do; where it can be mended, ``--repair`` does it."""
    mend: Mend | None = field(default=None, compare=False, repr=False)
    """Mends it where that is safe; may be run again, and does nothing where it is mended already."""

    def line(self) -> str:
        return f"{self.where}: {self.what}; {self.todo}"

    def to_json(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "where": self.where,
            "what": self.what,
            "todo": self.todo,
            "repairable": self.mend is not None,
        }


@dataclass
class Verification:
    """What was looked at and what was found."""

    tables: int = 0
    files: int = 0
    rows: int = 0
    snapshots: int = 0
    findings: list[Finding] = field(default_factory=list)
    """What is wrong now."""
    repaired: list[Finding] = field(default_factory=list)
    """What was wrong and is mended."""

    @property
    def clean(self) -> bool:
        return not self.findings

    def to_json(self) -> dict[str, Any]:
        return {
            "clean": self.clean,
            "checked": {name: getattr(self, name) for name in ("tables", "files", "rows", "snapshots")},
            "findings": [finding.to_json() for finding in self.findings],
            "repaired": [finding.to_json() for finding in self.repaired],
        }
