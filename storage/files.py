"""Every operation on files that the store makes itself, in one place.

Local folders only, so far: an object store needs the same operations (``publish`` as a conditional put,
``lock`` as a lease), and nothing outside this module touches a path.
"""

import contextlib
import hashlib
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

import pyarrow.fs as pafs
from filelock import FileLock, Timeout

from storage.errors import StoreError

LOCKS = "_locks"
DRAFT_SUFFIX = ".tmp"
"""Of small files that are being written; one that is old was left by a process that died."""
_LOCK_POLL_S = 0.005


def local_root(uri: str | os.PathLike[str]) -> str:
    """The absolute path behind a path or a ``file://`` URL.

    Raises:
        StoreError: an object-store URL, or a path that the Delta log cannot address.
    """
    text = os.fspath(uri)
    parts = urlsplit(text)
    if "://" in text and parts.scheme != "file":
        raise StoreError(f"{text}: stores live in a local folder so far; give a path instead of a {parts.scheme} URL")
    path = os.path.abspath(os.path.expanduser(unquote(parts.path) if parts.scheme == "file" else text))
    if "%" in path:
        raise StoreError(f"{path}: the Delta log cannot address a path with '%' in it; choose another folder")
    return path


class LocalFiles:
    """The files below one folder. Names are relative to it, with forward slashes."""

    def __init__(self, root: str) -> None:
        self.root = root

    def path(self, name: str) -> str:
        return os.path.join(self.root, name)

    def url(self, name: str) -> str:
        """The form that deltalake reads whatever characters the path holds."""
        return Path(self.path(name)).as_uri()

    def filesystem(self, folder: str = "") -> pafs.FileSystem:
        """pyarrow's own file system, rooted at ``folder``."""
        return pafs.SubTreeFileSystem(self.path(folder), pafs.LocalFileSystem())

    def size(self, name: str) -> int | None:
        """Bytes; ``None`` where there is no such file."""
        try:
            return os.stat(self.path(name)).st_size
        except (FileNotFoundError, NotADirectoryError):
            return None

    def modified_ns(self, name: str) -> int | None:
        """Nanoseconds since 1970; ``None`` where there is no such file."""
        try:
            return os.stat(self.path(name)).st_mtime_ns
        except (FileNotFoundError, NotADirectoryError):
            return None

    def entries(self, folder: str) -> list[str]:
        """Names directly in ``folder``, sorted; none where there is no such folder."""
        try:
            return sorted(os.listdir(self.path(folder)))
        except (FileNotFoundError, NotADirectoryError):
            return []

    def tree(self, folder: str) -> list[str]:
        """Names of all files below ``folder``, relative to the root, sorted."""
        found = [os.path.join(top, name) for top, _, names in os.walk(self.path(folder)) for name in names]
        return sorted(os.path.relpath(path, self.root).replace(os.sep, "/") for path in found)

    def read(self, name: str) -> str:
        with open(self.path(name), encoding="utf-8") as file:
            return file.read()

    def write(self, name: str, text: str, *, durable: bool = True) -> None:
        """Write or replace a small file at once: a reader sees the old text or the new one.

        Not ``durable``: it may be lost or empty after a power cut, and costs no wait for the disk.
        """
        with _one_line(self.path(name)):
            self.make_parent(name)
            draft = f"{self.path(name)}.{uuid.uuid4().hex}{DRAFT_SUFFIX}"
            with open(draft, "w", encoding="utf-8") as file:
                file.write(text)
                if durable:
                    file.flush()
                    os.fsync(file.fileno())
            os.replace(draft, self.path(name))

    def create(self, name: str, text: str) -> bool:
        """As :meth:`write`, unless the name is taken. Returns whether it was free: of several at once, one wins."""
        draft = f"{name}.{uuid.uuid4().hex}{DRAFT_SUFFIX}"
        with _one_line(self.path(name)):
            self.write(draft, text)
            created = self.publish(draft, name)
            self.remove(draft)
        return created

    def make_parent(self, name: str) -> None:
        with _one_line(self.path(name)):
            os.makedirs(os.path.dirname(self.path(name)), exist_ok=True)

    def publish(self, draft: str, name: str) -> bool:
        """Move a complete file to its final name, durably, unless the name is taken: never over another file.

        Returns:
            Whether the file now stands under ``name``; ``False`` leaves the draft where it is.
        """
        with _one_line(self.path(name)):
            self.make_parent(name)
            _sync(self.path(draft))
            try:
                os.link(self.path(draft), self.path(name))
            except FileExistsError:
                return False
            _sync(os.path.dirname(self.path(name)))
            os.unlink(self.path(draft))
        return True

    def remove(self, name: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path(name))

    def remove_tree(self, folder: str) -> None:
        shutil.rmtree(self.path(folder), ignore_errors=True)

    def remove_empty(self, folder: str) -> None:
        """Remove a folder unless something is in it."""
        with contextlib.suppress(OSError):
            os.rmdir(self.path(folder))

    def sha256(self, name: str) -> str:
        with open(self.path(name), "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    @contextlib.contextmanager
    def lock(self, name: str, timeout_s: float, taken: str) -> Iterator[None]:
        """Hold a lock that the operating system releases if this process dies.

        Raises:
            StoreError: saying ``taken``, where another holds it for longer than ``timeout_s`` seconds.
        """
        path = self.path(f"{LOCKS}/{quote(name, safe='')}.lock")
        self.make_parent(f"{LOCKS}/_")
        lock = FileLock(path)
        with _one_line(path):
            try:
                lock.acquire(timeout=timeout_s, poll_interval=_LOCK_POLL_S)
            except Timeout as error:
                raise StoreError(taken) from error
        try:
            yield
        finally:
            lock.release()


@contextlib.contextmanager
def _one_line(path: str) -> Iterator[None]:
    """A full disk or a read-only folder is for a person to mend."""
    try:
        yield
    except OSError as error:
        raise StoreError(f"cannot write {path}: {error.strerror or error}") from error


def _sync(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
