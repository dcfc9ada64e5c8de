"""When the words of clips are said, and where each stands in the text that an encoder read."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from miar.media.transcripts import spoken_words
from storage import CLIPS, WORDS, Snapshot
from storage.arrow import pc

_AHEAD = 64
"""A word is looked for within this many characters of the one before: one that the text lacks must not be taken for the
same word much later."""
_FACTS = ("clip_id", "corpus_id", "path", "start_ms", "end_ms", "text")


@dataclass(frozen=True)
class TimedWords:
    """W words of N clips, in order of clip and time."""

    durations: NDArray[np.float64]
    """(N,) length of each clip in s; NaN where it goes to the end of its file."""
    clip: NDArray[np.int64]
    """(W,)"""
    spans: NDArray[np.float64]
    """(W, 2) start and end in s from the clip's start."""
    texts: list[str]
    at: NDArray[np.int64]
    """(W,) where the word begins in the clip's text; -1 where the text does not hold it."""


def read_words(snapshot: Snapshot, clip_ids: pa.Array) -> TimedWords:
    """The words of these clips: those of its file whose middle lies within the clip.

    Raises:
        StoreError: the snapshot cannot be read.
    """
    clips = snapshot.read(CLIPS.name, columns=_FACTS, filter=pc.field("clip_id").isin(clip_ids))
    clips = clips.take(pc.index_in(clip_ids, value_set=clips["clip_id"])).to_pylist()
    files = _words_of_files(snapshot, clips)
    ends = [np.nan if one["end_ms"] is None else one["end_ms"] - one["start_ms"] for one in clips]
    owner: list[int] = []
    spans: list[NDArray[np.float64]] = [np.zeros((0, 2))]
    texts: list[str] = []
    at: list[int] = []
    for number, one in enumerate(clips):
        times, said = files.get((one["corpus_id"], one["path"]), (np.zeros((0, 2)), []))
        middle = times.mean(axis=1)
        inside = (middle >= one["start_ms"]) & (middle < (np.inf if one["end_ms"] is None else one["end_ms"]))
        own = [said[i] for i in np.flatnonzero(inside)]
        owner += [number] * len(own)
        spans.append((times[inside] - one["start_ms"]) / 1000)
        texts += own
        at += places(own, one["text"])
    return TimedWords(
        durations=np.array(ends, np.float64) / 1000,
        clip=np.array(owner, np.int64),
        spans=np.concatenate(spans),
        texts=texts,
        at=np.array(at, np.int64),
    )


def places(words: list[str], text: str | None) -> list[int]:
    """Where each word begins in the words that an encoder reads of ``text``; -1 where it is not found.

    Case is left out of account: an encoder may have read the text in lower case.
    """
    read = (spoken_words(text) or "").lower()
    found: list[int] = []
    cursor = 0
    for word in words:
        wanted = word.lower()
        at = read.find(wanted, cursor, cursor + _AHEAD + len(wanted))
        found.append(at)
        cursor = cursor if at < 0 else at + len(wanted)
    return found


def _words_of_files(
    snapshot: Snapshot, clips: list[dict[str, object]]
) -> dict[tuple[object, object], tuple[NDArray[np.float64], list[str]]]:
    """(corpus, file) -> (W, 2) start and end in ms of its words, and the words."""
    if WORDS.name not in snapshot.tables():
        return {}
    paths = pa.array(sorted({str(one["path"]) for one in clips}), pa.string())
    columns = ("corpus_id", "path", "starts", "ends", "texts")
    rows = snapshot.read(WORDS.name, columns=columns, filter=pc.field("path").isin(paths)).to_pylist()
    return {
        (row["corpus_id"], row["path"]): (np.array([row["starts"], row["ends"]], np.float64).T, row["texts"])
        for row in rows
    }
