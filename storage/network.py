"""Requests over a network that loses them and their answers.

Notable: a client does not repeat a conditional put once the connection broke, since it cannot know whether it was done,
and one that it does repeat after a server's error may meet its own first try. What stands there afterwards tells.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

ATTEMPTS = 8
_FIRST_WAIT_S = 0.1

Answer = TypeVar("Answer")


class Version(NamedTuple):
    """What tells one content of an object from the next: S3 goes by the first, Google by the second."""

    e_tag: str | None
    version: str | None


def until_answered(request: Callable[[], Answer], errors: tuple[type[Exception], ...] | None = None) -> Answer:
    """Make a request that may be made more than once, until it gets through: clients themselves repeat only some.

    Args:
        request: may raise FileNotFoundError, which is an answer too.
        errors: what it raises where the network drops; by default obstore's own errors.

    Raises:
        one of ``errors``: the network was away :data:`ATTEMPTS` times in a row.
    """
    from obstore.exceptions import BaseError

    lost = errors or (BaseError,)
    for attempt in range(ATTEMPTS - 1):
        try:
            return request()
        except FileNotFoundError:
            raise
        except lost:
            time.sleep(_FIRST_WAIT_S * 2**attempt)
    return request()


def put_if(store: Any, key: str, content: bytes | Path, replaced: Version | None = None) -> Version | None:
    """Write an object over its version ``replaced``, or where there is none yet.

    Args:
        store: obstore's client.
        key: the object's name.
        content: bytes, or a file of them. Of two writers with the same bytes each may hear that it wrote them, so
            what is to have one winner bears something random.
        replaced: the version that is to be written over; ``None``: there is to be none.

    Returns:
        The new version; ``None`` where another stands there.

    Raises:
        FileNotFoundError: there is no such file of bytes.
        obstore.exceptions.BaseError: the network was away :data:`ATTEMPTS` times in a row.
    """
    from obstore.exceptions import BaseError

    if isinstance(content, Path):
        content.stat()
    lost: BaseError | None = None
    for attempt in range(ATTEMPTS):
        if attempt:
            time.sleep(_FIRST_WAIT_S * 2 ** (attempt - 1))
        try:
            if (done := _put(store, key, content, replaced)) is not None:
                return done
            found, is_ours = _look(store, key, content)
        except BaseError as error:
            lost = error
            continue
        if is_ours:
            return found
        # Where nothing has changed, the request met a deletion that was on its way.
        if found != replaced:
            return None
    if lost is not None:
        raise lost
    return None


def _put(store: Any, key: str, content: bytes | Path, replaced: Version | None) -> Version | None:
    import obstore
    from obstore.exceptions import AlreadyExistsError, PreconditionError

    mode: Any = "create"
    if replaced is not None:
        mode = {name: value for name, value in replaced._asdict().items() if value is not None}
    try:
        done = obstore.put(store, key, content, mode=mode)
    except (AlreadyExistsError, PreconditionError, FileNotFoundError):
        return None
    return Version(done["e_tag"], done["version"])


def _look(store: Any, key: str, content: bytes | Path) -> tuple[Version | None, bool]:
    """What stands there, and whether it is ``content``."""
    import obstore

    try:
        found = obstore.head(store, key)
    except FileNotFoundError:
        return None, False
    version = Version(found["e_tag"], found["version"])
    size = content.stat().st_size if isinstance(content, Path) else len(content)
    if found["size"] != size:
        return version, False
    ours = content.read_bytes() if isinstance(content, Path) else content
    return version, bytes(obstore.get(store, key).bytes()) == ours
