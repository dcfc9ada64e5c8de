"""MMSA feature files: what arrives from others', what MMSA reads of ours, and that a round trip loses nothing."""

import json
import pickle
import pickletools
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, assume, given, settings
from made_corpora import Frames, contents, corpora, stored
from typer.testing import CliRunner

from miar.cli.app import app
from miar.errors import UserError
from miar.features.contract import Modality
from miar.interchange.export_mmsa import export_mmsa, in_steps
from miar.interchange.import_mmsa import import_mmsa
from storage import CLIPS, FEATURE_SETS, RUNS, Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.create(str(tmp_path / "store"))


def padded(sequences: list[list[list[float]]], steps: int) -> np.ndarray:
    array = np.zeros((len(sequences), steps, 2))
    for row, frames in enumerate(sequences):
        array[row, : len(frames)] = np.array(frames).reshape(-1, 2)
    return array


def split(ids: list[str], **others: Any) -> dict[str, Any]:
    return {"id": ids, "raw_text": np.array([f"words of {clip}" for clip in ids]), **others}


def save(folder: Path, content: Any, name: str = "mosi.pkl", protocol: int = 4) -> Path:
    path = folder / name
    path.write_bytes(pickle.dumps(content, protocol))
    return path


def mosi() -> dict[str, Any]:
    """An unaligned file as MMSA's tools write it."""
    return {
        "train": split(
            ["a$_$1", "a$_$10", "b$_$2"],
            audio=padded([[[1, 2], [0, 0], [3, 4]], [[5, 6]], []], 4),
            vision=padded([[[9, 9]], [[8, 8], [7, 7]], [[6, 6]]], 3),
            text=padded([[[1, 1]], [[2, 2], [3, 3]], [[4, 4]]], 2).astype(np.float32),
            text_bert=np.array([[[101, 0], [1, 0], [0, 0]], [[101, 102], [1, 1], [0, 0]], [[101, 0], [1, 0], [0, 0]]]),
            annotations=np.array(["Positive", "Negative", "Neutral"]),
            classification_labels=np.array([2.0, 0.0, 1.0]),
            regression_labels=np.array([1.5, -0.2, 0.0]),
            audio_lengths=[1, 1, 1],
            vision_lengths=[1, 2, 1],
        ),
        "valid": split(
            ["c$_$0"],
            audio=padded([[[np.nan, 1], [2, 2]]], 4),
            vision=padded([[]], 3),
            text=padded([[[5, 5]]], 2),
            text_bert=np.array([[[101, 0], [1, 0], [0, 0]]]),
            annotations=["Neutral"],
            classification_labels=[1],
            regression_labels=[float("nan")],
            audio_lengths=np.array([2]),
            vision_lengths=np.array([1]),
        ),
    }


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_an_unaligned_file(store: Store, tmp_path: Path, protocol: int) -> None:
    result = import_mmsa(store, save(tmp_path, mosi(), protocol=protocol))
    clips = contents(store)
    assert {clip: (row["video_id"], row["segment"], row["split"]) for clip, row in clips.items()} == {
        "a$_$1": ("a", 1, "train"),
        "a$_$10": ("a", 10, "train"),
        "b$_$2": ("b", 2, "train"),
        "c$_$0": ("c", 0, "valid"),
    }
    assert clips["a$_$10"]["text"] == "words of a$_$10"
    labels = ("sentiment", "sentiment_class", "annotation")
    assert [clips["a$_$1"][name] for name in labels] == [1.5, 2.0, "Positive"]
    assert clips["c$_$0"]["sentiment"] is None
    # The length 1 stops at a frame of zeros within the sequence.
    assert clips["a$_$1"]["audio_frames"].values.tolist() == [[1, 2], [0, 0], [3, 4]]
    assert clips["a$_$10"]["audio_frames"].values.tolist() == [[5, 6]]
    assert clips["b$_$2"]["audio_frames"] is None
    # A frame with NaN is left out; the other keeps its number.
    assert clips["c$_$0"]["audio_frames"] == Frames(np.float32([[2, 2]]), np.float32([1]))
    assert clips["a$_$10"]["text"] == "words of a$_$10"
    assert clips["c$_$0"]["face_frames"] is None
    assert any("audio: 1 clips hold values beyond their length" in warning for warning in result.warnings)
    assert any("1 vectors hold a NaN" in warning for warning in result.warnings)
    missing = {table.split("/")[1]: counts.missing for table, counts in result.features.items()}
    assert missing == {"mmsa_text": {}, "mmsa_audio": {"all_zero": 1}, "mmsa_vision": {"all_zero": 1}}
    assert import_mmsa(store, tmp_path / "mosi.pkl").run_id is None


def test_an_aligned_file_takes_lengths_from_the_words(store: Store, tmp_path: Path) -> None:
    """Text vectors go on behind the words (BERT fills them), and [CLS] and [SEP] are zeros in the other two."""
    mask = np.array([[[101, 7, 102, 0], [1, 1, 1, 0], [0, 0, 0, 0]]])
    content = split(
        ["a$_$1"],
        text=np.ones((1, 4, 2)),
        text_bert=mask,
        audio=padded([[[0, 0], [3, 4], [0, 0]]], 4),
        vision=padded([[]], 4),
        regression_labels=np.array([1.0]),
    )
    import_mmsa(store, save(tmp_path, {"train": content}))
    (clip,) = contents(store).values()
    assert clip["text_frames"].values.shape == (3, 2)
    described = {each["extractor"]: json.loads(each["config"]) for each in store.table(FEATURE_SETS).read().to_pylist()}
    assert described["mmsa_audio"] == {"origin": "mmsa", "aligned": True, "layout": "sequence"}
    assert clip["audio_frames"].values.tolist() == [[0, 0], [3, 4], [0, 0]]
    assert clip["face_frames"] is None


def test_sims_labels_by_modality_lists_and_vectors(store: Store, tmp_path: Path) -> None:
    content = split(
        [b"video_0001$_$0001", "video_0001$_$0002"],
        audio=[np.ones((3, 2), np.float32), np.array([[1, 2]])],
        vision=np.array([[1.0, 2.0, 3.0], [0, 0, 0]]),
        regression_labels=np.array([[0.5], [-1.0]]),
        regression_labels_T=[0.1, 0.2],
        regression_labels_A=[0.3, 0.4],
        regression_labels_V=[0.5, 0.6],
    )
    content["raw_text"] = ["我不想嫁给李茶", ""]
    import_mmsa(store, save(tmp_path, {"dev": content}))
    clips = contents(store)
    first, second = clips["video_0001$_$0001"], clips["video_0001$_$0002"]
    assert [first[f"sentiment{kind}"] for kind in ("", "_text", "_audio", "_face")] == [0.5, 0.1, 0.3, 0.5]
    assert (first["split"], first["text"], second["text"]) == ("valid", "我不想嫁给李茶", None)
    assert first["audio_frames"].values.shape == (3, 2)
    assert first["face_frames"].values.tolist() == [[1, 2, 3]]
    assert second["face_frames"] is None


def test_sequences_padded_in_front(store: Store, tmp_path: Path) -> None:
    """As the SDK pads; such files give length 1 for each."""
    audio = np.zeros((1, 5, 2))
    audio[0, 3:] = [[1, 2], [3, 4]]
    content = split(["a$_$1"], audio=audio, audio_lengths=[1], regression_labels=[1.0])
    import_mmsa(store, save(tmp_path, {"train": content}))
    assert contents(store)["a$_$1"]["audio_frames"] == Frames(np.float32([[1, 2], [3, 4]]), np.float32([3, 4]))


def changed(content: dict[str, Any], part: str, **others: Any) -> dict[str, Any]:
    return content | {part: content[part] | others}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (changed(mosi(), "valid", id=["a$_$1"]), r"'a\$_\$1' stands in train and in valid"),
        (changed(mosi(), "train", id=["a$_$1", "x", "a$_$1"]), r"'a\$_\$1' stands twice in train"),
        (changed(mosi(), "valid", audio=np.ones((1, 4, 3))), "widths differ in 'audio': 2 values .* 3 for clip"),
        (changed(mosi(), "train", audio=[np.ones((1, 2)), np.ones((1, 3)), np.ones((1, 2))]), "widths differ"),
        (changed(mosi(), "valid", audio=np.ones((2, 4, 2))), "valid/audio holds 2 clips, valid/id 1"),
        (changed(mosi(), "valid", raw_text=["a", "b"]), "valid/raw_text holds 2 clips"),
        (changed(mosi(), "valid", audio_lengths=["x"]), "valid/audio_lengths is no array of numbers"),
        (changed(mosi(), "valid", audio=np.array([["a"]])), "it should be steps x columns"),
        (changed(mosi(), "valid", regression_labels=np.ones((1, 7))), "a label is one value per clip"),
        (changed(mosi(), "valid", id=3), "valid/id is no list with a row for each clip"),
        ({"train": mosi()["train"], "holdout": mosi()["valid"]}, "split 'holdout' is none of train"),
        ({"train": {"audio": []}}, "has no 'id'"),
        ({"train": split([])}, "has no clips"),
        ([1, 2], "holds no dict of splits"),
        ({"train": mosi()["train"], "valid": split(["c"])}, "valid has no 'text', other splits do"),
    ],
)
def test_a_mistake_is_one_line_and_writes_nothing(store: Store, tmp_path: Path, content: Any, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        import_mmsa(store, save(tmp_path, content))
    assert "\n" not in str(caught.value)
    assert store.table(CLIPS).version() is None
    assert store.table(RUNS).version() is None


def nested(value: Any, depth: int) -> list[Any]:
    """Ten to the power of ``depth`` values, by naming one list ten times on each level: a few bytes each."""
    return [value] * 10 if depth == 1 else [nested(value, depth - 1)] * 10


@pytest.mark.parametrize(
    ("others", "message"),
    [
        ({"regression_labels": nested(1.0, 7)}, "train/regression_labels holds 10 values for a clip"),
        ({"raw_text": nested("a", 7)}, "train/raw_text is no list of texts"),
        ({"raw_text": [["a"] * 100_000] * 10}, "train/raw_text is no list of texts"),
        ({"raw_text": [["a" * 100_000] * 8] * 10}, "train/raw_text holds parts of a text of more than 200 letters"),
        ({"raw_text": np.zeros((5_000_000, 0))}, "asks for an array of empty rows"),
        ({"raw_text": np.zeros(1_000_000, "i1")}, "train/raw_text holds 1000000 clips, train/id 10"),
        ({"audio": [[0.5] * 1000] * 10}, "it should be steps x columns"),
    ],
)
def test_few_bytes_do_not_ask_for_much_memory(
    store: Store, tmp_path: Path, others: dict[str, Any], message: str
) -> None:
    content = {"train": split([f"a$_${index}" for index in range(10)]) | others}
    path = save(tmp_path, content)
    tracemalloc.start()
    try:
        with pytest.raises(UserError, match=message):
            import_mmsa(store, path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 4 * path.stat().st_size + 3e6


def test_labels_in_a_list_of_objects_are_numbers(store: Store, tmp_path: Path) -> None:
    labels = np.array([0.5, np.float32(1.5), 2, np.nan], object)
    content = split([f"a$_${index}" for index in range(4)], audio=np.ones((4, 1, 2)), regression_labels=labels)
    import_mmsa(store, save(tmp_path, {"train": content}))
    assert [row["sentiment"] for row in contents(store).values()] == [0.5, 1.5, 2.0, None]


# --- Out --------------------------------------------------------------------------------------------------


def as_mmsa_loads(path: Path, mode: str, *, is_aligned: bool) -> dict[str, Any]:
    """What MMSA's loader asks of a file: these keys, these casts, rows by number."""
    with path.open("rb") as file:
        data = pickle.load(file)
    arrays = {key: data[mode][key].astype(np.float32) for key in ("text", "vision", "audio")}
    arrays["audio"][arrays["audio"] == -np.inf] = 0
    labels = np.array(data[mode]["regression_labels"]).astype(np.float32)
    rows = range(len(labels))
    loaded = {key: [array[row] for row in rows] for key, array in arrays.items()}
    loaded |= {"M": [labels[row].reshape(-1) for row in rows]}
    loaded |= {key: [data[mode][key][row] for row in rows] for key in ("raw_text", "id")}
    if not is_aligned:
        loaded |= {key: [data[mode][key][row] for row in rows] for key in ("audio_lengths", "vision_lengths")}
    return loaded


def lossless(rows: list[dict[str, Any]]) -> bool:
    """A single frame of zeros is what MMSA writes for a clip without that modality."""
    found = [row[f"{kind}_frames"] for row in rows for kind in Modality]
    return all(one is None or len(one.values) > 1 or one.values.any() for one in found)


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(rows=corpora(with_times=False, all_labelled=True))
def test_a_round_trip_loses_nothing(tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, Any]]) -> None:
    assume(lossless(rows))
    folder = tmp_path_factory.mktemp("mmsa")
    store = stored(folder, rows)
    result = export_mmsa(store, folder / "made.pkl")
    again = Store.create(str(folder / "again"))
    import_mmsa(again, folder / "made.pkl")
    assert contents(again) == contents(store)
    assert sum(result.clips.values()) == len(rows)
    for mode in ("train", "valid", "test"):
        loaded = as_mmsa_loads(folder / "made.pkl", mode, is_aligned=False)
        assert len(loaded["id"]) == result.clips[mode]
        assert all(length >= 1 for length in loaded["audio_lengths"])


def test_the_file_names_nothing_that_moved_between_versions_of_numpy(tmp_path: Path) -> None:
    store = stored(tmp_path, [made_row("a$_$1")])
    export_mmsa(store, tmp_path / "made.pkl")
    texts = [
        text for code, text, _ in pickletools.genops((tmp_path / "made.pkl").read_bytes()) if "UNICODE" in code.name
    ]
    assert {text for text in texts if "numpy" in text} == {"numpy"}


def made_row(clip: str, **others: Any) -> dict[str, Any]:
    """One clip with 4 frames of text, 9 of audio and 2 of the face."""
    row = {"clip_id": clip, "video_id": "v", "segment": 1, "split": "train", "text": "hi", "sentiment": 1.0}
    row["annotation"] = "Positive"
    for kind, n_frames in (("text", 4), ("audio", 9), ("face", 2)):
        values = np.arange(1, 2 * n_frames + 1, dtype=np.float32).reshape(-1, 2)
        row[f"{kind}_frames"] = Frames(values, np.arange(n_frames, dtype=np.float32))
    return row | others


def test_the_aligned_layout(tmp_path: Path) -> None:
    """As many steps as the text has; longer sequences are averaged, shorter ones repeated."""
    store = stored(tmp_path, [made_row("a$_$1"), made_row("b$_$1", video_id="w", text_frames=None)])
    result = export_mmsa(store, tmp_path / "made.pkl", layout="aligned")
    loaded = as_mmsa_loads(tmp_path / "made.pkl", "train", is_aligned=True)
    assert [loaded[key][0].shape for key in ("text", "audio", "vision")] == [(50, 2)] * 3
    audio, vision = made_row("")["audio_frames"].values, made_row("")["face_frames"].values
    wanted = [audio[0:2].mean(0), audio[2:4].mean(0), audio[4:6].mean(0), audio[6:9].mean(0)]
    assert loaded["audio"][0][:4] == pytest.approx(np.array(wanted))
    assert not loaded["audio"][0][4:].any()
    assert loaded["vision"][0][:4].tolist() == vision[[0, 0, 1, 1]].tolist()
    # Without text the longest sequence gives the steps.
    assert loaded["audio"][1][:9].tolist() == audio.tolist()
    assert not loaded["text"][1].any()
    assert result.shortened == {"text": 0, "audio": 1, "vision": 0}
    again = Store.create(str(tmp_path / "again"))
    import_mmsa(again, tmp_path / "made.pkl")
    assert contents(again)["a$_$1"]["text_frames"] == contents(store)["a$_$1"]["text_frames"]
    assert contents(again)["b$_$1"]["text_frames"] is None


@pytest.mark.parametrize(("n_frames", "steps"), [(1, 1), (1, 5), (5, 5), (7, 3), (50, 49), (3, 50)])
def test_in_steps_keeps_order_and_bounds(n_frames: int, steps: int) -> None:
    found = in_steps(np.arange(n_frames, dtype=np.float32)[:, None], steps)[:, 0]
    assert len(found) == steps
    assert (np.diff(found) >= 0).all()
    assert found[0] >= 0
    assert found[-1] <= n_frames - 1


def test_a_limit_of_steps_cuts_and_says_so(tmp_path: Path) -> None:
    store = stored(tmp_path, [made_row("a$_$1")])
    result = export_mmsa(store, tmp_path / "made.pkl", steps=3)
    assert as_mmsa_loads(tmp_path / "made.pkl", "train", is_aligned=False)["audio_lengths"] == [3]
    assert result.shortened == {"text": 1, "audio": 1, "vision": 0}
    assert "audio: 1 clips had more frames than fit" in str(result)


def test_ids_of_another_form_become_video_and_segment(tmp_path: Path) -> None:
    store = stored(tmp_path, [made_row("mine"), made_row("b", video_id="b", sentiment=None)])
    result = export_mmsa(store, tmp_path / "made.pkl")
    assert as_mmsa_loads(tmp_path / "made.pkl", "train", is_aligned=False)["id"] == ["v$_$1"]
    assert result.without_label == 1


def test_clips_without_an_id_of_their_own_become_video_and_segment(tmp_path: Path) -> None:
    """A corpus whose labels name video and segment leaves ``source_id`` empty."""
    store = stored(tmp_path, [made_row("a$_$1"), made_row("b", video_id="w", segment=3)])
    clips = store.table(CLIPS).read()
    place = clips.schema.get_field_index("source_id")
    store.table(CLIPS).merge(clips.set_column(place, "source_id", pa.nulls(2, pa.string())))
    export_mmsa(store, tmp_path / "made.pkl")
    assert as_mmsa_loads(tmp_path / "made.pkl", "train", is_aligned=False)["id"] == ["v$_$1", "w$_$3"]


def test_tokens_for_models_that_read_them(tmp_path: Path) -> None:
    folder = tmp_path / "bert"
    folder.mkdir()
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "hi", "there"]
    (folder / "vocab.txt").write_text("\n".join(words))
    (folder / "config.json").write_text('{"model_type": "bert"}')
    store = stored(tmp_path, [made_row("a$_$1", text="hi there"), made_row("b$_$1", video_id="w", text="")])
    out = tmp_path / "made.pkl"
    export_mmsa(store, out, tokenizer=str(folder))
    tokens = pickle.loads(out.read_bytes())["train"]["text_bert"]
    assert tokens.shape == (2, 3, 50)
    assert tokens[0, :2, :5].tolist() == [[2, 5, 6, 3, 0], [1, 1, 1, 1, 0]]
    assert tokens[1, :2, :3].tolist() == [[2, 3, 0], [1, 1, 0]]
    with pytest.raises(UserError, match="no tokenizer in"):
        export_mmsa(store, out, tokenizer=str(tmp_path / "nowhere"))


def test_mistakes_of_an_export(tmp_path: Path) -> None:
    store = stored(tmp_path, [made_row("a"), made_row("b")])
    out = tmp_path / "made.pkl"
    for request, message in (
        ({"label": "annotation"}, "no label of numbers is named 'annotation'; there are: sentiment"),
        ({"layout": "diagonal"}, "'diagonal' is no layout"),
        ({"corpus_id": "other"}, "no clips to export; corpora in the store: made"),
        ({"tables": ["features/my_audio", "features/my_audio"]}, r"two clips|both audio"),
        ({"tables": ["labels"]}, "labels is no feature table"),
        ({}, r"two clips would be called 'v\$_\$1'"),
    ):
        with pytest.raises(UserError, match=message):
            export_mmsa(store, out, **request)
    assert not out.exists()


def test_the_commands(tmp_path: Path) -> None:
    path = save(tmp_path, mosi())
    target = str(tmp_path / "store")

    def run(*arguments: str) -> Any:
        return json.loads(CliRunner().invoke(app, [*arguments, "--json"], catch_exceptions=False).stdout)

    assert run("import", "mmsa", str(path), "--store", target, "--corpus-id", "mosi")["clips"] == 4
    out = tmp_path / "out.pkl"
    assert run("export", target, "--format", "mmsa", "--out", str(out))["clips"] == {"train": 3, "valid": 0, "test": 0}
    assert as_mmsa_loads(out, "train", is_aligned=False)["M"][0] == [1.5]
