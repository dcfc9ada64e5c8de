"""Read a pickle of arrays and plain containers without running anything that it asks for.

A pickle is a program. This reader knows a dozen names and nothing else, and none of them is numpy's own: numpy trusts
what a pickle tells it about memory (``numpy.ndarray((2,), "O", b"...")`` alone crashes the interpreter, and a forged
dtype state turns bytes into object pointers). Arrays are therefore put together here, from checked parts.

A small file can also ask for much memory: by a length or the number of a memo entry that it only claims, by a shape
whose rows are empty, or by copying one text or one list again and again. Its opcodes are therefore looked through
first, and what calls and states make is counted.

Notable: both ``numpy.core`` and ``numpy._core`` are understood; arrays come back as :class:`PickledArray`, since a
pickle is free to name one before it says what is in it.
"""

import math
import pickle
import pickletools
import re
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from miar.errors import UserError

_COPIES = 4
"""How many times its own size a pickle may make by calls: numpy and old protocols write bytes by way of others."""

_PLAIN = re.compile(r"[<>|=]?(?:b1|\?|[iu][1248]|f[248]|[SU]\d{1,6})")


class _RefusedError(pickle.UnpicklingError):
    """The pickle asks for something that is not on the list."""


class _Budget:
    """How much a pickle may still make."""

    def __init__(self, size: int) -> None:
        """``size``: bytes of the file."""
        self._left = _COPIES * size

    def spend(self, length: int) -> None:
        self._left -= length
        if self._left < 0:
            raise _RefusedError("more memory than its size allows")


class PickledArray:
    """An array of a pickle; :attr:`array` once the pickle has been read."""

    __slots__ = ("_budget", "array")

    def __init__(self, budget: _Budget) -> None:
        self._budget = budget
        self.array: NDArray[Any] = np.empty(0)

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, column_major, data = state
        if not isinstance(dtype, _Dtype):
            raise _RefusedError("an array without a type")
        order = "F" if column_major else "C"
        if dtype.is_object:
            self.array = _objects(data, shape, order, self._budget)
        else:
            self.array = _numbers(data, dtype, shape, order)


class _Dtype:
    """An array's type, as the pickle tells it: a code, and the order of bytes as its state."""

    __slots__ = ("code",)

    def __init__(self, code: Any, align: Any = False, copy: Any = True) -> None:
        code = code.decode("ascii", "replace") if isinstance(code, bytes) else code
        if code in {"O", "O8", "O4", "|O"}:
            code = "O"
        elif not (isinstance(code, str) and _PLAIN.fullmatch(code)):
            raise _RefusedError(f"arrays of type {str(code)[:40]!r}")
        self.code = code

    @property
    def is_object(self) -> bool:
        return self.code == "O"

    def __setstate__(self, state: Any) -> None:
        order = state[1]
        if state[2] is not None or state[3] is not None or state[4] is not None:
            raise _RefusedError("arrays with fields")
        if not self.is_object and order in ("<", ">"):
            self.code = order + self.code.lstrip("<>|=")


class _Allowed:
    """Something that a pickle may call, and cannot change."""

    __slots__ = ("_budget", "_call")

    def __init__(self, call: Callable[..., Any], budget: _Budget) -> None:
        object.__setattr__(self, "_call", call)
        object.__setattr__(self, "_budget", budget)

    def __call__(self, *arguments: Any) -> Any:
        made = self._call(*arguments)
        if isinstance(made, str):
            self._budget.spend(4 * len(made))
        elif isinstance(made, bytes | bytearray | set | dict):
            self._budget.spend(len(made))
        return made

    def __setattr__(self, name: str, value: Any) -> None:
        raise _RefusedError("a change of a function")

    def __setstate__(self, state: Any) -> None:
        raise _RefusedError("a change of a function")


def _size(shape: Any) -> tuple[int, ...]:
    if not isinstance(shape, tuple) or not all(type(length) is int and length >= 0 for length in shape):
        raise _RefusedError("an array of an impossible shape")
    if 0 in shape[1:]:
        # Rows without a value cost a file nothing, however many there are, and memory as soon as they are listed.
        raise _RefusedError("an array of empty rows")
    return shape


def _numbers(data: Any, dtype: _Dtype, shape: Any, order: Any) -> NDArray[Any]:
    if not isinstance(data, bytes | bytearray) or order not in ("C", "F"):
        raise _RefusedError("an array whose values are no bytes")
    kind = np.dtype(dtype.code)
    if len(data) != kind.itemsize * math.prod(_size(shape)):
        raise _RefusedError("an array whose bytes do not fit its shape")
    flat = np.frombuffer(data, kind) if len(data) else np.empty(0, kind)
    return flat.reshape(shape, order=order)


def _objects(data: Any, shape: Any, order: Any, budget: _Budget) -> NDArray[Any]:
    if not isinstance(data, list) or len(data) != math.prod(_size(shape)):
        raise _RefusedError("an array whose objects do not fit its shape")
    # Numbers stay where they stand; objects are copied out of a list that other arrays may name as well.
    budget.spend(len(data))
    flat = np.empty(len(data), object)
    for position, value in enumerate(data):
        flat[position] = value
    return flat.reshape(shape, order=order)


def _empty(budget: _Budget, kind: Any, shape: Any, code: Any) -> PickledArray:
    return PickledArray(budget)


def _array(budget: _Budget, shape: Any, dtype: Any, data: Any) -> PickledArray:
    made = PickledArray(budget)
    made.array = _numbers(data, dtype if isinstance(dtype, _Dtype) else _Dtype(dtype), shape, "C")
    return made


def _from_buffer(budget: _Budget, data: Any, dtype: Any, shape: Any, order: Any) -> PickledArray:
    made = PickledArray(budget)
    made.__setstate__((1, shape, dtype, order == "F", data))
    return made


def _scalar(dtype: Any, data: Any = None) -> Any:
    if not isinstance(dtype, _Dtype) or dtype.is_object:
        raise _RefusedError("a number without a type")
    return _numbers(data, dtype, (), "C")[()]


def _latin_bytes(text: Any, encoding: Any = "latin1") -> bytes:
    # How protocols before the third write bytes; another codec could be any module of `encodings`.
    if encoding not in ("latin1", "latin-1") or not isinstance(text, str):
        raise _RefusedError(f"the codec {str(encoding)[:40]!r}")
    return text.encode("latin1")


def _bytes(*arguments: Any) -> bytes:
    if arguments and isinstance(arguments[0], bytes | bytearray):
        return bytes(arguments[0])
    return _latin_bytes(*arguments) if arguments else b""


_CONTAINERS = {"bytearray": lambda *given: bytearray(_bytes(*given)), "bytes": _bytes, "set": set}
_CORES = ("numpy.core", "numpy._core")
_ARRAYS: dict[tuple[str, str], Callable[..., Any]] = {
    **{(f"{core}.multiarray", "_reconstruct"): _empty for core in _CORES},
    **{(f"{core}.numeric", "_frombuffer"): _from_buffer for core in _CORES},
    ("numpy", "ndarray"): _array,
}
"""What makes arrays, given the budget first."""
_OTHERS: dict[tuple[str, str], Callable[..., Any]] = {
    **{(f"{core}.multiarray", "scalar"): _scalar for core in _CORES},
    ("numpy", "dtype"): _Dtype,
    ("_codecs", "encode"): _latin_bytes,
    **{(module, name): call for module in ("builtins", "__builtin__") for name, call in _CONTAINERS.items()},
    ("collections", "OrderedDict"): OrderedDict,
}


class _PlainUnpickler(pickle.Unpickler):
    def __init__(self, file: BinaryIO, size: int) -> None:
        super().__init__(file)
        self._budget = _Budget(size)

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _ARRAYS:
            return _Allowed(partial(_ARRAYS[module, name], self._budget), self._budget)
        if (module, name) in _OTHERS:
            return _Allowed(_OTHERS[module, name], self._budget)
        raise _RefusedError(f"{module}.{name}")


class _Bounded:
    """A file that refuses to read more than it has, before memory is taken for it."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file = file
        self._size = size

    def read(self, length: int) -> bytes:
        if length > self._size - self._file.tell():
            raise pickle.UnpicklingError("it is cut off, or was damaged")
        return self._file.read(length)

    def readline(self) -> bytes:
        return self._file.readline()

    def tell(self) -> int:
        return self._file.tell()


def _check_claims(file: BinaryIO, size: int) -> None:
    """Lengths fit the file, and memo entries, which are kept in one array, are numbered no higher than there can be."""
    for number, (code, argument, _) in enumerate(pickletools.genops(_Bounded(file, size))):  # type: ignore[arg-type]
        claimed = argument if isinstance(argument, int) else 0
        if code.name.endswith("PUT") and claimed > number:
            raise _RefusedError("a memo entry out of turn")
        if code.name == "FRAME" and claimed > size:
            raise pickle.UnpicklingError("it is cut off, or was damaged")


def load_plain_pickle(path: Path) -> Any:
    """The object in a pickle of dicts, lists, texts, numbers and arrays (:class:`PickledArray`).

    Raises:
        UserError: no such file, no pickle, or one that asks for anything else; nothing of it has run then.
    """
    if not path.is_file():
        raise UserError(f"no such file: {path}; give a .pkl file")
    try:
        with path.open("rb") as file:
            size = path.stat().st_size
            _check_claims(file, size)
            file.seek(0)
            return _PlainUnpickler(file, size).load()
    except _RefusedError as error:
        raise UserError(
            f"{path} is refused, and nothing in it was run: it asks for {error}, and only arrays of numbers and plain "
            "containers are read; get the file from a source you trust and save it anew as numpy arrays"
        ) from error
    except MemoryError as error:
        raise UserError(f"{path} does not fit into memory: a pickle is read as a whole") from error
    except Exception as error:  # a damaged pickle can raise nearly anything
        raise UserError(f"cannot read {path} as a pickle: {' '.join(str(error).split()) or 'it is cut off'}") from error
