"""What the store adds to pyarrow: its compute functions for type checkers, and errors of its readers in one line."""

import contextlib
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute

from storage.errors import SEE_VERIFY, AccessError, one_line

pc: Any = pyarrow.compute
"""The compute functions are made when pyarrow is imported: a type checker cannot know them."""


@contextlib.contextmanager
def readable(table: str) -> Iterator[None]:
    """The body reads rows of a table.

    Raises:
        AccessError: a file of it is gone or damaged, or cannot be reached.
    """
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        raise AccessError(f"the table {table} cannot be read: {one_line(error)}{SEE_VERIFY}") from error
