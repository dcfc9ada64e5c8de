"""Row identity and row equality, against plain Python."""

import math

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.keys import equal_rows, first_occurrence, identity

texts = st.text(alphabet=st.sampled_from(["a", "b", ":", "1", "\x00", "é"]), max_size=4)
floats = st.none() | st.sampled_from([0.0, 1.5, math.nan, math.inf])
SCHEMA = pa.schema(
    [("text", pa.string()), ("number", pa.float32()), ("values", pa.list_(pa.float32())), ("n", pa.int64())]
)
rows = st.fixed_dictionaries(
    {
        "text": st.none() | texts,
        "number": floats,
        "values": st.none() | st.lists(floats, max_size=3),
        "n": st.none() | st.integers(0, 2),
    }
)


def same(left: object, right: object) -> bool:
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, float) and isinstance(right, float) and math.isnan(left):
        return math.isnan(right)
    return left == right


@given(st.lists(st.tuples(texts, texts), min_size=1, max_size=12))
def test_identity_is_equal_exactly_where_all_columns_are(pairs: list[tuple[str, str]]) -> None:
    table = pa.table({"a": [a for a, _ in pairs], "b": [b for _, b in pairs]})
    ids = identity(table, ("a", "b")).to_pylist()
    assert len(set(ids)) == len(set(pairs))
    assert [ids.index(i) for i in ids] == [pairs.index(p) for p in pairs]


@given(st.lists(st.sampled_from("abcd"), max_size=12))
def test_first_occurrence(ids: list[str]) -> None:
    expected = [ids.index(value) == position for position, value in enumerate(ids)]
    split = [ids[: len(ids) // 2], ids[len(ids) // 2 :]]
    assert first_occurrence(pa.chunked_array(split, pa.string())).to_pylist() == expected


@given(st.lists(st.tuples(rows, rows, st.booleans()), max_size=12))
def test_equal_rows_agrees_with_python(cases: list[tuple[dict, dict, bool]]) -> None:
    left = [a for a, _, _ in cases]
    right = [a if twin else b for a, b, twin in cases]
    found = equal_rows(pa.Table.from_pylist(left, SCHEMA), pa.Table.from_pylist(right, SCHEMA)).to_pylist()
    assert found == [all(same(a[name], b[name]) for name in SCHEMA.names) for a, b in zip(left, right, strict=True)]


def test_equal_rows_in_chunks_and_slices() -> None:
    table = pa.Table.from_pylist(
        [{"text": str(i), "number": i, "values": [i] * (i % 3), "n": i} for i in range(20)], SCHEMA
    )
    chunked = pa.concat_tables([table.slice(0, 7), table.slice(7, 6), table.slice(13)])
    assert equal_rows(chunked.slice(3, 10), table.slice(3, 10)).to_pylist() == [True] * 10
    assert sum(equal_rows(table.slice(0, 10), table.slice(10)).to_pylist()) == 0


@pytest.mark.parametrize("columns", [("a",), ("a", "b")])
def test_identity_of_no_rows(columns: tuple[str, ...]) -> None:
    empty = pa.table({"a": pa.array([], pa.string()), "b": pa.array([], pa.string())})
    assert identity(empty, columns).to_pylist() == []
