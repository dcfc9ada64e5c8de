"""Cut a corpus into clips by its files: by transcript segments, by what a segmenter found, or a whole file each."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from miar.config import SegmentBy
from miar.corpus.columns import clip_ids, mask, positions, whole
from miar.corpus.model import CLIP_COLUMNS, CorpusProblem
from miar.corpus.pairing import Pairing
from miar.corpus.paths import stem_of
from miar.corpus.words import Spoken, Words, cues_of, cues_within, has_times, speaker_of, text_of
from storage.arrow import pc


@dataclass
class Cut:
    """The clips of a corpus, with what could not be cut."""

    clips: pa.Table
    """:data:`CLIP_COLUMNS`, without splits yet."""
    problems: list[CorpusProblem]
    manifest_rows: np.ndarray | None = None
    """(n_clips,) the manifest row of each clip; ``None`` where there is no manifest."""
    unsegmented: list[str] = field(default_factory=list)
    """Files that a segmenter has to cut before there are clips of them."""


class Pieces:
    """Makes clips of the parts of files."""

    def __init__(self, corpus_id: str, known_paths: Sequence[str]) -> None:
        self._corpus_id = corpus_id
        self._known_paths = known_paths
        self.paths = pa.array(known_paths, pa.string())
        self._stems = pa.array([stem_of(path) for path in known_paths], pa.string())

    def path(self, at: int) -> str:
        """As it is known in tables."""
        return self._known_paths[at]

    def clips(self, file_at: np.ndarray, start_ms: pa.Array, end_ms: pa.Array, **facts: pa.Array) -> pa.Table:
        """(n,) clips.

        Args:
            file_at: (n,) positions in ``known_paths``.
            start_ms, end_ms: (n,) int64; ``end_ms`` is null where the clip goes to the end of its file.
            facts: other columns of :data:`CLIP_COLUMNS`; those not given are null, ``segment`` 0, and ``video_id``
                the path without its extension, also where it is null.
        """
        stems = self._stems.take(pa.array(file_at))
        columns = {
            "segment": pa.array(np.zeros(len(file_at), np.int32)),
            **facts,
            "clip_id": clip_ids(self._corpus_id, self._known_paths, file_at, start_ms, end_ms),
            "corpus_id": pa.repeat(self._corpus_id, len(file_at)),
            "video_id": pc.coalesce(facts["video_id"], stems) if "video_id" in facts else stems,
            "path": self.paths.take(pa.array(file_at)),
            "start_ms": start_ms,
            "end_ms": end_ms,
        }
        absent = pa.nulls(len(file_at), pa.string())
        return pa.Table.from_arrays([columns.get(name, absent) for name in CLIP_COLUMNS.names], schema=CLIP_COLUMNS)

    def whole_files(self, file_at: np.ndarray, **facts: pa.Array) -> pa.Table:
        """A clip per file."""
        starts = pa.array(np.zeros(len(file_at), np.int64))
        return self.clips(file_at, starts, pa.nulls(len(file_at), pa.int64()), **facts)

    def segments(self, file_at: np.ndarray, words: pa.Table) -> pa.Table:
        """A clip per cue; ``words`` are the files' transcripts."""
        cues = {name: whole(words[name]) for name in ("starts", "ends", "texts", "speakers")}
        counts = np.asarray(pc.fill_null(pc.list_value_length(cues["starts"]), 0)).astype(np.int64)
        first = np.repeat(np.cumsum(counts) - counts, counts)
        return self.clips(
            np.repeat(file_at, counts),
            pc.list_flatten(cues["starts"]),
            pc.list_flatten(cues["ends"]),
            segment=pa.array(np.arange(counts.sum()) - first, pa.int32()),
            text=pc.list_flatten(cues["texts"]),
            speaker=pc.list_flatten(cues["speakers"]),
        )


def cut_files(corpus_id: str, pairing: Pairing, words: Words, segment_by: SegmentBy, segmenter: int | None) -> Cut:
    """Clips by transcript segments where there are any (and they are wanted), by what a segmenter found, or whole
    files.

    ``segmenter``: the number of the one whose cuts are wanted.
    """
    paths, twins = pairing.without_twins()
    pieces = Pieces(corpus_id, [pairing.files[path].path for path in paths])
    has_words = np.array([path in pairing.transcript_of for path in paths], bool)
    owners, silent = np.flatnonzero(has_words), np.flatnonzero(~has_words)
    speaking = [paths[at] for at in owners.tolist()]
    spoken = words.read([pairing.transcript_of[path] for path in speaking], speaking)
    cut = Cut(CLIP_COLUMNS.empty_table(), [*pairing.problems, *(problem for _, problem in spoken.problems)])
    if segment_by == "windows" and segmenter is not None and pairing.media:
        parts = [_by_segmenter(pieces, np.arange(len(paths)), paths, words, segmenter, cut)]
        parts[0] = _with_words(parts[0], pieces, dict(zip(owners.tolist(), spoken.rows.to_pylist(), strict=True)))
    else:
        timed = has_times(spoken.rows) & (segment_by != "file")
        parts = [
            pieces.segments(owners[timed], spoken.rows.filter(pa.array(timed))),
            _spoken_files(pieces, owners, spoken, np.flatnonzero(~timed & spoken.readable)),
        ]
        if segment_by == "transcript":
            message = "clips are to be cut by transcripts, and this file has none"
            cut.problems += [CorpusProblem(pieces.path(at), "no_transcript", message) for at in silent.tolist()]
        elif segment_by == "speech" and segmenter is not None:
            parts.append(_by_segmenter(pieces, silent, paths, words, segmenter, cut))
        else:
            parts.append(pieces.whole_files(silent))
    clips = pa.concat_tables(parts)
    in_order = np.argsort(positions(whole(clips["path"]), pieces.paths), kind="stable")
    cut.clips = clips.take(pa.array(in_order))
    cut.problems += twins
    return cut


def _by_segmenter(
    pieces: Pieces, file_at: np.ndarray, paths: Sequence[str], words: Words, segmenter: int, cut: Cut
) -> pa.Table:
    """What a segmenter found in these files; one in which it found nobody speak is a clip as a whole.

    Those that it has not seen yet, and those that it could not cut, are noted in ``cut``.
    """
    chosen = [paths[int(at)] for at in file_at]
    rows, seen = words.segmented(chosen, segmenter)
    cut.unsegmented += [path for path, known in zip(chosen, seen, strict=True) if not known]
    file_at = file_at[seen]
    failed = mask(pc.greater(pc.list_value_length(rows["problems"]), 0)) if len(file_at) else np.zeros(0, bool)
    for at in np.flatnonzero(failed).tolist():
        cut.problems.append(CorpusProblem(pieces.path(file_at[at]), "not_segmented", rows["problems"][at].as_py()[0]))
    found = has_times(rows)
    return pa.concat_tables(
        [
            pieces.segments(file_at[found], rows.filter(pa.array(found))),
            pieces.whole_files(file_at[~found & ~failed]),
        ]
    )


def _with_words(clips: pa.Table, pieces: Pieces, transcript_of: dict[int, dict[str, Any]]) -> pa.Table:
    """Windows, with what is said in each: the cues whose middle lies in it."""
    cues = {pieces.path(at): cues_of(row) for at, row in transcript_of.items()}
    rows = clips.select(["path", "start_ms", "end_ms"]).to_pylist()
    within = [cues_within(cues.get(row["path"], ()), row["start_ms"], row["end_ms"]) for row in rows]
    for name, said in (("text", text_of), ("speaker", speaker_of)):
        column = pa.array([said(found) for found in within], pa.string())
        clips = clips.set_column(clips.schema.get_field_index(name), name, column)
    return clips


def _spoken_files(pieces: Pieces, owners: np.ndarray, spoken: Spoken, chosen: np.ndarray) -> pa.Table:
    """Whole files and everything that is said in them."""
    cues = [cues_of(row) for row in spoken.rows.take(pa.array(chosen)).to_pylist()]
    return pieces.whole_files(
        owners[chosen],
        text=pa.array([text_of(found) for found in cues], pa.string()),
        speaker=pa.array([speaker_of(found) for found in cues], pa.string()),
    )
