"""What a store holds, and what happened to each thing that went wrong."""

from collections import Counter
from typing import Any

import pyarrow as pa

from miar.pipeline.rows import described_spec
from miar.pipeline.runs import latest_runs
from storage import CLIPS, FAILURES, FEATURE_SETS, SCORES, Store
from storage.arrow import pc


def store_status(store: Store, *, failures: int = 50) -> dict[str, Any]:
    """Counts of live clips per corpus, feature set, model; at most ``failures`` standing failures; the last runs."""
    live = store.table(CLIPS).read(["clip_id", "corpus_id", "split"], pc.field("state") == "live")
    ids = live["clip_id"]
    standing = store.table(FAILURES).read().sort_by([("failed_at", "descending")])
    return {
        "store": store.uri,
        "id": store.id,
        "corpora": _corpora(live.to_pylist()),
        "features": [_feature_set(store, row, ids) for row in store.table(FEATURE_SETS).read().to_pylist()],
        "scores": _scores(store, ids),
        "failed": standing.num_rows,
        "failures": [
            {
                "file": row["path"],
                "clip": row["source_id"] or row["clip_id"] or None,
                "step": row["stage"],
                "what": f"{row['error']}: {row['message']}",
                "attempts": row["attempts"],
            }
            for row in standing.slice(0, failures).to_pylist()
        ],
        "snapshots": [{"id": one.id, "name": one.name, "created_at": one.created_at} for one in store.snapshots.list()],
        "runs": [
            {
                "run": row["run_id"],
                "corpus": row["corpus_id"],
                "state": row["state"],
                "started": row["started_at"],
                "message": row["message"],
            }
            for row in latest_runs(store)[:10]
        ],
    }


def _corpora(live: list[dict[str, Any]]) -> list[dict[str, Any]]:
    by_corpus = Counter((row["corpus_id"], row["split"] or "no split") for row in live)
    return [
        {
            "corpus": corpus,
            "clips": sum(count for (name, _), count in by_corpus.items() if name == corpus),
            "splits": {split: count for (name, split), count in sorted(by_corpus.items()) if name == corpus},
        }
        for corpus in sorted({row["corpus_id"] for row in live})
    ]


def _feature_set(store: Store, descriptor: dict[str, Any], live: pa.ChunkedArray) -> dict[str, Any]:
    spec = described_spec(descriptor)
    rows = _of(live, store.table(spec).read(["clip_id", "status", "reason"]))
    outcomes = Counter(row["status"] if row["reason"] is None else f"missing: {row['reason']}" for row in rows)
    return {
        "table": spec.name,
        "modality": descriptor["modality"],
        "columns": len(descriptor["columns"]),
        "clips": dict(sorted(outcomes.items())),
    }


def _of(live: pa.ChunkedArray, rows: pa.Table) -> list[dict[str, Any]]:
    """The rows of clips that are still there."""
    return rows.filter(pc.is_in(rows["clip_id"], value_set=live)).drop_columns("clip_id").to_pylist()


def _scores(store: Store, live: pa.ChunkedArray) -> list[dict[str, Any]]:
    rows = _of(live, store.table(SCORES).read(["clip_id", "model_id", "label", "status", "available"]))
    counts = Counter((row["model_id"], row["label"]) for row in rows)
    return [
        {
            "model": model,
            "label": label,
            "clips": count,
            "outcomes": dict(
                Counter(
                    row["available"] if row["status"] == "scored" else row["status"]
                    for row in rows
                    if row["model_id"] == model
                )
            ),
        }
        for (model, label), count in sorted(counts.items())
    ]
