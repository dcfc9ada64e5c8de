"""The tables that come with a corpus (manifest, labels): csv, tsv or Parquet, read into columns."""

import csv
import io
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from miar.corpus.paths import extension_of
from miar.errors import CorpusError
from miar.media.encoding import decode_text
from miar.media.errors import TranscriptError


@dataclass(frozen=True)
class Table:
    """Columns of equal length. Empty cells are ``None``."""

    name: str
    columns: dict[str, list[Any]]

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), []))

    def has(self, *names: str) -> bool:
        return all(name in self.columns for name in names)

    def rows(self, *names: str) -> Iterator[tuple[Any, ...]]:
        """Rows of some columns; a column that is not there is all ``None``."""
        absent = [None] * len(self)
        return zip(*(self.columns.get(name, absent) for name in names), strict=True)


def read_table(content: bytes, name: str) -> Table:
    """Read a table; ``name``'s extension says its format.

    Raises:
        CorpusError: it cannot be read, or has no columns.
    """
    columns = _read_parquet(content, name) if extension_of(name) == "parquet" else _read_csv(content, name)
    if not columns:
        raise CorpusError(f"{name} has no columns")
    return Table(name, columns)


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


def _read_parquet(content: bytes, name: str) -> dict[str, list[Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(io.BytesIO(content))
    except (pa.ArrowException, OSError) as error:
        raise CorpusError(f"{name} is not a Parquet file that can be read: {_one_line(error)}") from error
    return {column: table.column(column).to_pylist() for column in table.column_names}


def _read_csv(content: bytes, name: str) -> dict[str, list[Any]]:
    try:
        text = decode_text(content)
    except TranscriptError as error:
        raise CorpusError(f"{name}: {error}") from error
    header = text.split("\n", 1)[0]
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=max(",;\t", key=header.count), strict=True)
    csv.field_size_limit(1 << 24)
    try:
        names = [column.strip() for column in next(reader, [])]
        rows = [row for row in reader if any(cell.strip() for cell in row)]
    except csv.Error as error:
        raise CorpusError(f"{name}, line {reader.line_num}: {error}") from error
    if len(set(names)) < len(names):
        raise CorpusError(f"{name} has two columns of one name: {', '.join(names)}")
    for number, row in enumerate(rows, start=2):
        if len(row) > len(names):
            raise CorpusError(f"{name}, row {number} has {len(row)} cells, the header {len(names)}; quote commas")
    padded = [row + [""] * (len(names) - len(row)) for row in rows]
    return {column: [row[at].strip() or None for row in padded] for at, column in enumerate(names)}


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
