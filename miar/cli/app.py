"""The commands of ``miar``, in the order in which people meet them."""

from typing import Annotated

import typer

from miar import __version__
from miar.cli import corpora, features, interchange, look, models, upkeep

app = typer.Typer(
    name="miar",
    help="Multimodal emotion recognition from raw video: features in Parquet, trained models, scored clips.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"miar {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    pass


app.command("demo")(corpora.demo)
app.command("synth")(corpora.synth)
app.command("refresh")(features.refresh)
app.command("snapshot")(features.snapshot)
app.command("snapshots")(upkeep.snapshots)
app.command("diff")(upkeep.diff)
app.command("maintain")(upkeep.maintain)
app.command("verify")(upkeep.verify)
app.command("fetch")(features.fetch)
app.command("train")(models.train)
app.command("evaluate")(models.evaluate)
app.command("score")(models.score)
app.command("report")(look.report)
app.command("status")(look.status)
app.command("export")(interchange.export)
app.command("doctor")(look.doctor)
app.add_typer(interchange.imports, name="import")
