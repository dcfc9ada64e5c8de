"""Commands that look: status, report, doctor."""

from pathlib import Path
from typing import Annotated, Any

import typer

from miar.cli.console import counted, print_json, say, table, warn
from miar.cli.options import JsonOption, StoreArgument


def status(
    store: StoreArgument,
    failures: Annotated[int, typer.Option(min=0, help="How many failures to list.")] = 50,
    json: JsonOption = False,
) -> None:
    """Say what the store holds, what failed and why, and what ran last.

    [dim]Example:[/]  miar status data/store
    """
    from miar.pipeline.status import store_status
    from storage import Store

    found = store_status(Store.open(store), failures=failures)
    if json:
        print_json(found)
        return
    table("Corpora", [{**row, "splits": _counts(row["splits"])} for row in found["corpora"]])
    table("Features", [{**row, "clips": _counts(row["clips"])} for row in found["features"]])
    table("Scores", [{**row, "outcomes": _counts(row["outcomes"])} for row in found["scores"]])
    table("Snapshots", found["snapshots"])
    table("Runs", found["runs"])
    table("Failures", [{**row, "attempts": _attempts(row)} for row in found["failures"]])
    if found["failed"]:
        warn(f"{counted(found['failed'], 'failure')} on record; a refresh after the files are mended clears them")
    if not found["corpora"]:
        say("the store is empty: `miar refresh CORPUS --store ...` fills it")


def _attempts(failure: dict[str, Any]) -> str:
    """A corpus is read anew every time; what an extractor fails on is left alone after a while."""
    from miar.pipeline.plan import MAX_ATTEMPTS

    return "each time" if failure["step"] == "corpus" else f"{failure['attempts']} of {MAX_ATTEMPTS}"


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.items())


def report(
    store: StoreArgument,
    out: Annotated[Path, typer.Option("--out", "-o", help="The HTML file to write.")],
    model: Annotated[str | None, typer.Option(help="Id of the model to report on; default: the last to score.")] = None,
) -> None:
    """Write one self-contained HTML report: what went in, what failed, scores, contributions.

    [dim]Example:[/]  miar report data/store --out report.html
    """
    from miar.report import write_report
    from storage import Store

    say(f"report: {write_report(Store.open(store), out, model_id=model).resolve()}")


def doctor(json: JsonOption = False) -> None:
    """Check what this machine has: libraries, weights, GPU, Prefect's server; and how to get what is not there.

    [dim]Example:[/]  miar doctor
    """
    from miar.pipeline.doctor import examine

    findings = examine()
    if json:
        print_json(findings)
        return
    table("", [{"what": one["what"], "state": one["state"], "detail": one["detail"]} for one in findings])
    for one in findings:
        if one["mend"]:
            warn(f"{one['what']}: {one['mend']}")
