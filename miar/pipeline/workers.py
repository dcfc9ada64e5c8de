"""Worker processes that are watched and replaced: a crash, a hang or a kill costs one call, never the run."""

import multiprocessing
import threading
from collections.abc import Callable
from concurrent.futures import CancelledError
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from typing import Any

import pebble

from miar.errors import UserError
from miar.pipeline.interrupts import children_deaf_to_ctrl_c

LOOK_EVERY_S = 1.0
"""How often who waits for a call asks whether the pool still stands."""
MOST_BREAKDOWNS = 5
"""Times in a row that the pool is built anew before somebody has to look at the machine."""


class PoolClosedError(Exception):
    """The pool was closed before the call had come to its end."""


class WorkerPool:
    """Processes that do what they are called for, one call each at a time. Threads may share it."""

    def __init__(self, workers: int, initialise: Callable[..., None], *arguments: Any) -> None:
        """``initialise(*arguments)`` is what each process does first."""
        self._make = partial(
            pebble.ProcessPool,
            max_workers=workers,
            initializer=initialise,
            initargs=arguments,
            # A forked child would inherit locks that threads of the parent hold.
            context=multiprocessing.get_context("spawn"),
        )
        self._pool = self._make()
        self._pending: set[pebble.ProcessFuture[Any]] = set()
        self._breakdowns = 0
        self._is_closed = False
        self._lock = threading.Lock()

    def call(self, function: Callable[..., Any], *arguments: Any, timeout_s: float) -> Any:
        """``function(*arguments)`` in a worker; no more threads than there are workers may be in here at once.

        Raises:
            pebble.ProcessExpired: the worker died over it.
            TimeoutError: it took longer than ``timeout_s``.
            PoolClosedError: the pool was closed meanwhile.
            UserError: workers die before they take anything up.
        """
        while True:
            pool, future = self._begin(function, arguments, timeout_s)
            try:
                result = _result(pool, future)
            except CancelledError as error:
                raise PoolClosedError from error
            except BrokenProcessPool as error:
                self._replace(pool, error)
            else:
                self._breakdowns = 0
                return result
            finally:
                with self._lock:
                    self._pending.discard(future)

    def close(self) -> None:
        """Stop the workers; whoever waits for a call gets :class:`PoolClosedError`."""
        with self._lock:
            self._is_closed = True
            left = list(self._pending)
        try:
            self._pool.stop()
            self._pool.join()
        finally:
            # The pool leaves unfinished calls without an answer. Not earlier than now: its own threads would stumble
            # over a call that is cancelled while they answer it.
            for future in left:
                future.cancel()

    def _begin(
        self, function: Callable[..., Any], arguments: tuple[Any, ...], timeout_s: float
    ) -> tuple[pebble.ProcessPool, "pebble.ProcessFuture[Any]"]:
        with self._lock:
            if self._is_closed:
                raise PoolClosedError
            # The first call starts the workers, and the threads that start those which replace them.
            with children_deaf_to_ctrl_c():
                if not self._pool.active:  # a worker that died while it had nothing to do takes the pool with it
                    self._pool = self._rebuilt()
                future = self._pool.schedule(function, args=arguments, timeout=timeout_s)
            self._pending.add(future)
            return self._pool, future

    def _replace(self, broken: pebble.ProcessPool, error: BrokenProcessPool) -> None:
        """Build the pool anew, unless another thread has done so already."""
        with self._lock:
            if self._is_closed or self._pool is not broken:
                return
            self._breakdowns += 1
            if self._breakdowns >= MOST_BREAKDOWNS:
                raise UserError(
                    "worker processes end before they begin, again and again: look for what kills them (is there "
                    "enough memory?), or give execution.workers a smaller number"
                ) from error
            self._pool = self._rebuilt()

    def _rebuilt(self) -> pebble.ProcessPool:
        self._pool.stop()
        self._pool.join()
        return self._make()


def _result(pool: pebble.ProcessPool, future: "pebble.ProcessFuture[Any]") -> Any:
    """As ``future.result()``; a pool that broke down forgets calls that it had not handed to a worker yet."""
    while True:
        try:
            return future.result(timeout=LOOK_EVERY_S)
        except TimeoutError:
            if future.done():
                return future.result()
            if not pool.active:
                raise BrokenProcessPool from None
