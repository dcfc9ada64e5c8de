"""The feature columns of a user's table, as ragged float32 blocks.

A feature column may hold one vector per clip, one matrix per clip (frames x columns), one number per clip, or
be a glob that gathers many numeric columns into one vector. In csv, vectors and matrices are JSON lists.
"""

import fnmatch
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from miar.errors import UserError
from miar.features.contract import Modality
from miar.interchange.blocks import FeatureBlock, Layout, check_width, usable_block
from miar.interchange.table_file import listed
from storage.arrow import pc


@dataclass(frozen=True)
class FeatureColumn:
    """One feature set to import: ``audio:covarep=covarep_*`` on the command line."""

    kind: Modality
    name: str
    """Name of the extractor in the store."""
    column: str
    """A column of the table, or a glob over columns that hold one number each."""
    times: str | None = None
    """The column with the frames' times in seconds, one list per clip; ``None``: frames are numbered."""

    @property
    def label(self) -> str:
        return f"{self.kind}:{self.name}"

    @property
    def where(self) -> str:
        return f"column {self.column!r}"


def matched_columns(there: Sequence[str], feature: FeatureColumn, taken: Sequence[str] = ()) -> list[str]:
    """The columns of the table that ``feature.column`` means: itself, or what a glob matches beside ``taken``.

    Args:
        there: the names of all columns.

    Raises:
        UserError: no such column, or a glob that matches none; the text lists the columns there are.
    """
    if feature.column in there:
        return [feature.column]
    names = [name for name in there if fnmatch.fnmatchcase(name, feature.column) and name not in taken]
    if not names:
        raise UserError(f"no column {feature.column!r} for {feature.label} in the table; it has {listed(there)}")
    return names


def read_feature(
    parts: Iterable[pa.Table], feature: FeatureColumn, columns: Sequence[str], ids: Sequence[str]
) -> Iterator[FeatureBlock]:
    """Read one feature set of all clips, a block for each part of the table.

    Args:
        parts: consecutive rows of the table, with the feature's columns.
        columns: what :func:`matched_columns` found.
        ids: the clips' own ids, for messages.

    Raises:
        UserError: values that are not numbers, widths that differ within a block, times that do not fit the frames.
    """
    start = 0
    for part in parts:
        yield _read_block(part, feature, columns, ids[start : start + part.num_rows])
        start += part.num_rows


def _read_block(part: pa.Table, feature: FeatureColumn, columns: Sequence[str], ids: Sequence[str]) -> FeatureBlock:
    chosen = part.select(list(columns))
    if chosen.num_columns > 1 or _is_number(chosen.column(0).type):
        names = chosen.column_names
        values = np.stack([_numbers(chosen.column(name), feature, name) for name in names], axis=1)
        n_frames = np.ones(len(values), np.int32)
        times = _read_times(part, feature, n_frames, ids)
        return usable_block(tuple(names), "vector", values, n_frames, _reasons(_all_null(chosen)), times)
    lists = _as_lists(chosen, columns[0], feature, ids)
    columns_, layout, values, n_frames = _read_lists(lists, feature, ids)
    is_null = lists.is_null().to_numpy(zero_copy_only=False)
    times = _read_times(part, feature, n_frames, ids)
    return usable_block(columns_, layout, values, n_frames, _reasons(is_null), times)


def _all_null(part: pa.Table) -> NDArray[np.bool_]:
    nulls = [column.is_null().to_numpy() for column in part.columns]
    return np.logical_and.reduce(nulls)


def _reasons(is_null: NDArray[np.bool_]) -> list[str | None]:
    return ["null" if null else None for null in is_null]


def _read_lists(
    lists: pa.Array, feature: FeatureColumn, ids: Sequence[str]
) -> tuple[tuple[str, ...], Layout, NDArray[np.float32], NDArray[np.int32]]:
    """Column names, layout, frames (sum of n_frames, n_columns) and n_frames (n_clips,)."""
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
    return tuple(f"{feature.name}_{index}" for index in range(width)), layout, values, n_frames


def _read_times(
    part: pa.Table, feature: FeatureColumn, n_frames: NDArray[np.int32], ids: Sequence[str]
) -> NDArray[np.float32] | None:
    """(sum of n_frames,) in seconds; ``None`` where the feature has no column of times."""
    if feature.times is None:
        return None
    lists = _as_lists(part, feature.times, feature, ids)
    lengths = _lengths(lists)
    wrong = np.flatnonzero(lengths != n_frames)
    if len(wrong):
        row = int(wrong[0])
        raise UserError(
            f"{feature.label}: column {feature.times!r} holds {lengths[row]} times for clip {ids[row]!r}, "
            f"which has {n_frames[row]} frames; give every frame one time"
        )
    return _numbers(pc.list_flatten(lists), feature, feature.times)


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
        check_width(feature.label, feature.where, one, other)
    return int(widths[first])


def _as_lists(part: pa.Table, name: str, feature: FeatureColumn, ids: Sequence[str]) -> pa.Array:
    column = part.column(name)
    array = pa.concat_arrays(column.chunks) if column.num_chunks != 1 else column.chunk(0)
    if isinstance(array, pa.ExtensionArray):
        array = array.storage
    if _is_text(array.type):
        return _parse_json_lists(array, name, feature, ids)
    if not _is_list(array.type):
        raise UserError(_not_numbers(feature, name, array.type))
    return array


def _parse_json_lists(array: pa.Array, name: str, feature: FeatureColumn, ids: Sequence[str]) -> pa.Array:
    parsed: list[object] = []
    for row, cell in enumerate(array.to_pylist()):
        text = (cell or "").strip()
        try:
            value = json.loads(text) if text else None
        except json.JSONDecodeError:
            value = text
        if value is not None and not isinstance(value, list):
            raise UserError(
                f"{feature.label}: column {name!r} of clip {ids[row]!r} is not a JSON list of numbers: {text[:40]!r}"
            )
        parsed.append(value)
    is_matrix = any(isinstance(value, list) and value and isinstance(value[0], list) for value in parsed)
    kind = pa.list_(pa.list_(pa.float64())) if is_matrix else pa.list_(pa.float64())
    try:
        return pa.array(parsed, type=kind)
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise UserError(_not_numbers(feature, name, "JSON lists of other things")) from error


def _numbers(column: pa.Array | pa.ChunkedArray, feature: FeatureColumn, name: str) -> NDArray[np.float32]:
    """One float32 per row; null becomes NaN, a number beyond float32's range an infinity."""
    if not (_is_number(column.type) or pa.types.is_null(column.type)):
        raise UserError(_not_numbers(feature, name, column.type))
    numbers = pc.cast(column, pa.float64(), safe=False)
    with np.errstate(over="ignore"):
        return numbers.to_numpy(zero_copy_only=False).astype(np.float32)


def _not_numbers(feature: FeatureColumn, name: str, kind: object) -> str:
    return f"{feature.label}: column {name!r} holds {kind}, not numbers or lists of numbers; choose another column"


def _lengths(lists: pa.Array) -> NDArray[np.int64]:
    return pc.fill_null(pc.list_value_length(lists), 0).to_numpy(zero_copy_only=False).astype(np.int64)


def _is_number(kind: pa.DataType) -> bool:
    types = pa.types
    return types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind) or types.is_decimal(kind)


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _is_list(kind: pa.DataType) -> bool:
    return pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
