"""Flow ``corpus-to-scores``: from raw video to a trained model, scores and a report."""

from pathlib import Path
from typing import Any

from prefect import flow

from flows.evaluate import evaluate
from flows.refresh_features import refresh_features
from flows.score_corpus import score_corpus
from flows.train import train
from miar.features.contract import Modality
from miar.pipeline.selection import trainable
from storage import Store


@flow(name="corpus-to-scores", persist_result=False)
def corpus_to_scores(
    corpus: str,
    store: str,
    label: str,
    out: str,
    report: str | None = None,
    config: dict[str, Any] | str | None = None,
    only: list[Modality] | None = None,
    model: dict[str, Any] | None = None,
    training: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Refresh the features of a corpus, train on them, evaluate, score every clip, write the report.

    Args:
        corpus: Folder or object-store URL of a labelled corpus.
        store: Folder of the feature store; made if it is not there.
        label: Name of the label to predict.
        out: Folder for the model.
        report: Where to write the report; empty: none is written.
        config: Pipeline configuration, as a tree or as the path of a YAML file; empty: the defaults.
        only: Modalities to refresh and to train on (text, audio, face); empty: all that are configured.
        model: Fields of the model's configuration to change from their defaults.
        training: Fields of the training configuration to change from their defaults.
    """
    (refreshed,) = refresh_features(store, corpus, config, only)
    snapshot = Store.open(store).snapshots.take()
    # Not the newest of each modality: the store may hold others than this configuration asks for.
    features = trainable(snapshot, list(refreshed["feature_sets"].values()))
    trained = train(store, label, out, snapshot=snapshot.id, features=features, model=model, training=training)
    evaluated = evaluate(store, out, snapshot=snapshot.id)
    scored = score_corpus(store, out, snapshot=snapshot.id, report=None if report is None else str(Path(report)))
    return {"refresh": refreshed, "train": trained, "evaluate": evaluated, "score": scored}
