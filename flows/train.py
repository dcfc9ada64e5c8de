"""Flow ``train``: train a model on a snapshot of the feature store."""

from typing import Any

from prefect import flow

from flows.artifacts import metrics_table
from tasks.train import train_model


@flow(name="train", persist_result=False)
def train(
    store: str,
    label: str,
    out: str,
    snapshot: str | None = None,
    features: list[str] | None = None,
    system: str = "miar",
    model: dict[str, Any] | None = None,
    training: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Train on the snapshot's training clips, stop on its validation clips, save the model.

    Args:
        store: Folder of the feature store.
        label: Name of the label to predict.
        out: Folder for the model; a model that is there is replaced.
        snapshot: Id or name of a snapshot; empty: one is taken now.
        features: Modalities, extractors or feature sets to use; empty: the newest of each modality.
        system: Which system to train: miar, mgcma or mcur.
        model: Fields of the system's configuration to change from their defaults.
        training: Fields of the training configuration to change from their defaults.
    """
    result = train_model(
        store,
        out,
        label=label,
        system=system,
        snapshot=snapshot,
        features=features,
        model=model,
        training=training,
    )
    metrics_table("train", f"{result['model_id']}: validation metrics", [{"split": "valid", **result["metrics"]}])
    return result
