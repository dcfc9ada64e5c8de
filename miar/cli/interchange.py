"""Commands that bring tables in and take them out: import table, export."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from miar.cli.console import print_json, say, warn
from miar.cli.options import JsonOption, SnapshotOption, StoreArgument, StoreOption, parse_pairs
from miar.errors import ConfigError

if TYPE_CHECKING:
    from miar.interchange.import_columns import FeatureColumn

imports = typer.Typer(
    help="Bring features, words and labels that were made elsewhere into a store.", no_args_is_help=True
)


@imports.callback()
def _imports() -> None:
    pass


@imports.command("table")
def import_table(
    file: Annotated[str, typer.Argument(help="csv or Parquet table, a row per clip.")],
    store: StoreOption,
    labels: Annotated[list[str] | None, typer.Option(help="NAME=COLUMN of a label (repeat).")] = None,
    feature: Annotated[
        list[str] | None,
        typer.Option(help="KIND:NAME=COLUMN of a feature, KIND being text, audio or face (repeat)."),
    ] = None,
    corpus_id: Annotated[str | None, typer.Option(help="Name of the corpus; default: the file's name.")] = None,
    json: JsonOption = False,
) -> None:
    """Import a table: columns clip_id, video_id, split, speaker, text where present, labels, vector columns.

    [dim]Example:[/]  miar import table mosi.parquet --store data/store --labels sentiment=sentiment
    --feature 'audio:covarep=covarep_*'
    """
    from miar.interchange.import_table import import_table as run
    from storage import Store

    result = run(
        Store.open_or_create(store),
        file,
        corpus_id=corpus_id,
        labels=parse_pairs(labels or (), "--labels"),
        features=[_feature_column(text) for text in feature or ()],
    )
    if json:
        print_json(result.as_dict())
        return
    say(str(result))


def _feature_column(text: str) -> "FeatureColumn":
    from miar.features.contract import Modality
    from miar.interchange.import_columns import FeatureColumn

    target, equals, column = text.partition("=")
    kind, colon, name = target.partition(":")
    if not (equals and colon and name and column) or kind not in set(Modality):
        raise ConfigError(f"--feature takes KIND:NAME=COLUMN with KIND one of {', '.join(Modality)}, not '{text}'")
    return FeatureColumn(Modality(kind), name, column)


def export(
    store: StoreArgument,
    table: Annotated[
        str,
        typer.Option("--table", "-t", help="clips, labels, scores, failures, runs, feature_sets, features/NAME."),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="The file to write.")],
    format: Annotated[str, typer.Option("--format", "-f", help="csv, parquet or jsonl.")] = "parquet",
    snapshot: SnapshotOption = None,
) -> None:
    """Write a table of the store to one file.

    [dim]Example:[/]  miar export data/store --table scores --format csv --out scores.csv
    """
    from miar.interchange.export import export_table
    from storage import Store

    opened = Store.open(store)
    pinned = None if snapshot is None else opened.snapshots.open(snapshot)
    rows = export_table(opened, table, format=format, out=out, snapshot=pinned)
    say(f"{rows} rows: {out}")
    if not rows:
        warn(f"the table {table} is empty")
