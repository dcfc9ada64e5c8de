"""The values of an MMSA file, in the shapes that its several makers gave them: arrays, lists, arrays of objects."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from miar.errors import UserError
from miar.interchange.safe_pickle import PickledArray


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
    rows = value.array.tolist() if isinstance(value, PickledArray) else value
    if not isinstance(rows, list | tuple):
        raise UserError(f"{where} is no list of texts; mend the file")
    return [_text(row, where) for row in rows]


def _text(row: Any, where: str) -> str:
    row = row.array.tolist() if isinstance(row, PickledArray) else row
    if isinstance(row, bytes):
        return row.decode("utf-8", "replace")
    if isinstance(row, str | int | float):
        return str(row)
    if isinstance(row, list | tuple) and row and not any(isinstance(each, list | tuple | dict) for each in row):
        return "_".join(_text(each, where) for each in row)
    raise UserError(f"{where} is no list of texts; mend the file")


def labels_of(value: Any, where: str) -> list[float | str | None]:
    """One number or class name per clip; ``None`` for an empty name and for what is not finite.

    Raises:
        UserError: several values per clip.
    """
    rows = value.array if isinstance(value, PickledArray) else np.array(value)
    if rows.ndim == 2 and rows.shape[1] == 1:
        rows = rows[:, 0]
    if rows.ndim != 1:
        raise UserError(f"{where} holds {' x '.join(map(str, rows.shape))} values; a label is one value per clip")
    if rows.dtype.kind in "biuf":
        return [float(number) if np.isfinite(number) else None for number in rows]
    names = [_text(each, where).strip() for each in rows.tolist()]
    return [name or None for name in names]


def sequences_of(value: Any, where: str) -> Sequence[NDArray[Any]]:
    """Per clip (padded n_frames, n_columns); a vector per clip counts as one frame.

    Raises:
        UserError: anything but numbers in these shapes.
    """
    if isinstance(value, PickledArray) and value.array.dtype != object:
        array = value.array[:, None, :] if value.array.ndim == 2 else value.array
        sequences = list(array) if array.ndim == 3 else [array]
    else:
        rows = value.array.tolist() if isinstance(value, PickledArray) else value
        sequences = [array_of(row, where) for row in rows] if isinstance(rows, list | tuple) else []
    for sequence in sequences:
        if sequence.ndim != 2 or sequence.shape[1] == 0 or sequence.dtype.kind not in "biuf":
            shape = " x ".join(map(str, sequence.shape))
            raise UserError(
                f"{where} holds {shape} values of type {sequence.dtype} for a clip; it should be steps x columns"
            )
    return sequences
