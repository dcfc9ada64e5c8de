"""What runs leave beside the tables when they die: half-written drafts, and the locks of single runs.

Notable: a run is at work for as long as it holds the lock of its own name, however long ago it last touched a file.
"""

import contextlib
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import unquote

from storage.commits import STAGING
from storage.errors import StoreError
from storage.files import DRAFT_SUFFIX, LOCKS, Draft, Files

_RUN_LOCK = re.compile(r"run ([a-z][a-z-]*-(\d{8}T\d{6})-[0-9a-f]+)")
"""The lock of a run, whose id says when it began and is never used again; other locks are taken again and again."""


@dataclass(frozen=True)
class Unneeded:
    """A file that may go."""

    path: str
    """Relative to the store."""
    size: int
    """Bytes."""
    why: str
    """``replaced``, ``orphan``, ``draft``, ``checkpoint``, ``receipt`` or ``lock``."""


def run_lock(files: Files, name: str, *, timeout_s: float = 0, once: bool = False) -> AbstractContextManager[None]:
    """What a run, or whatever else is to go on once at a time, holds while it does.

    Raises:
        StoreError: another process holds it for longer than ``timeout_s`` seconds.
    """
    taken = f"another {name} is running on {files.root}; wait until it has ended"
    return files.lock(f"run {name}", timeout_s, taken, once=once)


def old_files(files: Files, paths: Iterable[str], why: str, before_ns: int) -> Iterator[Unneeded]:
    """Those that are there, and were not touched since ``before_ns``."""
    for path in paths:
        found = files.stat(path)
        if found is not None and found.modified_ns < before_ns:
            yield Unneeded(path, found.size, why)


def old_drafts(files: Files, folders: Iterable[str], before_ns: int) -> Iterator[Unneeded]:
    """Small files that somebody began to write in one of ``folders``."""
    for folder in folders:
        names = (f"{folder}/{name}" if folder else name for name in files.entries(folder))
        yield from old_files(files, (name for name in names if name.endswith(DRAFT_SUFFIX)), "draft", before_ns)


def of_dead_runs(files: Files, before_ns: int, *, remove: bool) -> Iterator[Unneeded]:
    """What runs staged that did not touch anything since ``before_ns`` and do not live; removed where ``remove``."""
    runs: defaultdict[str, list[Draft]] = defaultdict(list)
    for draft in files.drafts(STAGING):
        runs[draft.name.split("/")[1]].append(draft)
    known = _locks(files)
    for run, drafts in runs.items():
        if any(draft.modified_ns >= before_ns for draft in drafts):
            continue
        with _unless_it_lives(files, run, once=remove or f"run {run}" not in known) as dead:
            if dead and remove:
                files.discard(f"{STAGING}/{run}")
        if dead:
            yield from (Unneeded(draft.name, draft.size, "draft") for draft in drafts)


def of_ended_runs(files: Files, before_ns: int, *, remove: bool) -> Iterator[Unneeded]:
    """Locks of runs that began before ``before_ns`` and do not live, so that nobody takes them again."""
    # The file's own time is no help: trying whether a lock is held may touch it.
    before = datetime.fromtimestamp(before_ns / 1e9, UTC).strftime("%Y%m%dT%H%M%S")
    for lock, path in _locks(files).items():
        found = _RUN_LOCK.fullmatch(lock)
        if found is None or found[2] >= before:
            continue
        size = files.size(path)
        with _unless_it_lives(files, found[1], once=remove) as dead:
            pass
        if dead and size is not None:
            yield Unneeded(path, size, "lock")


def _locks(files: Files) -> dict[str, str]:
    """Name of every lock that has a file -> that file."""
    return {unquote(os.path.splitext(entry)[0]): f"{LOCKS}/{entry}" for entry in files.entries(LOCKS)}


@contextlib.contextmanager
def _unless_it_lives(files: Files, run: str, *, once: bool) -> Iterator[bool]:
    """Whether the run is dead. It cannot begin again while the body runs."""
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(run_lock(files, run, once=once))
        except StoreError:
            yield False
        else:
            yield True
