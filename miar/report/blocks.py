"""What a page is made of: sections of paragraphs, tables and charts. The template knows nothing else."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from miar.report.figures import Figure


@dataclass(frozen=True)
class Note:
    """One paragraph."""

    text: str
    kind: Literal["note"] = "note"


@dataclass(frozen=True)
class Table:
    """A table; :func:`shown` formats its cells."""

    head: Sequence[str]
    rows: Sequence[Sequence[Any]]
    caption: str = ""
    kind: Literal["table"] = "table"


@dataclass(frozen=True)
class Charts:
    """Charts side by side where the window is wide enough."""

    figures: Sequence[Figure]
    caption: str = ""
    kind: Literal["charts"] = "charts"


@dataclass(frozen=True)
class Timeline:
    """A list of videos to choose from, and the chart of the chosen one."""

    payload: dict[str, Any]
    caption: str = ""
    kind: Literal["timeline"] = "timeline"


@dataclass(frozen=True)
class Commands:
    """Lines for a shell."""

    lines: Sequence[str]
    kind: Literal["commands"] = "commands"


Block = Note | Table | Charts | Timeline | Commands


@dataclass
class Section:
    """One chapter of the page."""

    anchor: str
    title: str
    blocks: list[Block] = field(default_factory=list)


def shown(value: Any) -> str:
    """A table cell as text: counts whole, measures to three decimals, an empty dash for nothing."""
    if value is None or value != value:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}".replace(",", "\u202f")
    if isinstance(value, float):
        return f"{value:.3f}"
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M:%S}"
    return str(value)


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
