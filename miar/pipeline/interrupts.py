"""Ctrl-C reaches every process of a command; those that the command ends in good order itself must not hear it."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def children_deaf_to_ctrl_c() -> Iterator[None]:
    """Processes and threads that the body starts never see Ctrl-C: they inherit this thread's blocked signals.

    A handler set by the child itself would come too late: Ctrl-C may fall into its imports.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
