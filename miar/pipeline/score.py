"""Score a corpus with a trained model: what was not yet scored, or was scored from other input.

A row of ``scores`` is up to date when it carries the hash of exactly the feature rows that the model would read now.
"""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from miar.data.current import INPUTS, input_column, stale
from miar.errors import UserError
from miar.hashing import stable_key
from miar.pipeline.runs import staging_folder
from miar.pipeline.trained import load_model, model_id, snapshot_to_score
from storage import SCORES, KeyedTable, Snapshot, Store
from storage.arrow import pc

if TYPE_CHECKING:
    from miar.data.reading import SnapshotReader

CLIPS_PER_CHUNK = 2_000
"""Most clips that are held in memory, and committed, at once."""


def plan_scoring(
    store: Store,
    model: str,
    *,
    run_id: str,
    snapshot: str | None = None,
    corpus_id: str | None = None,
) -> dict[str, Any]:
    """Find the clips that have no current score, and write them as chunks into the run's staging folder.

    Chunks follow the order of the feature files and are bounded in clips and in values, so that a run reads each row
    once and holds no more of them than one chunk has.

    Returns:
        ``folder``, ``chunks`` (their number), ``snapshot_id``, ``model_id``, ``clips``, ``to_score``, ``up_to_date``.

    Raises:
        UserError: no such model or snapshot.
        FeatureMismatchError: the snapshot holds none of the feature sets that the model was trained on.
    """
    from miar.data.reading import SnapshotReader

    loaded = load_model(model)
    pinned = snapshot_to_score(store, loaded, snapshot)
    tables = loaded.feature_tables
    identity = model_id(loaded)
    inputs = _input_hashes(pinned, tables, corpus_id)
    done = _scored(store, identity)
    reader = SnapshotReader(pinned, feature_sets=tables)
    due = [clip_id for clip_id, input_hash in inputs.items() if done.get(clip_id) != input_hash]
    parts = list(reader.parts(reader.storage_order(reader.positions(due)), CLIPS_PER_CHUNK))
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
    for number, positions in enumerate(parts):
        chunk = reader.clips["clip_id"].take(pa.array(positions)).to_pylist()
        content = {clip_id: inputs[clip_id] for clip_id in chunk}
        (folder / f"chunk-{number:06d}.json").write_text(json.dumps(content), encoding="ascii")
    return {
        "folder": str(folder),
        "chunks": len(parts),
        "snapshot_id": pinned.id,
        "model_id": identity,
        "clips": len(inputs),
        "to_score": len(due),
        "up_to_date": len(inputs) - len(due),
    }


def score_chunk(folder: Path, number: int) -> dict[str, int]:
    """Score one chunk of a planned run and commit its rows; doing it twice changes nothing.

    Returns:
        Clips by what was available (``text+audio+face``, ``text+face`` ...), ``not_scored`` for those with nothing.
    """
    from miar.scoring.scorer import score_dataset

    text = (folder / "job.json").read_text(encoding="utf-8")
    inputs = json.loads((folder / f"chunk-{number:06d}.json").read_text(encoding="ascii"))
    run = _run(text)
    positions = run.reader.positions(list(inputs))
    scored = score_dataset(run.model, run.reader.read(positions))
    rows = _score_rows(scored, run.reader.clips.take(pa.array(positions)), json.loads(text), inputs)
    run.scores.merge(rows)
    outcomes = zip(rows["status"].to_pylist(), rows["available"].to_pylist(), strict=True)
    return dict(Counter(available if status == "scored" else "not_scored" for status, available in outcomes))


@dataclass(frozen=True)
class _Run:
    """What all chunks of a run share in one process: each would else scan every key again."""

    model: Any
    reader: "SnapshotReader"
    scores: KeyedTable


@lru_cache(maxsize=1)
def _run(job_text: str) -> _Run:
    from miar.data.reading import SnapshotReader

    job = json.loads(job_text)
    store = Store.open(job["store"])
    reader = SnapshotReader(store.snapshots.open(job["snapshot_id"]), feature_sets=job["tables"])
    loaded = load_model(job["model"])
    if model_id(loaded) != job["model_id"]:
        raise UserError(f"the model in {job['model']} was replaced while it was scoring: score again")
    return _Run(loaded, reader, store.table(SCORES))


def _input_hashes(snapshot: Snapshot, tables: Mapping[str, str], corpus_id: str | None) -> dict[str, str]:
    """clip_id -> hash over the input of every feature row that the model reads, for the live clips.

    A row that was made from something else than what the clip is now is not read (:mod:`miar.data.current`).
    """
    from miar.data.feature_rows import table_of

    live = pc.field("state") == "live"
    if corpus_id is not None:
        live &= pc.field("corpus_id") == corpus_id
    clips = snapshot.read("clips", columns=["clip_id", "split", *INPUTS], filter=live)
    parts = [[split or ""] for split in clips["split"].to_pylist()]
    descriptors = {table_of(row): row for row in snapshot.feature_sets}
    for table in sorted(set(tables.values()) & set(snapshot.tables())):
        rows = snapshot.read(table, columns=["clip_id", "input_hash"])
        at = pc.fill_null(pc.index_in(rows["clip_id"], value_set=clips["clip_id"]), -1).to_numpy()
        made_from = input_column(descriptors[table])
        if made_from is not None:
            at = np.where(stale(rows["input_hash"], clips[made_from], at), -1, at)
        for position, input_hash in zip(at.tolist(), rows["input_hash"].to_pylist(), strict=True):
            if position >= 0:
                parts[position].append(f"{table}={input_hash}")
    return {clip_id: stable_key(hashes) for clip_id, hashes in zip(clips["clip_id"].to_pylist(), parts, strict=True)}


def _scored(store: Store, identity: str) -> dict[str, str]:
    rows = store.table(SCORES).read(columns=["clip_id", "input_hash"], filter=pc.field("model_id") == identity)
    return dict(zip(*(column.to_pylist() for column in rows.columns), strict=True))


def _score_rows(scored: pa.Table, clips: pa.RecordBatch, job: Mapping[str, Any], inputs: Mapping[str, str]) -> pa.Table:
    """The scorer's columns with everything that says whose score it is and where it comes from.

    Args:
        clips: a row for each of ``scored``, in the same order.
    """
    stamp = {
        "model_id": job["model_id"],
        "label": job["label"],
        "snapshot_id": job["snapshot_id"],
        "run_id": job["run_id"],
        "scored_at": datetime.now(UTC),
    }
    columns = {name: scored[name] for name in scored.schema.names}
    columns |= {name: clips[name] for name in ("corpus_id", "source_id", "video_id", "segment", "split")}
    columns |= {
        name: pa.repeat(pa.scalar(value, SCORES.schema.field(name).type), len(clips)) for name, value in stamp.items()
    }
    columns["input_hash"] = pa.array([inputs[clip_id] for clip_id in scored["clip_id"].to_pylist()])
    return pa.table([columns[name] for name in SCORES.schema.names], schema=SCORES.schema)
