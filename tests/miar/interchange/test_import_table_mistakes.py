"""Importing tables of clips: what is left out, and what is refused."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from made_tables import audio, base_table, rows_of, run_base, write

from miar.errors import UserError
from miar.features.contract import Modality
from miar.interchange.import_columns import FeatureColumn
from miar.interchange.import_table import import_table
from storage import CLIPS, LABELS, RUNS, Store


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


@pytest.mark.parametrize(
    ("times", "message"),
    [
        ([0.0, 1.0, 2.0], "column 't' holds double, not numbers or lists"),
        (["a", "[0]", "[0]"], "column 't' of clip 'a' is not a JSON list of numbers: 'a'"),
        (['["a"]', "[0]", "[0]"], "column 't' holds JSON lists of other things"),
    ],
)
def test_times_that_cannot_be_used_are_named_by_their_own_column(
    store: Store, tmp_path: Path, times: list[Any], message: str
) -> None:
    path = write(tmp_path, {"clip_id": ["a", "b", "c"], "v": [[1.0]] * 3, "t": times})
    feature = FeatureColumn(Modality.AUDIO, "sound", "v", "t")
    with pytest.raises(UserError, match=message):
        import_table(store, path, labels={}, features=[feature])


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
