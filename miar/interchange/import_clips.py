"""The clips that a user's table describes: one row per clip id, with what the file says about it."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

import numpy as np
import pyarrow as pa

from miar.config import SplitConfig
from miar.corpus.model import Clip, text_hash
from miar.corpus.splits import assign_splits, split_name
from miar.errors import UserError
from miar.pipeline.catalogue import known_splits
from storage import CLIPS, Store
from storage.arrow import pc

CLIP_COLUMNS = ("video_id", "split", "text", "speaker", "segment", "start_ms", "end_ms")
"""Read where the file has them."""

NUMBER_COLUMNS = ("segment", "start_ms", "end_ms")
"""Whole numbers; the others are text."""


def known_clips(store: Store, corpus_id: str) -> dict[str, dict[str, Any]]:
    """The corpus's rows of ``clips``, by clip id."""
    rows = store.table(CLIPS).read(filter=pc.field("corpus_id") == corpus_id)
    return {row["clip_id"]: row for row in rows.to_pylist()}


def without_repeats(table: pa.Table, id_column: str) -> tuple[pa.Table, int]:
    """The table with one row per clip id and ids as text, and how many rows said the same again.

    Raises:
        UserError: a row without an id, or a clip that stands there twice with different values.
    """
    ids = _as_text(table.column(id_column))
    empty = pc.index(pc.or_kleene(ids.is_null(), pc.equal(ids, "")), True).as_py()
    if empty >= 0:
        raise UserError(f"row {empty + 1} has no {id_column!r}; give every row one")
    table = table.set_column(table.column_names.index(id_column), id_column, ids)
    counts = Counter(ids.to_pylist())
    repeated = {source for source, times in counts.items() if times > 1}
    if not repeated:
        return table, 0
    rows = np.flatnonzero([source in repeated for source in ids.to_pylist()])
    _check_repeats(table.take(rows), id_column)
    first = dict(zip(reversed(ids.to_pylist()), reversed(range(len(ids))), strict=True))
    return table.take(sorted(first.values())), len(ids) - len(first)


def _check_repeats(rows: pa.Table, id_column: str) -> None:
    seen: dict[str, dict[str, Any]] = {}
    for row in rows.to_pylist():
        first = seen.setdefault(row[id_column], row)
        # Compared as written: NaN stands for itself here.
        differs = [name for name in row if repr(row[name]) != repr(first[name])]
        if differs:
            name = differs[0]
            raise UserError(
                f"clip {row[id_column]!r} is in the table twice with different {name!r} "
                f"({_short(first[name])} and {_short(row[name])}); keep one of the rows"
            )


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."


def _as_text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.utf8_trim_whitespace(column.cast(pa.string()))


def clip_rows(
    table: pa.Table,
    sources: Sequence[str],
    clips: Sequence[str],
    known: Mapping[str, Mapping[str, Any]],
    corpus_id: str,
) -> list[dict[str, Any]]:
    """Rows of ``clips``; ``run_id`` and ``updated_at`` are filled in when they are written.

    Args:
        known: what the store has of this corpus, by clip id: it stands where the file has no such column.

    Raises:
        UserError: a split or segment that is none.
    """
    given = {name: _optional(table, name) for name in CLIP_COLUMNS if name in table.column_names}
    if "split" in given:
        given["split"] = [name and split_name(name, "the table") for name in given["split"]]
    position: Counter[str] = Counter()
    rows = []
    for index, (source, clip) in enumerate(zip(sources, clips, strict=True)):
        # What the file does not say, the store may know from an earlier import.
        before = known.get(clip, {})
        said = {name: given[name][index] if name in given else before.get(name) for name in CLIP_COLUMNS}
        said["video_id"] = said["video_id"] or source
        if said["segment"] is None:
            said["segment"] = position[said["video_id"]]
        said["start_ms"] = said["start_ms"] or 0
        position[said["video_id"]] += 1
        rows.append(_clip_row(corpus_id, source, clip, said))
    return _with_splits(rows, known)


def _clip_row(corpus_id: str, source: str, clip: str, said: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "clip_id": clip,
        "corpus_id": corpus_id,
        "source_id": source,
        # Nothing on a disk stands behind an imported clip: its own id is its place in the corpus.
        "path": source,
        **said,
        "media_size": 0,
        "media_mtime_ns": 0,
        "fingerprint": None,
        "media_hash": None,
        "text_hash": text_hash(said["text"]),
        "state": "live",
    }


def _optional(table: pa.Table, name: str) -> list[Any]:
    column = table.column(name)
    try:
        if name in NUMBER_COLUMNS:
            return column.cast(CLIPS.schema.field(name).type).to_pylist()
        return [text or None for text in _as_text(column).to_pylist()]
    except pa.ArrowException as error:
        wanted = "whole numbers" if name in NUMBER_COLUMNS else "text"
        raise UserError(f"column {name!r} should hold {wanted}: {' '.join(str(error).split())}") from error


def _with_splits(rows: list[dict[str, Any]], known: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The same rows, each in a split: those without one are assigned as a corpus of files would be."""
    if all(row["split"] for row in rows):
        return rows
    names = [each.name for each in fields(Clip)]
    before = pa.Table.from_pylist(list(known.values()), schema=CLIPS.schema)
    clips = assign_splits(
        [Clip(**{name: row[name] for name in names}) for row in rows], SplitConfig(), known_splits(before)
    )
    return [row | {"split": clip.split} for row, clip in zip(rows, clips, strict=True)]
