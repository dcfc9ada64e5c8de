"""Reading a user's table: the file itself, and its feature columns as ragged float32 blocks.

A feature column may hold one vector per clip, one matrix per clip (frames x columns), one number per clip, or
be a glob that gathers many numeric columns into one vector. In csv, vectors and matrices are JSON lists.
"""

import fnmatch
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
from numpy.typing import NDArray

from miar.errors import UserError
from miar.features.contract import Modality
from storage.arrow import pc

ROWS_PER_BLOCK = 10_000
"""Keeps every list array far below the 2^31 values that 32-bit offsets can address."""

Layout = Literal["vector", "sequence"]


@dataclass(frozen=True)
class FeatureColumn:
    """One feature set to import: ``audio:covarep=covarep_*`` on the command line."""

    kind: Modality
    name: str
    """Name of the extractor in the store."""
    column: str
    """A column of the table, or a glob over columns that hold one number each."""


@dataclass
class FeatureBlock:
    """The features of some consecutive clips. Missing clips have no frames and a reason."""

    columns: tuple[str, ...]
    layout: Layout
    values: NDArray[np.float32]
    """(sum of n_frames, n_columns), finite."""
    n_frames: NDArray[np.int32]
    """(n_clips,)"""
    reasons: list[str | None]
    """Per clip: ``null``, ``empty`` or ``not_finite`` where it has no frame, else ``None``."""
    dropped_frames: int
    """Frames left out for a NaN or an infinity."""


def read_table(path: Path, text_columns: Sequence[str]) -> pa.Table:
    """Read a csv or Parquet file; ``text_columns`` are read as text even where they look like numbers.

    Raises:
        UserError: no such file, another format, not readable, no rows, or two columns of one name.
    """
    if not path.is_file():
        raise UserError(f"no such file: {path}; give a csv or Parquet table")
    suffix = path.suffix.lower()
    try:
        if suffix in {".parquet", ".pq"}:
            table = pq.ParquetFile(path).read()
        elif suffix == ".csv":
            table = _read_csv(path, text_columns)
        else:
            raise UserError(f"{path.name} is neither .csv nor .parquet; save the table as one of these")
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"cannot read {path}: {' '.join(str(error).split())}") from error
    _check_header(path, table)
    return table


def _read_csv(path: Path, text_columns: Sequence[str]) -> pa.Table:
    return pa_csv.read_csv(
        path,
        parse_options=pa_csv.ParseOptions(newlines_in_values=True),
        convert_options=pa_csv.ConvertOptions(column_types=dict.fromkeys(text_columns, pa.string())),
    )


def _check_header(path: Path, table: pa.Table) -> None:
    names = table.column_names
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UserError(f"{path.name} has more than one column named {twice[0]!r}; rename one of them")
    if table.num_rows == 0:
        raise UserError(f"{path.name} has no rows; nothing to import")


def require_columns(table: pa.Table, wanted: Sequence[str]) -> None:
    """Raise a :class:`UserError`, listing the columns there are, for the first of ``wanted`` that is not."""
    for name in wanted:
        if name not in table.column_names:
            raise UserError(f"no column {name!r} in the table; it has {_listed(table.column_names)}")


def _listed(names: Sequence[str], most: int = 20) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def matched_columns(table: pa.Table, feature: FeatureColumn, taken: Sequence[str] = ()) -> list[str]:
    """The table's columns that ``feature.column`` means: itself, or what a glob matches beside ``taken``.

    Raises:
        UserError: no such column, or a glob that matches none; the text lists the columns there are.
    """
    if feature.column in table.column_names:
        return [feature.column]
    names = [name for name in table.column_names if fnmatch.fnmatchcase(name, feature.column) and name not in taken]
    if not names:
        raise UserError(
            f"no column {feature.column!r} for {feature.kind}:{feature.name} in the table; "
            f"it has {_listed(table.column_names)}"
        )
    return names


def read_feature(
    table: pa.Table, feature: FeatureColumn, columns: Sequence[str], ids: Sequence[str]
) -> list[FeatureBlock]:
    """Read one feature set of all clips, in blocks of :data:`ROWS_PER_BLOCK` clips in the order of the table.

    Args:
        columns: what :func:`matched_columns` found.
        ids: the clips' own ids, for messages.

    Raises:
        UserError: values that are not numbers, widths that differ, or no value in any clip.
    """
    blocks: list[FeatureBlock] = []
    width: tuple[int, str] | None = None
    for start in range(0, table.num_rows, ROWS_PER_BLOCK):
        part = table.select(list(columns)).slice(start, ROWS_PER_BLOCK)
        block = _read_block(part, feature, ids[start : start + ROWS_PER_BLOCK])
        if block.n_frames.any():
            first = ids[start + int(np.argmax(block.n_frames > 0))]
            width = width or (len(block.columns), first)
            _check_width(feature, width, (len(block.columns), first))
        blocks.append(block)
    if width is None:
        reasons = {reason for block in blocks for reason in block.reasons}
        raise UserError(
            f"{feature.kind}:{feature.name}: column {feature.column!r} has no usable value in any clip "
            f"({', '.join(sorted(str(reason) for reason in reasons))}); choose another column"
        )
    return blocks


def _check_width(feature: FeatureColumn, one: tuple[int, str], other: tuple[int, str]) -> None:
    if one[0] != other[0]:
        raise UserError(
            f"{feature.kind}:{feature.name}: widths differ in column {feature.column!r}: "
            f"{one[0]} values for clip {one[1]!r}, {other[0]} for clip {other[1]!r}; "
            "give every clip the same width"
        )


def _read_block(part: pa.Table, feature: FeatureColumn, ids: Sequence[str]) -> FeatureBlock:
    if part.num_columns > 1 or _is_number(part.column(0).type):
        names = part.column_names
        values = np.stack([_numbers(part.column(name), feature, name) for name in names], axis=1)
        is_null = _all_null(part)
        return _drop_unusable(tuple(names), "vector", values, np.ones(len(values), np.int32), is_null)
    return _read_lists(_as_lists(part.column(0), feature, ids), feature, ids)


def _all_null(part: pa.Table) -> NDArray[np.bool_]:
    nulls = [column.is_null().to_numpy() for column in part.columns]
    return np.logical_and.reduce(nulls)


def _read_lists(lists: pa.Array, feature: FeatureColumn, ids: Sequence[str]) -> FeatureBlock:
    is_null = lists.is_null().to_numpy(zero_copy_only=False)
    lengths = _lengths(lists)
    inner = pc.list_flatten(lists)
    owners = np.repeat(np.arange(len(lists)), lengths)
    if _is_list(inner.type):
        layout, widths, flat = "sequence", _lengths(inner), pc.list_flatten(inner)
    else:
        layout, widths, flat = "vector", lengths[lengths > 0], inner
        owners = np.flatnonzero(lengths > 0)
    width = _common_width(feature, widths, owners, ids)
    values = _numbers(flat, feature, feature.column).reshape(-1, width)
    # A frame that is null or holds nothing is no frame.
    n_frames = np.bincount(owners[widths > 0], minlength=len(lists)).astype(np.int32)
    names = tuple(f"{feature.name}_{index}" for index in range(width))
    return _drop_unusable(names, layout, values, n_frames, is_null)


def _common_width(
    feature: FeatureColumn, widths: NDArray[np.int64], owners: NDArray[np.int64], ids: Sequence[str]
) -> int:
    """The one width of all frames that hold anything; 1 where none does."""
    filled = np.flatnonzero(widths > 0)
    if not len(filled):
        return 1
    first = filled[0]
    others = filled[widths[filled] != widths[first]]
    if len(others):
        one, other = ((int(widths[at]), ids[int(owners[at])]) for at in (first, others[0]))
        _check_width(feature, one, other)
    return int(widths[first])


def _drop_unusable(
    names: tuple[str, ...],
    layout: Layout,
    values: NDArray[np.float32],
    n_frames: NDArray[np.int32],
    is_null: NDArray[np.bool_],
) -> FeatureBlock:
    """Leave out frames with a NaN or an infinity, and say of every clip without a frame why it has none."""
    usable = np.isfinite(values).all(axis=1)
    owners = np.repeat(np.arange(len(n_frames)), n_frames)
    kept = np.bincount(owners[usable], minlength=len(n_frames)).astype(np.int32)
    not_null = ~is_null[owners] if len(owners) else usable
    reasons: list[str | None] = [None] * len(n_frames)
    for row in np.flatnonzero(kept == 0):
        reasons[row] = "null" if is_null[row] else "empty" if n_frames[row] == 0 else "not_finite"
    return FeatureBlock(names, layout, values[usable], kept, reasons, int((~usable & not_null).sum()))


def _as_lists(column: pa.ChunkedArray, feature: FeatureColumn, ids: Sequence[str]) -> pa.Array:
    array = pa.concat_arrays(column.chunks) if column.num_chunks != 1 else column.chunk(0)
    if isinstance(array, pa.ExtensionArray):
        array = array.storage
    if _is_text(array.type):
        return _parse_json_lists(array, feature, ids)
    if not _is_list(array.type):
        raise UserError(_not_numbers(feature, feature.column, array.type))
    return array


def _parse_json_lists(array: pa.Array, feature: FeatureColumn, ids: Sequence[str]) -> pa.Array:
    parsed: list[object] = []
    for row, cell in enumerate(array.to_pylist()):
        text = (cell or "").strip()
        try:
            value = json.loads(text) if text else None
        except json.JSONDecodeError:
            value = text
        if value is not None and not isinstance(value, list):
            raise UserError(
                f"{feature.kind}:{feature.name}: column {feature.column!r} of clip {ids[row]!r} is not a "
                f"JSON list of numbers: {text[:40]!r}"
            )
        parsed.append(value)
    is_matrix = any(isinstance(value, list) and value and isinstance(value[0], list) for value in parsed)
    kind = pa.list_(pa.list_(pa.float64())) if is_matrix else pa.list_(pa.float64())
    try:
        return pa.array(parsed, type=kind)
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise UserError(_not_numbers(feature, feature.column, "JSON lists of other things")) from error


def _numbers(column: pa.Array | pa.ChunkedArray, feature: FeatureColumn, name: str) -> NDArray[np.float32]:
    """One float32 per row; null becomes NaN, a number beyond float32's range an infinity."""
    if not (_is_number(column.type) or pa.types.is_null(column.type)):
        raise UserError(_not_numbers(feature, name, column.type))
    numbers = pc.cast(column, pa.float64(), safe=False)
    with np.errstate(over="ignore"):
        return numbers.to_numpy(zero_copy_only=False).astype(np.float32)


def _not_numbers(feature: FeatureColumn, name: str, kind: object) -> str:
    return (
        f"{feature.kind}:{feature.name}: column {name!r} holds {kind}, not numbers or lists of numbers; "
        "choose another column"
    )


def _lengths(lists: pa.Array) -> NDArray[np.int64]:
    return pc.fill_null(pc.list_value_length(lists), 0).to_numpy(zero_copy_only=False).astype(np.int64)


def _is_number(kind: pa.DataType) -> bool:
    types = pa.types
    return types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind) or types.is_decimal(kind)


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _is_list(kind: pa.DataType) -> bool:
    return pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
