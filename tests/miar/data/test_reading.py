"""Reading a snapshot against the plainest way to read it: whole tables in pandas."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from miar.data import reading
from miar.data.dataset import ClipDataset
from miar.data.reading import CLIP_COLUMNS, SnapshotReader
from miar.data.selection import Selection
from miar.errors import UserError
from storage import Snapshot

TABLES = {"text": "features/text/aaaa", "audio": "features/opensmile/bbbb", "face": "features/mediapipe/cccc"}
WIDTHS = {"text": 3, "audio": 2, "face": 1}
QUALITY = {"text": "quality_tokens", "audio": "quality_voiced_share", "face": "quality_face_share"}
MOODS = ("calm", "glad", "sad")


@pytest.fixture(scope="module")
def frame(made: Snapshot) -> pd.DataFrame:
    """One row per live clip, in the reader's order, with everything that is known about it."""
    clips = made.read("clips", (*CLIP_COLUMNS, "state")).to_pandas().query("state == 'live'")
    labels = made.read("labels").to_pandas()
    for name, column in (("sentiment", "value"), ("mood", "category")):
        one = labels[labels.name == name][["clip_id", column]].rename(columns={column: name})
        clips = clips.merge(one, on="clip_id", how="left")
    for modality, table in TABLES.items():
        rows = made.read(table).to_pandas()
        columns = {"status": f"{modality}_status", "values": modality, QUALITY[modality]: QUALITY[modality]}
        if modality == "audio":
            columns |= {"loud_mean": "loud_mean", "loud_max": "loud_max"}
        clips = clips.merge(rows[["clip_id", *columns]].rename(columns=columns), on="clip_id", how="left")
    return clips.sort_values(["corpus_id", "video_id", "segment", "clip_id"]).reset_index(drop=True)


def sequence(row: Any, modality: str) -> np.ndarray:
    if row[f"{modality}_status"] != "ok":
        return np.zeros((0, WIDTHS[modality]), np.float32)
    return np.asarray(row[modality], np.float32).reshape(-1, WIDTHS[modality])


def assert_holds(dataset: ClipDataset, rows: pd.DataFrame) -> None:
    """``dataset`` is exactly ``rows``, bit for bit and in their order."""
    assert dataset.clip_ids == rows.clip_id.tolist()
    for name in ("split", "speaker", "video_id", "segment", "source_id"):
        there = [None if pd.isna(one) else one for one in rows[name]]
        assert getattr(dataset, f"{name}s") == there
    for modality, data in dataset.modalities.items():
        for index, (_, row) in enumerate(rows.iterrows()):
            expected = sequence(row, modality)
            assert data.sequences[index].tobytes() == expected.tobytes()
            assert data.sequences[index].shape == expected.shape
            summary = (
                modality == "audio" and row.audio_status == "ok" and (row[["loud_mean", "loud_max"]].notna().any())
            )
            assert data.available[index] == (np.isfinite(expected).any() or summary)
    summary = dataset.modalities["audio"].summary
    assert summary is not None
    np.testing.assert_array_equal(summary, rows[["loud_mean", "loud_max"]].to_numpy(np.float32).reshape(-1, 2))


bounds = st.tuples(st.none() | st.floats(-1, 1), st.none() | st.floats(-1, 1))
splits = st.none() | st.lists(st.sampled_from(["train", "valid", "test", "none"]), max_size=3)
corpora = st.none() | st.lists(st.sampled_from(["a", "b", "c", "d"]), max_size=3)
qualities = st.dictionaries(st.sampled_from(sorted(QUALITY.values())), bounds, max_size=3)


def meets(frame: pd.DataFrame, wanted: Selection, label: str) -> pd.Series:
    """The naive filter, a condition at a time."""
    kept = pd.Series(True, index=frame.index)
    if wanted.splits is not None:
        kept &= frame.split.isin(wanted.splits)
    if wanted.corpora is not None:
        kept &= frame.corpus_id.isin(wanted.corpora)
    if wanted.clip_ids is not None:
        kept &= frame.clip_id.isin(wanted.clip_ids)
    if wanted.labelled:
        kept &= frame[label].notna()
    if wanted.classes is not None:
        kept &= frame.mood.isin(wanted.classes)
    ranges = dict(wanted.quality)
    if wanted.label_range is not None:
        ranges["sentiment"] = wanted.label_range
    for name, (low, high) in ranges.items():
        kept &= frame[name].notna()
        kept &= True if low is None else frame[name] >= low
        kept &= True if high is None else frame[name] <= high
    return kept


@given(splits, corpora, st.booleans(), st.none() | bounds, qualities, st.data())
@settings(max_examples=60, deadline=None)
def test_a_selection_is_a_filter(made: Snapshot, frame: pd.DataFrame, splits, corpora, labelled, range_, quality, data):
    label = data.draw(st.sampled_from(["sentiment", "mood"]))
    ids = data.draw(st.none() | st.lists(st.sampled_from(frame.clip_id.tolist()), max_size=20))
    classes = data.draw(st.none() | st.lists(st.sampled_from(MOODS), max_size=2)) if label == "mood" else None
    wanted = Selection(splits, corpora, ids, labelled, range_ if label == "sentiment" else None, classes, quality)
    reader = SnapshotReader(made, label=label)
    rows = frame[meets(frame, wanted, label)]
    dataset = reader.load(wanted)
    assert_holds(dataset, rows)
    targets = rows[label].map({name: index for index, name in enumerate(MOODS)}) if label == "mood" else rows[label]
    np.testing.assert_array_equal(dataset.targets, targets.to_numpy(np.float64))


@given(st.lists(st.integers(0, 10**6), max_size=30), st.integers(1, 70))
@settings(max_examples=25, deadline=None)
def test_any_clips_can_be_read_in_any_order(
    made: Snapshot, frame: pd.DataFrame, numbers: list[int], clips: int
) -> None:
    reader = SnapshotReader(made)
    positions = np.array([number % len(reader) for number in numbers], np.int64)
    assert_holds(reader.read(positions), frame.iloc[positions])
    chunks = list(reader.chunks(clips=clips))
    assert max(map(len, chunks)) <= clips
    seen = [clip_id for chunk in chunks for clip_id in chunk.clip_ids]
    assert sorted(seen) == sorted(frame.clip_id)
    assert_holds(chunks[-1], frame.set_index("clip_id", drop=False).loc[chunks[-1].clip_ids])


def test_a_pass_decodes_each_row_group_once(made: Snapshot, decoded: list[tuple[int, int]]) -> None:
    reader = SnapshotReader(made, feature_sets={name: TABLES[name] for name in ("text", "audio")})
    assert sum(len(chunk) for chunk in reader.chunks(clips=3)) == len(reader)
    assert len(decoded) == len(set(decoded)) > 20


def test_parts_are_bounded_in_values_too(made: Snapshot, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "CHUNK_VALUES", 60)
    for chunk in SnapshotReader(made).chunks():
        assert len(chunk) == 1 or chunk.frames().sum(axis=0) @ chunk.widths <= 60


@pytest.mark.parametrize("label", ["sentiment", "mood", None])
def test_rows_hold_everything(made: Snapshot, frame: pd.DataFrame, label: str | None) -> None:
    reader = SnapshotReader(made, label=label)
    rows = {row["clip_id"]: row for batch in reader.rows(clips=8) for row in batch.to_pylist()}
    assert set(rows) == set(frame.clip_id)
    for _, expected in frame.iterrows():
        row = rows[expected.clip_id]
        assert row["corpus_id"] == expected.corpus_id
        assert row["label"] == (None if label is None or pd.isna(expected[label]) else expected[label])
        for modality, width in WIDTHS.items():
            values = np.asarray(row[modality] or [], np.float32).reshape(-1, width)
            np.testing.assert_array_equal(values, sequence(expected, modality))
        loud = np.float32("nan") if row["audio_loud_mean"] is None else np.float32(row["audio_loud_mean"])
        np.testing.assert_array_equal(loud, np.float32(expected.loud_mean))
    assert reader.rows(Selection(splits=["none"])).read_all().num_rows == 0


@pytest.mark.parametrize(
    ("label", "wanted", "message"),
    [
        (None, Selection(labelled=True), "no label is read: name one"),
        ("mood", Selection(label_range=(0, 1)), "choose among calm, glad, sad"),
        ("mood", Selection(classes=["angry"]), "no class angry; there are: calm, glad, sad"),
        ("sentiment", Selection(classes=["glad"]), "no class glad; there are: none, the label is a number"),
        (
            None,
            Selection(quality={"quality_blur": (0.1, None)}),
            "no feature sets have the quality column 'quality_blur'",
        ),
    ],
)
def test_a_condition_that_cannot_be_is_refused(made: Snapshot, label: str | None, wanted: Selection, message: str):
    with pytest.raises(UserError, match=message):
        SnapshotReader(made, label=label).select(wanted)


def test_a_column_may_be_named_with_its_modality(made: Snapshot, tmp_path: Path) -> None:
    reader = SnapshotReader(made)
    short, full = ({name: (0.5, None)} for name in ("quality_face_share", "face.quality_face_share"))
    np.testing.assert_array_equal(reader.select(Selection(quality=short)), reader.select(Selection(quality=full)))


def test_positions_are_those_of_the_ids_and_strangers_are_counted(made: Snapshot) -> None:
    reader = SnapshotReader(made)
    ids = reader.clips["clip_id"].to_pylist()
    order = np.random.default_rng(0).permutation(len(ids))
    assert reader.positions([ids[place] for place in order]).tolist() == order.tolist()
    assert reader.positions([ids[3], ids[3]]).tolist() == [3, 3]
    assert reader.positions([]).tolist() == []
    with pytest.raises(KeyError, match="5 of the clips are not in snapshot"):
        reader.positions([ids[0], ids[0][:-1], ids[0] + "0", "", "zz", "é"])
