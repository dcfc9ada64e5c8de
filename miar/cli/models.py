"""Commands about models: train, evaluate, score."""

from pathlib import Path
from typing import Annotated, Any

import typer

from miar.cli.console import counted, print_json, say, table, warn
from miar.cli.engine import run_flow
from miar.cli.options import (
    ConfigOption,
    JsonOption,
    SnapshotOption,
    StoreArgument,
    StoreOption,
    parse_settings,
    split_list,
)

_SHOWN = ("n", "mae", "corr", "ccc", "acc2_non0", "wa", "ua", "f1")


def train(
    store: StoreArgument,
    labels: Annotated[str, typer.Option("--labels", "-l", help="Name of the label to predict.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the model.")],
    snapshot: SnapshotOption = None,
    system: Annotated[str, typer.Option(help="Which system to train: miar, mgcma or mcur.")] = "miar",
    features: Annotated[
        list[str] | None,
        typer.Option(help="Modalities, extractors or feature sets to use (repeat, or separate by commas)."),
    ] = None,
    model: Annotated[
        list[str] | None, typer.Option("--model", help="FIELD=VALUE of the model's configuration.")
    ] = None,
    training: Annotated[
        list[str] | None, typer.Option("--training", help="FIELD=VALUE of the training configuration.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Train a model on a snapshot of the store.

    [dim]Example:[/]  miar train data/store --labels sentiment --out data/model --training seed=1
    """
    from miar.pipeline.train import plan_training
    from storage import Store

    target = Store.open(store)
    asked: dict[str, Any] = {
        "label": labels,
        "features": split_list(features),
        "system": system,
        "model": parse_settings(model or (), "--model"),
        "training": parse_settings(training or (), "--training"),
    }
    # A mistake is found out before Prefect is started for it.
    plan = plan_training(target, out=out, snapshot=snapshot, **asked)
    result = run_flow("train", store=target.uri, out=str(out), snapshot=plan.snapshot.id, **asked)
    if json:
        print_json(result)
        return
    table(f"{result['model_id']}: best epoch, on the validation clips", [_validation(result["metrics"])])
    say(f"model: {result['model']}  (snapshot {result['snapshot_id']})")


def evaluate(
    model: Annotated[str, typer.Argument(help="Folder of a trained model, or a hub id.")],
    store: StoreOption,
    split: Annotated[str, typer.Option(help="The split to measure on.")] = "test",
    snapshot: SnapshotOption = None,
    baselines: Annotated[bool, typer.Option(help="Fit ridge regression beside it.")] = True,
    json: JsonOption = False,
) -> None:
    """Measure a model on clips it was not trained on: overall, by subset of modalities, beside simple baselines.

    [dim]Example:[/]  miar evaluate data/model --store data/store --split test
    """
    from miar.pipeline.trained import load_model, snapshot_to_evaluate
    from storage import Store

    target = Store.open(store)
    # A mistake is found out before Prefect is started for it.
    snapshot = snapshot_to_evaluate(target, load_model(model), snapshot, split).id
    result = run_flow("evaluate", store=target.uri, model=model, split=split, snapshot=snapshot, baselines=baselines)
    if json:
        print_json(result)
        return
    rows = [_shown(result["model_id"], result["overall"])]
    rows += [_shown(f"  from {name}", metrics) for name, metrics in result["subsets"].items()]
    rows += [_shown(name, metrics) for name, metrics in result.get("baselines", {}).items()]
    table(f"on {split}", rows)
    for warning in result.get("warnings", ()):
        warn(warning)


def score(
    store: StoreArgument,
    model: Annotated[str, typer.Option("--model", "-m", help="Folder of a trained model, or a hub id.")],
    corpus: Annotated[str | None, typer.Option(help="Refresh this corpus first, and score its clips alone.")] = None,
    config: ConfigOption = None,
    snapshot: SnapshotOption = None,
    json: JsonOption = False,
) -> None:
    """Score every clip that has no current score with this model.

    [dim]Example:[/]  miar score data/store --model data/model
    """
    from miar.config import load_config
    from miar.errors import ConfigError
    from miar.pipeline.trained import load_model, snapshot_to_score
    from storage import Store

    if config is not None and corpus is None:
        raise ConfigError("--config is for the refresh of a corpus before it is scored: give --corpus as well")
    load_config(config)
    loaded = load_model(model)
    if corpus is None:
        snapshot_to_score(Store.open(store), loaded, snapshot)
    result = run_flow(
        "score_corpus",
        store=store,
        model=model,
        corpus=corpus,
        config=None if config is None else str(config),
        snapshot=snapshot,
    )
    if json:
        print_json(result)
    else:
        show_scores(result)


def show_scores(result: dict[str, Any]) -> None:
    """Say how many clips were scored from what, and warn of those that had nothing to score."""
    outcomes = dict(result["outcomes"])
    nothing = outcomes.pop("not_scored", 0)
    say(f"{result['model_id']}: {result['up_to_date']} of {result['clips']} clips had a current score already")
    table("", [{"scored from": name, "clips": count} for name, count in sorted(outcomes.items())])
    if nothing:
        warn(f"not scored, since they have no modality at all (nothing_to_score): {counted(nothing, 'clip')}")


def _validation(metrics: dict[str, Any]) -> dict[str, Any]:
    """The figures, and of the counts those that say something."""
    shown = {name: value for name, value in metrics.items() if not name.endswith(("_empty", "_unlabelled")) or value}
    return {name.removeprefix("valid_"): value for name, value in shown.items()}


def _shown(system: str, metrics: dict[str, Any]) -> dict[str, Any]:
    return {"system": system, **{name: metrics.get(name) for name in _SHOWN if name in metrics}}
