"""Score a corpus with a trained model: what was not yet scored, or was scored from other input.

A row of ``scores`` is up to date when it carries the hash of exactly the feature rows that the model would read now.
"""

import json
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from miar.hashing import stable_key
from miar.pipeline.runs import staging_folder
from miar.pipeline.trained import feature_tables_of, load_model, model_id, snapshot_to_score
from storage import SCORES, Snapshot, Store

CLIPS_PER_CHUNK = 2_000
"""Clips held in memory, and committed, at once."""


def plan_scoring(
    store: Store,
    model: str,
    *,
    run_id: str,
    snapshot: str | None = None,
    corpus_id: str | None = None,
) -> dict[str, Any]:
    """Find the clips that have no current score, and write them as chunks into the run's staging folder.

    Returns:
        ``folder``, ``chunks`` (their number), ``snapshot_id``, ``model_id``, ``clips``, ``to_score``, ``up_to_date``.

    Raises:
        UserError: no such model or snapshot.
        FeatureMismatchError: the snapshot holds none of the feature sets that the model was trained on.
    """
    loaded = load_model(model)
    pinned = snapshot_to_score(store, loaded, snapshot)
    tables = feature_tables_of(loaded)
    identity = model_id(loaded)
    inputs = _input_hashes(pinned, tables, corpus_id)
    done = _scored(store, identity)
    todo = sorted(clip_id for clip_id, input_hash in inputs.items() if done.get(clip_id) != input_hash)
    folder = staging_folder(store, run_id)
    folder.mkdir(parents=True, exist_ok=True)
    job = {
        "store": store.uri,
        "run_id": run_id,
        "model": model,
        "model_id": identity,
        "label": loaded.target.label,
        "snapshot_id": pinned.id,
        "tables": tables,
    }
    (folder / "job.json").write_text(json.dumps(job), encoding="utf-8")
    chunks = [todo[start : start + CLIPS_PER_CHUNK] for start in range(0, len(todo), CLIPS_PER_CHUNK)]
    for number, chunk in enumerate(chunks):
        content = {clip_id: inputs[clip_id] for clip_id in chunk}
        (folder / f"chunk-{number:06d}.json").write_text(json.dumps(content), encoding="ascii")
    return {
        "folder": str(folder),
        "chunks": len(chunks),
        "snapshot_id": pinned.id,
        "model_id": identity,
        "clips": len(inputs),
        "to_score": len(todo),
        "up_to_date": len(inputs) - len(todo),
    }


def score_chunk(folder: Path, number: int) -> dict[str, int]:
    """Score one chunk of a planned run and commit its rows; doing it twice changes nothing.

    Returns:
        Clips by what was available (``text+audio+face``, ``text+face`` ...), ``not_scored`` for those with nothing.
    """
    from miar.data.from_store import load_dataset
    from miar.scoring.scorer import score_dataset

    job = json.loads((folder / "job.json").read_text(encoding="utf-8"))
    inputs = json.loads((folder / f"chunk-{number:06d}.json").read_text(encoding="ascii"))
    store = Store.open(job["store"])
    snapshot = store.snapshots.open(job["snapshot_id"])
    dataset = load_dataset(snapshot, label=None, feature_sets=job["tables"], clip_ids=list(inputs))
    scored = score_dataset(_model(job["model"]), dataset)
    rows = _score_rows(scored, snapshot, job, inputs)
    store.table(SCORES).merge(rows)
    outcomes = zip(rows["status"].to_pylist(), rows["available"].to_pylist(), strict=True)
    return dict(Counter(available if status == "scored" else "not_scored" for status, available in outcomes))


@lru_cache(maxsize=1)
def _model(source: str) -> Any:
    return load_model(source)


def _input_hashes(snapshot: Snapshot, tables: Mapping[str, str], corpus_id: str | None) -> dict[str, str]:
    """clip_id -> hash over the input of every feature row that the model reads, for the live clips."""
    live = pc.field("state") == "live"
    if corpus_id is not None:
        live &= pc.field("corpus_id") == corpus_id
    clips = snapshot.read("clips", columns=["clip_id", "split"], filter=live).to_pylist()
    parts: dict[str, list[str]] = {row["clip_id"]: [row["split"] or ""] for row in clips}
    for table in sorted(set(tables.values()) & set(snapshot.tables())):
        rows = snapshot.read(table, columns=["clip_id", "input_hash"])
        for clip_id, input_hash in zip(*(column.to_pylist() for column in rows.columns), strict=True):
            if clip_id in parts:
                parts[clip_id].append(f"{table}={input_hash}")
    return {clip_id: stable_key(hashes) for clip_id, hashes in parts.items()}


def _scored(store: Store, identity: str) -> dict[str, str]:
    rows = store.table(SCORES).read(columns=["clip_id", "input_hash"], filter=pc.field("model_id") == identity)
    return dict(zip(*(column.to_pylist() for column in rows.columns), strict=True))


def _score_rows(scored: pa.Table, snapshot: Snapshot, job: Mapping[str, Any], inputs: Mapping[str, str]) -> pa.Table:
    """The scorer's columns with everything that says whose score it is and where it comes from."""
    wanted = pc.field("clip_id").isin(list(inputs))
    names = ["clip_id", "corpus_id", "source_id", "video_id", "segment", "split"]
    clips = {row["clip_id"]: row for row in snapshot.read("clips", columns=names, filter=wanted).to_pylist()}
    stamp = {
        "model_id": job["model_id"],
        "label": job["label"],
        "snapshot_id": job["snapshot_id"],
        "run_id": job["run_id"],
        "scored_at": datetime.now(UTC),
    }
    rows = [
        {**row, **clips[row["clip_id"]], **stamp, "input_hash": inputs[row["clip_id"]]} for row in scored.to_pylist()
    ]
    return pa.Table.from_pylist(rows, schema=SCORES.schema)
