"""Evaluate a trained model on a split it did not train on, beside the strongest simple baselines."""

from collections.abc import Mapping
from typing import Any

from miar.errors import UserError
from miar.pipeline.progress import advance
from miar.pipeline.runs import new_run_id, recorded_run
from miar.pipeline.trained import load_model, model_id, snapshot_to_evaluate
from storage import Store


def evaluate_model(
    store: Store, model: str, *, split: str = "test", snapshot: str | None = None, baselines: bool = True
) -> dict[str, Any]:
    """Metrics of ``model`` on ``split``: overall, under each subset of modalities, and of ridge on the same clips.

    A baseline that cannot be fitted is left out, with a line under ``warnings``: the model's figures stand without it.

    Args:
        snapshot: id or name; ``None``: the snapshot that the model was trained on.
        baselines: fit ridge on the training split, for each modality alone and for all of them.

    Raises:
        UserError: no such model or snapshot; no labelled clip in the split; clips that the model was trained on.
    """
    from miar.data.from_store import load_dataset
    from miar.evaluation.protocols import evaluate

    loaded = load_model(model)
    pinned = snapshot_to_evaluate(store, loaded, snapshot, split)
    tables = loaded.feature_tables
    config = {"model": model, "split": split, "snapshot": pinned.id, "baselines": baselines}
    with recorded_run(store, "evaluate", run_id=new_run_id("evaluate"), corpus_id=None, config=config) as result:
        dataset = load_dataset(pinned, label=loaded.target.label, feature_sets=tables, labelled_only=True)
        chosen = dataset.where_split(split)
        if not len(chosen):
            raise UserError(
                f"snapshot {pinned.id} has no clip of split '{split}' with the label '{loaded.target.label}'"
            )
        scale = label_range(dataset.where_split("train").targets)
        result.update(evaluate(loaded, chosen, label_range=scale).to_json())
        result.update(model_id=model_id(loaded), split=split, snapshot_id=pinned.id, label=loaded.target.label)
        advance("evaluations", 1, 2 if baselines else 1)
        if baselines and not chosen.classes:
            # The same clips for all: those with nothing at all get no score, so no baseline is judged by them either.
            scored = chosen.subset(chosen.scorable)
            result["baselines"], result["warnings"] = _baselines(dataset.where_split("train"), scored, scale)
            advance("evaluations", 2, 2)
    return dict(result)


def label_range(targets: Any) -> tuple[float, float] | None:
    """-3..3 where the labels use that scale (MOSI's and MOSEI's): Acc-7, Acc-5 and Acc-2 are defined on it alone."""
    low, high = float(targets.min(initial=0.0)), float(targets.max(initial=0.0))
    return (-3.0, 3.0) if -3 <= low < -1 and 1 < high <= 3 else None


def _baselines(
    train: Any, test: Any, scale: tuple[float, float] | None
) -> tuple[dict[str, Mapping[str, float | None]], list[str]]:
    """Name -> metrics on ``test``, and a line for each reason why some could not be fitted."""
    from miar.evaluation.baselines import late_fusion_baseline, ridge_baseline
    from miar.evaluation.metrics import regression_metrics

    modalities = list(train.modalities)
    systems = {f"ridge {name}": (ridge_baseline, [name]) for name in modalities}
    if len(modalities) > 1:
        systems[f"ridge {'+'.join(modalities)}"] = (ridge_baseline, modalities)
        systems["late fusion of ridges"] = (late_fusion_baseline, modalities)
    measured: dict[str, Mapping[str, float | None]] = {}
    left_out: dict[str, list[str]] = {}
    for name, (predict, parts) in systems.items():
        try:
            metrics = regression_metrics(test.targets, predict(train, test, parts), label_range=scale)
            measured[name] = {"n": metrics.n, **metrics}
        except UserError as error:
            left_out.setdefault(str(error), []).append(name)
    return measured, [f"left out {', '.join(names)}: {reason}" for reason, names in left_out.items()]
