"""A row that was made from other words or another recording than the clip's is not read as the clip's."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from made_jobs import CUES, FEATURE_SETS, carry_out, plan

from miar.data.reading import SnapshotReader
from miar.features.contract import Modality
from miar.interchange.import_columns import FeatureColumn
from miar.interchange.import_table import import_table
from miar.pipeline.score import _input_hashes
from storage import CLIPS, Store

TABLES = {one.modality.value: one.table for one in FEATURE_SETS.values()}


@pytest.fixture
def refreshed(store: Store, corpus: Path) -> Path:
    carry_out(store, plan(store, corpus))
    return corpus


def _lacking(store: Store) -> dict[str, set[str]]:
    """Modality -> the videos of the clips that lack it."""
    dataset = SnapshotReader(store.snapshots.take()).load()
    return {
        name: {video for video, there in zip(dataset.video_ids, data.available, strict=True) if not there}
        for name, data in dataset.modalities.items()
    }


def _hashes(store: Store) -> dict[str, str]:
    return _input_hashes(store.snapshots.take(), TABLES, None)


def _in_video(store: Store, name: str) -> set[str]:
    rows = store.table(CLIPS).read(["clip_id", "video_id"]).to_pylist()
    return {row["clip_id"] for row in rows if row["video_id"] == name}


def test_edited_words_leave_no_text_until_they_are_extracted(store: Store, refreshed: Path):
    before = _hashes(store)
    assert _lacking(store) == {"text": set(), "audio": set(), "face": set()}
    (refreshed / "a.srt").write_text(CUES.format("other"))
    carry_out(store, plan(store, refreshed, ["opensmile"]))
    assert _lacking(store) == {"text": {"a"}, "audio": set(), "face": set()}
    without = _hashes(store)
    assert {clip for clip, found in without.items() if found != before[clip]} == _in_video(store, "a")
    carry_out(store, plan(store, refreshed))
    assert _lacking(store) == {"text": set(), "audio": set(), "face": set()}
    assert all(
        found not in (before[clip], without[clip])
        for clip, found in _hashes(store).items()
        if clip in (_in_video(store, "a"))
    )


def test_another_recording_leaves_neither_sound_nor_face(store: Store, refreshed: Path):
    before = _hashes(store)
    (refreshed / "b.mp4").write_bytes(b"another recording")
    carry_out(store, plan(store, refreshed, ["text"]))
    assert _lacking(store) == {"text": set(), "audio": {"b"}, "face": {"b"}}
    assert {clip for clip, found in _hashes(store).items() if found != before[clip]} == _in_video(store, "b")
    (refreshed / "b.mp4").write_bytes(b"b" * 100)
    carry_out(store, plan(store, refreshed, ["text"]))
    assert _lacking(store) == {"text": set(), "audio": set(), "face": set()}
    assert _hashes(store) == before


def test_a_stale_row_is_not_in_a_cached_copy_either(store: Store, refreshed: Path, tmp_path: Path):
    (refreshed / "a.srt").write_text(CUES.format("other"))
    carry_out(store, plan(store, refreshed, ["opensmile"]))
    snapshot = store.snapshots.take()
    for cache in (None, tmp_path / "cache", tmp_path / "cache"):
        available = SnapshotReader(snapshot, cache=cache).load().modalities["text"].available
        assert np.asarray(available).tolist() == [False] * 2 + [True] * 6


def test_imported_rows_are_what_they_are(store: Store, tmp_path: Path):
    """They were not made from the words that stand beside them."""
    words = pa.table({"clip_id": ["x", "y"], "text": ["one", "two"], "value": [[1.0, 2.0], [3.0, 4.0]]})
    pq.write_table(words, tmp_path / "made.parquet")
    import_table(store, tmp_path / "made.parquet", labels={}, features=[FeatureColumn(Modality.TEXT, "text", "value")])
    assert _lacking(store) == {"text": set()}
