"""Importing tables of clips: what arrives in the store."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from made_tables import audio, clips_by_source, features, rows_of, write

from miar.corpus.model import clip_id
from miar.errors import UserError
from miar.features.contract import FeatureSet, Modality
from miar.interchange.import_table import import_table
from miar.interchange.table_file import ROWS_PER_BLOCK
from storage import CLIPS, LABELS, RUNS, Store, feature_table

MOSI = Path(__file__).resolve().parents[4] / "shared/data/mosi/mosi_train_valid.parquet"


def test_clips_labels_and_words(store: Store, tmp_path: Path) -> None:
    path = write(
        tmp_path,
        {
            "clip_id": ["a_1", "a_2", "007"],
            "video_id": ["a", "a", None],
            "split": ["Train", "dev", None],
            "text": ["Good morning", " ", "ça va"],
            "score": [1.5, -0.25, 3.0],
            "mood": ["glad", "sad", "glad"],
        },
    )
    result = import_table(store, path, labels={"sentiment": "score", "emotion": "mood"})
    clips = clips_by_source(store)
    assert {source: row["video_id"] for source, row in clips.items()} == {"a_1": "a", "a_2": "a", "007": "007"}
    assert [clips[name]["segment"] for name in ("a_1", "a_2", "007")] == [0, 1, 0]
    assert [clips[name]["split"] for name in ("a_1", "a_2")] == ["train", "valid"]
    assert [clips[name]["text"] for name in ("a_1", "a_2", "007")] == ["Good morning", None, "ça va"]
    assert clips["007"]["clip_id"] == clip_id("table", "007", 0, None)
    assert {row["corpus_id"] for row in clips.values()} == {"table"}
    assert {row["state"] for row in clips.values()} == {"live"}
    labels = {(row["source_id"], row["name"]): (row["value"], row["category"]) for row in rows_of(store, LABELS)}
    assert labels[("a_2", "sentiment")] == (-0.25, None)
    assert labels[("007", "emotion")] == (None, "glad")
    assert result.labels == {"sentiment": 3, "emotion": 3}
    assert result.clips == result.clips_written == 3


def test_csv_ids_stay_text_and_vectors_are_json(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "my corpus.csv"
    path.write_text(
        "\ufeffclip_id,text,y,vector,matrix\n"
        '001,"first, with a comma",1,"[1, 2.5]","[[1, 2, 3], [4, 5, 6]]"\n'
        '002,"two\nlines",,"[3, NaN]","[[7, 8, 9]]"\n'
        '003,,nan,"","[]"\n',
        "utf-8",
    )
    result = import_table(store, path, labels={"y": "y"}, features=[audio("vector"), audio("matrix", "frames")])
    assert set(clips_by_source(store)) == {"001", "002", "003"}
    assert clips_by_source(store)["002"]["text"] == "two\nlines"
    assert result.corpus_id == "my corpus"
    assert result.labels == {"y": 1}
    _, vectors = features(store, "sound")
    assert vectors["001"]["matrix"].tolist() == [[1, 2.5]]
    assert (vectors["002"]["status"], vectors["002"]["reason"]) == ("missing", "not_finite")
    assert (vectors["003"]["status"], vectors["003"]["reason"]) == ("missing", "null")
    described, frames = features(store, "frames")
    assert frames["001"]["matrix"].tolist() == [[1, 2, 3], [4, 5, 6]]
    assert frames["001"]["times"] == [0, 1]
    assert (frames["003"]["status"], frames["003"]["reason"]) == ("missing", "empty")
    assert described["columns"] == ["frames_0", "frames_1", "frames_2"]


def test_a_glob_gathers_columns_by_name(store: Store, tmp_path: Path) -> None:
    path = write(
        tmp_path,
        {
            "clip_id": ["a", "b", "c"],
            "pitch_mean": [1.0, 2.0, None],
            "pitch_std": pa.array([4, 5, None], pa.int16()),
            "other": ["x", "y", "z"],
            "pitch_label": [1.0, 2.0, 3.0],
        },
    )
    import_table(store, path, labels={"y": "pitch_label"}, features=[audio("pitch_*")])
    described, rows = features(store, "sound")
    assert described["columns"] == ["pitch_mean", "pitch_std"], "a label is never a feature"
    assert rows["b"]["matrix"].tolist() == [[2, 5]]
    assert rows["c"]["reason"] == "null"


def test_the_descriptor_follows_the_contract(store: Store, tmp_path: Path) -> None:
    path = write(tmp_path, {"clip_id": ["a"], "v": [[1.0, 2.0]], "y": [1.0]})
    result = import_table(store, path, labels={"y": "y"}, features=[audio("v")])
    described, rows = features(store, "sound")
    config = json.loads(described["config"])
    again = FeatureSet("sound", Modality.AUDIO, tuple(described["columns"]), None, config=config)
    assert described["config_hash"] == again.config_hash
    assert list(result.features) == [again.table]
    assert (described["modality"], described["rate_hz"], described["state"]) == ("audio", None, "active")
    assert rows["a"]["run_id"] == result.run_id
    (run,) = rows_of(store, RUNS)
    assert len(json.loads(run["config"])["sha256"]) == 64
    assert json.loads(run["result"])["clips"] == 1


def test_two_tables_prepared_alike_share_a_feature_set(store: Store, tmp_path: Path) -> None:
    """A model that was trained on one can then score the other."""
    for name in ("train", "later"):
        path = write(tmp_path, {"clip_id": ["a"], f"v_{name}": [[1.0, 2.0]], "y": [1.0]}, f"{name}.parquet")
        import_table(store, path, labels={"y": "y"}, features=[audio(f"v_{name}")])
    assert len(store.feature_tables()) == 1
    assert store.table(CLIPS).count() == 2


@pytest.mark.parametrize(
    "kind",
    [
        pa.list_(pa.float32()),
        pa.large_list(pa.float64()),
        pa.list_(pa.float64(), 2),
        pa.list_(pa.int32()),
    ],
    ids=str,
)
def test_every_list_type(store: Store, tmp_path: Path, kind: pa.DataType) -> None:
    vectors = pa.array([[1, 2], None, [3, 4]], kind)
    import_table(store, write(tmp_path, {"clip_id": ["a", "b", "c"], "v": vectors}), labels={}, features=[audio("v")])
    _, rows = features(store, "sound")
    assert rows["c"]["matrix"].tolist() == [[3, 4]]
    assert rows["b"]["status"] == "missing"


frame = st.lists(st.floats(width=32), min_size=3, max_size=3)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(clips=st.lists(st.none() | st.lists(st.none() | frame, max_size=4), min_size=1, max_size=8))
def test_any_ragged_matrices(tmp_path_factory: pytest.TempPathFactory, clips: list[Any]) -> None:
    """Rows hold exactly the finite frames, in their order; a clip without one is missing."""
    folder = tmp_path_factory.mktemp("ragged")
    store = Store.create(str(folder / "store"))
    ids = [f"c{index}" for index in range(len(clips))]
    table = {"clip_id": ids, "m": pa.array(clips, pa.list_(pa.list_(pa.float32())))}
    wanted = {
        name: [each for each in (clip or []) if each is not None and np.isfinite(each).all()]
        for name, clip in zip(ids, clips, strict=True)
    }
    path = write(folder, table)
    if not any(wanted.values()):
        with pytest.raises(UserError, match="no usable value"):
            import_table(store, path, labels={}, features=[audio("m")])
        return
    result = import_table(store, path, labels={}, features=[audio("m")])
    _, rows = features(store, "sound")
    for name, frames in wanted.items():
        assert (rows[name]["status"] == "ok") == bool(frames)
        if frames:
            assert rows[name]["matrix"].tolist() == np.array(frames, np.float32).tolist()
            assert len(rows[name]["times"]) == len(frames)
    (counts,) = result.features.values()
    assert counts.ok + sum(counts.missing.values()) == len(clips)


@pytest.mark.skipif(not MOSI.exists(), reason="the MOSI table is not at hand")
def test_mosi(store: Store) -> None:
    request = {"labels": {"sentiment": "sentiment"}, "features": [audio("covarep_*", "covarep")]}
    result = import_table(store, MOSI, **request)
    assert (result.clips, result.labels, result.warnings) == (1513, {"sentiment": 1513}, [])
    table = pq.read_table(MOSI)
    described, rows = features(store, "covarep")
    clips = clips_by_source(store)
    assert len(described["columns"]) == 73
    for row in table.take([0, 700, 1512]).to_pylist():
        assert np.array_equal(rows[row["clip_id"]]["matrix"][0], np.float32(row["covarep_73"]))
        assert clips[row["clip_id"]]["text"] == row["text"]
    assert sum(row["split"] == "train" for row in clips.values()) == 1284


def test_a_hundred_thousand_clips(store: Store, tmp_path: Path) -> None:
    n, width = 10 * ROWS_PER_BLOCK, 4
    values = np.arange(n * width, dtype=np.float32)
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(values), width)
    ids = [f"clip {index}" for index in range(n)]
    path = write(tmp_path, {"clip_id": ids, "split": ["train"] * n, "y": np.linspace(-3, 3, n), "v": vectors})
    result = import_table(store, path, labels={"y": "y"}, features=[audio("v")])
    assert result.clips_written == result.labels_written == n
    spec = feature_table(next(iter(result.features)), n_columns=width, summary_columns=(), quality_columns=())
    last = store.table(spec).read(filter=pc.field("source_id") == ids[-1]).to_pylist()[0]
    assert last["values"] == values[-width:].tolist()
