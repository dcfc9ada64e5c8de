"""Evaluate a model, as one task run."""

from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE

from miar.pipeline import evaluate
from storage import Store
from tasks.gpu import gpu


@task(name="evaluate-model", cache_policy=NO_CACHE, persist_result=False)
def evaluate_model(store: str, model: str, *, split: str, snapshot: str | None, baselines: bool) -> dict[str, Any]:
    """Evaluate on one split of a snapshot; returns metrics, overall and by subset of modalities."""
    with gpu():
        return evaluate.evaluate_model(Store.open(store), model, split=split, snapshot=snapshot, baselines=baselines)
