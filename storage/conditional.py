"""Puts that are made only on a condition, over a network that loses requests and answers.

Notable: a client does not repeat a conditional put once the connection broke, since it cannot know whether it was done.
What stands there afterwards tells.
"""

import time
from pathlib import Path
from typing import Any

ATTEMPTS = 8
_FIRST_WAIT_S = 0.1


def put_if(store: Any, key: str, content: bytes | Path, e_tag: str | None = None) -> str | None:
    """Write an object over its version ``e_tag``, or where there is none yet.

    Args:
        store: obstore's client.
        key: the object's name.
        content: bytes, or a file of them. Of two writers with the same bytes each may hear that it wrote them, so
            what is to have one winner bears something random.
        e_tag: the version that is to be replaced; ``None``: there is to be none.

    Returns:
        The new version; ``None`` where another stands there.

    Raises:
        obstore.exceptions.BaseError: the network was away :data:`ATTEMPTS` times in a row.
    """
    import obstore
    from obstore.exceptions import AlreadyExistsError, BaseError, PreconditionError

    sent = False
    for attempt in range(ATTEMPTS):
        try:
            return obstore.put(store, key, content, mode="create" if e_tag is None else {"e_tag": e_tag})["e_tag"]
        except (AlreadyExistsError, PreconditionError, FileNotFoundError):
            pass
        except BaseError:
            if attempt == ATTEMPTS - 1:
                raise
            sent = True
        found = _version(store, key)
        if sent and found is not None and _holds(store, key, content):
            return found
        # Nothing came of it: the request was lost, or a deletion was on its way.
        if found != e_tag:
            return None
        time.sleep(_FIRST_WAIT_S * 2**attempt)
    return None


def _version(store: Any, key: str) -> str | None:
    import obstore

    try:
        return obstore.head(store, key)["e_tag"]
    except FileNotFoundError:
        return None


def _holds(store: Any, key: str, content: bytes | Path) -> bool:
    import obstore

    size = len(content) if isinstance(content, bytes) else content.stat().st_size
    if obstore.head(store, key)["size"] != size:
        return False
    there = bytes(obstore.get(store, key).bytes())
    return there == (content if isinstance(content, bytes) else content.read_bytes())
