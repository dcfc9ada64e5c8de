"""What the commands print: progress with rates and time left, tables, one clear line for a mistake."""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any, NoReturn

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

from miar.pipeline.progress import watched_by

UNFOLDED = frozenset({"table", "model", "run", "id", "system", "started", "created_at"})
"""Columns that stand in one line, whatever else has to fold: identifiers to copy from, and times."""


class _PatientConsole(Console):
    """A console that falls silent where nobody reads it any more: a closed pipe must not end a night's run."""

    def on_broken_pipe(self) -> None:
        self.quiet = True


out = _PatientConsole(highlight=False, soft_wrap=True, emoji=False)
err = _PatientConsole(stderr=True, highlight=False, soft_wrap=True, emoji=False)


def fail(message: str) -> NoReturn:
    """Print one line to stderr and leave with exit code 2."""
    err.print(f"[bold red]miar:[/] {escape(' '.join(message.split()))}")
    sys.exit(2)


def warn(message: str) -> None:
    """Print one warning line to stderr."""
    err.print(f"[yellow]warning:[/] {escape(' '.join(message.split()))}")


def say(message: str) -> None:
    """Print one line of plain text."""
    out.print(escape(message))


def counted(number: int, noun: str) -> str:
    """``1 clip``, ``2 clips``."""
    return f"{number} {noun}" + ("" if number == 1 else "s")


def print_json(value: Any) -> None:
    """Print a result for a script: one JSON document on stdout and nothing else."""
    sys.stdout.write(json.dumps(value, default=str, sort_keys=True, indent=2) + "\n")


def table(title: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Print rows as a table; nothing where there are none."""
    if not rows:
        return
    drawn = Table(title=title, title_justify="left", title_style="bold")
    for name in rows[0]:
        drawn.add_column(name.replace("_", " "), overflow="fold", no_wrap=name in UNFOLDED)
    for row in rows:
        drawn.add_row(*(_cell(value) for value in row.values()))
    out.print(drawn)


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, datetime):
        return f"{value.astimezone():%Y-%m-%d %H:%M}"
    return escape(f"{value:.3f}" if isinstance(value, float) else str(value))


class _RateColumn(TextColumn):
    def __init__(self) -> None:
        super().__init__("")

    def render(self, task: Any) -> Any:
        speed = task.finished_speed or task.speed
        return "" if not speed else f"{speed:.1f}/s"


@contextmanager
def progress() -> Iterator[None]:
    """Show the progress that the steps inside report: on a terminal as bars, elsewhere as a line now and then."""
    bars = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _RateColumn(),
        TimeRemainingColumn(compact=True, elapsed_when_finished=True),
        console=err,
        disable=not err.is_terminal,
    )
    tasks: dict[str, TaskID] = {}
    printed: dict[str, float] = {}

    def report(what: str, done: float, total: float) -> None:
        if what not in tasks:
            tasks[what] = bars.add_task(what, total=total)
        bars.update(tasks[what], completed=done, total=total)
        # Where nobody watches a bar (CI, a log file), a line each tenth of the way.
        if not err.is_terminal and (done >= total or done - printed.get(what, 0.0) >= total / 10):
            printed[what] = done
            err.print(f"  {what}: {done:g} of {total:g}")

    with bars, watched_by(report):
        yield
