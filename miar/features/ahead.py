"""Let who makes things and who uses them work at the same time, in bounded memory."""

import threading
from collections.abc import Generator, Iterator
from queue import Full, Queue
from typing import TypeVar

Item = TypeVar("Item")

_LOOK_EVERY_S = 0.1
"""How often a full queue is asked whether anybody still wants what is in it."""


class _Over:
    """Nothing more comes, and why, where that is an error."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error


def ahead(items: Generator[Item], most: int) -> Iterator[Item]:
    """The same items in the same order, made in a thread of their own, at most ``most`` before they are asked for.

    An error of ``items`` is raised where the item would have come. Leaving early closes ``items`` before this returns.
    """
    made: Queue[Item | _Over] = Queue(most)
    unwanted = threading.Event()
    thread = threading.Thread(target=_make, args=(items, made, unwanted), name="ahead", daemon=True)
    thread.start()
    try:
        while not isinstance(item := made.get(), _Over):
            yield item
        if item.error is not None:
            raise item.error
    finally:
        unwanted.set()
        thread.join()


def _make(items: Generator[Item], made: "Queue[Item | _Over]", unwanted: threading.Event) -> None:
    over = _Over()
    try:
        for item in items:
            if not _put(made, item, unwanted):
                return
    except BaseException as error:  # noqa: BLE001 - it is raised where the items are used
        over = _Over(error)
    finally:
        items.close()
    _put(made, over, unwanted)


def _put(made: "Queue[Item | _Over]", item: Item | _Over, unwanted: threading.Event) -> bool:
    while not unwanted.is_set():
        try:
            made.put(item, timeout=_LOOK_EVERY_S)
        except Full:
            continue
        return True
    return False
