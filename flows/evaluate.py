"""Flow ``evaluate``: measure a model on clips it was not trained on."""

from typing import Any

from prefect import flow

from flows.artifacts import metrics_table
from tasks.evaluate import evaluate_model


@flow(name="evaluate", persist_result=False)
def evaluate(
    store: str, model: str, split: str = "test", snapshot: str | None = None, baselines: bool = True
) -> dict[str, Any]:
    """Metrics overall, under each subset of modalities, and of simple baselines on the same clips.

    Args:
        store: Folder of the feature store.
        model: Folder of a trained model, or a hub id.
        split: The split to measure on.
        snapshot: Id or name of a snapshot; empty: the one that the model was trained on.
        baselines: Whether to fit ridge regression beside it.
    """
    result = evaluate_model(store, model, split=split, snapshot=snapshot, baselines=baselines)
    rows = [{"system": result["model_id"], **result["overall"]}]
    rows += [{"system": f"{name} alone", **metrics} for name, metrics in result["subsets"].items()]
    rows += [{"system": name, **metrics} for name, metrics in result.get("baselines", {}).items()]
    metrics_table("evaluate", f"{result['model_id']} on {split}", rows)
    return result
