"""The tables of the store: their columns, their keys, and the checks that every row passes before it is
written.

Notable: all columns are nullable in the schema, since every reader handles that; keys and input hashes are
checked here instead. A sequence is one flat ``list<float32>`` in C order with its number of frames beside
it.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from storage.arrow import pc
from storage.errors import StoreError, one_line
from storage.keys import identity

INPUT_HASH = "input_hash"
TIMESTAMP = pa.timestamp("us", tz="UTC")
FLOATS = pa.list_(pa.field("element", pa.float32()))
STRINGS = pa.list_(pa.field("element", pa.string()))

_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*")


def check_name(name: str) -> None:
    """What may be part of a path in the store: such names need no escaping on any disk, in a URL or in the log.

    Raises:
        StoreError: it holds anything else.
    """
    if not _NAME.fullmatch(name):
        raise StoreError(f"{name!r} cannot be a name in a store: use letters, digits, '_', '-' and '.' within")


@dataclass(frozen=True)
class TableSpec:
    """A table: where it lives in the store, its columns, and what makes a row unique."""

    name: str
    """Folder relative to the store: ``clips``, ``features/<extractor>/<config_hash>``."""
    schema: pa.Schema
    key: tuple[str, ...]
    """At most one live row has these values."""
    n_columns: int | None = None
    """Width of the sequence in ``values``; ``None`` for a table without sequences."""
    pooled_dim: int | None = None
    """Length of ``pooled`` where a row has one; ``None``: not known here, so not checked."""

    def __post_init__(self) -> None:
        for part in self.name.split("/"):
            check_name(part)

    @property
    def hashed(self) -> bool:
        """Whether rows say what they were computed from, so that shards can be judged by it."""
        return INPUT_HASH in self.schema.names

    @property
    def skipping_columns(self) -> tuple[str, ...]:
        """Columns with statistics in the log and in the files: readers skip files by them."""
        corpus = ("corpus_id",) if "corpus_id" in self.schema.names else ()
        return tuple(dict.fromkeys((*self.key, *corpus)))


def _table(name: str, key: tuple[str, ...], columns: dict[str, pa.DataType]) -> TableSpec:
    return TableSpec(name, pa.schema(list(columns.items())), key)


def _strings(*names: str) -> dict[str, pa.DataType]:
    return {name: pa.string() for name in names}


CLIPS = _table(
    "clips",
    ("clip_id",),
    {
        **_strings("clip_id", "corpus_id", "video_id"),
        "segment": pa.int32(),
        **_strings("source_id", "path"),
        "start_ms": pa.int64(),
        "end_ms": pa.int64(),
        **_strings("text", "speaker", "split"),
        "media_size": pa.int64(),
        "media_mtime_ns": pa.int64(),
        **_strings("fingerprint", "media_hash", "text_hash", "state"),
        "updated_at": TIMESTAMP,
        "run_id": pa.string(),
    },
)
"""Every utterance. ``end_ms`` null: to the end of the file. ``state``: ``live`` or ``gone``."""

LABELS = _table(
    "labels",
    ("clip_id", "name"),
    {**_strings("clip_id", "name", "corpus_id", "source_id"), "value": pa.float64(), "category": pa.string()},
)
"""Target values: a number in ``value`` or a class in ``category``."""

FEATURE_SETS = _table(
    "feature_sets",
    ("extractor", "config_hash"),
    {
        **_strings("extractor", "config_hash", "modality"),
        "columns": STRINGS,
        "rate_hz": pa.float64(),
        "summary_columns": STRINGS,
        "quality_columns": STRINGS,
        "pooled_dim": pa.int32(),
        "layers": pa.int32(),
        "voiced_columns": STRINGS,
        **_strings("config", "library_versions", "weights"),
        "created_at": TIMESTAMP,
        "state": pa.string(),
    },
)
"""The descriptor of each feature table. ``config``, ``library_versions`` and ``weights`` are JSON."""

SCORES = _table(
    "scores",
    ("clip_id", "model_id"),
    {
        **_strings("clip_id", "model_id", "corpus_id", "source_id", "video_id"),
        "segment": pa.int32(),
        **_strings("split", "label", INPUT_HASH, "status", "reason"),
        "prediction": pa.float64(),
        **_strings("category", "available"),
        "base": pa.float64(),
        "contribution_text": pa.float64(),
        "contribution_audio": pa.float64(),
        "contribution_face": pa.float64(),
        "weight_joint": pa.float64(),
        "weight_text": pa.float64(),
        "weight_audio": pa.float64(),
        "weight_face": pa.float64(),
        **_strings("snapshot_id", "run_id"),
        "scored_at": TIMESTAMP,
    },
)
"""One row per clip and model version. Contributions are in label units and sum to ``prediction - base``."""

RUNS = _table(
    "runs",
    ("run_id",),
    {
        **_strings("run_id", "kind", "corpus_id", "state"),
        "started_at": TIMESTAMP,
        "ended_at": TIMESTAMP,
        **_strings("config", "result", "message"),
    },
)
"""What was run, with its resolved configuration and its result (JSON)."""

FAILURES = _table(
    "failures",
    ("corpus_id", "path", "clip_id", "stage", "config_hash"),
    {
        **_strings("corpus_id", "path", "clip_id", "stage", "config_hash", "source_id", INPUT_HASH),
        **_strings("error", "message"),
        "attempts": pa.int32(),
        "run_id": pa.string(),
        "failed_at": TIMESTAMP,
    },
)
"""What should have worked and did not. ``clip_id`` is empty where a whole file failed."""

_INTEGERS = pa.list_(pa.field("element", pa.int64()))

TRANSCRIPTS = _table(
    "transcripts",
    ("corpus_id", "path"),
    {
        **_strings("corpus_id", "path"),
        "size": pa.int64(),
        "mtime_ns": pa.int64(),
        "etag": pa.string(),
        "reader": pa.int32(),
        "starts": _INTEGERS,
        "ends": _INTEGERS,
        **dict.fromkeys(("texts", "speakers", "problems"), STRINGS),
        "run_id": pa.string(),
    },
)
"""Transcripts as they were read (cues in ms), so that a file that did not change is not read again."""

WORDS = _table(
    "words",
    ("corpus_id", "path"),
    {
        **_strings("corpus_id", "path", "transcript", "language"),
        "starts": _INTEGERS,
        "ends": _INTEGERS,
        "texts": STRINGS,
        "run_id": pa.string(),
    },
)
"""When each word of a file is said (ms from its start), where its ``transcript`` tells; clips are cut from ``path``."""

_FEATURE_COLUMNS: dict[str, pa.DataType] = {
    **_strings("clip_id", "corpus_id", "source_id", INPUT_HASH, "status", "reason"),
    "n_frames": pa.int32(),
    "values": FLOATS,
    "times": FLOATS,
    "pooled": FLOATS,
}


def feature_table(
    name: str,
    *,
    n_columns: int,
    summary_columns: Sequence[str],
    quality_columns: Sequence[str],
    pooled_dim: int | None = None,
) -> TableSpec:
    """The table of one feature set, ``features/<extractor>/<config_hash>``.

    Args:
        n_columns: width of the sequence; ``len(values) == n_frames * n_columns`` in every row.
        summary_columns: named per-clip values, each a float32 column.
        quality_columns: named per-clip quality values, each a float32 column.
        pooled_dim: length of ``pooled`` in the rows that have one.

    Raises:
        StoreError: a named column would stand twice in the table.
    """
    tail: dict[str, pa.DataType] = {"run_id": pa.string(), "extracted_at": TIMESTAMP}
    named = [*summary_columns, *quality_columns]
    taken = [*_FEATURE_COLUMNS, *named, *tail]
    if twice := sorted({column for column in taken if taken.count(column) > 1}):
        raise StoreError(f"{name}: rename the columns {', '.join(twice)}: they would stand twice in the table")
    columns = {**_FEATURE_COLUMNS, **{column: pa.float32() for column in named}, **tail}
    return TableSpec(name, pa.schema(list(columns.items())), ("clip_id",), n_columns, pooled_dim)


def conform(rows: pa.Table, spec: TableSpec) -> pa.Table:
    """``rows`` with exactly the columns of the table, in its order and its types.

    Raises:
        StoreError: columns are missing or unknown, or values do not fit their type.
    """
    missing = [name for name in spec.schema.names if name not in rows.schema.names]
    unknown = [name for name in rows.schema.names if name not in spec.schema.names]
    if missing or unknown:
        problems = [f"no column {', '.join(missing)}"] if missing else []
        problems += [f"unknown column {', '.join(unknown)}"] if unknown else []
        raise StoreError(f"rows do not fit the table {spec.name}: {'; '.join(problems)}")
    try:
        return rows.select(spec.schema.names).cast(spec.schema)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, ValueError) as error:
        raise StoreError(f"rows do not fit the table {spec.name}: {one_line(error)}") from error


def check_rows(rows: pa.Table, spec: TableSpec, origin: str) -> None:
    """Check keys, input hashes and the widths of lists of conforming rows.

    Raises:
        StoreError: naming ``origin`` and the first thing that is wrong.
    """
    check_keys(rows, spec, origin)
    if spec.n_columns is not None:
        check_sequences(rows, spec, origin)


def check_keys(rows: pa.Table, spec: TableSpec, origin: str) -> None:
    """Keys are there and unique; input hashes are there in tables that are registered by them.

    Raises:
        StoreError: naming ``origin`` and the first thing that is wrong.
    """
    required = (*spec.key, INPUT_HASH) if spec.n_columns is not None else spec.key
    for name in required:
        if rows[name].null_count:
            raise StoreError(f"{origin}: {rows[name].null_count} rows have no {name}")
    check_unique(identity(rows, spec.key), origin)


def check_unique(ids: pa.ChunkedArray, origin: str) -> None:
    """Every id stands once.

    Raises:
        StoreError: naming ``origin`` and the first id that stands more often.
    """
    if pc.count_distinct(ids).as_py() != len(ids):
        counts = pc.value_counts(ids)
        twice = counts.field("values").filter(pc.greater(counts.field("counts"), 1))
        raise StoreError(f"{origin}: {len(twice)} keys stand more than once, the first is {twice[0].as_py()!r}")


def check_sequences(rows: pa.Table, spec: TableSpec, origin: str) -> None:
    """Every row keeps the rules of :func:`broken_sequences`.

    Raises:
        StoreError: naming ``origin``, the first row that is wrong and its lengths.
    """
    for rule, broken in broken_sequences(rows, spec).items():
        if pc.any(broken).as_py():
            row = rows.filter(broken).slice(0, 1)
            raise StoreError(f"{origin}: {rule} in {pc.sum(broken).as_py()} rows, first {row[spec.key[0]][0]}")


def broken_sequences(rows: pa.Table, spec: TableSpec) -> dict[str, pa.ChunkedArray]:
    """Rule -> (n_rows,) booleans: the rows that break it.

    ``len(values) == n_frames * n_columns`` and ``len(times) == n_frames``; all three are null in a missing row; a
    pooled vector has the width that the feature set declares.
    """
    ok = pc.equal(rows["status"], "ok")
    missing = pc.equal(rows["status"], "missing")
    frames = rows["n_frames"].cast(pa.int64())
    rules = {
        "status is neither 'ok' nor 'missing'": pc.invert(pc.fill_null(pc.or_(ok, missing), False)),
        "n_frames is null but status is 'ok', or the reverse": pc.fill_null(
            pc.not_equal(pc.is_valid(frames), ok), True
        ),
        f"len(values) is not n_frames * {spec.n_columns}": _differs(
            pc.list_value_length(rows["values"]), pc.multiply(frames, spec.n_columns)
        ),
        "len(times) is not n_frames": _differs(pc.list_value_length(rows["times"]), frames),
    }
    if spec.pooled_dim is not None:
        widths = pc.list_value_length(rows["pooled"])
        rules[f"len(pooled) is not {spec.pooled_dim}"] = pc.fill_null(pc.not_equal(widths, spec.pooled_dim), False)
    return rules


def _differs(lengths: pa.ChunkedArray, expected: pa.ChunkedArray) -> pa.ChunkedArray:
    """Where one is null and the other is not, or both are there and differ."""
    return pc.or_(
        pc.fill_null(pc.not_equal(lengths, expected), False),
        pc.not_equal(pc.is_valid(lengths), pc.is_valid(expected)),
    )
