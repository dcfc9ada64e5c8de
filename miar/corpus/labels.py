"""Join tables of labels with the clips they are about."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from miar.corpus.columns import (
    NOWHERE,
    by_value,
    code_rows,
    mask,
    numbers,
    pairs,
    same,
    taken,
    texts,
    whole,
)
from miar.corpus.model import LABEL_COLUMNS, CorpusProblem
from miar.corpus.paths import escape_path, inside_root
from miar.corpus.splits import SPLITS, split_name
from miar.corpus.tables import Table
from miar.errors import CorpusError
from storage.arrow import pc

KEYS: tuple[tuple[str, ...], ...] = (
    ("clip_id",),
    ("video_id", "segment"),
    ("path", "start", "end"),
    ("path",),
    ("video_id",),
)
"""Ways to say which clip a row is about, the first that finds any clip being used."""
NOT_LABELS = frozenset({"clip_id", "video_id", "segment", "path", "start", "end", "speaker", "split", "text"})
_EXAMPLES = 3


@dataclass
class _Values:
    """What one table says of one label: the value of the clip ``at[i]`` is ``values[i]``, in the order of the table."""

    name: str
    at: np.ndarray
    values: pa.Array
    """Numbers or class names."""


class LabelBook:
    """What tables say about clips: labels, and the speaker, split, words and own id that the clips lack."""

    def __init__(self, clips: pa.Table) -> None:
        """``clips``: :data:`miar.corpus.model.CLIP_COLUMNS`."""
        self.clips = clips
        self.problems: list[CorpusProblem] = []
        self._values: list[_Values] = []
        self._splits = np.zeros((clips.num_rows, len(SPLITS)), bool)
        """Which splits each clip was said to be in."""

    def add_table(self, table: Table) -> None:
        """Read a label table.

        Raises:
            CorpusError: no column says which clip a row is about, or a split has an unknown name.
        """
        key, rows, at = self._match(table)
        found = np.zeros(len(table), bool)
        found[rows] = True
        unknown = np.flatnonzero(~found)
        if len(unknown):
            shown = [" ".join(map(str, table.row(row, *key))) for row in unknown[:_EXAMPLES].tolist()]
            rows_lost = "1 row has" if len(unknown) == 1 else f"{len(unknown)} rows have"
            message = f"{rows_lost} no clip by {', '.join(key)}: {'; '.join(shown)}"
            self._report(table, "label_without_clip", message)
        self.add_rows(table, rows, at)

    def add_rows(self, table: Table, rows: np.ndarray, at: np.ndarray) -> None:
        """Take over a table whose rows' clips are known: the row ``rows[i]`` is about the clip ``at[i]``, in order of
        rows."""
        self._add_splits(table, rows, at)
        alone = np.bincount(rows, minlength=len(table))[rows] == 1
        self._add_fact("source_id", table.text("clip_id"), rows[alone], at[alone])
        for name in ("speaker", "text"):
            self._add_fact(name, table.text(name), rows, at)
        for name in table.columns:
            if name not in NOT_LABELS:
                self._add_label(table, name, rows, at)

    def close(self) -> pa.Table:
        """Settle what tables say in two ways about one clip, and report it.

        Returns:
            :data:`LABEL_COLUMNS`: everything that is not in doubt, in order of clips.
        """
        labels, conflicts = self._settled()
        if conflicts:
            shown = [f"{name} of {self._name(at)}" for at, name in conflicts[:_EXAMPLES]]
            message = f"{len(conflicts)} labels are given twice with different values, so not used"
            self.problems.append(CorpusProblem("", "conflicting_label", f"{message}: {'; '.join(shown)}"))
        self._set("split", self._chosen_splits())
        torn = np.flatnonzero(self._splits.sum(axis=1) > 1)
        if len(torn):
            shown = [f"{self._name(at)} ({', '.join(self._splits_said(at))})" for at in torn[:_EXAMPLES].tolist()]
            message = f"{len(torn)} clips are in two splits; kept out of training: {'; '.join(shown)}"
            self.problems.append(CorpusProblem("", "conflicting_split", message))
        return labels

    # --- which clips a row is about

    def _match(self, table: Table) -> tuple[tuple[str, ...], np.ndarray, np.ndarray]:
        keys = [key for key in KEYS if table.has(*key)]
        if not keys:
            wanted = "clip_id; video_id and segment; path, start and end; path; or video_id"
            raise CorpusError(
                f"{table.name} needs columns that name a clip: {wanted}; it has {', '.join(table.columns)}"
            )
        for key in keys:
            rows, at = self._clips_by_id(table) if key == ("clip_id",) else self._clips_by(table, key)
            if len(rows):
                return key, rows, at
        return keys[0], np.zeros(0, np.int64), np.zeros(0, np.int64)

    def _clips_by_id(self, table: Table) -> tuple[np.ndarray, np.ndarray]:
        """By the user's own id, MIAR's, or the name of a video that is one clip."""
        ids = table.text("clip_id")
        video = self._column("video_id").dictionary_encode()
        alone = np.bincount(np.asarray(video.indices), minlength=1)[np.asarray(video.indices)] == 1
        found = []
        for names, usable in (
            (self._column("source_id"), mask(pc.is_valid(self._column("source_id")))),
            (self._column("clip_id"), np.ones(self.clips.num_rows, bool)),
            (self._column("video_id"), alone),
        ):
            clips = np.flatnonzero(usable)
            left, right = code_rows([(ids, names.take(pa.array(clips)))])
            rows, at = pairs(np.where(mask(pc.is_valid(ids)), left, NOWHERE), right)
            found.append(rows * self.clips.num_rows + clips[at])
        rows, at = np.divmod(np.unique(np.concatenate(found)), max(self.clips.num_rows, 1))
        return rows, at

    def _clips_by(self, table: Table, key: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
        of_clip = {"video_id": "video_id", "segment": "segment", "path": "path", "start": "start_ms", "end": "end_ms"}
        parts = [(_key_part(table, name), self._column(of_clip[name])) for name in key]
        left, right = code_rows([(said.cast(held.type), held) for said, held in parts])
        return pairs(left, right)

    # --- what a row says

    def _add_splits(self, table: Table, rows: np.ndarray, at: np.ndarray) -> None:
        said = table.text("split").take(pa.array(rows))
        named = by_value(said, lambda name: SPLITS.index(split_name(name, table.name)), pa.int8())
        given = mask(pc.is_valid(named))
        self._splits[at[given], np.asarray(named.drop_null()).astype(np.int64)] = True

    def _add_fact(self, name: str, column: pa.Array, rows: np.ndarray, at: np.ndarray) -> None:
        """Where clips lack it, what the first row says that says it."""
        if not self._column(name).null_count:
            return
        given = mask(pc.is_valid(column))[rows]
        clips, first = np.unique(at[given], return_index=True)
        if len(clips):
            said = np.full(self.clips.num_rows, NOWHERE)
            said[clips] = rows[given][first]
            self._set(name, pc.coalesce(self._column(name), taken(column, said)))

    def _add_label(self, table: Table, name: str, rows: np.ndarray, at: np.ndarray) -> None:
        values = _label_values(whole(table.columns[name]))
        given = mask(pc.is_valid(values))
        if pa.types.is_floating(values.type):
            finite = mask(pc.fill_null(pc.is_finite(values), False))
            self._report_not_finite(table, name, np.unique(rows[(given & ~finite)[rows]]))
            given &= finite
        used = given[rows]
        self._values.append(_Values(name, at[used], values.take(pa.array(rows[used]))))

    def _report_not_finite(self, table: Table, name: str, rows: np.ndarray) -> None:
        if len(rows):
            shown = ", ".join(str(row + 1) for row in rows[:_EXAMPLES].tolist())
            message = f"{len(rows)} values of {name} are NaN or infinite, so no label: rows {shown}"
            self._report(table, "bad_label", message)

    # --- what it comes to

    def _settled(self) -> tuple[pa.Table, list[tuple[int, str]]]:
        """Labels of one value, and (clip, name) of those of several."""
        parts = [LABEL_COLUMNS.empty_table()]
        conflicts: list[tuple[int, str]] = []
        for name in dict.fromkeys(one.name for one in self._values):
            said = [one for one in self._values if one.name == name]
            at = np.concatenate([one.at for one in said])
            values = _one_table([one.values for one in said])
            first = np.arange(len(at))
            if (np.diff(at) <= 0).any():  # otherwise each clip stands there once
                _, first, which = np.unique(at, return_index=True, return_inverse=True)
                torn = np.unique(at[~_equal(values, values.take(pa.array(first[which])))])
                conflicts += [(clip, name) for clip in torn.tolist()]
                first = first[np.isin(at[first], torn, invert=True)]
            columns = values.take(pa.array(first)).columns
            parts.append(pa.table([pa.array(at[first]), pa.repeat(name, len(first)), *columns], schema=LABEL_COLUMNS))
        return _sorted(pa.concat_tables(parts)), sorted(conflicts)

    def _chosen_splits(self) -> pa.Array:
        """What may be a test clip is kept out of training."""
        chosen = np.full(self.clips.num_rows, NOWHERE)
        for name in ("train", "valid", "test"):
            chosen[self._splits[:, SPLITS.index(name)]] = SPLITS.index(name)
        return taken(pa.array(SPLITS), chosen)

    def _splits_said(self, at: int) -> list[str]:
        return sorted(name for name, said in zip(SPLITS, self._splits[at], strict=True) if said)

    def _name(self, at: int) -> str:
        clip = self.clips.slice(at, 1).to_pylist()[0]
        return clip["source_id"] or f"{escape_path(clip['video_id'])} segment {clip['segment']}"

    def _column(self, name: str) -> pa.Array:
        return whole(self.clips[name])

    def _set(self, name: str, column: pa.Array) -> None:
        self.clips = self.clips.set_column(self.clips.schema.get_field_index(name), name, column)

    def _report(self, table: Table, error: str, message: str) -> None:
        self.problems.append(CorpusProblem(table.name, error, " ".join(message.split())))


def _key_part(table: Table, name: str) -> pa.Array:
    """A column of a key, as clips have it; what no clip can have is a value that none has."""
    said = table.text(name)
    if name == "video_id":
        return said
    if name == "path":
        return by_value(said, inside_root, pa.string())
    found = numbers(said)
    if name == "segment":
        whole_number = pc.fill_null(pc.equal(found, pc.round(found)), False)
        within = pc.fill_null(pc.less(pc.abs(found), 2.0**31), False)
        return pc.if_else(pc.and_(whole_number, within), found, -1.0).cast(pa.int32())
    finite = pc.fill_null(pc.less(pc.abs(found), 2.0**43), False)
    ms = pc.round(pc.multiply(pc.if_else(finite, found, None), 1000), round_mode="half_to_even").cast(pa.int64())
    return pc.fill_null(ms, 0) if name == "start" else ms


def _label_values(column: pa.Array) -> pa.Array:
    """Numbers where all cells of a column are numbers, else class names."""
    if pa.types.is_floating(column.type) or pa.types.is_integer(column.type) or pa.types.is_boolean(column.type):
        return column.cast(pa.float64())
    said = texts(column)
    found = numbers(said)
    return found if found.null_count == said.null_count else said


def _one_table(parts: Sequence[pa.Array]) -> pa.Table:
    """Numbers and class names of several tables as the columns value and category."""
    return pa.concat_tables(
        pa.table(
            {
                "value": part if pa.types.is_floating(part.type) else pa.nulls(len(part), pa.float64()),
                "category": part if pa.types.is_string(part.type) else pa.nulls(len(part), pa.string()),
            }
        )
        for part in parts
    )


def _equal(left: pa.Table, right: pa.Table) -> np.ndarray:
    return np.logical_and.reduce([same(whole(left[name]), whole(right[name])) for name in left.column_names])


def _sorted(labels: pa.Table) -> pa.Table:
    """In order of clips, then of names."""
    if not labels.num_rows:
        return labels
    name = labels["name"].combine_chunks().dictionary_encode()
    rank = np.argsort(np.argsort(np.array(name.dictionary.to_pylist())))
    order = np.lexsort((rank[np.asarray(name.indices)], np.asarray(labels["at"])))
    return labels.take(pa.array(order))
