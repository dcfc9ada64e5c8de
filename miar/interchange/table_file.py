"""A user's table on disk: csv, Parquet, or a folder of Parquet files.

Of Parquet, the columns of features are read a part at a time, so that they need not fit into memory.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from miar.errors import UserError
from miar.interchange.blocks import BLOCK_BYTES

ROWS_PER_BLOCK = 10_000
"""Keeps every list array far below the 2^31 values that 32-bit offsets can address."""

PARQUET = frozenset({".parquet", ".pq"})


class TableFile:
    """The columns of a table."""

    def __init__(self, path: Path, text_columns: Sequence[str]) -> None:
        """``text_columns`` are read as text even where they look like numbers.

        Raises:
            UserError: no such file, another format, not readable, no rows, or two columns of one name.
        """
        self._path = path
        self.files: list[Path] = [path]
        """What is on disk."""
        self._table: pa.Table | None = None
        if path.suffix.lower() == ".csv" and path.is_file():
            table = self._table = self._read_csv(text_columns)
            schema, rows = table.schema, table.num_rows
        else:
            self.files = _parquet_files(path)
            schema, rows = self._footers()
        self.column_names: list[str] = schema.names
        twice = sorted({name for name in schema.names if schema.names.count(name) > 1})
        if twice:
            raise UserError(f"{path.name} has more than one column named {twice[0]!r}; rename one of them")
        if rows == 0:
            raise UserError(f"{path.name} has no rows; nothing to import")

    @classmethod
    def of(cls, path: Path, table: pa.Table) -> "TableFile":
        """A table that is in memory already; ``path`` is where it came from."""
        held = cls.__new__(cls)
        held._path, held.files, held._table = path, [path], table
        held.column_names = table.column_names
        return held

    def require(self, wanted: Sequence[str]) -> None:
        """Raise a :class:`UserError`, listing the columns there are, for the first of ``wanted`` that is not."""
        for name in wanted:
            if name not in self.column_names:
                raise UserError(f"no column {name!r} in the table; it has {listed(self.column_names)}")

    def read(self, columns: Sequence[str]) -> pa.Table:
        """All rows of some columns."""
        if self._table is not None:
            return self._table.select(list(columns))
        return pa.concat_tables(list(self.parts(columns)))

    def parts(self, columns: Sequence[str]) -> Iterator[pa.Table]:
        """All rows of some columns, at most :data:`ROWS_PER_BLOCK` and about ``BLOCK_BYTES`` at a time."""
        if self._table is not None:
            table = self._table.select(list(columns))
            yield from (table.slice(at, ROWS_PER_BLOCK) for at in range(0, table.num_rows, ROWS_PER_BLOCK))
            return
        for file in self.files:
            try:
                with pq.ParquetFile(file) as parquet:
                    rows = _rows_at_once(parquet.metadata)
                    # One group after the other: across groups the reader keeps what it has read.
                    for group in range(parquet.num_row_groups):
                        for batch in parquet.iter_batches(rows, row_groups=[group], columns=list(columns)):
                            yield pa.Table.from_batches([batch]).select(list(columns))
            except (pa.ArrowException, OSError) as error:
                raise _unreadable(file, error) from error

    def _read_csv(self, text_columns: Sequence[str]) -> pa.Table:
        try:
            return pa_csv.read_csv(
                self._path,
                parse_options=pa_csv.ParseOptions(newlines_in_values=True),
                convert_options=pa_csv.ConvertOptions(column_types=dict.fromkeys(text_columns, pa.string())),
            )
        except (pa.ArrowException, OSError) as error:
            raise _unreadable(self._path, error) from error

    def _footers(self) -> tuple[pa.Schema, int]:
        """The schema that all files share, and how many rows they have."""
        try:
            schemas = [pq.read_schema(file).remove_metadata() for file in self.files]
            rows = sum(pq.read_metadata(file).num_rows for file in self.files)
        except (pa.ArrowException, OSError) as error:
            raise _unreadable(self._path, error) from error
        for file, schema in zip(self.files, schemas, strict=True):
            if not schema.equals(schemas[0]):
                raise UserError(f"{file} and {self.files[0]} differ in their columns; import them one by one")
        return schemas[0], rows


def _parquet_files(path: Path) -> list[Path]:
    files = sorted(each for each in path.rglob("*.parquet") if each.is_file()) if path.is_dir() else [path]
    if path.is_dir() and not files:
        raise UserError(f"{path} holds no .parquet file; give a csv or Parquet table")
    if not path.exists():
        raise UserError(f"no such file: {path}; give a csv or Parquet table")
    if any(file.suffix.lower() not in PARQUET for file in files):
        raise UserError(f"{path.name} is neither .csv nor .parquet; save the table as one of these")
    return files


def _rows_at_once(metadata: pq.FileMetaData) -> int:
    total = sum(metadata.row_group(group).total_byte_size for group in range(metadata.num_row_groups))
    return max(1, min(ROWS_PER_BLOCK, BLOCK_BYTES * max(1, metadata.num_rows) // max(1, total)))


def _unreadable(path: Path, error: Exception) -> UserError:
    return UserError(f"cannot read {path}: {' '.join(str(error).split())}")


def listed(names: Sequence[str], most: int = 20) -> str:
    """The first names, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
