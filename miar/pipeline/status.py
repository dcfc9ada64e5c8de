"""What a store holds, and what happened to each thing that went wrong."""

from collections import Counter
from typing import Any

from miar.pipeline.rows import described_spec
from miar.pipeline.runs import latest_runs
from storage import CLIPS, FAILURES, FEATURE_SETS, SCORES, Store
from storage.arrow import pc


def store_status(store: Store, *, failures: int = 50) -> dict[str, Any]:
    """Counts per corpus, feature set, model; the standing failures (at most ``failures`` of them); the last runs."""
    clips = store.table(CLIPS).read(columns=["clip_id", "corpus_id", "state", "split"])
    live = clips.filter(pc.equal(clips["state"], "live"))
    standing = store.table(FAILURES).read().sort_by([("failed_at", "descending")])
    return {
        "store": store.uri,
        "id": store.id,
        "corpora": _corpora(live.to_pylist()),
        "features": [_feature_set(store, row) for row in store.table(FEATURE_SETS).read().to_pylist()],
        "scores": _scores(store),
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


def _feature_set(store: Store, descriptor: dict[str, Any]) -> dict[str, Any]:
    spec = described_spec(descriptor)
    rows = store.table(spec).read(columns=["status", "reason"]).to_pylist()
    outcomes = Counter(row["status"] if row["reason"] is None else f"missing: {row['reason']}" for row in rows)
    return {
        "table": spec.name,
        "modality": descriptor["modality"],
        "columns": len(descriptor["columns"]),
        "clips": dict(sorted(outcomes.items())),
    }


def _scores(store: Store) -> list[dict[str, Any]]:
    rows = store.table(SCORES).read(columns=["model_id", "label", "status", "available"]).to_pylist()
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
