"""Flow ``score-corpus``: score every clip that has no current score."""

import shutil
from collections import Counter
from pathlib import Path
from typing import Any

from prefect import flow
from prefect.futures import as_completed

from flows.artifacts import metrics_table, report_link
from flows.refresh_features import refresh_features
from flows.runners import threads
from miar.pipeline.progress import advance
from miar.pipeline.runs import new_run_id, recorded_run
from miar.pipeline.score import plan_scoring
from storage import Store
from tasks.score import score_chunk


# Chunks are scored one after another: one is enough to fill a GPU, or the cores through torch's own threads.
@flow(name="score-corpus", task_runner=threads(1), persist_result=False)
def score_corpus(
    store: str,
    model: str,
    corpus: str | None = None,
    config: dict[str, Any] | str | None = None,
    snapshot: str | None = None,
    report: str | None = None,
) -> dict[str, Any]:
    """Score the clips that are new or changed since the last run with this model.

    Args:
        store: Folder of the feature store.
        model: Folder of a trained model, or a hub id.
        corpus: Folder or URL of a corpus: its features are refreshed first and its clips alone are scored; empty:
            every clip in the store.
        config: Pipeline configuration for that refresh, as a tree or the path of a YAML file; empty: the defaults.
        snapshot: Id or name of a snapshot to score; empty: one is taken now.
        report: Where to write the report; empty: none is written.
    """
    corpus_id = None
    if corpus is not None:
        (refreshed,) = refresh_features(store, corpus, config)
        corpus_id = refreshed["corpus_id"]
    target = Store.open(store)
    run_id = new_run_id("score")
    run = {"model": model, "corpus": corpus, "snapshot": snapshot}
    with (
        target.lock(f"score-{corpus_id or 'all'}"),
        recorded_run(target, "score", run_id=run_id, corpus_id=corpus_id, config=run) as result,
    ):
        plan = plan_scoring(target, model, run_id=run_id, snapshot=snapshot, corpus_id=corpus_id)
        result.update({name: plan[name] for name in ("snapshot_id", "model_id", "clips", "up_to_date")})
        result["outcomes"] = _score(plan)
    metrics_table(
        "score",
        f"Clips scored by {result['model_id']}",
        [{"available": name, "clips": count} for name, count in result["outcomes"].items()],
    )
    if report is not None:
        from miar.report import write_report

        report_link(str(write_report(target, Path(report), model_id=result["model_id"]).resolve()))
    return dict(result)


def _score(plan: dict[str, Any]) -> dict[str, int]:
    outcomes: Counter[str] = Counter()
    try:
        futures = [score_chunk.submit(plan["folder"], number) for number in range(plan["chunks"])]
        for future in as_completed(futures):
            outcomes.update(future.result())
            advance("scores", outcomes.total(), plan["to_score"])
    finally:
        shutil.rmtree(plan["folder"], ignore_errors=True)
    return dict(outcomes)
