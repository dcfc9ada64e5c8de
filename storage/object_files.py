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
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import pyarrow as pa
import pyarrow.fs as pafs
from deltalake.exceptions import DeltaError

from storage import leases
from storage.errors import AccessError, StoreError, one_line
from storage.files import LOCKS, Draft, Stat, local_drafts
from storage.network import Answer, put_if, until_answered

RETRIES: dict[str, Any] = {"max_retries": 10, "retry_timeout": timedelta(minutes=2)}
"""A network that drops for a minute is waited for."""
REQUEST_TIMEOUT = timedelta(minutes=5)
"""A shard goes up in one request, and over a slow line that takes a while."""
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
            self._store = open_url(self.root, retry_config=RETRIES, client_options=_client_options())
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

        opened = FsspecStore(self._scheme, retry_config=RETRIES, client_options=_client_options())  # type: ignore[arg-type]
        whole = pafs.PyFileSystem(pafs.FSSpecHandler(opened))
        return pafs.SubTreeFileSystem(f"{self._prefix}/{folder}".rstrip("/"), whole)

    def scratch(self, name: str) -> str:
        """A path on local disk for what is not yet part of the store; its folder is made."""
        path = os.path.join(self._scratch, name)
        try:
            os.makedirs(os.path.dirname(path), exist_ok=True)
        except OSError as error:
            raise StoreError(f"cannot write {path}: {error.strerror or error}; set {SCRATCH_VARIABLE}") from error
        return path

    def persistently(self, read: Callable[[], Answer]) -> Answer:
        return until_answered(read, (DeltaError, pa.ArrowException, OSError))

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
            return until_answered(lambda: bytes(self._obstore.get(self._store, name).bytes())).decode("utf-8")

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
            until_answered(lambda: self._obstore.delete(self._store, name))

    def settle(self, name: str) -> None:
        """An object store keeps whatever it has confirmed."""

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
        def read() -> str:
            digest = hashlib.sha256()
            for chunk in self._obstore.get(self._store, name).stream(min_chunk_size=2**23):
                digest.update(bytes(chunk))
            return digest.hexdigest()

        with self._one_line(name):
            return until_answered(read)

    @contextlib.contextmanager
    def lock(self, name: str, timeout_s: float, taken: str, *, once: bool = False) -> Iterator[None]:
        """Hold a lease that runs out by itself if this process dies.

        Raises:
            StoreError: saying ``taken``, where another holds it for longer than ``timeout_s`` seconds.
        """
        lease = leases.Lease(self._store, f"{LOCKS}/{quote(name, safe='')}.json")
        with self._one_line(name):
            if not lease.acquire(timeout_s):
                raise StoreError(f"{taken} (the lock of one that was killed runs out in {leases.LEASE_S:.0f} s)")
        try:
            yield
        finally:
            lease.release(forget=once)

    @contextlib.contextmanager
    def _one_line(self, name: str) -> Iterator[None]:
        """A bucket that cannot be reached is for a person to mend; a name that is not there is the caller's."""
        from obstore import exceptions

        try:
            yield
        except FileNotFoundError:
            raise
        except (exceptions.BaseError, OSError) as error:
            raise AccessError(f"cannot reach {self.path(name)}: {one_line(error)}") from error


def _client_options() -> dict[str, Any]:
    # Options that are given at all replace those of the environment.
    plain = ("AWS_ALLOW_HTTP", "GOOGLE_ALLOW_HTTP", "AZURE_ALLOW_HTTP")
    allow_http = any(os.environ.get(name, "").lower() in ("1", "true") for name in plain)
    return {"timeout": REQUEST_TIMEOUT, "allow_http": allow_http}
