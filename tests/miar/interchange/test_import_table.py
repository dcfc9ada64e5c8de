"""Importing tables of clips: what arrives in the store, what a second import changes, what is refused."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from miar.corpus.model import clip_id
from miar.errors import UserError
from miar.features.contract import FeatureSet, Modality
from miar.interchange.bring_in import ImportResult
from miar.interchange.import_columns import FeatureColumn
from miar.interchange.import_table import import_table
from miar.interchange.table_file import ROWS_PER_BLOCK
from storage import CLIPS, FEATURE_SETS, LABELS, RUNS, Store, feature_table

MOSI = Path(__file__).resolve().parents[4] / "shared/data/mosi/mosi_train_valid.parquet"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.create(str(tmp_path / "store"))


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


# --- What arrives -----------------------------------------------------------------------------------------


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


# --- Again ------------------------------------------------------------------------------------------------


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


def test_the_same_import_twice_changes_nothing(store: Store, tmp_path: Path) -> None:
    first = run_base(store, tmp_path, base_table())
    before = versions(store)
    second = run_base(store, tmp_path, base_table())
    assert versions(store) == before
    assert first.run_id is not None
    assert second.run_id is None
    assert "held all of it" in str(second)


def test_exactly_what_changed_is_written(store: Store, tmp_path: Path) -> None:
    run_base(store, tmp_path, base_table())
    changed = base_table() | {"text": ["one", "zwei", None], "y": [None, None, 3.5]}
    changed["v"] = [[1.0, 2.0], [3.0, 4.5], [5.0, 6.0]]
    result = run_base(store, tmp_path, changed)
    (counts,) = result.features.values()
    assert (result.clips_written, result.labels_written, result.labels_removed, counts.written) == (1, 1, 1, 2)
    assert {row["source_id"]: row["value"] for row in rows_of(store, LABELS)} == {"c": 3.5}
    assert features(store, "sound")[1]["c"]["matrix"].tolist() == [[5, 6]]
    assert clips_by_source(store)["b"]["text"] == "zwei"
    assert store.table(CLIPS).count() == 3


def test_clips_without_a_split_are_given_one_by_video_and_keep_it(store: Store, tmp_path: Path) -> None:
    n = 200
    videos = [f"v{index // 4}" for index in range(n)]
    columns = {"clip_id": [f"c{index}" for index in range(n)], "video_id": videos, "y": np.arange(n, dtype=float)}
    path = write(tmp_path, columns)
    import_table(store, path, labels={"y": "y"})
    splits = {name: row["split"] for name, row in clips_by_source(store).items()}
    by_video = {(video, splits[clip]) for clip, video in zip(columns["clip_id"], videos, strict=True)}
    assert len(by_video) == len(set(videos)), "no video falls into two splits"
    counts = [list(splits.values()).count(name) for name in ("train", "valid", "test")]
    assert counts == pytest.approx([0.7 * n, 0.15 * n, 0.15 * n], abs=4)
    assert import_table(store, path, labels={"y": "y"}).run_id is None
    more = write(tmp_path, {"clip_id": ["late", "c0"], "video_id": ["v3", "v0"], "y": [1.0, 0.0]})
    import_table(store, more, labels={"y": "y"})
    assert clips_by_source(store)["late"]["split"] == splits["c12"]


def test_a_second_table_adds_to_the_first(store: Store, tmp_path: Path) -> None:
    """Features in a file of their own leave words, videos, splits and labels as they are."""
    run_base(store, tmp_path, base_table())
    before = clips_by_source(store)
    path = write(tmp_path, {"clip_id": ["c", "a"], "f": [[1.0], [2.0]]}, "faces.parquet")
    import_table(store, path, corpus_id="mine", labels={}, features=[FeatureColumn(Modality.FACE, "face", "f")])
    assert clips_by_source(store) == before
    assert store.table(LABELS).count() == 2
    assert set(features(store, "face")[1]) == {"a", "c"}


def test_a_row_that_repeats_is_left_out_with_a_warning(store: Store, tmp_path: Path) -> None:
    columns = {name: [*values, values[0]] for name, values in base_table().items()}
    result = run_base(store, tmp_path, columns)
    assert result.clips == 3
    assert "rows that repeat a clip word for word and were left out: 1" in result.warnings[0]


# --- What is bad ------------------------------------------------------------------------------------------


def test_labels_that_are_no_numbers_are_dropped_and_counted(store: Store, tmp_path: Path) -> None:
    columns = base_table() | {"y": [float("nan"), float("inf"), 2.0]}
    result = run_base(store, tmp_path, columns)
    assert result.labels == {"y": 1}
    assert result.warnings == ["label 'y': 2 clips are NaN or infinite and were dropped (the first: 'a')"]
    assert [row["source_id"] for row in rows_of(store, LABELS)] == ["c"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"y": None}, r"no column 'y' in the table; it has clip_id, video_id, text, split, v"),
        ({"v": None}, r"no column 'v' for audio:sound in the table; it has clip_id, .*y"),
        ({"v": [[1.0, 2.0], [3.0], None]}, r"widths differ in column 'v': 2 values for clip 'a', 1 for clip 'b'"),
        ({"v": [[[1.0]], [[1.0], [1.0, 2.0]], None]}, r"widths differ .*'a'.* 2 for clip 'b'"),
        ({"v": [None, [], [float("nan")]]}, r"column 'v' has no usable value in any clip"),
        ({"v": ["a", "b", "c"]}, r"clip 'a' is not a JSON list of numbers: 'a'"),
        ({"v": [["x"], ["y"], ["z"]]}, r"column 'v' holds string, not numbers"),
        ({"clip_id": ["a", "b", "a"]}, r"clip 'a' is in the table twice with different 'split' \('train' and 'test'\)"),
        ({"clip_id": ["a", None, "c"]}, r"row 2 has no 'clip_id'"),
        ({"split": ["train", "holdout", None]}, r"split 'holdout' is none of train, valid"),
        ({"y": ["1", "two", "3"]}, r"mixes numbers and names: clip 'b' has 'two'"),
        ({"y": [None, None, float("nan")]}, r"label column 'y' has no usable label in any row"),
        ({"y": [[1.0], [2.0], [3.0]]}, r"a label is a number or a class name"),
        ({"segment": ["first", "second", "third"]}, r"column 'segment' should hold whole numbers"),
        ({"clip_id": []}, r"has no rows"),
    ],
)
def test_a_mistake_is_one_line_and_writes_nothing(
    store: Store, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    columns = {name: values for name, values in (base_table() | change).items() if values is not None}
    if columns["clip_id"] == []:
        columns = {name: pa.array([], pa.string()) for name in columns}
    with pytest.raises(UserError, match=message) as caught:
        run_base(store, tmp_path, columns)
    assert "\n" not in str(caught.value)
    assert store.table(CLIPS).version() is None
    assert store.table(RUNS).version() is None


def test_the_same_clip_with_two_labels_or_two_splits(store: Store, tmp_path: Path) -> None:
    for other in ({"y": [1.0, 2.0]}, {"split": ["train", "test"]}):
        path = write(tmp_path, {"clip_id": ["a", "a"], "y": [1.0, 1.0]} | other)
        with pytest.raises(UserError, match=rf"'a' is in the table twice with different '{next(iter(other))}'"):
            import_table(store, path, labels={"y": "y"})


def test_files_that_are_no_tables(store: Store, tmp_path: Path) -> None:
    (tmp_path / "a.pkl").write_bytes(b"\x80\x04K\x01.")
    (tmp_path / "b.parquet").write_text("not one")
    (tmp_path / "c.csv").write_bytes("clip_id,y\né,1\n".encode("utf-16"))
    (tmp_path / "d.csv").write_text("clip_id,y,y\na,1,2\n")
    for name, message in (
        ("a.pkl", "neither .csv nor .parquet"),
        ("b.parquet", "cannot read"),
        ("c.csv", r"cannot read|no column 'clip_id'"),
        ("d.csv", "more than one column named 'y'"),
        ("e.csv", "no such file"),
    ):
        with pytest.raises(UserError, match=message):
            import_table(store, tmp_path / name, labels={"y": "y"})


def test_names_that_cannot_be_tables(store: Store, tmp_path: Path) -> None:
    path = write(tmp_path, {"clip_id": ["a"], "v": [[1.0]]})
    for name in ("../up", "a/b", "", ".hidden", "a b"):
        with pytest.raises(UserError, match="cannot name a feature set"):
            import_table(store, path, labels={}, features=[audio("v", name)])
    with pytest.raises(UserError, match="two features are named 'sound'"):
        import_table(store, path, labels={}, features=[audio("v"), audio("v")])


def test_a_corpus_that_was_read_from_files_is_left_alone(store: Store, tmp_path: Path) -> None:
    row = {"clip_id": "x", "corpus_id": "mine", "path": "a.mp4", "source_id": "a", "video_id": "a", "segment": 0}
    store.table(CLIPS).merge(pa.Table.from_pylist([row | {"state": "live"}], schema=CLIPS.schema))
    with pytest.raises(UserError, match="'mine' was read from files"):
        run_base(store, tmp_path, base_table())
