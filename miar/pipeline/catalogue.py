"""Bring the store's catalogue (clips, labels, transcripts, problems) into line with what a corpus listing found.

Reading and writing are apart: :func:`compare` only looks, :func:`apply` commits what it found. Both see one corpus
only; the rows of another are never touched. Everything is compared in whole columns, and a hash is computed only where
what it is made of differs from what the catalogue holds.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa

from miar.corpus.columns import NOWHERE, mask, positions, replaced, same, taken, whole
from miar.corpus.model import TRANSCRIPT_COLUMNS, CorpusListing, CorpusProblem, Read, Remembered, media_hash, text_hash
from miar.corpus.paths import escape_path
from miar.errors import CorpusError
from miar.media.transcripts import READER_VERSION
from miar.pipeline.fingerprints import SOURCE_COLUMNS, fingerprinted_sources
from storage import CLIPS, FAILURES, LABELS, TRANSCRIPTS, WORDS, Store, TableSpec
from storage.arrow import pc

_STAMPS = ("updated_at", "run_id")
"""Columns that say when a row was written, not what it says."""
_SAID = [name for name in CLIPS.schema.names if name not in _STAMPS]
_INPUT = ("media_hash", "text_hash", "state")
_CLIP_ROWS = pa.schema([CLIPS.schema.field(name) for name in _SAID])


@dataclass
class CatalogueChanges:
    """What has to be written so that the catalogue says what the corpus holds now."""

    live: pa.Table
    """The catalogue's rows as they will be, live clips only, without the columns that say when they were written."""
    corpus_id: str = ""
    clips: pa.Table = field(default_factory=_CLIP_ROWS.empty_table)
    labels: pa.Table = field(default_factory=LABELS.schema.empty_table)
    dropped_labels: pa.Table | None = None
    read: Read = field(default_factory=Read)
    failures: list[dict[str, Any]] = field(default_factory=list)
    mended: pa.Table | None = None
    """Keys of failures that no longer hold: problems that went away, clips that are gone."""
    new: int = 0
    changed: int = 0
    gone: int = 0
    problems: int = 0


def known_clips(store: Store, corpus_id: str) -> pa.Table:
    """Every row of ``clips`` of one corpus, tombstones too, without the columns that say when it was written."""
    return store.table(CLIPS).read(columns=_SAID, filter=pc.field("corpus_id") == corpus_id)


def remembered(store: Store, corpus_id: str, *, retry_failed: bool = False) -> Remembered:
    """The transcripts of one corpus as they were read before; with ``retry_failed`` without files that could not be
    cut, which are cut anew then."""
    own = pc.field("corpus_id") == corpus_id
    timed = store.table(WORDS).read(columns=["path", "transcript"], filter=own)
    transcripts = store.table(TRANSCRIPTS).read(columns=TRANSCRIPT_COLUMNS.names, filter=own)
    if retry_failed:
        could_not = (pc.list_value_length(pc.field("problems")) > 0) & (pc.field("reader") != READER_VERSION)
        transcripts = transcripts.filter(~could_not)
    return Remembered(transcripts, dict(zip(*(timed[name].to_pylist() for name in timed.column_names), strict=True)))


def remember(store: Store, corpus_id: str, run_id: str, transcripts: pa.Table, words: pa.Table) -> None:
    """Commit rows of transcripts and of words, in place of what is there of their paths."""
    said = set(words["path"].to_pylist())
    wordless = [path for path in transcripts["path"].to_pylist() if path not in said]
    _merge_read(store, corpus_id, run_id, Read(transcripts, [], words, wordless))


def known_splits(known: pa.Table) -> dict[str, str]:
    """The split that each speaker and each video was given before, so that it keeps it."""
    known = known.select(["video_id", "speaker", "split"])
    if known["split"].null_count:
        known = known.filter(pc.is_valid(known["split"]))
    split = whole(known["split"])
    splits: dict[str, str] = {}
    for name in ("video_id", "speaker"):
        coded = whole(known[name]).dictionary_encode()
        held = np.flatnonzero(mask(pc.is_valid(coded.indices)))
        last = np.zeros(len(coded.dictionary), np.int64)
        last[np.asarray(coded.indices.drop_null())] = held
        splits |= zip(coded.dictionary.to_pylist(), split.take(pa.array(last)).to_pylist(), strict=True)
    return splits


def compare(store: Store, listing: CorpusListing, known: pa.Table, max_lost_share: float) -> CatalogueChanges:
    """What differs between the corpus as listed and the catalogue as ``known``.

    Raises:
        CorpusError: more than ``max_lost_share`` of the known files are gone: most likely an unmounted disk.
    """
    _refuse_vanished(listing, known, max_lost_share)
    sources, unreadable = fingerprinted_sources(listing, known)
    changes = _compare_clips(listing, known, sources)
    _compare_labels(store, listing, changes)
    changes.read = listing.read
    _compare_problems(store, listing, [*listing.problems, *unreadable], changes)
    return changes


def apply(store: Store, changes: CatalogueChanges, run_id: str) -> None:
    """Commit the changes; nothing is written where nothing changed."""
    now = datetime.now(UTC)
    if changes.clips.num_rows:
        store.table(CLIPS).merge(_stamped(changes.clips, CLIPS, updated_at=now, run_id=run_id))
    if changes.labels.num_rows or changes.dropped_labels is not None:
        store.table(LABELS).merge(changes.labels, delete_keys=changes.dropped_labels)
    _merge_read(store, changes.corpus_id, run_id, changes.read)
    if changes.failures or changes.mended is not None:
        failed = [row | {"run_id": run_id, "failed_at": now} for row in changes.failures]
        store.table(FAILURES).merge(pa.Table.from_pylist(failed, schema=FAILURES.schema), delete_keys=changes.mended)


def _merge_read(store: Store, corpus_id: str, run_id: str, read: Read) -> None:
    """Words first: a transcript that is remembered is not read for them again."""
    for spec, rows, gone in (
        (WORDS, read.words, read.words_gone),
        (TRANSCRIPTS, read.transcripts, read.transcripts_gone),
    ):
        if rows.num_rows or gone:
            dropped = pa.table({"corpus_id": pa.repeat(corpus_id, len(gone)), "path": pa.array(gone, pa.string())})
            stamped = _stamped(rows, spec, corpus_id=corpus_id, run_id=run_id)
            store.table(spec).merge(stamped, delete_keys=dropped)


def _stamped(rows: pa.Table, spec: TableSpec, **stamps: Any) -> pa.Table:
    for name, value in stamps.items():
        rows = rows.append_column(name, pa.repeat(pa.scalar(value, spec.schema.field(name).type), rows.num_rows))
    return rows.select(spec.schema.names)


def _refuse_vanished(listing: CorpusListing, known: pa.Table, max_lost_share: float) -> None:
    before = pc.unique(known["path"].filter(pc.equal(known["state"], "live"))).to_pylist()
    lost = sum(path not in listing.sources for path in before)
    if before and lost > max_lost_share * len(before):
        raise CorpusError(
            f"{lost} of the {len(before)} files that the store knows of corpus '{listing.corpus_id}' are gone "
            f"from {escape_path(listing.root)}: is the disk mounted? If they were really removed, set "
            "corpus.max_lost_share to 1; if this is another corpus, give it its own corpus.corpus_id"
        )


# --- clips


def _compare_clips(listing: CorpusListing, known: pa.Table, sources: pa.Table) -> CatalogueChanges:
    clips = listing.clip_table
    at = positions(whole(clips["clip_id"]), whole(known["clip_id"]), distinct=True)
    is_new = at < 0
    columns = {name: whole(clips[name]) for name in clips.column_names}
    file = positions(columns["path"], whole(sources["path"]), distinct=True)
    columns |= {name: taken(whole(sources[name]), file) for name in SOURCE_COLUMNS.names}
    before = _Before(known, at)
    columns["media_hash"] = _media_hashes(columns, before)
    columns["text_hash"] = _text_hashes(columns, before)
    columns["state"] = pa.repeat("live", len(at))
    differs, other_input = is_new.copy(), np.zeros(len(at), bool)
    for name in _SAID:
        changed = ~is_new & ~same(columns[name], before[name])
        differs |= changed
        if name in _INPUT:
            other_input |= changed
    live = pa.Table.from_arrays([columns[name] for name in _SAID], schema=_CLIP_ROWS)
    left = mask(pc.equal(known["state"], "live"))
    left[at[~is_new]] = False
    gone = known.filter(pa.array(left))
    gone = gone.set_column(gone.schema.get_field_index("state"), "state", pa.repeat("gone", gone.num_rows))
    return CatalogueChanges(
        live=live,
        corpus_id=listing.corpus_id,
        clips=pa.concat_tables([live.filter(pa.array(differs)), gone]),
        new=int(is_new.sum()),
        changed=int(other_input.sum()),
        gone=gone.num_rows,
    )


class _Before:
    """The catalogue's columns in the order of the listing, one at a time; null where a clip is new."""

    def __init__(self, known: pa.Table, at: np.ndarray) -> None:
        self._known = known
        self._at = at

    def __getitem__(self, name: str) -> pa.Array:
        return taken(whole(self._known[name]), self._at)


def _media_hashes(columns: Mapping[str, pa.Array], before: _Before) -> pa.Array:
    """Computed only where the file is another: a clip of the same id has the same times."""
    prints = columns["fingerprint"]
    has_print = mask(pc.is_valid(prints))
    stale = np.flatnonzero(has_print & ~same(prints, before["fingerprint"]))
    kept = pc.if_else(pc.is_valid(prints), before["media_hash"], pa.scalar(None, pa.string()))
    made_of = [columns[name].take(pa.array(stale)).to_pylist() for name in ("fingerprint", "start_ms", "end_ms")]
    return replaced(kept, stale, [media_hash(*row) for row in zip(*made_of, strict=True)])


def _text_hashes(columns: Mapping[str, pa.Array], before: _Before) -> pa.Array:
    """Computed only where the words are others."""
    kept = before["text_hash"]
    stale = np.flatnonzero(mask(pc.is_null(kept)) | ~same(columns["text"], before["text"]))
    return replaced(kept, stale, [text_hash(text) for text in columns["text"].take(pa.array(stale)).to_pylist()])


# --- labels


def _compare_labels(store: Store, listing: CorpusListing, changes: CatalogueChanges) -> None:
    before = store.table(LABELS).read(filter=pc.field("corpus_id") == listing.corpus_id)
    ids = whole(changes.live["clip_id"])
    listed = _label_rows(listing)
    known_at = positions(whole(before["clip_id"]), ids, distinct=True)
    names = pc.unique(before["name"])
    name, known_name = (positions(whole(rows["name"]), names, distinct=True) for rows in (listed, before))
    now = np.where(name < 0, NOWHERE, np.asarray(listing.label_table["at"]) * len(names) + name)
    row = _row_of(now, np.where(known_at < 0, NOWHERE, known_at * len(names) + known_name))
    unchanged = row >= 0
    for name in ("source_id", "value", "category"):
        unchanged &= same(whole(listed[name]), taken(whole(before[name]), row))
    changes.labels = listed.filter(pa.array(~unchanged))
    dropped = known_at >= 0
    dropped[row[row >= 0]] = False
    if dropped.any():
        changes.dropped_labels = before.select(list(LABELS.key)).filter(pa.array(dropped))


def _label_rows(listing: CorpusListing) -> pa.Table:
    labels = listing.label_table
    clips = listing.clip_table.select(["clip_id", "corpus_id", "source_id"]).take(labels["at"])
    columns = {name: clips[name] for name in clips.column_names} | {
        name: labels[name] for name in ("name", "value", "category")
    }
    return pa.table([columns[name] for name in LABELS.schema.names], schema=LABELS.schema)


def _row_of(keys: np.ndarray, among: np.ndarray) -> np.ndarray:
    """(n,) where each key stands in ``among``, which holds it once at most; nothing finds :data:`NOWHERE`."""
    if not len(among):
        return np.full(len(keys), NOWHERE)
    order = np.argsort(among, kind="stable")
    at = order[np.minimum(np.searchsorted(among[order], keys), len(among) - 1)]
    return np.where((keys >= 0) & (among[at] == keys), at, NOWHERE)


# --- problems


def _compare_problems(
    store: Store, listing: CorpusListing, problems: list[CorpusProblem], changes: CatalogueChanges
) -> None:
    """The listing's problems are ``failures`` of the stage ``corpus``; those that went away are removed."""
    before = store.table(FAILURES).read(filter=pc.field("corpus_id") == listing.corpus_id)
    of_corpus = mask(pc.equal(before["stage"], "corpus"))
    path, message = whole(before["path"]), whole(before["message"])
    standing = set(zip(*(column.filter(pa.array(of_corpus)).to_pylist() for column in (path, message)), strict=True))
    by_path: dict[str, CorpusProblem] = {}
    for problem in problems:
        earlier = by_path.get(problem.path)
        by_path[problem.path] = problem if earlier is None else _joined(earlier, problem)
    changes.problems = len(problems)
    changes.failures = [
        _problem_row(listing.corpus_id, problem)
        for problem in by_path.values()
        if (problem.path, problem.message) not in standing
    ]
    file_mended = of_corpus & (positions(path, pa.array(list(by_path), pa.string()), distinct=True) < 0)
    mended = file_mended | _of_clips_that_are_gone(before, changes.live)
    if mended.any():
        changes.mended = before.select(list(FAILURES.key)).filter(pa.array(mended))


def _of_clips_that_are_gone(failures: pa.Table, live: pa.Table) -> np.ndarray:
    of_clip = mask(pc.not_equal(failures["clip_id"], ""))
    if of_clip.any():
        of_clip &= positions(whole(failures["clip_id"]), whole(live["clip_id"]), distinct=True) < 0
    return of_clip


def _joined(first: CorpusProblem, second: CorpusProblem) -> CorpusProblem:
    return CorpusProblem(first.path, first.error, f"{first.message}; {second.error}: {second.message}")


def _problem_row(corpus_id: str, problem: CorpusProblem) -> dict[str, Any]:
    return {
        "corpus_id": corpus_id,
        "path": problem.path,
        "clip_id": "",
        "stage": "corpus",
        "config_hash": "",
        "source_id": None,
        "input_hash": "",
        "error": problem.error,
        "message": problem.message,
        "attempts": 1,
    }
