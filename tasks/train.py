"""Train a model, as one task run."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE

from miar.pipeline import train
from storage import Store
from tasks.gpu import gpu


@task(name="train-model", cache_policy=NO_CACHE, persist_result=False)
def train_model(
    store: str,
    out: str,
    *,
    label: str,
    system: str,
    snapshot: str | None,
    features: Sequence[str] | None,
    model: Mapping[str, Any] | None,
    training: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """Train on a snapshot and save the model in ``out``; returns ids, counts and validation metrics."""
    target = Store.open(store)
    plan = train.plan_training(
        target,
        label=label,
        out=Path(out),
        snapshot=snapshot,
        features=features,
        system=system,
        model=model,
        training=training,
    )
    with gpu():
        return train.train_model(target, plan)
