"""Downloading: whether the network answers, files with a pinned checksum, and one line where it does not work.

A file that MIAR downloads itself is checked against a pinned sha256 and kept under :func:`cache_dir`; hub models go
through ``huggingface_hub`` into its own cache (:mod:`miar.features.weights`).
"""

import hashlib
import os
import socket
import tempfile
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from miar.errors import UnavailableError
from miar.features.checksums import cache_dir, sha256_of

CONNECT_TIMEOUT_S = 4.0
"""A closed network is noticed within this time."""
READ_TIMEOUT_S = 30.0
CHUNK_BYTES = 1 << 18

Progress = Callable[[int, int | None], None]
"""Called with bytes so far, and bytes in all where the server says."""

_LOOKED = "nothing was downloaded to find that out"
_only_looking: ContextVar[bool] = ContextVar("only_looking", default=False)


@contextmanager
def only_looking() -> Iterator[None]:
    """Inside, nothing is downloaded: what is not on this machine is unavailable, with the command that fetches it."""
    token = _only_looking.set(True)
    try:
        yield
    finally:
        _only_looking.reset(token)


@dataclass(frozen=True)
class PinnedFile:
    """One file at one address with one checksum."""

    name: str
    file_name: str
    url: str
    sha256: str


def fetch_pinned(pinned: PinnedFile, progress: Progress | None = None) -> Path:
    """The file in the cache, downloaded where it is not there or is not what was pinned.

    Raises:
        UnavailableError: no network, or a wrong checksum (the file is not kept).
    """
    target = cache_dir() / pinned.file_name
    if target.is_file() and sha256_of(target) == pinned.sha256:
        return target
    command = f"miar fetch {pinned.name}"
    problem = _LOOKED if _only_looking.get() else None
    if problem is None and not reachable(pinned.url):
        problem = f"no connection to {urlsplit(pinned.url).hostname}"
    if problem is not None:
        raise UnavailableError(
            f"{pinned.file_name} is not on this machine ({problem}): with a network run: {command}, or set "
            "MIAR_MODEL_DIR to a folder that holds it"
        )
    try:
        return _download(pinned, target, progress)
    except (OSError, urllib.error.URLError) as error:
        raise UnavailableError(not_fetched(pinned.file_name, error, command)) from error


def _download(pinned: PinnedFile, target: Path, progress: Progress | None) -> Path:
    """Stream to a temporary file beside ``target``, check it, rename it: ``target`` is whole or not there."""
    target.parent.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256()
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    part = Path(name)
    try:
        with os.fdopen(handle, "wb") as out, urllib.request.urlopen(pinned.url, timeout=READ_TIMEOUT_S) as answer:
            length = answer.headers.get("Content-Length")
            total = int(length) if length else None
            done = 0
            while block := answer.read(CHUNK_BYTES):
                out.write(block)
                digest.update(block)
                done += len(block)
                if progress is not None:
                    progress(done, total)
        if digest.hexdigest() != pinned.sha256:
            raise UnavailableError(
                f"{pinned.url} gave a file with the wrong checksum, not kept: run again: miar fetch {pinned.name}"
            )
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)
    return target


def require_hub(what: str, command: str) -> None:
    """
    Raises:
        UnavailableError: the hub cannot be asked for ``what``; ``command`` is what to run with a network.
    """
    problem = hub_problem()
    if problem is not None:
        raise UnavailableError(f"{what} is not on this machine ({problem}): with a network run: {command}")


def hub_problem() -> str | None:
    """Why the hub cannot be asked, or ``None``."""
    if _only_looking.get():
        return _LOOKED
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    host = urlsplit(constants.ENDPOINT).hostname
    return None if reachable(constants.ENDPOINT) else f"no connection to {host}"


def reachable(url: str, within_s: float = CONNECT_TIMEOUT_S) -> bool:
    """Whether the server of ``url``, or the proxy on the way to it, takes a connection within ``within_s`` seconds.

    A name look-up on a closed network can hang for half a minute and cannot be interrupted, so a daemon thread asks.
    """
    parts = urlsplit(url)
    proxy = None
    if parts.hostname and not urllib.request.proxy_bypass(parts.hostname):
        proxy = urllib.request.getproxies().get(parts.scheme)
    target = urlsplit(proxy) if proxy else parts
    port = target.port or (443 if target.scheme == "https" else 80)
    answered = threading.Event()

    def ask() -> None:
        try:
            socket.create_connection((target.hostname or "", port), timeout=within_s).close()
        except OSError:
            return
        answered.set()

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(within_s)
    return answered.is_set()


def not_fetched(what: str, error: BaseException, command: str) -> str:
    """One line about a download that failed."""
    detail = " ".join(str(error).split())[:200] or type(error).__name__
    return f"{what} could not be fetched ({type(error).__name__}: {detail}): try again with: {command}"
