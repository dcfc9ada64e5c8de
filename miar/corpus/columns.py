"""Whole columns at once: what a corpus of a million clips is read, matched and named with.

A loop per row in Python takes longer than everything else that planning a refresh does, so tables stay Arrow columns
and positions numpy arrays; Python looks at each distinct value at most once.
"""

import hashlib
import json
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from miar.hashing import KEY_HEX_DIGITS
from storage.arrow import pc

_IDS_AT_ONCE = 2**16
NOWHERE = -1
"""The position of what was not found."""


def as_text(value: Any) -> str | None:
    """An id, name or text; whole numbers without a decimal point, so that 7.0 in Parquet finds 7 in csv."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    text = str(value).strip()
    return text or None


def as_number(value: Any) -> float | None:
    """``None`` where it is no number."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def whole(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    """One array without chunks."""
    if not isinstance(column, pa.ChunkedArray):
        return column
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def texts(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    """(n,) strings: :func:`as_text` of every cell."""
    column = whole(column)
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        trimmed = pc.utf8_trim_whitespace(column.cast(pa.string()))
        empty = pc.equal(trimmed, "")
        return pc.if_else(empty, pa.scalar(None, pa.string()), trimmed) if pc.any(empty).as_py() else trimmed
    if pa.types.is_integer(column.type):
        return column.cast(pa.string())
    return by_value(column, as_text, pa.string())


def numbers(column: pa.Array) -> pa.Array:
    """(n,) float64: :func:`as_number` of every string, null where it is no number."""
    try:
        return column.cast(pa.float64())
    except pa.ArrowInvalid:  # not all of it is a number, or not as Arrow writes one
        return by_value(column, as_number, pa.float64())


def by_value(column: pa.Array, function: Callable[[Any], Any], type_: pa.DataType) -> pa.Array:
    """``function`` of every cell, called once for each distinct value."""
    try:
        coded = column.dictionary_encode()
    except pa.ArrowNotImplementedError:  # lists, structs
        return pa.array([function(value) for value in column.to_pylist()], type_)
    return pa.array([function(value) for value in coded.dictionary.to_pylist()], type_).take(coded.indices)


def positions(values: pa.Array, among: pa.Array, *, distinct: bool = False) -> np.ndarray:
    """(n,) int64: where each value first stands in ``among``, :data:`NOWHERE` where it does not. Null finds null.

    ``distinct``: no value stands twice in ``among``, so that the same column in the same order needs no search.
    """
    if not (len(values) and len(among)):
        return np.full(len(values), NOWHERE)
    if distinct and values.equals(among):
        return np.arange(len(values))
    return np.asarray(pc.fill_null(pc.index_in(values, value_set=among), NOWHERE)).astype(np.int64)


def taken(column: pa.Array, at: np.ndarray) -> pa.Array:
    """``column[at]``, null where ``at`` is :data:`NOWHERE`."""
    if len(at) == len(column) and np.array_equal(at, np.arange(len(at))):
        return column
    return column.take(pa.array(at, mask=at < 0) if len(at) and at.min() < 0 else pa.array(at))


def same(left: pa.Array, right: pa.Array) -> np.ndarray:
    """(n,) booleans: equal values, where null equals null."""
    if left.null_count == 0 and right.null_count == 0:
        return mask(pc.equal(left, right))
    equal = mask(pc.fill_null(pc.equal(left, right), False))
    return equal | (mask(pc.is_null(left)) & mask(pc.is_null(right)))


def mask(values: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """(n,) numpy booleans."""
    return np.asarray(whole(values).to_numpy(zero_copy_only=False), dtype=bool)


def replaced(column: pa.Array, at: np.ndarray, values: Sequence[Any]) -> pa.Array:
    """The column with other values at the positions ``at``."""
    if not len(at):
        return column
    chosen = np.zeros(len(column), bool)
    chosen[at] = True
    order = np.argsort(at)
    return pc.replace_with_mask(column, pa.array(chosen), pa.array([values[i] for i in order], column.type))


def code_rows(parts: Sequence[tuple[pa.Array, pa.Array]]) -> tuple[np.ndarray, np.ndarray]:
    """Keys of several parts as one number each.

    Args:
        parts: for each part of the key, its column on the left and on the right side.

    Returns:
        (n_left,) and (n_right,) int64: equal exactly where all parts are. :data:`NOWHERE` on the left where no row on
        the right has such a part.
    """
    left = np.zeros(len(parts[0][0]), np.int64)
    right = np.zeros(len(parts[0][1]), np.int64)
    for left_part, right_part in parts:
        known = pc.unique(right_part)
        here, there = positions(left_part, known), positions(right_part, known)
        absent = (left < 0) | (here < 0)
        # Numbered anew after each part, so that no product outgrows 64 bits.
        distinct, right = np.unique(right * len(known) + there, return_inverse=True)
        wanted = left * len(known) + here
        left = np.searchsorted(distinct, wanted)
        found = left < len(distinct)
        found[found] = distinct[left[found]] == wanted[found]
        left[absent | ~found] = NOWHERE
    return left, right


def pairs(left: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Every (i, j) with ``left[i] == right[j]``, in order of i, then j. Negative numbers on the left find nothing."""
    order = np.argsort(right, kind="stable")
    ordered = right[order]
    first, last = np.searchsorted(ordered, left, "left"), np.searchsorted(ordered, left, "right")
    counts = np.where(left < 0, 0, last - first)
    i = np.repeat(np.arange(len(left)), counts)
    within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    return i, order[np.repeat(first, counts) + within]


def clip_ids(corpus_id: str, paths: Sequence[str], path_at: np.ndarray, start: pa.Array, end: pa.Array) -> pa.Array:
    """(n,) strings: :func:`miar.corpus.model.clip_id` of each clip, without a JSON encoder's pace.

    Args:
        paths: distinct paths; ``path_at`` (n,) says which of them each clip is cut from.
        start, end: (n,) ms; ``end`` may be null.
    """
    heads = [f"[{json.dumps(corpus_id)},{json.dumps(path)}," for path in paths]
    parts = [pa.array([], pa.string())]
    for first in range(0, len(path_at), _IDS_AT_ONCE):
        piece = slice(first, first + _IDS_AT_ONCE)
        cuts = pc.binary_join_element_wise(
            start[piece].cast(pa.string()), pc.fill_null(end[piece].cast(pa.string()), "null"), ","
        )
        digests = [
            hashlib.sha256(f"{heads[at]}{cut}]".encode("ascii")).digest()
            for at, cut in zip(path_at[piece].tolist(), cuts.to_pylist(), strict=True)
        ]
        parts.append(_hex_strings(b"".join(digests), 32))
    return pa.concat_arrays(parts)


def _hex_strings(digests: bytes, width: int) -> pa.Array:
    """The first :data:`KEY_HEX_DIGITS` hex digits of each digest of ``width`` bytes."""
    kept = np.frombuffer(digests, np.uint8).reshape(-1, width)[:, : KEY_HEX_DIGITS // 2]
    count = len(kept)
    text = np.ascontiguousarray(kept).tobytes().hex().encode("ascii")
    offsets = np.arange(count + 1, dtype=np.int32) * KEY_HEX_DIGITS
    return pa.StringArray.from_buffers(count, pa.py_buffer(offsets), pa.py_buffer(text))
