"""One label column of a user's table: numbers, or class names."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from miar.errors import UserError


@dataclass
class LabelColumn:
    """The targets that a column gives."""

    targets: dict[int, tuple[float | None, str | None]] = field(default_factory=dict)
    """Row -> (value, category); one of the two is set. Rows without a usable label are not there."""
    warnings: list[str] = field(default_factory=list)


def read_label(column: pa.ChunkedArray, name: str, sources: Sequence[str]) -> LabelColumn:
    """Read a label column. Empty cells are no label; NaN and infinities are dropped with a warning.

    Text that is a number in every cell is read as numbers.

    Raises:
        UserError: numbers and names mixed, lists, or no label at all.
    """
    kind = column.type
    if pa.types.is_dictionary(kind):
        column, kind = column.cast(kind.value_type), kind.value_type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        label = _read_text(column, name, sources)
    elif (
        pa.types.is_integer(kind)
        or pa.types.is_floating(kind)
        or pa.types.is_boolean(kind)
        or pa.types.is_decimal(kind)
    ):
        label = _read_numbers(pc.cast(column, pa.float64(), safe=False), sources)
    else:
        raise UserError(f"label column {name!r} holds {kind}; a label is a number or a class name")
    if not label.targets:
        raise UserError(f"label column {name!r} has no usable label in any row; choose another column")
    return label


def _read_numbers(column: pa.ChunkedArray | pa.Array, sources: Sequence[str]) -> LabelColumn:
    values = column.to_numpy()
    absent = np.asarray(column.is_null())
    usable = np.isfinite(values)
    label = LabelColumn({int(row): (float(values[row]), None) for row in np.flatnonzero(usable)})
    _warn(label, np.flatnonzero(absent), "have no value", sources)
    _warn(label, np.flatnonzero(~usable & ~absent), "are NaN or infinite and were dropped", sources)
    return label


def _read_text(column: pa.ChunkedArray, name: str, sources: Sequence[str]) -> LabelColumn:
    cells = [(cell or "").strip() for cell in column.to_pylist()]
    numbers = [_number(cell) for cell in cells]
    filled = [row for row, cell in enumerate(cells) if cell]
    numeric = [row for row in filled if numbers[row] is not None]
    if filled and len(numeric) == len(filled):
        return _read_numbers(pa.array(numbers, pa.float64()), sources)
    if numeric:
        odd = next(row for row in filled if numbers[row] is None)
        raise UserError(
            f"label column {name!r} mixes numbers and names: clip {sources[odd]!r} has {cells[odd][:40]!r}; "
            "write one kind only"
        )
    label = LabelColumn({row: (None, cells[row]) for row in filled})
    _warn(label, [row for row, cell in enumerate(cells) if not cell], "have no value", sources)
    return label


def _number(cell: str) -> float | None:
    try:
        return float(cell)
    except ValueError:
        return None


def _warn(label: LabelColumn, rows: Sequence[int] | np.ndarray, what: str, sources: Sequence[str]) -> None:
    if len(rows):
        label.warnings.append(f"{len(rows)} clips {what} (the first: {sources[int(rows[0])]!r})")
