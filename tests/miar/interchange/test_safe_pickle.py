"""Pickles of arrays are read as numpy wrote them; anything else is refused before it runs."""

import collections
import io
import os
import pickle
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from miar.errors import UserError
from miar.interchange.safe_pickle import PickledArray, load_plain_pickle


def plain(value: Any) -> Any:
    """Arrays for the reader's own."""
    if isinstance(value, PickledArray):
        return plain(value.array.tolist()) if value.array.dtype == object else value.array
    if isinstance(value, dict):
        return type(value)((key, plain(each)) for key, each in value.items())
    return type(value)(map(plain, value)) if isinstance(value, list | tuple) else value


def load(folder: Path, content: bytes) -> Any:
    path = folder / "it.pkl"
    path.write_bytes(content)
    return plain(load_plain_pickle(path))


@pytest.mark.parametrize("protocol", range(6))
def test_arrays_and_containers_of_every_protocol(tmp_path: Path, protocol: int) -> None:
    matrix = np.arange(6.0).reshape(2, 3)
    wanted = {
        "matrix": matrix,
        "columns first": np.asfortranarray(matrix),
        "big endian": matrix.astype(">f4"),
        "texts": np.array(["a", "é"]),
        "none": np.empty((0, 3), np.float32),
        "zero-dimensional": np.array(5),
        "number": np.float32(0.1),
        "plain": (1, "x", None, True, b"\xff", bytearray(b"x"), {1, 2}),
        "ordered": collections.OrderedDict(x=[1.5]),
    }
    found = load(tmp_path, pickle.dumps(wanted, protocol))
    for name, value in wanted.items():
        if isinstance(value, np.ndarray):
            assert found[name].dtype == value.dtype
            assert np.array_equal(found[name], value)
        else:
            assert found[name] == value
            assert type(found[name]) is type(value)
    objects = np.array(["a", matrix], object)
    assert np.array_equal(load(tmp_path, pickle.dumps(objects, protocol))[1], matrix)
    for value in (None, "Positive"):
        assert load(tmp_path, pickle.dumps(np.array([value] * 500, object), protocol)) == [value] * 500


@settings(max_examples=60, deadline=None)
@given(
    array=hnp.arrays(
        st.sampled_from(["f4", "f8", "i8", "u1", "?", "U3", ">i4"]),
        hnp.array_shapes(min_side=0).filter(lambda shape: 0 not in shape[1:]),
    )
)
def test_any_array(tmp_path_factory: pytest.TempPathFactory, array: np.ndarray) -> None:
    found = load(tmp_path_factory.mktemp("any"), pickle.dumps(array))
    assert found.dtype == array.dtype
    assert np.array_equal(found, array, equal_nan=array.dtype.kind == "f")


@pytest.mark.parametrize("home", ["numpy.core.multiarray", "numpy._core.multiarray"])
def test_names_of_old_and_new_numpy(tmp_path: Path, home: str) -> None:
    """As a numpy of either kind wrote it, by hand: protocol 2."""
    content = (
        b"\x80\x02c" + home.encode() + b"\n_reconstruct\ncnumpy\nndarray\nK\x00\x85c_codecs\nencode\n"
        b"X\x01\x00\x00\x00bX\x06\x00\x00\x00latin1\x86R\x87R(K\x01K\x02\x85cnumpy\ndtype\nX\x02\x00\x00\x00f4"
        b"\x89\x88\x87R(K\x03X\x01\x00\x00\x00<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89c_codecs\nencode\n"
        b"X\x09\x00\x00\x00\x00\x00\xc2\x80?\x00\x00\x00@X\x06\x00\x00\x00latin1\x86Rtb."
    )
    assert load(tmp_path, content).tolist() == [1.0, 2.0]


class Runs:
    """Pickles as a call of anything."""

    def __init__(self, call: Any, *arguments: Any) -> None:
        self.reduced = call, arguments

    def __reduce__(self) -> Any:
        return self.reduced


def forged_dtype() -> bytes:
    """A type that calls objects plain bytes: numpy would take them for pointers."""
    state = b"(K\x03X\x01\x00\x00\x00|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    dtype = b"cnumpy\ndtype\nX\x02\x00\x00\x00O8\x89\x88\x87R" + state
    array = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85C\x01b\x87R"
    return b"\x80\x03" + array + b"(K\x01K\x01\x85" + dtype + b"\x89C\x08AAAAAAAAtb."


def named_again(call: bytes, kind: bytes, data: bytes, again: bytes) -> bytes:
    """A list of 99 things that ``again`` makes of one call, one type and one piece of data, named by their numbers."""
    kept = call + b"q\x000" + b"cnumpy\ndtype\n" + kind + b"\x89\x88\x87Rq\x010" + data + b"q\x020"
    return b"\x80\x03" + kept + b"](" + again * 99 + b"e."


TEXTS_OF_ONE_PIECE = named_again(
    b"cnumpy.core.multiarray\nscalar\n", b"X\x03\x00\x00\x00U50", b"C\xc8" + b"a\0\0\0" * 50, b"h\x00h\x01h\x02\x86R"
)
OBJECTS_OF_ONE_LIST = named_again(
    b"cnumpy.core.multiarray\n_reconstruct\n",
    b"X\x01\x00\x00\x00O",
    b"](" + b"N" * 200 + b"e",
    b"h\x00NK\x00N\x87R(K\x01K\xc8\x85h\x01\x89h\x02tb",
)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (TEXTS_OF_ONE_PIECE, "more memory than its size allows"),
        (OBJECTS_OF_ONE_LIST, "more memory than its size allows"),
        (pickle.dumps(np.zeros((5_000_000, 0))), "an array of empty rows"),
        (pickle.dumps({"a": Runs(os.system, "touch ran")}), "asks for posix.system"),
        (pickle.dumps(Runs(subprocess.check_call, ["touch", "ran"])), "asks for subprocess.check_call"),
        (pickle.dumps(Runs(eval, "open('ran', 'w')")), "asks for builtins.eval"),
        (pickle.dumps(Runs(getattr, "x", "upper")), "asks for builtins.getattr"),
        (pickle.dumps(Runs(np.load, "x.npy", None, True)), r"asks for numpy\.\w*.*load"),
        (b"cnumpy\nndarray\n(K\x02\x85X\x01\x00\x00\x00OC\x10AAAAAAAAAAAAAAAAtR.", "cannot read|asks for"),
        (forged_dtype(), "objects do not fit"),
        (pickle.dumps(np.zeros(2, [("a", "O")])), "asks for arrays"),
        (b"c_codecs\nencode\n(X\x01\x00\x00\x00aX\x05\x00\x00\x00rot13tR.", "the codec 'rot13'"),
        (b"cbuiltins\nbytearray\nJ\xff\xff\xff\x7f\x85R.", "the codec"),
        (b"\x80\x02Nr\xff\xff\xff\x7f.", "a memo entry out of turn"),
        (b"\x80\x05\x96\xff\xff\xff\xff\x0f\x00\x00\x00.", "cut off"),
        (
            b"\x80\x03B\x64\x00\x00\x00" + b"a" * 100 + b"q\x00](" + b"cbuiltins\nbytes\nh\x00\x85R" * 99 + b"e.",
            "more mem",
        ),
        (b"cbuiltins\nset\n}X\x01\x00\x00\x00aK\x01sb.", "a change of a function"),
        (b"\x80\x02X\x03\x00\x00\x00abcQ.", "cannot read"),
        (b"not a pickle", "cannot read"),
        (pickle.dumps(np.arange(100))[:-40], "cannot read"),
        (b"", "cannot read"),
    ],
)
def test_what_a_pickle_asks_for_is_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "it.pkl"
    path.write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        load_plain_pickle(path)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == [path]


def test_the_command_refuses_and_nothing_ran(tmp_path: Path) -> None:
    """The same pickle does run in Python's own reader, so that the test can fail."""
    witness, path = tmp_path / "ran", tmp_path / "bad.pkl"
    bad = pickle.dumps({"train": {"id": ["a$_$1"], "audio": Runs(os.mkdir, str(witness))}})
    path.write_bytes(bad)
    command = [sys.executable, "-m", "miar.cli", "import", "mmsa", str(path), "--store", str(tmp_path / "store")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert not witness.exists()
    assert len(done.stderr.strip().splitlines()) == 1
    assert "asks for posix.mkdir" in done.stderr
    pickle.load(io.BytesIO(bad))
    assert witness.exists()


def test_shapes_and_bytes_must_fit(tmp_path: Path) -> None:
    """A small file that claims a huge array is refused before memory is taken for it."""
    content = bytearray(pickle.dumps(np.arange(3, dtype=np.int32), 2))
    at = content.index(b"K\x03\x85")
    huge = b"\x8a\x08" + struct.pack("<q", 2**60) + b"\x85"
    with pytest.raises(UserError, match="bytes do not fit its shape"):
        load(tmp_path, bytes(content[:at] + huge + content[at + 3 :]))


@settings(max_examples=300, deadline=None)
@given(data=st.data(), protocol=st.integers(0, 5))
def test_a_damaged_pickle_is_one_line(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, protocol: int
) -> None:
    """Whatever bytes are changed: an object, or a line; and little memory."""
    whole = bytearray(pickle.dumps({"a": np.arange(6.0), "b": ["x", 1.5, b"z"], "o": np.array(["q", None])}, protocol))
    places = st.tuples(st.integers(0, len(whole) - 1), st.integers(0, 255))
    for place, value in data.draw(st.lists(places, min_size=1, max_size=5)):
        whole[place] = value
    path = tmp_path_factory.getbasetemp() / "damaged.pkl"
    path.write_bytes(whole)
    line = ""
    try:
        load_plain_pickle(path)
    except UserError as error:
        line = str(error)
    assert "\n" not in line
