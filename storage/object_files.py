"""The same file operations on an object store: S3 and what speaks its API, Google Cloud Storage, Azure.

Notable: an object appears whole or not at all, so nothing is renamed: a shard is written to local disk and uploaded on
the condition that its name is free. Where the store is and who may read it comes from the environment (``AWS_*``,
``GOOGLE_*``, ``AZURE_*``) and is never kept.
"""

import contextlib
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import pyarrow.fs as pafs

from storage import leases
from storage.conditional import put_if
from storage.errors import StoreError, one_line
from storage.files import LOCKS, Draft, Stat, local_drafts

RETRIES: dict[str, Any] = {"max_retries": 10, "retry_timeout": timedelta(minutes=2)}
"""A network that drops for a minute is waited for."""
SCRATCH_VARIABLE = "MIAR_SCRATCH"
"""Folder for drafts and staged work of stores that are not on this disk; several machines must share it."""


class ObjectFiles:
    """The objects below one URL. Names are relative to it, with forward slashes."""

    remote = True

    def __init__(self, url: str) -> None:
        """
        Raises:
            StoreError: no library for that kind of URL, or a URL that names no bucket.
        """
        import obstore
        from obstore.exceptions import BaseError
        from obstore.store import from_url

        self.root = url.rstrip("/")
        self._obstore = obstore
        try:
            open_url: Any = from_url  # Its overloads know of no retries for a kind of URL that is not known yet.
            self._store = open_url(self.root, retry_config=RETRIES)
        except (BaseError, ValueError) as error:
            raise StoreError(f"{url} cannot be opened as an object store: {one_line(error)}") from error
        parts = urlsplit(self.root)
        self._scheme = parts.scheme
        self._prefix = f"{parts.netloc}{parts.path}"
        scratch = os.environ.get(SCRATCH_VARIABLE) or os.path.join(tempfile.gettempdir(), f"miar-{os.getuid()}")
        self._scratch = os.path.join(scratch, hashlib.sha256(self.root.encode()).hexdigest()[:16])

    def __reduce__(self) -> tuple[type["ObjectFiles"], tuple[str]]:
        # A client holds connections: another process opens its own.
        return ObjectFiles, (self.root,)

    def path(self, name: str) -> str:
        return f"{self.root}/{name}" if name else self.root

    def url(self, name: str) -> str:
        return self.path(name)

    def filesystem(self, folder: str = "") -> pafs.FileSystem:
        """A file system for pyarrow, rooted at ``folder``."""
        from obstore.fsspec import FsspecStore

        whole = pafs.PyFileSystem(pafs.FSSpecHandler(FsspecStore(self._scheme, retry_config=RETRIES)))  # type: ignore[arg-type]
        return pafs.SubTreeFileSystem(f"{self._prefix}/{folder}".rstrip("/"), whole)

    def scratch(self, name: str) -> str:
        """A path on local disk for what is not yet part of the store; its folder is made."""
        path = os.path.join(self._scratch, name)
        try:
            os.makedirs(os.path.dirname(path), exist_ok=True)
        except OSError as error:
            raise StoreError(f"cannot write {path}: {error.strerror or error}; set {SCRATCH_VARIABLE}") from error
        return path

    def is_file(self, name: str) -> bool:
        return bool(name) and self.size(name) is not None

    def stat(self, name: str) -> Stat | None:
        """Size and time, by one request; ``None`` where there is no such object."""
        try:
            with self._one_line(name):
                found = self._obstore.head(self._store, name)
        except FileNotFoundError:
            return None
        return Stat(int(found["size"]), int(found["last_modified"].timestamp() * 1e9))

    def size(self, name: str) -> int | None:
        """Bytes; ``None`` where there is no such object."""
        found = self.stat(name)
        return None if found is None else found.size

    def modified_ns(self, name: str) -> int | None:
        """Nanoseconds since 1970; ``None`` where there is no such object."""
        found = self.stat(name)
        return None if found is None else found.modified_ns

    def entries(self, folder: str) -> list[str]:
        """Names directly in ``folder``, sorted."""
        with self._one_line(folder):
            found = self._obstore.list_with_delimiter(self._store, f"{folder}/" if folder else None)
        paths = [*found["common_prefixes"], *(one["path"] for one in found["objects"])]
        return sorted(path.rstrip("/").rsplit("/", 1)[-1] for path in paths)

    def read(self, name: str) -> str:
        with self._one_line(name):
            return bytes(self._obstore.get(self._store, name).bytes()).decode("utf-8")

    def write(self, name: str, text: str, *, durable: bool = True) -> None:
        """Write or replace a small object at once; an object store keeps whatever it has confirmed."""
        with self._one_line(name):
            self._obstore.put(self._store, name, text.encode("utf-8"))

    def create(self, name: str, text: str) -> bool:
        """As :meth:`write`, unless the name is taken. Returns whether it was free: of several at once, one wins."""
        with self._one_line(name):
            return put_if(self._store, name, text.encode("utf-8")) is not None

    def publish(self, draft: str, name: str) -> bool:
        """Upload a complete file from the scratch folder, unless the name is taken: never over another object.

        Returns:
            Whether it now stands under ``name``; ``False`` leaves the draft where it is.
        """
        path = os.path.join(self._scratch, draft)
        with self._one_line(name):
            if put_if(self._store, name, Path(path)) is None:
                return False
        os.unlink(path)
        return True

    def remove(self, name: str) -> None:
        with self._one_line(name), contextlib.suppress(FileNotFoundError):
            self._obstore.delete(self._store, name)

    def discard(self, name: str) -> None:
        """Remove a draft, or a folder of them."""
        path = os.path.join(self._scratch, name)
        if os.path.isdir(path):
            shutil.rmtree(path, ignore_errors=True)
        else:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)

    def drafts(self, folder: str) -> list[Draft]:
        """Everything below a folder of drafts, on this machine."""
        return local_drafts(self._scratch, folder)

    def sha256(self, name: str) -> str:
        digest = hashlib.sha256()
        with self._one_line(name):
            for chunk in self._obstore.get(self._store, name).stream(min_chunk_size=2**23):
                digest.update(bytes(chunk))
        return digest.hexdigest()

    @contextlib.contextmanager
    def lock(self, name: str, timeout_s: float, taken: str, *, once: bool = False) -> Iterator[None]:
        """Hold a lease that runs out by itself if this process dies.

        Raises:
            StoreError: saying ``taken``, where another holds it for longer than ``timeout_s`` seconds.
        """
        key = f"{LOCKS}/{quote(name, safe='')}.json"
        lease = leases.Lease(self._store, key)
        with self._one_line(name):
            if not lease.acquire(timeout_s):
                raise StoreError(f"{taken} (the lock of one that was killed runs out in {leases.LEASE_S:.0f} s)")
        try:
            yield
        finally:
            lease.release()
            if once:
                self.remove(key)

    @contextlib.contextmanager
    def _one_line(self, name: str) -> Iterator[None]:
        """A bucket that cannot be reached is for a person to mend; a name that is not there is the caller's."""
        from obstore import exceptions

        try:
            yield
        except FileNotFoundError:
            raise
        except (exceptions.BaseError, OSError) as error:
            raise StoreError(f"cannot reach {self.path(name)}: {one_line(error)}") from error
