"""Bring the store's catalogue (clips, labels, problems) into line with what a corpus listing found.

Reading and writing are apart: :func:`compare` only looks, :func:`apply` commits what it found. Both see one corpus
only; the rows of another are never touched.
"""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from miar.corpus.model import Clip, CorpusListing, CorpusProblem, Label, Source, media_hash, text_hash
from miar.corpus.sources import fingerprint
from miar.errors import CorpusError
from miar.media.errors import MediaError
from storage import CLIPS, FAILURES, LABELS, Store

_STAMPS = frozenset({"updated_at", "run_id"})
"""Columns that say when a row was written, not what it says."""


@dataclass
class CatalogueChanges:
    """What has to be written so that the catalogue says what the corpus holds now."""

    clips: list[dict[str, Any]] = field(default_factory=list)
    labels: list[dict[str, Any]] = field(default_factory=list)
    dropped_labels: list[dict[str, str]] = field(default_factory=list)
    failures: list[dict[str, Any]] = field(default_factory=list)
    mended: list[dict[str, str]] = field(default_factory=list)
    """Keys of failures that no longer hold: problems that went away, clips that are gone."""
    live: dict[str, dict[str, Any]] = field(default_factory=dict)
    """The catalogue's rows as they will be, by clip id, live clips only."""
    new: int = 0
    changed: int = 0
    gone: int = 0
    problems: int = 0

    @property
    def is_empty(self) -> bool:
        return not (self.clips or self.labels or self.dropped_labels or self.failures or self.mended)


def known_clips(store: Store, corpus_id: str) -> dict[str, dict[str, Any]]:
    """Every row of ``clips`` of one corpus, tombstones too, by clip id."""
    rows = store.table(CLIPS).read(filter=pc.field("corpus_id") == corpus_id).to_pylist()
    return {row["clip_id"]: row for row in rows}


def known_splits(known: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """The split that each speaker and each video was given before, so that it keeps it."""
    splits: dict[str, str] = {}
    for row in known.values():
        if row["split"]:
            splits[row["video_id"]] = row["split"]
            if row["speaker"]:
                splits[row["speaker"]] = row["split"]
    return splits


def compare(
    store: Store, listing: CorpusListing, known: Mapping[str, Mapping[str, Any]], max_lost_share: float
) -> CatalogueChanges:
    """What differs between the corpus as listed and the catalogue as ``known``.

    Raises:
        CorpusError: more than ``max_lost_share`` of the known files are gone: most likely an unmounted disk.
    """
    changes = CatalogueChanges()
    _refuse_vanished(listing, known, max_lost_share)
    fingerprints, unreadable = _fingerprints(listing, known)
    for clip in listing.clips:
        row = _clip_row(clip, listing.sources[clip.path], fingerprints.get(clip.path))
        changes.live[clip.clip_id] = row
        before = known.get(clip.clip_id)
        if before is None:
            changes.new += 1
        elif not _same(before, row):
            changes.changed += _same_input(before, row) is False
        else:
            continue
        changes.clips.append(row)
    for clip_id, before in known.items():
        if clip_id not in changes.live and before["state"] == "live":
            changes.clips.append({**before, "state": "gone"})
            changes.gone += 1
    _compare_labels(store, listing, changes)
    _compare_problems(store, listing, [*listing.problems, *unreadable], changes)
    return changes


def apply(store: Store, changes: CatalogueChanges, run_id: str) -> None:
    """Commit the changes; nothing is written where nothing changed."""
    stamp = {"run_id": run_id, "updated_at": datetime.now(UTC)}
    if changes.clips:
        store.table(CLIPS).merge(_table([row | stamp for row in changes.clips], CLIPS.schema))
    if changes.labels or changes.dropped_labels:
        store.table(LABELS).merge(
            _table(changes.labels, LABELS.schema), delete_keys=_keys(changes.dropped_labels, LABELS.key)
        )
    if changes.failures or changes.mended:
        failed = [row | {"run_id": run_id, "failed_at": stamp["updated_at"]} for row in changes.failures]
        store.table(FAILURES).merge(_table(failed, FAILURES.schema), delete_keys=_keys(changes.mended, FAILURES.key))


def _refuse_vanished(listing: CorpusListing, known: Mapping[str, Mapping[str, Any]], max_lost_share: float) -> None:
    before = {row["path"] for row in known.values() if row["state"] == "live"}
    lost = before - listing.sources.keys()
    if before and len(lost) > max_lost_share * len(before):
        raise CorpusError(
            f"{len(lost)} of the {len(before)} files that the store knows of corpus '{listing.corpus_id}' are gone "
            f"from {listing.root}: is the disk mounted? If they were really removed, set corpus.max_lost_share to 1; "
            "if this is another corpus, give it its own corpus.corpus_id"
        )


def _fingerprints(
    listing: CorpusListing, known: Mapping[str, Mapping[str, Any]]
) -> tuple[dict[str, str], list[CorpusProblem]]:
    """Content hashes of the media files; a file of the size and time that the store knows is not read again."""
    remembered = {
        row["path"]: (row["media_size"], row["media_mtime_ns"], row["fingerprint"])
        for row in known.values()
        if row["fingerprint"]
    }
    result: dict[str, str] = {}
    to_read: list[Source] = []
    for source in listing.sources.values():
        size, mtime_ns, print_ = remembered.get(source.path, (None, None, None))
        if not source.is_media:
            continue
        if print_ and (size, mtime_ns) == (source.size, source.mtime_ns) and source.mtime_ns:
            result[source.path] = print_
        else:
            to_read.append(source)

    def read(source: Source) -> str | CorpusProblem:
        try:
            return fingerprint(listing.root, source)
        except MediaError as error:
            return CorpusProblem(source.path, "unreadable_file", f"{error}: check the file and its permissions")

    problems: list[CorpusProblem] = []
    # Hashing releases the GIL, and reading waits on the disk: a few threads keep both busy.
    with ThreadPoolExecutor(max_workers=4) as pool:
        for source, answer in zip(to_read, pool.map(read, to_read), strict=True):
            if isinstance(answer, CorpusProblem):
                problems.append(answer)
            else:
                result[source.path] = answer
    return result, problems


def _clip_row(clip: Clip, source: Source, fingerprint_: str | None) -> dict[str, Any]:
    media = None if fingerprint_ is None else media_hash(fingerprint_, clip.start_ms, clip.end_ms)
    return {
        "clip_id": clip.clip_id,
        "corpus_id": clip.corpus_id,
        "video_id": clip.video_id,
        "segment": clip.segment,
        "source_id": clip.source_id,
        "path": clip.path,
        "start_ms": clip.start_ms,
        "end_ms": clip.end_ms,
        "text": clip.text,
        "speaker": clip.speaker,
        "split": clip.split,
        "media_size": source.size,
        "media_mtime_ns": source.mtime_ns,
        "fingerprint": fingerprint_,
        "media_hash": media,
        "text_hash": text_hash(clip.text),
        "state": "live",
    }


def _same(before: Mapping[str, Any], row: Mapping[str, Any]) -> bool:
    return all(before[name] == value for name, value in row.items() if name not in _STAMPS)


def _same_input(before: Mapping[str, Any], row: Mapping[str, Any]) -> bool:
    return all(before[name] == row[name] for name in ("media_hash", "text_hash", "state"))


def _compare_labels(store: Store, listing: CorpusListing, changes: CatalogueChanges) -> None:
    before = {
        (row["clip_id"], row["name"]): row
        for row in store.table(LABELS).read(filter=pc.field("corpus_id") == listing.corpus_id).to_pylist()
    }
    sources = {clip.clip_id: clip.source_id for clip in listing.clips}
    listed = {(label.clip_id, label.name): _label_row(label, listing, sources) for label in listing.labels}
    changes.labels = [row for key, row in listed.items() if before.get(key) != row]
    changes.dropped_labels = [
        {"clip_id": key[0], "name": key[1]} for key in before if key not in listed and key[0] in changes.live
    ]


def _label_row(label: Label, listing: CorpusListing, sources: Mapping[str, str | None]) -> dict[str, Any]:
    return {
        "clip_id": label.clip_id,
        "name": label.name,
        "corpus_id": listing.corpus_id,
        "source_id": sources.get(label.clip_id),
        "value": label.value,
        "category": label.category,
    }


def _compare_problems(
    store: Store, listing: CorpusListing, problems: list[CorpusProblem], changes: CatalogueChanges
) -> None:
    """The listing's problems are ``failures`` of the stage ``corpus``; those that went away are removed."""
    before = store.table(FAILURES).read(filter=pc.field("corpus_id") == listing.corpus_id).to_pylist()
    standing = {(row["path"], row["message"]) for row in before if row["stage"] == "corpus"}
    by_path: dict[str, CorpusProblem] = {}
    for problem in problems:
        earlier = by_path.get(problem.path)
        by_path[problem.path] = problem if earlier is None else _joined(earlier, problem)
    changes.problems = len(problems)
    for problem in by_path.values():
        row = _problem_row(listing.corpus_id, problem)
        if (problem.path, row["message"]) not in standing:
            changes.failures.append(row)
    for row in before:
        file_mended = row["stage"] == "corpus" and row["path"] not in by_path
        clip_gone = row["clip_id"] and row["clip_id"] not in changes.live
        if file_mended or clip_gone:
            changes.mended.append({name: row[name] for name in FAILURES.key})


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


def _table(rows: list[dict[str, Any]], schema: pa.Schema) -> pa.Table:
    return pa.Table.from_pylist(rows, schema=schema)


def _keys(rows: list[dict[str, str]], key: tuple[str, ...]) -> pa.Table | None:
    if not rows:
        return None
    return pa.table({name: pa.array([row[name] for row in rows], pa.string()) for name in key})
