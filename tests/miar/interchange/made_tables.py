"""Tables to import, and what of them stands in a store."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from miar.features.contract import Modality
from miar.interchange.bring_in import ImportResult
from miar.interchange.import_columns import FeatureColumn
from miar.interchange.import_table import import_table
from storage import CLIPS, FEATURE_SETS, LABELS, RUNS, Store, feature_table


def write(folder: Path, columns: dict[str, Any], name: str = "table.parquet") -> Path:
    path, table = folder / name, pa.table(columns)
    if path.suffix == ".csv":
        pa_csv.write_csv(table, path)
    else:
        pq.write_table(table, path)
    return path


def audio(column: str, name: str = "sound") -> FeatureColumn:
    return FeatureColumn(Modality.AUDIO, name, column)


def rows_of(store: Store, spec: Any) -> list[dict[str, Any]]:
    return store.table(spec).read().to_pylist()


def clips_by_source(store: Store) -> dict[str, dict[str, Any]]:
    return {row["source_id"]: row for row in rows_of(store, CLIPS)}


def features(store: Store, extractor: str) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """The descriptor, and the rows by the user's own id with ``matrix`` (n_frames, n_columns)."""
    chosen = pc.field("extractor") == extractor
    (described,) = store.table(FEATURE_SETS).read(filter=chosen).to_pylist()
    spec = feature_table(
        f"features/{extractor}/{described['config_hash']}",
        n_columns=len(described["columns"]),
        summary_columns=(),
        quality_columns=(),
    )
    rows = {row["source_id"]: row for row in rows_of(store, spec)}
    for row in rows.values():
        if row["values"] is not None:
            row["matrix"] = np.array(row["values"], np.float32).reshape(row["n_frames"], -1)
    return described, rows


def versions(store: Store) -> dict[str, int | None]:
    tables = {spec.name: store.table(spec).version() for spec in (CLIPS, LABELS, FEATURE_SETS, RUNS)}
    for name in store.feature_tables():
        spec = feature_table(name, n_columns=1, summary_columns=(), quality_columns=())
        tables[name] = store.table(spec).version()
    return tables


def base_table() -> dict[str, Any]:
    return {
        "clip_id": ["a", "b", "c"],
        "video_id": ["v", "v", "v"],
        "text": ["one", "two", None],
        "split": ["train", "train", "test"],
        "y": [1.0, None, 3.0],
        "v": [[1.0, 2.0], [3.0, 4.0], None],
    }


def run_base(store: Store, folder: Path, columns: dict[str, Any]) -> ImportResult:
    return import_table(store, write(folder, columns), corpus_id="mine", labels={"y": "y"}, features=[audio("v")])
