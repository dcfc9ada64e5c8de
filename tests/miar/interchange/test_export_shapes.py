"""Exports in other shapes: a row per frame, the named summaries, and folders for Hugging Face ``datasets``."""

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from made_corpora import Frames, contents, corpora, stored
from typer.testing import CliRunner

from miar.cli.app import app
from miar.errors import UserError
from miar.features.contract import FeatureSet, Modality
from miar.interchange import export_datasets as writer
from miar.interchange.export import export_table
from miar.interchange.export_datasets import export_datasets
from miar.interchange.import_columns import FeatureColumn
from miar.interchange.import_table import import_table
from miar.pipeline.rows import descriptor_row, feature_spec
from storage import CLIPS, FEATURE_SETS, Store

FEATURES = [FeatureColumn(kind, f"my_{kind}", f"my_{kind}", f"my_{kind}_times") for kind in Modality]


def again(folder: Path, exported: Path) -> Store:
    """A store into which an exported folder was imported."""
    store = Store.create(str(folder / "again"))
    labels = {"sentiment": "sentiment", "annotation": "annotation"}
    import_table(store, exported, corpus_id="made", labels=labels, features=FEATURES, id_column="source_id")
    return store


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(rows=corpora(with_times=True, all_labelled=False), chunk_bytes=st.sampled_from([1, 24, 2**28]))
def test_a_round_trip_by_a_folder_loses_nothing(
    tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, Any]], chunk_bytes: int
) -> None:
    folder = tmp_path_factory.mktemp("datasets")
    store = stored(folder, rows)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(writer, "CHUNK_BYTES", chunk_bytes)
        result = export_datasets(store, folder / "out")
    assert sum(result.clips.values()) == len(rows)
    assert contents(again(folder, folder / "out")) == contents(store)


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(rows=corpora(with_times=True, all_labelled=False), suffix=st.sampled_from(["csv", "parquet"]))
def test_a_row_per_frame_keeps_every_value_and_time(
    tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, Any]], suffix: str
) -> None:
    folder = tmp_path_factory.mktemp("frames")
    store = stored(folder, rows)
    wanted = {clip: row["audio_frames"] for clip, row in contents(store).items() if row["audio_frames"] is not None}
    out = folder / f"out.{suffix}"
    n = export_table(store, "features/my_audio", format="frames", out=out)
    table = pq.read_table(out) if suffix == "parquet" else pa_csv.read_csv(out)
    assert table.column_names == ["clip_id", "source_id", "frame", "time", "my_audio_0", "my_audio_1"]
    assert n == table.num_rows == sum(len(one.values) for one in wanted.values())
    found = defaultdict(list)
    for row in table.to_pylist():
        found[row["source_id"]].append(row)
    assert {clip: [row["frame"] for row in rows] for clip, rows in found.items()} == {
        clip: list(range(len(one.values))) for clip, one in wanted.items()
    }
    assert wanted == {
        clip: Frames(
            np.float32([[row["my_audio_0"], row["my_audio_1"]] for row in rows]),
            np.float32([row["time"] for row in rows]),
        )
        for clip, rows in found.items()
    }


def with_summaries(folder: Path) -> Store:
    """A store with one feature set that has a column called ``time``, summaries and a quality."""
    store = Store.create(str(folder / "store"))
    described = FeatureSet(
        "smile", Modality.AUDIO, ("time", "F0"), 100.0, ("F0_mean", "F0_std"), ("quality_level",), config={}
    )
    nothing = {"F0_mean": None, "F0_std": None, "values": None, "times": None, "n_frames": None, "status": "missing"}
    one = {"clip_id": "1", "corpus_id": "c", "source_id": "mine", "input_hash": "h", "status": "ok", "n_frames": 2}
    one |= {"values": [1.0, 2.0, 3.0, 4.0], "times": [0.5, 1.5], "F0_mean": 3.0, "F0_std": 1.0, "quality_level": -20.0}
    rows = [one, one | nothing | {"clip_id": "2", "source_id": "other", "reason": "no_voice", "quality_level": -80.0}]
    spec = feature_spec(described)
    store.table(spec).merge(pa.Table.from_pylist(rows, schema=spec.schema))
    store.table(FEATURE_SETS).merge(descriptor_row(described))
    return store


def test_named_summaries(tmp_path: Path) -> None:
    store = with_summaries(tmp_path)
    assert export_table(store, "features/smile", format="summaries", out=tmp_path / "out.csv") == 2
    rows = {row["source_id"]: row for row in pa_csv.read_csv(tmp_path / "out.csv").to_pylist()}
    assert list(rows["mine"])[6:] == ["F0_mean", "F0_std", "quality_level"]
    assert [rows["mine"][name] for name in ("n_frames", "F0_mean", "quality_level")] == [2, 3.0, -20.0]
    assert [rows["other"][name] for name in ("reason", "F0_mean", "quality_level")] == ["no_voice", None, -80.0]


def test_columns_that_are_called_like_the_frames_own(tmp_path: Path) -> None:
    store = with_summaries(tmp_path)
    snapshot = store.snapshots.take("taken")
    export_table(store, "features/smile", format="frames", out=tmp_path / "out.parquet", snapshot=snapshot)
    rows = pq.read_table(tmp_path / "out.parquet").drop(["clip_id"]).to_pylist()
    assert rows[1] == {"source_id": "mine", "frame": 1, "time": 1.5, "smile_time": 3.0, "F0": 4.0}


def made(folder: Path) -> tuple[Store, list[dict[str, Any]]]:
    one = Frames(np.float32([[1, 2], [3, 4]]), np.float32([0.1, 0.2]))
    rows = [
        {"clip_id": f"c{i}", "video_id": "v", "segment": i, "split": split, "text": "hi", "sentiment": 1.0}
        | {"annotation": "Positive", "text_frames": one, "audio_frames": None if i else one, "face_frames": one}
        for i, split in enumerate(["train", "train", "valid"])
    ]
    return stored(folder, rows), rows


def test_the_folder_says_what_is_in_it(tmp_path: Path) -> None:
    store, _ = made(tmp_path)
    export_datasets(store, tmp_path / "out", tables=["features/my_audio"])
    assert sorted(str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*.*")) == [
        "README.md",
        "data/train-00000-of-00001.parquet",
        "data/validation-00000-of-00001.parquet",
        "feature_sets.json",
    ]
    card = yaml.safe_load((tmp_path / "out/README.md").read_text().split("---")[1])
    assert card["configs"][0]["data_files"][1] == {"split": "validation", "path": "data/validation-*.parquet"}
    assert json.loads((tmp_path / "out/feature_sets.json").read_text())["my_audio"]["columns"] == [
        "my_audio_0",
        "my_audio_1",
    ]
    reasons = pq.read_table(tmp_path / "out/data/train-00000-of-00001.parquet")["my_audio_reason"].to_pylist()
    assert reasons == [None, "null"]
    assert not list(tmp_path.glob(".out*"))


def test_datasets_opens_it(tmp_path: Path) -> None:
    store, _ = made(tmp_path)
    export_datasets(store, tmp_path / "out")
    cache = {"cache_dir": str(tmp_path / "cache")}
    opened = datasets.load_dataset(str(tmp_path / "out"), **cache)
    assert {name: len(split) for name, split in opened.items()} == {"train": 2, "validation": 1}
    assert opened["train"][0]["my_audio"] == [[1, 2], [3, 4]]
    assert opened["train"][1]["my_audio"] is None
    files = str(tmp_path / "out/data/train-*.parquet")
    assert len(datasets.load_dataset("parquet", data_files=files, split="train", **cache)) == 2


def test_mistakes(tmp_path: Path) -> None:
    store, _ = made(tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full/x").touch()
    with pytest.raises(UserError, match="is there already; name a new or an empty folder"):
        export_datasets(store, tmp_path / "full")
    with pytest.raises(UserError, match="no clips to export; corpora in the store: made"):
        export_datasets(store, tmp_path / "out", corpus_id="other")
    empty = Store.create(str(tmp_path / "empty"))
    empty.table(CLIPS).merge(store.table(CLIPS).read())
    with pytest.raises(UserError, match="there are no features to export"):
        export_datasets(empty, tmp_path / "out")
    with pytest.raises(UserError, match="clips has no frames; name a feature table"):
        export_table(store, "clips", format="frames", out=tmp_path / "out.csv")
    with pytest.raises(UserError, match="--format parquet writes one table: give --table once"):
        CliRunner().invoke(app, ["export", store.uri, "--out", str(tmp_path / "out.csv")], catch_exceptions=False)
    assert not (tmp_path / "out").exists()
