"""Columns as a whole against cells one by one."""

import csv
import io

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from miar.corpus.columns import NOWHERE, as_number, as_text, clip_ids, code_rows, numbers, pairs, same, texts
from miar.corpus.model import clip_id
from miar.corpus.tables import read_table

names = st.text(st.characters(codec="utf-8"), max_size=8)
cells = st.one_of(
    st.none(), names, st.sampled_from(["1", " 2.50 ", "1e3", "nan", "-inf", "1_000", "+4", "0x1", "", "  "])
)


@given(st.lists(cells))
def test_texts_and_numbers(values):
    found = texts(pa.array(values, pa.string()))
    assert found.to_pylist() == [as_text(value) for value in values]
    wanted = [None if text is None else as_number(text) for text in found.to_pylist()]
    assert np.array_equal(np.array(numbers(found).to_pylist(), float), np.array(wanted, float), equal_nan=True)


@given(st.lists(st.one_of(st.none(), st.floats(), st.integers(-9, 9).map(float))))
def test_texts_of_numbers(values):
    assert texts(pa.array(values, pa.float64())).to_pylist() == [as_text(value) for value in values]


@given(names, st.lists(st.tuples(names, st.integers(0, 10**9), st.none() | st.integers(0, 10**9))))
def test_ids_are_those_of_the_model(corpus, clips):
    paths = list(dict.fromkeys(path for path, _, _ in clips))
    found = clip_ids(
        corpus,
        paths,
        np.array([paths.index(path) for path, _, _ in clips], np.int64),
        pa.array([start for _, start, _ in clips], pa.int64()),
        pa.array([end for _, _, end in clips], pa.int64()),
    )
    assert found.to_pylist() == [clip_id(corpus, *clip) for clip in clips]


keys = st.lists(st.tuples(st.sampled_from("abc"), st.none() | st.integers(0, 2)), max_size=12)


@given(keys, keys)
def test_pairs_of_equal_keys(left, right):
    parts = [
        (pa.array([one[at] for one in left], type_), pa.array([one[at] for one in right], type_))
        for at, type_ in enumerate((pa.string(), pa.int64()))
    ]
    i, j = pairs(*code_rows(parts))
    wanted = [(a, b) for a, one in enumerate(left) for b, other in enumerate(right) if one == other]
    assert list(zip(i.tolist(), j.tolist(), strict=True)) == wanted


def test_nothing_has_no_pair():
    left, right = code_rows([(pa.array(["a"]), pa.array([], pa.string()))])
    assert left.tolist() == [NOWHERE]
    assert not len(right)


@given(st.lists(st.tuples(st.none() | st.integers(0, 2), st.none() | st.integers(0, 2))))
def test_null_equals_null(rows):
    left, right = (pa.array([row[at] for row in rows], pa.int64()) for at in (0, 1))
    assert same(left, right).tolist() == [a == b for a, b in rows]


@given(
    rows=st.lists(st.tuples(*[st.text(st.sampled_from("ab ,;\"\n'é"), max_size=6)] * 3), max_size=8),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
)
def test_a_table_is_what_was_written(rows, quoting):
    text = io.StringIO(newline="")
    csv.writer(text, quoting=quoting).writerows([("x", "y", "z"), *rows])
    table = read_table(text.getvalue().encode(), "t.csv")
    stripped = [[cell.strip() or None for cell in row] for row in rows]
    kept = [row for row in stripped if any(row)]
    assert [list(row) for row in zip(*(table.text(name).to_pylist() for name in "xyz"), strict=True)] == kept
