"""The comparison in whole columns against one row by row, on random histories of a corpus."""

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import hypothesis.strategies as st
import pyarrow as pa
from hypothesis import HealthCheck, given, settings
from made_jobs import FEATURE_SETS, carry_out, ok, plan

from miar.config import PipelineConfig
from miar.corpus.listing import list_corpus
from miar.corpus.model import CorpusListing, media_hash, text_hash
from miar.corpus.sources import fingerprint
from miar.features.contract import Extraction, FeatureSet, Modality
from miar.pipeline import catalogue
from miar.pipeline.plan import MAX_ATTEMPTS, RefreshPlan
from miar.pipeline.rows import feature_spec
from storage import CLIPS, FAILURES, LABELS, Store

CONFIG = PipelineConfig.model_validate({"corpus": {"max_lost_share": 1.0}, "execution": {"workers": 1}})
PATHS = ("a.mp4", "b.mp4", "c d.mp4", "e/f.wav")
CUTS = ("0,1", "1,2.5", "0.5,", ",")

clip = st.tuples(
    st.sampled_from(PATHS),
    st.sampled_from(CUTS),
    st.sampled_from(["", "yes", "no", "é"]),
    st.sampled_from(["", "ann", "bob"]),
    st.sampled_from(["", "train", "test"]),
    st.sampled_from(["", "1", "2.5"]),
    st.sampled_from(["", "sad"]),
)
state = st.tuples(
    st.dictionaries(st.sampled_from(PATHS), st.tuples(st.sampled_from(["x", "yy", "zz"]), st.integers(1, 2))),
    st.lists(clip, min_size=1, max_size=8),
    st.lists(st.sampled_from([0, 0, 0, 0, 1, 2]), min_size=1, max_size=5),
)
"""Files (content, time), manifest rows, and for each refresh of them what comes of the extractions."""


@settings(max_examples=5, deadline=None, suppress_health_check=list(HealthCheck))
@given(states=st.lists(state, min_size=2, max_size=3))
def test_columns_say_what_rows_say(states):
    folder = Path(mkdtemp())
    try:
        store, root = Store.create(folder / "store"), folder / "corpus"
        for files, rows, refreshes in states:
            _lay(root, files, rows)
            for number in refreshes:
                known = catalogue.known_clips(store, "corpus")
                listing = list_corpus(str(root), CONFIG.corpus, catalogue.known_splits(known))
                wanted = _row_by_row(store, listing)
                planned = plan(store, root, config=CONFIG)
                _assert_same(planned, wanted)
                carry_out(store, planned, _outcomes(number))
    finally:
        shutil.rmtree(folder)


def _lay(root: Path, files: dict[str, tuple[str, int]], rows: list[tuple[str, ...]]) -> None:
    shutil.rmtree(root, ignore_errors=True)
    # One file is always there: a corpus without any is refused.
    for path, (content, mtime) in (files | {rows[0][0]: ("x", 1)}).items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(content)
        os.utime(root / path, ns=(0, mtime * 10**18))
    lines = [",".join(row) for row in rows]
    (root / "manifest.csv").write_text("\n".join(["path,start,end,text,speaker,split,score,mood", *lines]))


def _outcomes(number: int) -> Callable[[str, FeatureSet], Extraction]:
    def outcome(clip_id: str, feature_set: FeatureSet) -> Extraction:
        kind = (int(clip_id[:8], 16) + number + len(feature_set.extractor)) % 3
        return (ok(clip_id, feature_set), Extraction.missing("no_face"), Extraction.failed("Error", "why"))[kind]

    return outcome


@dataclass
class _Expected:
    live: dict[str, dict[str, Any]] = field(default_factory=dict)
    clips: list[dict[str, Any]] = field(default_factory=list)
    labels: list[dict[str, Any]] = field(default_factory=list)
    dropped_labels: set[tuple[str, str]] = field(default_factory=set)
    mended: set[str] = field(default_factory=set)
    new: int = 0
    changed: int = 0
    gone: int = 0
    wants: dict[str, set[str]] = field(default_factory=dict)
    up_to_date: dict[str, int] = field(default_factory=dict)
    known_missing: dict[str, int] = field(default_factory=dict)
    retried: int = 0
    given_up: int = 0


def _row_by_row(store: Store, listing: CorpusListing) -> _Expected:
    found = _Expected()
    known = {
        row["clip_id"]: row for row in store.table(CLIPS).read().drop_columns(["updated_at", "run_id"]).to_pylist()
    }
    for clip in listing.clips:
        row = _catalogue_row(listing, clip, known)
        found.live[clip.clip_id] = row
        before = known.get(clip.clip_id)
        found.new += before is None
        found.changed += before is not None and any(
            before[name] != row[name] for name in ("media_hash", "text_hash", "state")
        )
        if before != row:
            found.clips.append(row)
    gone = [row for key, row in known.items() if key not in found.live and row["state"] == "live"]
    found.clips += [row | {"state": "gone"} for row in gone]
    found.gone = len(gone)
    _labels(store, listing, found)
    failures = store.table(FAILURES).read().to_pylist()
    found.mended = {row["clip_id"] for row in failures if row["clip_id"] and row["clip_id"] not in found.live}
    for feature_set in FEATURE_SETS.values():
        _stale(store, feature_set, failures, found)
    return found


def _catalogue_row(listing: CorpusListing, clip: Any, known: dict[str, dict[str, Any]]) -> dict[str, Any]:
    source = listing.sources[clip.path]
    stamp = (source.path, source.size, source.mtime_ns)
    prints = [
        row["fingerprint"]
        for row in known.values()
        if (row["path"], row["media_size"], row["media_mtime_ns"]) == stamp and row["fingerprint"]
    ]
    content = prints[0] if prints else fingerprint(listing.root, source)
    return {name: getattr(clip, name) for name in clip.__slots__} | {
        "media_size": source.size,
        "media_mtime_ns": source.mtime_ns,
        "fingerprint": content,
        "media_hash": media_hash(content, clip.start_ms, clip.end_ms),
        "text_hash": text_hash(clip.text),
        "state": "live",
    }


def _labels(store: Store, listing: CorpusListing, found: _Expected) -> None:
    before = {(row["clip_id"], row["name"]): row for row in store.table(LABELS).read().to_pylist()}
    for label in listing.labels:
        row = {
            "clip_id": label.clip_id,
            "name": label.name,
            "corpus_id": "corpus",
            "source_id": found.live[label.clip_id]["source_id"],
            "value": label.value,
            "category": label.category,
        }
        if before.pop((label.clip_id, label.name), None) != row:
            found.labels.append(row)
    found.dropped_labels = {key for key in before if key[0] in found.live}


def _stale(store: Store, feature_set: FeatureSet, failures: list[dict[str, Any]], found: _Expected) -> None:
    name = "text_hash" if feature_set.modality is Modality.TEXT else "media_hash"
    inputs = {clip_id: row[name] for clip_id, row in found.live.items()}
    rows = store.table(feature_spec(feature_set)).read(["clip_id", "input_hash", "status"]).to_pylist()
    done = {row["clip_id"]: row["status"] for row in rows if inputs.get(row["clip_id"]) == row["input_hash"]}
    attempts = {
        row["clip_id"]: row["attempts"]
        for row in failures
        if row["config_hash"] == feature_set.config_hash and inputs.get(row["clip_id"]) == row["input_hash"]
    }
    hopeless = {clip_id for clip_id, count in attempts.items() if count >= MAX_ATTEMPTS}
    stale = set(inputs) - set(done) - hopeless
    found.up_to_date[feature_set.table] = len(done)
    found.known_missing[feature_set.table] = sum(status == "missing" for status in done.values())
    found.given_up += len(hopeless)
    found.retried += len(stale & attempts.keys())
    for clip_id in stale:
        found.wants.setdefault(clip_id, set()).add(feature_set.table)


def _assert_same(planned: RefreshPlan, wanted: _Expected) -> None:
    changes = planned.changes
    assert _rows(changes.live) == _rows(pa.Table.from_pylist(list(wanted.live.values()), schema=changes.live.schema))
    assert _rows(changes.clips) == _rows(pa.Table.from_pylist(wanted.clips, schema=changes.clips.schema))
    assert _rows(changes.labels) == _rows(pa.Table.from_pylist(wanted.labels, schema=LABELS.schema))
    dropped = changes.dropped_labels.to_pylist() if changes.dropped_labels is not None else []
    assert {(row["clip_id"], row["name"]) for row in dropped} == wanted.dropped_labels
    mended = changes.mended.to_pylist() if changes.mended is not None else []
    assert {row["clip_id"] for row in mended if row["clip_id"]} == wanted.mended
    for name in ("new", "changed", "gone"):
        assert getattr(changes, name) == getattr(wanted, name), name
    for name in ("up_to_date", "known_missing", "retried", "given_up"):
        assert getattr(planned, name) == getattr(wanted, name), name
    asked = {clip.clip_id: set(clip.wants) for shard in planned.shards for clip in shard.clips}
    assert asked == wanted.wants
    assert sum(len(shard.clips) for shard in planned.shards) == len(wanted.wants)


def _rows(table: pa.Table) -> list[str]:
    return sorted(repr(sorted(row.items())) for row in table.to_pylist())
