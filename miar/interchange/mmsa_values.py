"""The values of an MMSA file, in the shapes that its several makers gave them: arrays, lists, arrays of objects.

A pickle of a few bytes can name one list again and again, each time as part of another. So nothing here follows lists
deeper than such a file has them, and whoever knows how many clips there are compares that with :func:`count_of` first.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from miar.errors import UserError
from miar.interchange.safe_pickle import PickledArray

MOST_PARTS = 8
"""Of one clip's text: older ids are made of a video, a start and an end."""
MOST_LETTERS = 200
"""Of such a text in several parts."""


def count_of(value: Any) -> int | None:
    """How many clips ``value`` has a row for, before any of them is looked at; ``None`` where it has no rows."""
    if isinstance(value, PickledArray):
        return len(value.array) if value.array.ndim else None
    return len(value) if isinstance(value, list | tuple) else None


def array_of(value: Any, where: str) -> NDArray[Any]:
    """An array, or a list of plain numbers as one.

    Raises:
        UserError: it is neither.
    """
    if isinstance(value, PickledArray):
        return value.array
    if isinstance(value, list | tuple) and all(isinstance(each, int | float | np.number) for each in value):
        return np.array(value)
    raise UserError(f"{where} is no array of numbers; mend the file")


def texts_of(value: Any, where: str) -> list[str]:
    """One text per clip; where a clip has several (older ids: video, start, end), they are joined by ``_``.

    Raises:
        UserError: something else stands there.
    """
    decoded: dict[bytes, str] = {}
    return [_text(row, where, decoded) for row in _rows(value, where)]


def labels_of(value: Any, where: str) -> list[float | str | None]:
    """One number or class name per clip; ``None`` for an empty name and for what is not finite.

    Raises:
        UserError: several values per clip.
    """
    if isinstance(value, PickledArray) and value.array.ndim != 1 and value.array.shape[1:] != (1,):
        shape = " x ".join(map(str, value.array.shape))
        raise UserError(f"{where} holds {shape} values; a label is one value per clip")
    rows = [_only(row, where) for row in _rows(value, where)]
    if not all(isinstance(row, int | float | np.number | np.bool_) for row in rows):
        return [name.strip() or None for name in texts_of(rows, where)]
    try:
        numbers = np.array(rows, np.float64)
    except OverflowError as error:
        raise UserError(f"{where} holds a number that no label reaches; mend the file") from error
    return [float(number) if np.isfinite(number) else None for number in numbers]


def sequences_of(value: Any, where: str) -> Sequence[NDArray[Any]]:
    """Per clip (padded n_frames, n_columns); a vector per clip counts as one frame.

    Raises:
        UserError: anything but numbers in these shapes.
    """
    if isinstance(value, PickledArray) and value.array.dtype != object:
        array = value.array[:, None, :] if value.array.ndim == 2 else value.array
        return [_sequence(each, where) for each in (array if array.ndim == 3 else [array])]
    return [_sequence(array_of(row, where), where) for row in _rows(value, where)]


def _sequence(array: NDArray[Any], where: str) -> NDArray[Any]:
    if array.ndim != 2 or array.shape[1] == 0 or array.dtype.kind not in "biuf":
        shape = " x ".join(map(str, array.shape))
        raise UserError(f"{where} holds {shape} values of type {array.dtype} for a clip; it should be steps x columns")
    return array


def _rows(value: Any, where: str) -> Sequence[Any]:
    rows = value.array.tolist() if isinstance(value, PickledArray) else value
    if not isinstance(rows, list | tuple):
        raise UserError(f"{where} is no list with a row for each clip; mend the file")
    return rows


def _text(row: Any, where: str, decoded: dict[bytes, str]) -> str:
    """``decoded``: bytes that were met before, so that one text named a thousand times is made once."""
    parts = _parts(row)
    if not 1 <= len(parts) <= MOST_PARTS or not all(isinstance(part, str | bytes | int | float) for part in parts):
        raise UserError(f"{where} is no list of texts; mend the file")
    for part in parts:
        if isinstance(part, bytes) and part not in decoded:
            decoded[part] = part.decode("utf-8", "replace")
    texts = [decoded[part] if isinstance(part, bytes) else str(part) for part in parts]
    if len(texts) == 1:
        return texts[0]
    if sum(map(len, texts)) > MOST_LETTERS:
        raise UserError(f"{where} holds parts of a text of more than {MOST_LETTERS} letters; mend the file")
    return "_".join(texts)


def _only(row: Any, where: str) -> Any:
    parts = _parts(row)
    if len(parts) != 1:
        raise UserError(f"{where} holds {len(parts)} values for a clip; a label is one value per clip")
    return parts[0]


def _parts(row: Any) -> Sequence[Any]:
    """The values of one clip: those of a list or an array, or the one that it is."""
    if isinstance(row, PickledArray):
        return row.array.ravel().tolist()
    return row if isinstance(row, list | tuple) else [row]
