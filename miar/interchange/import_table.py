"""Import a table of clips that somebody else prepared: words, labels and ready-made features, a row per clip."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from miar.interchange.blocks import IncomingFeature
from miar.interchange.bring_in import ImportResult, Incoming, bring_in, described_files
from miar.interchange.import_clips import CLIP_COLUMNS, NUMBER_COLUMNS, without_repeats
from miar.interchange.import_columns import FeatureColumn, matched_columns, read_feature
from miar.interchange.table_file import TableFile
from storage import Store


def import_table(
    store: Store,
    file: str | Path,
    *,
    corpus_id: str | None = None,
    labels: Mapping[str, str],
    features: Sequence[FeatureColumn] = (),
    id_column: str = "clip_id",
) -> ImportResult:
    """Import a csv or Parquet table of clips, or a folder of Parquet files.

    Args:
        corpus_id: the corpus that the clips belong to; default: the file's name without its ending.
        labels: name of the label in the store -> column of the file, of numbers or of class names.
        features: ready-made feature sets.
        id_column: the column with the user's own clip id.

    Raises:
        UserError: the table cannot be used; the text names the column or the clip and says what to do.
    """
    path = Path(file)
    table = TableFile(path, text_columns=[id_column, *(name for name in CLIP_COLUMNS if name not in NUMBER_COLUMNS)])
    table.require([id_column, *labels.values(), *(feature.times for feature in features if feature.times)])
    taken = [id_column, *CLIP_COLUMNS, *labels.values()]
    matched = {feature: matched_columns(table.column_names, feature, taken) for feature in features}
    wide = dict.fromkeys(name for feature, names in matched.items() for name in (*names, feature.times) if name)
    narrow = list(dict.fromkeys(name for name in taken if name in table.column_names))
    clips, repeated = without_repeats(table.read(narrow), id_column)
    warnings = []
    if repeated:
        # Whether rows repeat each other word for word, their features decide as well.
        clips, _ = without_repeats(table.read(list(dict.fromkeys((*narrow, *wide)))), id_column)
        table = TableFile.of(path, clips)
        warnings = [f"rows that repeat a clip word for word and were left out: {repeated}"]
    ids: list[str] = clips.column(id_column).to_pylist()
    incoming = Incoming(
        corpus_id=corpus_id or path.stem,
        table=clips.select(narrow),
        id_column=id_column,
        labels=labels,
        features=[_incoming(table, feature, matched[feature], ids) for feature in features],
        config={
            **described_files(path, table.files),
            "id_column": id_column,
            "labels": dict(labels),
            "features": [f"{feature.label}={feature.column}" for feature in features],
        },
        warnings=warnings,
    )
    return bring_in(store, incoming)


def _incoming(table: TableFile, feature: FeatureColumn, columns: Sequence[str], ids: Sequence[str]) -> IncomingFeature:
    needed = list(dict.fromkeys(name for name in (*columns, feature.times) if name))
    return IncomingFeature(
        feature.kind,
        feature.name,
        feature.where,
        blocks=lambda: read_feature(table.parts(needed), feature, columns, ids),
    )
