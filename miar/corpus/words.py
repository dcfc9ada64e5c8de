"""The transcripts of a corpus, one table row each; a file that did not change since it was read is not read again."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from miar.corpus.columns import NOWHERE, mask, whole
from miar.corpus.model import TRANSCRIPT_COLUMNS, WORD_COLUMNS, CorpusProblem, Read, Remembered, Source
from miar.corpus.sources import read_bytes
from miar.media.errors import MediaError, TranscriptError
from miar.media.transcripts import READER_VERSION, Cue, Transcript, Word, read_transcript
from miar.segmentation.segments import Segments
from storage.arrow import pc

SETTLED_NS = 2_000_000_000
"""A file that changed less than this before it was read may change again without a new time stamp (two seconds are
the coarsest clock of any file system in use), so what was read of it is not remembered."""
_SHOWN = 3


@dataclass
class Spoken:
    """What is said in some files."""

    rows: pa.Table
    """:data:`TRANSCRIPT_COLUMNS`, one row per file; without cues where the transcript cannot be read."""
    readable: np.ndarray
    """(n_files,) booleans."""
    problems: list[tuple[int, CorpusProblem]]
    """With the position of the file."""


class Words:
    """Reads transcripts, or recalls them where size and time (or an object store's tag) are those of the last time."""

    def __init__(self, root: str, files: Mapping[str, Source], remembered: Remembered) -> None:
        self._root = root
        self._files = files
        self._remembered = remembered.transcripts
        self._timed = remembered.timed
        self._has_times = set(remembered.timed.values())
        stamps = (self._remembered[name].to_pylist() for name in ("path", "size", "mtime_ns", "etag", "reader"))
        self._known = {path: (row, stamp) for row, (path, *stamp) in enumerate(zip(*stamps, strict=True))}
        self._new: list[dict[str, Any]] = []
        self._words: dict[str, dict[str, Any]] = {}
        self._wordless: set[str] = set()

    def read(self, transcripts: Sequence[str], owners: Sequence[str]) -> Spoken:
        """The transcripts of the files ``owners``, in their order; a transcript may stand twice, an owner may not."""
        added: list[dict[str, Any]] = []
        at = np.empty(len(transcripts), np.int64)
        why: dict[str, str] = {}
        row_of: dict[str, int] = {}
        said: dict[str, list[Word]] = {}
        for number, (path, owner) in enumerate(zip(transcripts, owners, strict=True)):
            if path not in row_of and (row := self._recalled(path, owner)) is not None:
                row_of[path] = row
            elif path not in row_of:
                row_of[path] = self._remembered.num_rows + len(added)
                began, said[path] = time.time_ns(), []
                try:
                    transcript = read_transcript(read_bytes(self._root, self._files[path]), path)
                except (OSError, MediaError, TranscriptError) as error:
                    why[path] = " ".join(str(error).split())
                    added.append({"path": self._files[path].path})
                else:
                    added.append(self._row(path, transcript, began))
                    said[path] = transcript.words
            at[number] = row_of[path]
            self._note_words(path, owner, said.get(path))
        rows = pa.concat_tables([self._remembered, pa.Table.from_pylist(added, schema=TRANSCRIPT_COLUMNS)])
        rows = rows.take(pa.array(at)).combine_chunks()
        unreadable = {number: why[path] for number, path in enumerate(transcripts) if path in why} if why else {}
        readable = np.ones(len(transcripts), bool)
        readable[list(unreadable)] = False
        return Spoken(rows, readable, list(_problems(rows, unreadable)))

    def segmented(self, paths: Sequence[str], segmenter: int) -> tuple[pa.Table, np.ndarray]:
        """How the segmenter of this number cut the files ``paths``: rows of :data:`TRANSCRIPT_COLUMNS`, in their order
        but without those that it has not cut as they are now, and (n_files,) whether it has."""
        rows = np.array([self._row_of(path, segmenter) for path in paths], np.int64)
        there = rows >= 0
        return self._remembered.take(pa.array(rows[there])).combine_chunks(), there

    def _row_of(self, path: str, segmenter: int) -> int:
        source = self._files[path]
        row, stamp = self._known.get(source.path, (NOWHERE, None))
        return row if stamp == _stamp(source, segmenter) else NOWHERE

    def news(self) -> Read:
        """What was read anew and may be recalled the next time, and what is no longer there."""
        here = {source.path for source in self._files.values()}
        return Read(
            transcripts=pa.Table.from_pylist(self._new, schema=TRANSCRIPT_COLUMNS),
            transcripts_gone=[path for path in self._known if path not in here],
            words=pa.Table.from_pylist(list(self._words.values()), schema=WORD_COLUMNS),
            words_gone=[
                path for path, transcript in self._timed.items() if path in self._wordless or transcript not in here
            ],
        )

    def _recalled(self, path: str, owner: str) -> int | None:
        source = self._files[path]
        row, stamp = self._known.get(source.path, (None, None))
        if stamp != _stamp(source) or not _is_stamped(source):
            return None
        # Its words were read for another file then.
        needs_words = source.path in self._has_times and self._timed.get(self._files[owner].path) != source.path
        return None if needs_words else row

    def _row(self, path: str, transcript: Transcript, began_ns: int) -> dict[str, Any]:
        source = self._files[path]
        found = {
            **dict(zip(("size", "mtime_ns", "etag", "reader"), _stamp(source), strict=True)),
            "path": source.path,
            "starts": [cue.start_ms for cue in transcript.cues],
            "ends": [cue.end_ms for cue in transcript.cues],
            "texts": [cue.text for cue in transcript.cues],
            "speakers": [cue.speaker for cue in transcript.cues],
            "problems": transcript.problems,
        }
        if source.etag or 0 < source.mtime_ns < began_ns - SETTLED_NS:
            self._new.append(found)
        return found

    def _note_words(self, path: str, owner: str, words: list[Word] | None) -> None:
        """``words``: what was just read; ``None``: the transcript was recalled."""
        transcript, file = self._files[path].path, self._files[owner].path
        if words:
            self._words[file] = word_row(file, transcript, words)
        elif file in self._timed and (words is not None or self._timed[file] != transcript):
            self._wordless.add(file)


def segment_row(source: Source, found: Segments | str, segmenter: int) -> dict[str, Any]:
    """A row of :data:`TRANSCRIPT_COLUMNS` that says how a file was cut, or why it could not be."""
    parts = found.segments if isinstance(found, Segments) else []
    return {
        **dict(zip(("size", "mtime_ns", "etag", "reader"), _stamp(source, segmenter), strict=True)),
        "path": source.path,
        "starts": [part.start_ms for part in parts],
        "ends": [part.end_ms for part in parts],
        "texts": [part.text for part in parts],
        "speakers": [None for _ in parts],
        "problems": [] if isinstance(found, Segments) else [found],
    }


def word_row(path: str, transcript: str, words: Sequence[Word], language: str | None = None) -> dict[str, Any]:
    """A row of :data:`WORD_COLUMNS`."""
    return {
        "path": path,
        "transcript": transcript,
        "language": language,
        "starts": [word.start_ms for word in words],
        "ends": [word.end_ms for word in words],
        "texts": [word.text for word in words],
    }


def has_times(rows: pa.Table) -> np.ndarray:
    """(n,) booleans: transcripts that cut their file into segments, rather than saying what is said in all of it."""
    ends = whole(rows["ends"])
    timed = np.zeros(len(ends), bool)
    timed[np.asarray(pc.list_parent_indices(ends))[mask(pc.is_valid(pc.list_flatten(ends)))]] = True
    return timed


def cues_of(row: Mapping[str, Any]) -> list[Cue]:
    """The cues of a row of :data:`TRANSCRIPT_COLUMNS`."""
    columns = (row[name] or () for name in ("starts", "ends", "texts", "speakers"))
    return [Cue(*cue) for cue in zip(*columns, strict=True)]


def text_of(cues: Sequence[Cue]) -> str | None:
    """Everything that is said."""
    return " ".join(cue.text for cue in cues) or None


def speaker_of(cues: Sequence[Cue]) -> str | None:
    """Who says it, where that is one person."""
    speakers = {cue.speaker for cue in cues}
    return speakers.pop() if len(speakers) == 1 else None


def cues_within(cues: Sequence[Cue], start_ms: int, end_ms: int | None) -> list[Cue]:
    """Cues whose middle lies in a part of the file; one without times belongs to the whole file alone."""
    is_whole = start_ms == 0 and end_ms is None
    return [cue for cue in cues if is_whole or _middle_in(cue, start_ms, end_ms)]


def _middle_in(cue: Cue, start_ms: int, end_ms: int | None) -> bool:
    if cue.end_ms is None:
        return False
    middle_ms = (cue.start_ms + cue.end_ms) / 2
    return start_ms <= middle_ms and (end_ms is None or middle_ms < end_ms)


def _problems(rows: pa.Table, unreadable: Mapping[int, str]) -> Iterator[tuple[int, CorpusProblem]]:
    bad_cues = mask(pc.fill_null(pc.greater(pc.list_value_length(rows["problems"]), 0), False))
    empty = mask(pc.fill_null(pc.equal(pc.list_value_length(rows["texts"]), 0), False))
    for at in sorted({*np.flatnonzero(bad_cues | empty).tolist(), *unreadable}):
        path, found = rows["path"][at].as_py(), rows["problems"][at].as_py() or ()
        if at in unreadable:
            yield at, CorpusProblem(path, "unreadable_transcript", unreadable[at])
        if found:
            shown = "; ".join(found[:_SHOWN])
            yield (
                at,
                CorpusProblem(path, "bad_cues", shown if len(found) <= _SHOWN else f"{shown}; {len(found)} in all"),
            )
        if empty[at]:
            message = "no words in it; the file is one clip without words"
            yield at, CorpusProblem(path, "empty_transcript", message)


def _stamp(source: Source, reader: int = READER_VERSION) -> list[Any]:
    return [source.size, source.mtime_ns, source.etag, reader]


def _is_stamped(source: Source) -> bool:
    return bool(source.mtime_ns or source.etag)
