"""Exports: the same rows in every format, from the store and from a snapshot, and nothing half-written."""

import csv
import json
import math
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from miar.errors import UserError
from miar.features.contract import Modality
from miar.interchange.export import export_table
from miar.interchange.import_columns import FeatureColumn
from miar.interchange.import_table import import_table
from storage import CLIPS, LABELS, SCORES, Store

ODD = 'comma, "quote"\nnew line, 😀 é'
VECTORS = [[0.1, 1e-30, -3.0], None, [16777216.0, 1e30, 5.5]]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Three clips with words, labels, a vector and a score each."""
    made = Store.create(str(tmp_path / "store"))
    table = tmp_path / "mine.parquet"
    columns = {"clip_id": ["a", "b", ODD], "text": [ODD, None, ""], "y": [0.1, -2.5, 3.0], "v": VECTORS}
    pq.write_table(pa.table(columns), table)
    features = [FeatureColumn(Modality.AUDIO, "sound", "v")]
    import_table(made, table, labels={"sentiment": "y"}, features=features)
    scores = [
        {"clip_id": f"c{i}", "model_id": "m", "corpus_id": "mine", "source_id": "a", "prediction": value}
        | {"status": "scored", "input_hash": "h", "scored_at": datetime(2026, 11, 20, 12, 30, 0, 5, tzinfo=UTC)}
        for i, value in enumerate([0.1, math.nan, math.inf, None])
    ]
    made.table(SCORES).merge(pa.Table.from_pylist(scores, schema=SCORES.schema))
    return made


def read(path: Path) -> list[dict[str, Any]]:
    if path.suffix == ".parquet":
        return pq.ParquetFile(path).read().to_pylist()
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("format", ["csv", "parquet", "jsonl"])
@pytest.mark.parametrize("table", ["clips", "labels", "features/sound", "scores", "feature_sets", "runs", "failures"])
def test_every_table_in_every_format(store: Store, tmp_path: Path, table: str, format: str) -> None:
    out = tmp_path / "new" / f"out.{format}"
    n = export_table(store, table, format=format, out=out)
    rows = read(out)
    assert n == len(rows) == {"failures": 0, "scores": 4, "feature_sets": 1, "runs": 1}.get(table, 3)
    assert list(out.parent.iterdir()) == [out]
    if table in {"clips", "labels", "features/sound"}:
        assert {row["source_id"] for row in rows} == {"a", "b", ODD}


def test_numbers_and_words_survive(store: Store, tmp_path: Path) -> None:
    for suffix, parse in (("csv", json.loads), ("jsonl", list), ("parquet", list)):
        out = tmp_path / f"v.{suffix}"
        export_table(store, "features/sound", format=suffix, out=out)
        rows = {row["source_id"]: row for row in read(out)}
        for source, vector in zip(("a", "b", ODD), VECTORS, strict=True):
            values = rows[source]["values"]
            if vector is None:
                assert values in (None, "")
                assert rows[source]["status"] == "missing"
            else:
                assert np.array_equal(np.float32(parse(values)), np.float32(vector))
        export_table(store, "clips", format=suffix, out=out)
        assert next(row for row in read(out) if row["source_id"] == "a")["text"] == ODD


def test_json_has_no_nan(store: Store, tmp_path: Path) -> None:
    out = tmp_path / "scores.jsonl"
    export_table(store, "scores", format="jsonl", out=out)
    rows = {row["clip_id"]: row for row in read(out)}
    assert [rows[f"c{i}"]["prediction"] for i in range(4)] == [0.1, None, None, None]
    assert rows["c0"]["scored_at"] == "2026-11-20T12:30:00.000005Z"
    export_table(store, "scores", format="parquet", out=tmp_path / "scores.parquet")
    kept = {row["clip_id"]: row["prediction"] for row in read(tmp_path / "scores.parquet")}
    assert math.isinf(kept["c2"])


def test_feature_tables_by_full_name_and_the_newest_by_extractor(store: Store, tmp_path: Path) -> None:
    (first,) = store.feature_tables()
    table = tmp_path / "other.parquet"
    pq.write_table(pa.table({"clip_id": ["z"], "v": [[1.0]]}), table)
    import_table(store, table, labels={}, features=[FeatureColumn(Modality.AUDIO, "sound", "v")])
    assert len(store.feature_tables()) == 2
    out = tmp_path / "out.jsonl"
    assert export_table(store, first, format="jsonl", out=out) == 3
    assert export_table(store, "features/sound", format="jsonl", out=out) == 1
    assert read(out)[0]["source_id"] == "z"


def test_a_snapshot_is_exported_as_it_was(store: Store, tmp_path: Path) -> None:
    snapshot = store.snapshots.take("before")
    keys = store.table(LABELS).read(columns=["clip_id", "name"])
    store.table(LABELS).merge(LABELS.schema.empty_table(), delete_keys=keys)
    out = tmp_path / "labels.jsonl"
    assert export_table(store, "labels", format="jsonl", out=out) == 0
    assert export_table(store, "labels", format="jsonl", out=out, snapshot=snapshot) == 3
    assert export_table(store, "features/sound", format="csv", out=out, snapshot=snapshot) == 3


def test_mistakes_are_one_line(store: Store, tmp_path: Path) -> None:
    out = tmp_path / "out.csv"
    with pytest.raises(UserError, match=r"no table 'clip' to export; there are clips, labels, .*features/sound"):
        export_table(store, "clip", format="csv", out=out)
    with pytest.raises(UserError, match="no table 'features/face'"):
        export_table(store, "features/face", format="csv", out=out)
    with pytest.raises(UserError, match="choose one of csv, parquet, jsonl, frames, summaries, mmsa, datasets"):
        export_table(store, "clips", format="xlsx", out=out)
    with pytest.raises(UserError, match="is a folder"):
        export_table(store, "clips", format="csv", out=tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write"):
        export_table(store, "clips", format="csv", out=tmp_path / "file" / "out.csv")
    assert not out.exists()


def test_a_failure_leaves_the_old_file(store: Store, tmp_path: Path) -> None:
    """A shard of the table is gone: the export fails in the middle, and the earlier export still stands."""
    out = tmp_path / "clips.csv"
    export_table(store, "clips", format="csv", out=out)
    before = out.read_bytes()
    extra = [{"clip_id": "more", "corpus_id": "x", "source_id": "more"}]
    store.table(CLIPS).merge(pa.Table.from_pylist(extra, schema=CLIPS.schema))
    Path(store.table(CLIPS).file_uris()[0]).unlink()
    with pytest.raises(Exception, match=r"."):
        export_table(store, "clips", format="csv", out=out)
    assert out.read_bytes() == before
    assert not list(tmp_path.glob(".clips*"))
