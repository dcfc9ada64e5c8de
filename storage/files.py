"""Every operation on files that the store makes itself, in one place: :class:`Files`, and a local folder's way of it.

Nothing outside this module and :mod:`storage.object_files` touches a path or a client.
"""

import contextlib
import hashlib
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol, TypeVar
from urllib.parse import quote, unquote, urlsplit

import pyarrow.fs as pafs
from filelock import FileLock, Timeout

from storage.errors import StoreError

LOCKS = "_locks"
DRAFT_SUFFIX = ".tmp"
"""Of small files that are being written; one that is old was left by a process that died."""
_LOCK_POLL_S = 0.005

Answer = TypeVar("Answer")


class Stat(NamedTuple):
    """What the disk or the object store says of a file without opening it."""

    size: int
    """Bytes."""
    modified_ns: int
    """Nanoseconds since 1970."""


@dataclass(frozen=True)
class Draft:
    """A file on local disk that is not yet part of the store, or an empty folder for such files."""

    name: str
    size: int
    """Bytes."""
    modified_ns: int


class Files(Protocol):
    """The files of one store. Names are relative to it, with forward slashes; drafts lie on local disk."""

    root: str
    remote: bool
    """Whether a network lies between, so that what failed may succeed a moment later."""

    def path(self, name: str) -> str:
        """Where a file is, for people and for other libraries."""
        ...

    def url(self, name: str) -> str:
        """The form that deltalake reads."""
        ...

    def filesystem(self, folder: str = "") -> pafs.FileSystem:
        """For pyarrow, rooted at ``folder``."""
        ...

    def scratch(self, name: str) -> str:
        """A path on local disk for what is not yet part of the store; its folder is made."""
        ...

    def persistently(self, read: Callable[[], Answer]) -> Answer:
        """What another library reads of the store, asked for again where a network loses it."""
        ...

    def is_file(self, name: str) -> bool: ...

    def stat(self, name: str) -> Stat | None:
        """Size and time in one look, which over a network is one request; ``None`` where there is no such file."""
        ...

    def size(self, name: str) -> int | None:
        """Bytes; ``None`` where there is no such file."""
        ...

    def modified_ns(self, name: str) -> int | None:
        """Nanoseconds since 1970; ``None`` where there is no such file."""
        ...

    def entries(self, folder: str) -> list[str]:
        """Names directly in ``folder``, sorted; none where there is no such folder."""
        ...

    def read(self, name: str) -> str: ...

    def write(self, name: str, text: str, *, durable: bool = True) -> None:
        """Write or replace a small file at once: a reader sees the old text or the new one.

        Not ``durable``: it may be lost or empty after a power cut, and costs no wait for the disk.
        """
        ...

    def create(self, name: str, text: str) -> bool:
        """As :meth:`write`, unless the name is taken. Returns whether it was free: of several at once, one wins."""
        ...

    def publish(self, draft: str, name: str) -> bool:
        """Give a complete draft its final name, durably, unless the name is taken: never over another file.

        Returns:
            Whether the file now stands under ``name``; ``False`` leaves the draft where it is.
        """
        ...

    def settle(self, name: str) -> None:
        """Have a file that another library wrote outlast a power cut."""
        ...

    def remove(self, name: str) -> None:
        """Remove a file of the store; nothing happens where there is none."""
        ...

    def discard(self, name: str) -> None:
        """Remove a draft, or a folder of them."""
        ...

    def drafts(self, folder: str) -> list[Draft]:
        """Everything below a folder of drafts: files, and folders that hold nothing."""
        ...

    def sha256(self, name: str) -> str: ...

    def lock(self, name: str, timeout_s: float, taken: str, *, once: bool = False) -> AbstractContextManager[None]:
        """Keep others from holding ``name``; it is released when this process dies.

        ``once``: nobody needs that name any more when the body has ended, so that nothing of the lock stays.

        Raises:
            StoreError: saying ``taken``, where another holds it for longer than ``timeout_s`` seconds.
        """
        ...


def open_files(uri: str | os.PathLike[str]) -> Files:
    """The files below a path, a ``file://`` URL or an object store's URL (``s3://bucket/folder``).

    Raises:
        StoreError: a kind of URL that nothing here reads, or a path that the Delta log cannot address.
    """
    text = os.fspath(uri)
    if "://" in text and urlsplit(text).scheme != "file":
        from storage.object_files import ObjectFiles

        return ObjectFiles(text)
    return LocalFiles(_local_root(text))


def _local_root(text: str) -> str:
    parts = urlsplit(text)
    path = os.path.abspath(os.path.expanduser(unquote(parts.path) if "://" in text else text))
    if "%" in path:
        raise StoreError(f"{path}: the Delta log cannot address a path with '%' in it; choose another folder")
    return path


class LocalFiles:
    """The files below one folder; drafts lie within it, so that giving one its name is a rename."""

    remote = False

    def __init__(self, root: str) -> None:
        self.root = root

    def path(self, name: str) -> str:
        return os.path.join(self.root, name) if name else self.root

    def url(self, name: str) -> str:
        # This form is read whatever characters the path holds.
        return Path(self.path(name)).as_uri()

    def filesystem(self, folder: str = "") -> pafs.FileSystem:
        return pafs.SubTreeFileSystem(self.path(folder), pafs.LocalFileSystem())

    def scratch(self, name: str) -> str:
        self._make_parent(name)
        return self.path(name)

    def persistently(self, read: Callable[[], Answer]) -> Answer:
        return read()

    def is_file(self, name: str) -> bool:
        return os.path.isfile(self.path(name))

    def stat(self, name: str) -> Stat | None:
        try:
            found = os.stat(self.path(name))
        except (FileNotFoundError, NotADirectoryError):
            return None
        return Stat(found.st_size, found.st_mtime_ns)

    def size(self, name: str) -> int | None:
        found = self.stat(name)
        return None if found is None else found.size

    def modified_ns(self, name: str) -> int | None:
        found = self.stat(name)
        return None if found is None else found.modified_ns

    def entries(self, folder: str) -> list[str]:
        try:
            return sorted(os.listdir(self.path(folder)))
        except (FileNotFoundError, NotADirectoryError):
            return []

    def read(self, name: str) -> str:
        with open(self.path(name), encoding="utf-8") as file:
            return file.read()

    def write(self, name: str, text: str, *, durable: bool = True) -> None:
        with _one_line(self.path(name)):
            self._make_parent(name)
            draft = f"{self.path(name)}.{uuid.uuid4().hex}{DRAFT_SUFFIX}"
            with open(draft, "w", encoding="utf-8") as file:
                file.write(text)
                if durable:
                    file.flush()
                    os.fsync(file.fileno())
            os.replace(draft, self.path(name))
            if durable:
                _sync(os.path.dirname(self.path(name)))

    def create(self, name: str, text: str) -> bool:
        draft = f"{name}.{uuid.uuid4().hex}{DRAFT_SUFFIX}"
        self.write(draft, text)
        created = self.publish(draft, name)
        self.remove(draft)
        return created

    def _make_parent(self, name: str) -> None:
        with _one_line(self.path(name)):
            os.makedirs(os.path.dirname(self.path(name)), exist_ok=True)

    def publish(self, draft: str, name: str) -> bool:
        with _one_line(self.path(name)):
            self._make_parent(name)
            _sync(self.path(draft))
            try:
                os.link(self.path(draft), self.path(name))
            except FileExistsError:
                return False
            _sync(os.path.dirname(self.path(name)))
            os.unlink(self.path(draft))
        return True

    def settle(self, name: str) -> None:
        with _one_line(self.path(name)):
            _sync(self.path(name))
            _sync(os.path.dirname(self.path(name)))

    def remove(self, name: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path(name))

    def discard(self, name: str) -> None:
        if os.path.isdir(self.path(name)):
            shutil.rmtree(self.path(name), ignore_errors=True)
        else:
            self.remove(name)

    def drafts(self, folder: str) -> list[Draft]:
        return local_drafts(self.root, folder)

    def sha256(self, name: str) -> str:
        with open(self.path(name), "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    @contextlib.contextmanager
    def lock(self, name: str, timeout_s: float, taken: str, *, once: bool = False) -> Iterator[None]:
        # The operating system releases it if this process dies.
        lock_name = f"{LOCKS}/{quote(name, safe='')}.lock"
        path = self.path(lock_name)
        self._make_parent(lock_name)
        lock = FileLock(path)
        with _one_line(path):
            try:
                lock.acquire(timeout=timeout_s, poll_interval=_LOCK_POLL_S)
            except Timeout as error:
                raise StoreError(taken) from error
        try:
            yield
        finally:
            try:
                if once:
                    self.remove(lock_name)
            finally:
                lock.release()


def local_drafts(root: str, folder: str) -> list[Draft]:
    """Every file and every empty folder below ``folder``, named relative to ``root``, sorted."""
    found: list[Draft] = []
    base = os.path.join(root, folder)
    for top, folders, names in os.walk(base):
        empty = not (folders or names or top == base)
        for path in [top] if empty else [os.path.join(top, name) for name in names]:
            with contextlib.suppress(FileNotFoundError):
                stat = os.stat(path)
                size = 0 if empty else stat.st_size
                found.append(Draft(os.path.relpath(path, root).replace(os.sep, "/"), size, stat.st_mtime_ns))
    return sorted(found, key=lambda draft: draft.name)


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
