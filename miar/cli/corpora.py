"""Commands that make things out of nothing: synth and demo."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from miar.cli.console import counted, err, print_json, progress, say, table, warn
from miar.cli.console import out as console
from miar.cli.engine import run_flow
from miar.cli.options import JsonOption


def synth(
    out: Annotated[Path, typer.Argument(help="Folder for the corpus.")],
    clips: Annotated[int, typer.Option(min=1, help="How many clips to make.")] = 240,
    seed: Annotated[int, typer.Option(help="The same seed gives the same corpus.")] = 0,
    workers: Annotated[int | None, typer.Option(min=1, help="Worker processes; default: one per core.")] = None,
    json: JsonOption = False,
) -> None:
    """Make a corpus of talking-face videos with labels and transcripts, whose truth is known.

    [dim]Example:[/]  miar synth data/corpus --clips 240 --seed 0
    """
    from miar.pipeline.progress import advance
    from miar.synth import make_corpus

    with progress():
        summary = make_corpus(
            out,
            clips=clips,
            seed=seed,
            workers=workers,
            on_progress=lambda done, total: advance("clips made", done, total),
        )
    if json:
        print_json(asdict(summary))
        return
    say(f"{summary.root}: {summary.clips} clips of {summary.videos} videos by {summary.speakers} speakers")
    reached = {name: value for name, value in summary.correlations["all"].items() if value is not None}
    table("What an oracle that reads the true signals reaches", [{"correlation": "r", **reached}])


# The action units by the table, whatever weights there are: the documented figures are the table's.
_DEMO_CONFIG = {
    "extractors": [
        {"extractor": "text"},
        {"extractor": "opensmile"},
        {"extractor": "mediapipe", "action_units": "table"},
    ]
}


def demo(
    clips: Annotated[int, typer.Option(min=60, help="How many clips to make.")] = 240,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the corpus, store, model and report.")] = Path(
        "demo"
    ),
    seed: Annotated[int, typer.Option(help="Seed of the corpus and of the training.")] = 0,
    json: JsonOption = False,
) -> None:
    """From raw video to scores and a report: make a corpus, extract, train, evaluate, score.

    Run again, it makes no clip and extracts no feature twice; it trains, evaluates and scores anew.

    [dim]Example:[/]  miar demo --clips 240 --out demo
    """
    from miar.cli.features import show_refresh
    from miar.cli.models import show_scores
    from miar.pipeline.progress import advance
    from miar.synth import make_corpus

    corpus, store, model, report = out / "corpus", out / "store", out / "model", out / "report.html"
    headings = err if json else console
    _step(headings, "1  a corpus of talking faces, its truth known", corpus)
    with progress():
        make_corpus(
            corpus,
            clips=clips,
            seed=seed,
            on_progress=lambda done, total: advance("clips made", done, total),
        )
    _step(headings, "2  features, a model, scores (flow corpus-to-scores)", store)

    result = run_flow(
        "corpus_to_scores",
        corpus=str(corpus),
        store=str(store),
        label="sentiment",
        out=str(model),
        report=str(report),
        config=_DEMO_CONFIG,
        training={"seed": seed},
    )
    if json:
        print_json(result | {"store": str(store.resolve()), "report": str(report.resolve())})
        return
    show_refresh(result["refresh"])
    show_scores(result["score"])
    _show_quality(result["evaluate"])
    console.print()
    for what, path in (("store", store), ("model", model), ("report", report)):
        say(f"{what:7}{path.resolve()}")
    if result["refresh"]["unavailable"]:
        warn("a modality was left out: run the command above, then the demo again")


def _step(headings: Console, what: str, where: Path) -> None:
    headings.print(f"[bold]{what}[/]  [dim]{where}[/]")


def _show_quality(evaluation: dict[str, Any]) -> None:
    rows = [{"system": "MIAR", "r": evaluation["overall"]["corr"], "MAE": evaluation["overall"]["mae"]}]
    for name, metrics in {**evaluation["subsets"], **evaluation.get("baselines", {})}.items():
        if name.count("+") < 2 or name.startswith("ridge"):
            label = name if " " in name else f"MIAR from {name}"
            rows.append({"system": label, "r": metrics["corr"], "MAE": metrics["mae"]})
    table(f"On the {evaluation['split']} speakers ({counted(evaluation['overall']['n'], 'clip')})", rows)
