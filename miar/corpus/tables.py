"""The tables that come with a corpus (manifest, labels): csv, tsv or Parquet, read into columns."""

import csv
import io
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from miar.corpus.columns import mask, numbers, texts, whole
from miar.corpus.paths import extension_of
from miar.errors import CorpusError
from miar.media.encoding import decode_text
from miar.media.errors import TranscriptError
from storage.arrow import pc

_LONGEST_HEADER = 2**20
"""Characters."""


@dataclass(frozen=True)
class Table:
    """Columns of equal length. Empty cells are null."""

    name: str
    columns: dict[str, pa.ChunkedArray]
    _texts: dict[str, pa.Array] = field(default_factory=dict, repr=False, compare=False)

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), ()))

    def has(self, *names: str) -> bool:
        return all(name in self.columns for name in names)

    def text(self, name: str) -> pa.Array:
        """A column as text; all null where it is not there."""
        if name not in self._texts:
            here = name in self.columns
            self._texts[name] = texts(self.columns[name]) if here else pa.nulls(len(self), pa.string())
        return self._texts[name]

    def seconds(self, name: str) -> pa.Array:
        """(n,) float64 times; null where a cell is empty or the column is not there, NaN where it is no number."""
        column = whole(self.columns[name]) if name in self.columns else pa.nulls(len(self), pa.string())
        if pa.types.is_floating(column.type):
            seconds = column.cast(pa.float64())
            return pc.if_else(pc.is_nan(seconds), pa.scalar(None, pa.float64()), seconds)
        said = self.text(name)
        return pc.if_else(pc.is_valid(said), pc.fill_null(numbers(said), float("nan")), pa.scalar(None, pa.float64()))

    def row(self, number: int, *names: str) -> list[Any]:
        """Cells of one row as the file has them."""
        return [self.columns[name][number].as_py() for name in names]


def read_table(content: bytes, name: str) -> Table:
    """Read a table; ``name``'s extension says its format.

    Raises:
        CorpusError: it cannot be read, or has no columns.
    """
    if not content.strip():
        raise CorpusError(f"{name} is empty: fill it, or remove it")
    columns = _read_parquet(content, name) if extension_of(name) == "parquet" else _read_csv(content, name)
    if not columns:
        raise CorpusError(f"{name} has no columns")
    return Table(name, columns)


def _read_parquet(content: bytes, name: str) -> dict[str, pa.ChunkedArray]:
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(io.BytesIO(content))
    except (pa.ArrowException, OSError) as error:
        raise CorpusError(f"{name} is not a Parquet file that can be read: {_one_line(error)}") from error
    return {column: table.column(column) for column in table.column_names}


def _read_csv(content: bytes, name: str) -> dict[str, pa.ChunkedArray]:
    try:
        text = decode_text(content)
    except TranscriptError as error:
        raise CorpusError(f"{name}: {error}") from error
    header = text.split("\n", 1)[0]
    delimiter = max(",;\t", key=header.count)
    rows = _read_regular_rows(text, delimiter)
    if rows is None:
        rows = _read_any_rows(text, delimiter, name)
    names = [column.strip() for column in rows.column_names]
    if len(set(names)) < len(names):
        raise CorpusError(f"{name} has two columns of one name: {', '.join(names)}")
    cells = [texts(column) for column in rows.columns]
    if cells and all(column.null_count for column in cells):
        said = pa.array(np.logical_or.reduce([mask(pc.is_valid(column)) for column in cells]))
        cells = [column.filter(said) for column in cells]
    return {column: pa.chunked_array([values]) for column, values in zip(names, cells, strict=True)}


def _read_regular_rows(text: str, delimiter: str) -> pa.Table | None:
    """Every cell as a string, by Arrow's reader, which takes whatever quotes it meets; ``None`` where they are not as
    they should be or a row has not as many cells as the header: then Python's reader says what is wrong, or mends it.
    """
    from pyarrow import csv as arrow_csv

    content = text.encode("utf-8")
    names = next(csv.reader(io.StringIO(text[:_LONGEST_HEADER], newline=""), delimiter=delimiter), [])
    if not names or not _has_regular_quotes(content, delimiter):
        return None
    try:
        return arrow_csv.read_csv(
            pa.py_buffer(content),
            parse_options=arrow_csv.ParseOptions(delimiter=delimiter, newlines_in_values=b'"' in content),
            convert_options=arrow_csv.ConvertOptions(
                column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=False
            ),
        )
    except pa.ArrowInvalid:
        return None


def _has_regular_quotes(content: bytes, delimiter: str) -> bool:
    """Quotes open a cell where one begins, close it where it ends, and are doubled within."""
    is_edge = np.zeros(256, bool)
    is_edge[list(f'{delimiter}\r\n"'.encode("ascii"))] = True
    data = np.frombuffer(content, np.uint8)
    quotes = np.flatnonzero(data == ord('"'))
    if len(quotes) % 2:
        return False
    opening, closing = quotes[::2], quotes[1::2]
    before = data[opening[opening > 0] - 1]
    after = data[closing[closing < len(data) - 1] + 1]
    return bool(is_edge[before].all() and is_edge[after].all())


def _read_any_rows(text: str, delimiter: str, name: str) -> pa.Table:
    """By Python's reader: short rows are filled up.

    Raises:
        CorpusError: what is wrong, and in which row: from 1, the header is none, as everywhere.
    """
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    csv.field_size_limit(1 << 24)
    try:
        names = next(reader, [])
        rows = [row for row in reader if any(cell.strip() for cell in row)]
    except csv.Error as error:
        raise CorpusError(f"{name}, line {reader.line_num}: {error}") from error
    for number, row in enumerate(rows, start=1):
        if len(row) > len(names):
            raise CorpusError(f"{name}, row {number} has {len(row)} cells, the header {len(names)}; quote commas")
    padded = [row + [""] * (len(names) - len(row)) for row in rows]
    columns = [pa.array([row[at] for row in padded], pa.string()) for at in range(len(names))]
    return pa.Table.from_arrays(columns, names=names)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
