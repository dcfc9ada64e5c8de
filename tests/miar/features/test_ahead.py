"""Items that are made ahead of their use come whole, in order, and stop when nobody wants them."""

import threading
import time
from collections.abc import Generator

import pytest

from miar.features.ahead import ahead


class Maker:
    """Counts what it has made, and notes when it is closed."""

    def __init__(self, count: int, fails_at: int | None = None) -> None:
        self.made = 0
        self.closed_in: str | None = None
        self._count = count
        self._fails_at = fails_at

    def items(self) -> Generator[int]:
        try:
            for number in range(self._count):
                if number == self._fails_at:
                    raise OSError("cut off")
                self.made += 1
                yield number
        finally:
            self.closed_in = threading.current_thread().name


@pytest.mark.parametrize("most", [1, 3, 100])
def test_the_same_items_in_the_same_order(most: int) -> None:
    maker = Maker(50)
    assert list(ahead(maker.items(), most)) == list(range(50))
    assert maker.closed_in == "ahead"


def test_no_more_are_made_than_may_be_held() -> None:
    maker = Maker(1000)
    items = ahead(maker.items(), 4)
    assert next(items) == 0
    for _ in range(20):
        time.sleep(0.01)
        assert maker.made <= 6  # one is used, four wait, one waits to be put


def test_an_error_comes_where_the_item_would_have() -> None:
    items = ahead(Maker(10, fails_at=3).items(), 2)
    assert [next(items) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(OSError, match="cut off"):
        next(items)


def test_leaving_early_closes_the_maker_first() -> None:
    maker = Maker(1000)
    items = ahead(maker.items(), 2)
    next(items)
    items.close()
    assert maker.closed_in == "ahead"
    assert not any(thread.name == "ahead" for thread in threading.enumerate())


def test_making_and_using_overlap() -> None:
    """The maker waits for the user to hold the first item before it makes the third, which it could not do in turn."""
    holds = threading.Event()

    def items() -> Generator[int]:
        yield 0
        yield 1
        assert holds.wait(10)
        yield 2

    made = ahead(items(), 4)
    assert next(made) == 0
    holds.set()
    assert list(made) == [1, 2]
