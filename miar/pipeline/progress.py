"""How a long step tells whoever watches how far it is: a terminal's progress bar, a flow's log, nobody."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

Report = Callable[[str, float, float], None]
"""(what is counted, how many are done, of how many)."""

_report: ContextVar[Report | None] = ContextVar("progress_report", default=None)


@contextmanager
def watched_by(report: Report) -> Iterator[None]:
    """Send the progress of everything inside the block to ``report``."""
    token = _report.set(report)
    try:
        yield
    finally:
        _report.reset(token)


def advance(what: str, done: float, total: float) -> None:
    """Say that ``done`` of ``total`` units of ``what`` are done."""
    if (report := _report.get()) is not None:
        report(what, done, total)
