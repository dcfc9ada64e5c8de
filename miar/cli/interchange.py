"""Commands that bring tables in and take them out: import table, import mmsa, import csd, export."""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from miar.cli.console import print_json, say, warn
from miar.cli.options import JsonOption, SnapshotOption, StoreArgument, StoreOption, parse_pairs
from miar.errors import ConfigError, UserError

if TYPE_CHECKING:
    from miar.interchange.bring_in import ImportResult
    from miar.interchange.import_columns import FeatureColumn
    from storage import Store

imports = typer.Typer(
    help="Bring features, words and labels that were made elsewhere into a store.", no_args_is_help=True
)

CorpusOption = Annotated[str | None, typer.Option(help="Name of the corpus; default: the file's name.")]


@imports.callback()
def _imports() -> None:
    pass


@imports.command("table")
def import_table(
    file: Annotated[str, typer.Argument(help="csv or Parquet table, a row per clip; or a folder of Parquet files.")],
    store: StoreOption,
    labels: Annotated[list[str] | None, typer.Option(help="NAME=COLUMN of a label (repeat).")] = None,
    feature: Annotated[
        list[str] | None,
        typer.Option(help="KIND:NAME=COLUMN[@TIMES] of a feature, KIND being text, audio or face (repeat)."),
    ] = None,
    id_column: Annotated[str, typer.Option("--id", help="Column with your own names of the clips.")] = "clip_id",
    corpus_id: CorpusOption = None,
    json: JsonOption = False,
) -> None:
    """Import a table: columns clip_id, video_id, split, speaker, text where present, labels, vector columns.

    [dim]Example:[/]  miar import table mosi.parquet --store data/store --labels sentiment=sentiment
    --feature 'audio:covarep=covarep_*'
    """
    from miar.interchange.import_table import import_table as run

    columns = parse_pairs(labels or (), "--labels")
    features = [_feature_column(text) for text in feature or ()]
    with _store_for([file], store) as into:
        result = run(into, file, corpus_id=corpus_id, labels=columns, features=features, id_column=id_column)
    _print(result, json)


@imports.command("mmsa")
def import_mmsa(
    file: Annotated[str, typer.Argument(help="An MMSA feature file (.pkl), aligned or unaligned.")],
    store: StoreOption,
    prefix: Annotated[str, typer.Option(help="Feature sets are called PREFIX_text, PREFIX_audio, PREFIX_vision.")] = (
        "mmsa"
    ),
    corpus_id: CorpusOption = None,
    json: JsonOption = False,
) -> None:
    """Import the pickle of an MMSA corpus (MOSI, MOSEI, CH-SIMS). Nothing that a pickle may contain is run.

    [dim]Example:[/]  miar import mmsa unaligned_50.pkl --store data/store --corpus-id mosi
    """
    from miar.interchange.import_mmsa import import_mmsa as run

    with _store_for([file], store) as into:
        result = run(into, file, corpus_id=corpus_id, prefix=prefix)
    _print(result, json)


@imports.command("csd")
def import_csd(
    files: Annotated[list[str], typer.Argument(help="Computational sequences (.csd) of one corpus.")],
    store: StoreOption,
    labels: Annotated[
        list[str] | None,
        typer.Option(help="NAME=ROOT or NAME=ROOT:COLUMN of a label; its intervals are the clips (repeat)."),
    ] = None,
    feature: Annotated[
        list[str] | None,
        typer.Option(help="KIND:NAME=ROOT of a feature, KIND being text, audio or face (repeat)."),
    ] = None,
    words: Annotated[str | None, typer.Option(help="ROOT of the file with the words.")] = None,
    corpus_id: CorpusOption = None,
    json: JsonOption = False,
) -> None:
    """Import .csd files of the CMU-MultimodalSDK, joined by video and segment times. ROOT is a file's root name.

    [dim]Example:[/]  miar import csd labels.csd covarep.csd words.csd --store data/store --corpus-id mosi
    --labels 'sentiment=Opinion Segment Labels' --feature audio:covarep=COVAREP --words words
    """
    from miar.interchange.import_csd import import_csd as run

    roots = parse_pairs(labels or (), "--labels")
    features = [_feature_column(text, with_times=False) for text in feature or ()]
    with _store_for(files, store) as into:
        result = run(into, files, corpus_id=corpus_id, labels=roots, features=features, words=words)
    _print(result, json)


@contextmanager
def _store_for(files: Sequence[str], store: str) -> Iterator["Store"]:
    """The store to import into, made if it is not there; a file that cannot be imported leaves no empty one behind."""
    from storage import CLIPS, Store

    for file in files:
        if not Path(file).exists():
            raise UserError(f"there is no file {file} to import: check its name")
    is_new = "://" not in store and not Path(store).expanduser().exists()
    into = Store.create(store)
    try:
        yield into
    except UserError:
        if is_new and not into.table(CLIPS).count():
            shutil.rmtree(Path(store).expanduser())
        raise


def _print(result: "ImportResult", json: bool) -> None:
    if json:
        print_json(result.as_dict())
    else:
        say(str(result))


def _feature_column(text: str, *, with_times: bool = True) -> "FeatureColumn":
    from miar.features.contract import Modality
    from miar.interchange.import_columns import FeatureColumn

    target, equals, column = text.partition("=")
    kind, colon, name = target.partition(":")
    if not (equals and colon and name and column) or kind not in set(Modality):
        raise ConfigError(f"--feature takes KIND:NAME=COLUMN with KIND one of {', '.join(Modality)}, not '{text}'")
    if with_times and "@" in column:
        column, _, times = column.rpartition("@")
        return FeatureColumn(Modality(kind), name, column, times)
    return FeatureColumn(Modality(kind), name, column)


def export(
    store: StoreArgument,
    out: Annotated[Path, typer.Option("--out", "-o", help="The file to write; for datasets, the new folder.")],
    table: Annotated[
        list[str] | None,
        typer.Option(
            "--table",
            "-t",
            help="clips, labels, scores, failures, runs, feature_sets, features/NAME. For mmsa and datasets: the "
            "features to take (repeat); default: the newest of each modality.",
        ),
    ] = None,
    format: Annotated[
        str,
        typer.Option(
            "--format",
            "-f",
            help="csv, parquet, jsonl: the table. frames: a row per frame. summaries: named numbers of each clip. "
            "mmsa, datasets: clips with labels and features.",
        ),
    ] = "parquet",
    snapshot: SnapshotOption = None,
    corpus_id: Annotated[str | None, typer.Option(help="mmsa, datasets: clips of this corpus.")] = None,
    label: Annotated[str, typer.Option(help="mmsa: the label to be predicted.")] = "sentiment",
    layout: Annotated[str, typer.Option(help="mmsa: unaligned or aligned.")] = "unaligned",
    steps: Annotated[int | None, typer.Option(min=1, help="mmsa: the longest sequence; aligned: 50.")] = None,
    tokenizer: Annotated[
        str | None, typer.Option(help="mmsa: folder of a BERT tokenizer, to write text_bert with.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Write a table of the store to one file, or clips with labels and features for other programs.

    [dim]Example:[/]  miar export data/store --table scores --format csv --out scores.csv
    """
    from storage import Store

    opened = Store.open(store)
    pinned = None if snapshot is None else opened.snapshots.open(snapshot)
    chosen: dict[str, Any] = {"tables": table or (), "corpus_id": corpus_id, "snapshot": pinned}
    if format == "mmsa":
        from miar.interchange.export_mmsa import export_mmsa

        made = export_mmsa(opened, out, label=label, layout=layout, steps=steps, tokenizer=tokenizer, **chosen)
        _print_export(made, json)
    elif format == "datasets":
        from miar.interchange.export_datasets import export_datasets

        _print_export(export_datasets(opened, out, **chosen), json)
    else:
        _export_rows(opened, table or [], format, out, pinned, json)


def _export_rows(store: Any, tables: list[str], format: str, out: Path, snapshot: Any, json: bool) -> None:
    from miar.interchange.export import export_table

    if len(tables) != 1:
        raise ConfigError(f"--format {format} writes one table: give --table once")
    rows = export_table(store, tables[0], format=format, out=out, snapshot=snapshot)
    if json:
        print_json({"rows": rows, "out": str(out)})
        return
    say(f"{rows} rows: {out}")
    if not rows:
        warn(f"the table {tables[0]} is empty")


def _print_export(result: Any, json: bool) -> None:
    if json:
        print_json(result.as_dict())
    else:
        say(str(result))
