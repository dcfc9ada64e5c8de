"""A lock on an object store: a small object that its holder renews, and that another may take once it has run out.

Conditional puts decide who gets it, so two can never take the same lease. Should a holder be stopped for longer than a
lease lasts, another goes on meanwhile: nothing is doubled then either, since every commit is conditional too.
"""

import contextlib
import json
import os
import socket
import threading
import time
import uuid
from typing import Any

from storage.network import Version, put_if, until_answered

LEASE_S = 30.0
"""How long a dead process keeps others waiting."""
RENEWALS = 3
"""Within one lease, so that one slow request does not lose it."""
POLL_S = 0.2


class Lease:
    """One holder's claim to one object."""

    def __init__(self, store: Any, key: str) -> None:
        self._store = store
        self._key = key
        self._owner = f"{socket.gethostname()}/{os.getpid()}/{uuid.uuid4().hex}"
        self._version: Version | None = None
        """What this holder wrote last; ``None``: it does not hold the lease."""
        self._released = threading.Event()
        self._renewal: threading.Thread | None = None

    def acquire(self, timeout_s: float) -> bool:
        """Whether it was got within ``timeout_s`` seconds.

        Raises:
            obstore.exceptions.BaseError: the object store cannot be reached.
        """
        deadline = time.monotonic() + timeout_s
        while not self._try():
            if time.monotonic() >= deadline:
                return False
            time.sleep(POLL_S)
        self._renewal = threading.Thread(target=self._renew, daemon=True)
        self._renewal.start()
        return True

    def release(self, *, forget: bool = False) -> None:
        """Give it back; it can be taken at once, or when it has run out if the network is away.

        ``forget``: nobody needs it any more, so nothing of it stays.
        """
        import obstore
        from obstore.exceptions import BaseError

        self._released.set()
        if self._renewal is not None:
            self._renewal.join()
        if self._version is None:
            return
        with contextlib.suppress(BaseError, FileNotFoundError):
            if forget:
                until_answered(lambda: obstore.delete(self._store, self._key))
            else:
                self._put(self._version, lasts_s=0.0)

    def _try(self) -> bool:
        standing = self._read()
        if standing is None:
            return self._put(None, LEASE_S)
        version, _, ends = standing
        return time.time() >= ends and self._put(version, LEASE_S)

    def _put(self, replaced: Version | None, lasts_s: float) -> bool:
        """Write the lease over a version of it, or where there is none yet; whether nobody else did."""
        content = json.dumps({"owner": self._owner, "lasts_s": lasts_s, "nonce": uuid.uuid4().hex}).encode()
        self._version = put_if(self._store, self._key, content, replaced)
        if self._version is None and (standing := self._read()) is not None and standing[1] == self._owner:
            # An earlier write of this holder got there after all, though its answer did not come back.
            self._version = put_if(self._store, self._key, content, standing[0])
        return self._version is not None

    def _read(self) -> tuple[Version, str, float] | None:
        """The version that stands there, its owner, and when it runs out (seconds since 1970)."""
        import obstore

        def read() -> tuple[Any, bytes]:
            found = obstore.get(self._store, self._key)
            return found.meta, bytes(found.bytes())

        try:
            meta, text = until_answered(read)
        except FileNotFoundError:
            return None
        content = json.loads(text)
        # The object's own time and this machine's: clocks that differ by seconds shift the end by as much.
        ends = meta["last_modified"].timestamp() + content["lasts_s"]
        return Version(meta["e_tag"], meta["version"]), content["owner"], ends

    def _renew(self) -> None:
        from obstore.exceptions import BaseError

        while self._version is not None and not self._released.wait(LEASE_S / RENEWALS):
            # The network may be back before the lease has run out.
            with contextlib.suppress(BaseError):
                self._put(self._version, LEASE_S)
