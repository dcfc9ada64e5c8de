"""A snapshot of a real store becomes a data set, whole and in chunks."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from miar.data.from_store import load_dataset
from miar.data.reading import SnapshotReader
from miar.errors import UserError
from miar.models.miar import MIAR, MIARConfig
from storage import CLIPS, FEATURE_SETS, LABELS, Snapshot, Store, feature_table

TEXT, AUDIO, OLD_AUDIO = "features/text/aaaa", "features/opensmile/bbbb", "features/opensmile/0000"
COUNT = 12


def clip(index: int) -> dict:
    return {
        "clip_id": f"clip{index:02d}",
        "corpus_id": "made",
        "video_id": f"video{index // 4}",
        "segment": index % 4,
        "source_id": f"mine{index}",
        "speaker": f"speaker{index // 6}",
        "split": ("train", "valid", "test")[index // 4],
        "state": "gone" if index == 11 else "live",
    }


def row(index: int, width: int, summary: dict[str, float] | None = None, missing: bool = False) -> dict:
    frames = index % 3 + 1
    filled = {
        "status": "missing" if missing else "ok",
        "reason": "no_voice" if missing else None,
        "n_frames": None if missing else frames,
        "values": None if missing else [index + 0.25 * value for value in range(frames * width)],
        "times": None if missing else [0.1 * frame for frame in range(frames)],
    }
    identity = {"clip_id": f"clip{index:02d}", "corpus_id": "made", "input_hash": f"hash{index}"}
    return identity | filled | ({} if missing else summary or {})


def write(store: Store, spec, rows: list[dict]) -> None:
    store.table(spec).merge(pa.Table.from_pylist(rows, schema=spec.schema))


def descriptor(table: str, modality: str, columns: list[str], summary: list[str], day: int) -> dict:
    _, extractor, config_hash = table.split("/")
    return {
        "extractor": extractor,
        "config_hash": config_hash,
        "modality": modality,
        "columns": columns,
        "summary_columns": summary,
        "layers": 1,
        "voiced_columns": columns[:1] if modality == "audio" else [],
        "created_at": np.datetime64(f"2026-01-{day:02d}", "us").item(),
        "state": "active",
    }


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory: pytest.TempPathFactory) -> Snapshot:
    store = Store.create(str(Path(tmp_path_factory.mktemp("from_store")) / "store"))
    write(store, CLIPS, [clip(index) for index in reversed(range(COUNT))])
    labels = [{"clip_id": f"clip{index:02d}", "name": "sentiment", "value": float(index)} for index in range(8)]
    labels += [{"clip_id": "clip08", "name": "sentiment", "value": float("nan")}]
    moods = ["glad", "sad"] * 3
    labels += [{"clip_id": f"clip{index:02d}", "name": "mood", "category": mood} for index, mood in enumerate(moods)]
    write(store, LABELS, [label | {"corpus_id": "made"} for label in labels])
    text = feature_table(TEXT, n_columns=3, summary_columns=[], quality_columns=[])
    write(store, text, [row(index, 3) for index in range(10)])
    for table in (AUDIO, OLD_AUDIO):
        audio = feature_table(table, n_columns=2, summary_columns=["loud_mean"], quality_columns=["quality_voiced"])
        rows = [row(index, 2, {"loud_mean": 10.0 * index}, missing=index == 3) for index in range(COUNT)]
        rows[5]["loud_mean"] = None
        write(store, audio, rows)
    rows = [
        descriptor(TEXT, "text", ["a", "b", "c"], [], 1),
        descriptor(AUDIO, "audio", ["f0", "loud"], ["loud_mean"], 2),
        descriptor(OLD_AUDIO, "audio", ["f0", "loud"], ["loud_mean"], 1),
    ]
    write(store, FEATURE_SETS, rows)
    return store.snapshots.take()


def test_live_clips_come_in_order_with_their_features(snapshot: Snapshot) -> None:
    dataset = load_dataset(snapshot, label="sentiment")
    assert dataset.clip_ids == [f"clip{index:02d}" for index in range(11)]
    assert dataset.source_ids[4] == "mine4"
    assert dataset.splits[:5] == ["train"] * 4 + ["valid"]
    assert dataset.segments[4:8] == [0, 1, 2, 3]
    assert dataset.speakers[7] == "speaker1"
    assert dataset.snapshot_id == snapshot.id
    for index in range(10):
        expected = (index + 0.25 * np.arange((index % 3 + 1) * 3)).reshape(-1, 3)
        np.testing.assert_array_equal(dataset.modalities["text"].sequences[index], expected)
    audio = dataset.modalities["audio"]
    np.testing.assert_array_equal(audio.sequences[7], (7 + 0.25 * np.arange(4)).reshape(2, 2))
    assert audio.summary is not None
    assert audio.summary[7, 0] == 70
    assert np.isnan(audio.summary[[3, 5], 0]).all()
    assert dataset.available[:, 0].tolist() == [True] * 10 + [False]
    assert dataset.available[:, 1].tolist() == [index != 3 for index in range(11)]
    assert not dataset.available[:, 2].any()


def test_labels_are_numbers_or_classes(snapshot: Snapshot) -> None:
    dataset = load_dataset(snapshot, label="sentiment")
    assert dataset.targets[:8].tolist() == list(range(8))
    assert np.isnan(dataset.targets[8:]).all()
    assert len(load_dataset(snapshot, label="sentiment", labelled_only=True)) == 8
    moods = load_dataset(snapshot, label="mood", labelled_only=True)
    assert moods.classes == ("glad", "sad")
    assert moods.targets.tolist() == [0, 1, 0, 1, 0, 1]
    other = moods.with_classes(["angry", "sad"])
    assert np.isnan(other.targets[0])
    assert other.targets[1] == 1
    assert np.isnan(load_dataset(snapshot, label=None).targets).all()
    with pytest.raises(UserError, match=r"no label is named 'valence'.*mood, sentiment"):
        load_dataset(snapshot, label="valence")


def test_clips_splits_and_feature_sets_can_be_chosen(snapshot: Snapshot) -> None:
    assert load_dataset(snapshot, label=None, splits=["valid"]).clip_ids == [f"clip0{index}" for index in range(4, 8)]
    assert load_dataset(snapshot, label=None, clip_ids=["clip07", "clip02"]).clip_ids == ["clip02", "clip07"]
    assert load_dataset(snapshot, label=None).feature_sets["audio"]["config_hash"] == "bbbb"
    older = load_dataset(snapshot, label=None, feature_sets={"audio": OLD_AUDIO, "face": "features/mediapipe/none"})
    assert {name: one["config_hash"] for name, one in older.feature_sets.items()} == {"audio": "0000"}
    with pytest.raises(UserError, match=r"none of features/text/none; feature sets in it: .*features/text/aaaa"):
        load_dataset(snapshot, label=None, feature_sets={"text": "features/text/none"})


@pytest.mark.parametrize("clips_per_chunk", [1, 4, 100])
def test_chunks_hold_the_same_as_the_whole(snapshot: Snapshot, clips_per_chunk: int) -> None:
    whole = load_dataset(snapshot, label="mood")
    chunks = list(SnapshotReader(snapshot, label="mood").chunks(clips=clips_per_chunk))
    assert [clip_id for chunk in chunks for clip_id in chunk.clip_ids] == whole.clip_ids
    assert max(len(chunk) for chunk in chunks) <= clips_per_chunk
    assert all(chunk.classes == ("glad", "sad") for chunk in chunks)
    np.testing.assert_array_equal(np.concatenate([chunk.targets for chunk in chunks]), whole.targets)
    sequences = [chunk.modalities["text"].sequences[index] for chunk in chunks for index in range(len(chunk))]
    for index, values in enumerate(sequences):
        np.testing.assert_array_equal(values, whole.modalities["text"].sequences[index])


def test_a_model_reads_what_the_store_holds(snapshot: Snapshot, tmp_path: Path) -> None:
    dataset = load_dataset(snapshot, label="sentiment", labelled_only=True)
    model = MIAR.for_dataset(MIARConfig(width=16, heads=2, shared_width=8), dataset).eval()
    model.save_pretrained(tmp_path)
    again = MIAR.from_pretrained(tmp_path)
    assert again.feature_tables == {"text": TEXT, "audio": AUDIO}
    assert again.record.snapshot_id == snapshot.id
    everything = load_dataset(snapshot, label=None, feature_sets=again.feature_tables)
    again.check_feature_sets(everything.feature_sets)
    scores = again(next(iter(everything.batches(64)))).prediction
    assert scores.isfinite().all()
