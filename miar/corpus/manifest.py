"""Cut a corpus into clips by the rows of its manifest."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from miar.corpus.columns import NOWHERE, as_number, by_value, mask, taken
from miar.corpus.model import CorpusProblem
from miar.corpus.pairing import Pairing
from miar.corpus.paths import escape_path, inside_root, is_url
from miar.corpus.segments import Cut, Pieces
from miar.corpus.tables import Table
from miar.corpus.words import Words, cues_of, cues_within, speaker_of, text_of
from miar.errors import CorpusError
from miar.media.transcripts import LONGEST_MS
from storage.arrow import pc

_MOST_SEGMENTS = 2**31


@dataclass
class _Rows:
    """What the rows of a manifest say, and what is wrong with them."""

    file_at: np.ndarray
    """(n_rows,) position of the file, :data:`NOWHERE` where a row gives no clip."""
    problems: list[tuple[int, CorpusProblem]]
    """With the row that shows it, from 0."""
    start_ms: np.ndarray
    end_ms: np.ndarray
    """(n_rows,) int64; :data:`NOWHERE`: to the end of the file."""

    def reject(self, rows: np.ndarray) -> None:
        self.file_at[rows] = NOWHERE


def cut_by_manifest(corpus_id: str, pairing: Pairing, words: Words, table: Table) -> Cut:
    """One clip per row.

    Raises:
        CorpusError: the table has no ``path`` column.
    """
    if not table.has("path"):
        found = ", ".join(table.columns)
        raise CorpusError(
            f"{table.name} needs a column path (and start, end in s, where clips are parts); it has {found}"
        )
    paths = pairing.media or list(pairing.transcript_of)
    rows = _read_rows(table, paths, pairing)
    _reject_repeats(rows, table, paths)
    kept = np.flatnonzero(rows.file_at >= 0)
    facts = {name: table.text(name).take(pa.array(kept)) for name in ("video_id", "clip_id", "text", "speaker")}
    facts["source_id"] = facts.pop("clip_id")
    facts |= _with_cues(rows, kept, facts["text"], facts["speaker"], paths, pairing, words)
    facts["segment"] = _segments(table).take(pa.array(kept))
    start, end = rows.start_ms[kept], rows.end_ms[kept]
    pieces = Pieces(corpus_id, [pairing.files[path].path for path in paths])
    clips = pieces.clips(rows.file_at[kept], pa.array(start), pa.array(end, mask=end < 0), **facts)
    problems = [problem for _, problem in sorted(rows.problems, key=lambda one: one[0])]
    return Cut(_numbered(clips), [*pairing.problems, *problems], kept)


def _read_rows(table: Table, paths: Sequence[str], pairing: Pairing) -> _Rows:
    rows = _Rows(*_files_of(table, paths, pairing), *_times_ms(table))
    start, end = rows.start_ms, rows.end_ms
    bad = (rows.file_at >= 0) & ((start < 0) | ((end != NOWHERE) & (end <= start)))
    for row in np.flatnonzero(bad).tolist():
        said = " and ".join(
            f"{name} {table.row(row, name)[0] if table.has(name) else None}" for name in ("start", "end")
        )
        message = f"row {row + 1}: {said} are no times in s with start before end"
        rows.problems.append((row, CorpusProblem(escape_path(table.name), "bad_times", message)))
    rows.reject(bad)
    return rows


def _files_of(
    table: Table, paths: Sequence[str], pairing: Pairing
) -> tuple[np.ndarray, list[tuple[int, CorpusProblem]]]:
    """(n_rows,) the file that each row names, and what is wrong with those that name none."""
    index = {path: at for at, path in enumerate(paths)}
    # Last, so that a path as it stands in tables goes before one as the file system spells it.
    index |= {pairing.files[path].path: at for at, path in enumerate(paths)}
    coded = table.text("path").dictionary_encode(null_encoding="encode")
    names = coded.dictionary.to_pylist()
    found = np.array([_position(name, index) for name in names], np.int64)
    file_at = found[np.asarray(coded.indices)]
    lost = np.flatnonzero(file_at < 0).tolist()
    return file_at, [(row, _path_problem(names[coded.indices[row].as_py()], table.name, row + 1)) for row in lost]


def _position(path: str | None, index: dict[str, int]) -> int:
    inside = None if path is None or is_url(path) else inside_root(path)
    if path is None or inside is None:
        return NOWHERE
    return index.get(path, index.get(inside, NOWHERE))


def _path_problem(path: str | None, table: str, number: int) -> CorpusProblem:
    where = f"{table}, row {number}"
    if path is None:
        return CorpusProblem(escape_path(table), "missing_file", f"{where}: no path")
    known = escape_path(path)
    if is_url(path):
        return CorpusProblem(known, "url_not_allowed", f"{where}: a URL; a manifest names files within the corpus only")
    if inside_root(path) is None:
        return CorpusProblem(known, "outside_root", f"{where}: the path leaves the corpus root")
    return CorpusProblem(known, "missing_file", f"{where}: no such media file in the corpus")


def _times_ms(table: Table) -> tuple[np.ndarray, np.ndarray]:
    """(n_rows,) start and end; what is no time is a start of -1, or an end of 0, which is before any start."""
    start_s, end_s = table.seconds("start"), table.seconds("end")
    return _whole_ms(start_s, absent=0, bad=-1), _whole_ms(end_s, absent=NOWHERE, bad=0)


def _whole_ms(column: pa.Array, *, absent: int, bad: int) -> np.ndarray:
    given = mask(pc.is_valid(column))
    ms = np.rint(column.to_numpy(zero_copy_only=False) * 1000)
    usable = given & (np.abs(ms) < LONGEST_MS)
    # A negative end would read as an absent one.
    times = np.where(usable, np.where(ms < 0, bad, ms), bad).astype(np.int64)
    times[~given] = absent
    return times


def _reject_repeats(rows: _Rows, table: Table, paths: Sequence[str]) -> None:
    """Of the rows that name one part of one file, the first is taken."""
    kept = np.flatnonzero(rows.file_at >= 0)
    order = kept[np.lexsort((kept, rows.end_ms[kept], rows.start_ms[kept], rows.file_at[kept]))]
    keys = np.stack([rows.file_at[order], rows.start_ms[order], rows.end_ms[order]])
    repeats = np.concatenate([[False], (keys[:, 1:] == keys[:, :-1]).all(axis=0)]) if len(order) else np.zeros(0, bool)
    first = np.maximum.accumulate(np.where(repeats, 0, np.arange(len(order))))
    for at in np.flatnonzero(repeats).tolist():
        row, earlier = int(order[at]), int(order[first[at]])
        message = f"{table.name}, row {row + 1}: the same part as row {earlier + 1}"
        problem = CorpusProblem(escape_path(paths[int(rows.file_at[row])]), "duplicate_clip", message)
        rows.problems.append((row, problem))
    rows.reject(order[repeats])


def _with_cues(
    rows: _Rows,
    kept: np.ndarray,
    text: pa.Array,
    speaker: pa.Array,
    paths: Sequence[str],
    pairing: Pairing,
    words: Words,
) -> dict[str, pa.Array]:
    """Words and speaker, from the cues whose middle lies in the clip where the manifest does not say them."""
    has_words = np.array([path in pairing.transcript_of for path in paths], bool)
    wanting = mask(pc.or_(pc.is_null(text), pc.is_null(speaker))) & has_words[rows.file_at[kept]]
    lacking = np.flatnonzero(wanting)
    files, first = np.unique(rows.file_at[kept[lacking]], return_index=True)
    speaking = [paths[int(at)] for at in files]
    spoken = words.read([pairing.transcript_of[path] for path in speaking], speaking)
    rows.problems += [(int(kept[lacking[first[at]]]), problem) for at, problem in spoken.problems]
    cues_in = {file: cues_of(row) for file, row in zip(files.tolist(), spoken.rows.to_pylist(), strict=True)}
    within = [
        cues_within(cues_in[file], start, None if end == NOWHERE else end)
        for file, start, end in zip(*(part[kept[lacking]].tolist() for part in _parts(rows)), strict=True)
    ]
    at = np.full(len(kept), NOWHERE)
    at[lacking] = np.arange(len(lacking))
    heard = taken(pa.array([text_of(cues) for cues in within], pa.string()), at)
    speakers = taken(pa.array([speaker_of(cues) for cues in within], pa.string()), at)
    return {"text": pc.coalesce(text, heard), "speaker": pc.coalesce(speaker, speakers)}


def _parts(rows: _Rows) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return rows.file_at, rows.start_ms, rows.end_ms


def _segments(table: Table) -> pa.Array:
    """(n_rows,) int32; -1 where a row does not say."""
    return pc.fill_null(by_value(table.text("segment"), _segment, pa.int32()), -1)


def _segment(text: str) -> int:
    number = as_number(text)
    return int(number) if number is not None and abs(number) < _MOST_SEGMENTS else 0


def _numbered(clips: pa.Table) -> pa.Table:
    """In videos with a row that does not say which segment it is, all get their position in time."""
    segment = np.asarray(clips["segment"])
    video = np.asarray(clips["video_id"].combine_chunks().dictionary_encode().indices)
    open_ = np.zeros(video.max(initial=-1) + 1, bool)
    open_[video[segment < 0]] = True
    at = np.flatnonzero(open_[video])
    if not len(at):
        return clips
    path = np.asarray(pc.rank(clips["path"].combine_chunks(), tiebreaker="dense"))
    order = at[np.lexsort((np.asarray(clips["start_ms"])[at], path[at], video[at]))]
    begins = np.concatenate([[True], video[order][1:] != video[order][:-1]])
    number = np.arange(len(order))
    numbered = segment.copy()
    numbered[order] = number - np.maximum.accumulate(np.where(begins, number, 0))
    return clips.set_column(clips.schema.get_field_index("segment"), "segment", pa.array(numbered, pa.int32()))
