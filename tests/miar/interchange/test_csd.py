"""csd files: clips cut by the intervals of the labels, frames by their times, and what is refused."""

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_corpora import Frames, contents
from typer.testing import CliRunner

from miar.cli.app import app
from miar.errors import UserError
from miar.features.contract import Modality
from miar.interchange import import_csd as reader
from miar.interchange.bring_in import ImportResult
from miar.interchange.import_columns import FeatureColumn
from miar.interchange.import_csd import import_csd
from storage import CLIPS, FEATURE_SETS, RUNS, Store

Entries = dict[str, tuple[Any, Any]]


def write(path: Path, root: str, entries: Entries, **metadata: Any) -> Path:
    """``entries``: key -> (features, intervals)."""
    with h5py.File(path, "w") as file:
        group = file.create_group(root)
        data = group.create_group("data")
        for key, (features, intervals) in entries.items():
            entry = data.create_group(key)
            entry["features"] = np.asarray(features)
            entry["intervals"] = np.asarray(intervals, np.float64).reshape(-1, 2)
        described = group.create_group("metadata")
        for name, value in ({"root name": root} | metadata).items():
            described.create_dataset(name, (1,), dtype=h5py.string_dtype())[0] = json.dumps(value)
    return path


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.create(str(tmp_path / "store"))


LABELS: Entries = {
    "b": ([[0.5, 1.0]], [[2.0, 4.0]]),
    "a": ([[1.0, 0.0], [np.nan, 2.0]], [[0.0, 1.0], [1.0, 2.5]]),
}
SOUND: Entries = {
    # Centres .5, 1.0 (the second clip's), 1.5, 2.5 (behind the end, which is not included).
    "a": ([[1, 1], [2, 2], [3, 3], [4, 4]], [[0.4, 0.6], [0.9, 1.1], [1.4, 1.6], [2.4, 2.6]]),
    "other": ([[9, 9]], [[0, 1]]),
}
WORDS: Entries = {
    "a": ([[b"sp"], [b"good"], [b"day"], [b"sp"], ["né".encode()]], [[i / 2, i / 2 + 0.4] for i in range(5)])
}


def run(folder: Path, store: Store, **changes: Any) -> ImportResult:
    """Import the three files above, or what ``changes`` puts in their place."""
    contents = {"labels": LABELS, "sound": SOUND, "words": WORDS} | changes
    metadata = {"labels": {"dimension names": ["sentiment", "happy"]}}
    files = [
        write(folder / f"{name}.csd", name, entries, **metadata.get(name, {})) for name, entries in contents.items()
    ]
    return import_csd(
        store,
        files,
        corpus_id="mosi",
        labels={"sentiment": "labels:sentiment", "joy": "labels:1"},
        features=[FeatureColumn(Modality.AUDIO, "covarep", "sound")],
        words="words",
    )


def test_files_of_videos_are_cut_by_the_labels(store: Store, tmp_path: Path) -> None:
    result = run(tmp_path, store)
    clips = contents(store)
    assert {name: (row["video_id"], row["segment"], row["start_ms"], row["end_ms"]) for name, row in clips.items()} == {
        "a[0]": ("a", 0, 0, 1000),
        "a[1]": ("a", 1, 1000, 2500),
        "b[0]": ("b", 0, 2000, 4000),
    }
    assert clips["a[0]"]["audio_frames"] == Frames(np.float32([[1, 1]]), np.float32([0.5]))
    assert clips["a[1]"]["audio_frames"] == Frames(np.float32([[2, 2], [3, 3]]), np.float32([0, 0.5]))
    assert clips["b[0]"]["audio_frames"] is None
    assert [clips[name]["text"] for name in ("a[0]", "a[1]", "b[0]")] == ["good", "day né", None]
    assert [clips[name]["sentiment"] for name in ("a[0]", "a[1]", "b[0]")] == [1.0, None, 0.5]
    assert [clips[name]["joy"] for name in ("a[0]", "a[1]", "b[0]")] == [0.0, 2.0, 1.0]
    (counts,) = result.features.values()
    assert (counts.ok, counts.missing) == (2, {"null": 1})
    assert run(tmp_path, store).run_id is None


def test_files_of_segments_are_joined_by_key(store: Store, tmp_path: Path) -> None:
    """As the SDK writes them after alignment: every file has ``video[segment]``."""
    result = run(
        tmp_path,
        store,
        labels={"a[3]": ([[1.0, 2.0]], [[5.0, 6.0]]), "a[12]": ([[2.0, 3.0]], [[7.0, 8.0]])},
        sound={"a[3]": ([[1.0, 2.0], [3.0, 4.0]], [[4.9, 5.1], [5.5, 5.7]])},
        words={"a[3]": ([[b"hi"]], [[5, 6]])},
    )
    clips = contents(store)
    assert result.clips == 2
    assert clips["a[3]"]["audio_frames"].values.tolist() == [[1, 2], [3, 4]]
    assert clips["a[3]"]["audio_frames"].times == pytest.approx([0, 0.6], abs=1e-6)
    assert (clips["a[3]"]["text"], clips["a[12]"]["text"]) == ("hi", None)
    assert clips["a[12]"]["audio_frames"] is None


def test_without_labels_every_key_is_a_clip(store: Store, tmp_path: Path) -> None:
    sound = write(tmp_path / "s.csd", "S", {"a": SOUND["a"]}, **{"dimension names": ["F0", "F1"]})
    face = write(tmp_path / "f.csd", "F", {"b[2]": ([[1.0]], [[10.0, 12.0]])})
    features = [FeatureColumn(Modality.AUDIO, "covarep", "S"), FeatureColumn(Modality.FACE, "facet", "F")]
    import_csd(store, [sound, face], corpus_id="x", labels={}, features=features)
    clips = contents(store)
    assert clips["a"]["audio_frames"].times == pytest.approx([0.5, 1.0, 1.5, 2.5])
    assert (clips["b[2]"]["segment"], clips["b[2]"]["start_ms"]) == (2, 10_000)
    assert clips["b[2]"]["face_frames"].times.tolist() == [1.0]
    described = {row["extractor"]: row for row in store.table(FEATURE_SETS).read().to_pylist()}
    assert described["covarep"]["columns"] == ["F0", "F1"]
    assert described["facet"]["columns"] == ["facet_0"]


def test_nan_in_values_or_times_is_left_out_and_counted(store: Store, tmp_path: Path) -> None:
    sound = {"a[0]": ([[1, np.inf], [2, 2], [3, 3]], [[0, 0.2], [0.2, 0.4], [np.nan, 0.6]])}
    result = run(tmp_path, store, sound=sound)
    assert contents(store)["a[0]"]["audio_frames"] == Frames(np.float32([[2, 2]]), np.float32([0.3]))
    assert any("2 vectors hold a NaN or an infinity" in warning for warning in result.warnings)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sound": {"a": ([[1, 1]], [[0, 1]]), "b": ([[1, 1, 1]], [[2, 3]])}}, "widths differ in 'sound': 2 .* 3 for"),
        ({"sound": {"a": ([[1, 1]], [[0, 1], [1, 2]])}}, "features and intervals of 'a' are 1 x 2 and 2 x 2"),
        ({"sound": {"a": (WORDS["a"][0], WORDS["a"][1])}}, "holds words, not numbers"),
        ({"words": {"a": ([[1.0]], [[0.2, 0.4]])}}, "holds numbers, not words"),
        ({"labels": {"a": ([[1, 1]], [[np.nan, 1]])}}, "an interval of 'a' has no time"),
        ({"labels": {"a": ([[1, 1]], [[3, 1]])}}, "an interval from 3 s to 1 s"),
        ({"labels": {"a": ([[1, 1]], [[0, 1]]), "a[0]": ([[1, 1]], [[0, 1]])}}, r"'a\[0\]' stands there twice"),
        ({"labels": {"a[0]": ([[1, 1], [2, 2]], [[0, 1], [0, 1]])}}, r"'a\[0\]' has 2 rows of labels"),
        ({"labels": {"a": ([[1, 1]], [[0, 1]]), "b": ([[1]], [[0, 1]])}}, r"'b\[0\]' has 1 label columns"),
        ({"labels": {}}, "has no entry"),
        ({"labels": WORDS}, "no column 'sentiment' for a label|are no numbers"),
    ],
)
def test_a_mistake_is_one_line_and_writes_nothing(
    store: Store, tmp_path: Path, changes: dict[str, Entries], message: str
) -> None:
    with pytest.raises(UserError, match=message) as caught:
        run(tmp_path, store, **changes)
    assert "\n" not in str(caught.value)
    assert store.table(CLIPS).version() is None
    assert store.table(RUNS).version() is None


def test_names_that_are_not_there(store: Store, tmp_path: Path) -> None:
    file = write(tmp_path / "a.csd", "All Labels", LABELS)
    for request, message in (
        ({"labels": {"y": "Labels"}}, "no file has the root name 'Labels'; there are 'All Labels'"),
        ({"labels": {"y": "All Labels:2"}}, "no column '2' for a label; it has 0 to 1"),
        ({"labels": {}, "words": "words"}, "no entry|no file has the root name 'words'"),
    ):
        with pytest.raises(UserError, match=message):
            import_csd(store, [file], **request)
    with pytest.raises(UserError, match="have one root name"):
        import_csd(store, [file, file], labels={})
    (tmp_path / "no.csd").write_text("not HDF5")
    for name, message in (("no.csd", "cannot read"), ("gone.csd", "no such file")):
        with pytest.raises(UserError, match=message):
            import_csd(store, [tmp_path / name], labels={})


def refused(store: Store, path: Path) -> None:
    feature = FeatureColumn(Modality.AUDIO, "covarep", "S")
    with pytest.raises(UserError, match=r"links are not followed|lies in another file"):
        import_csd(store, [path], labels={}, features=[feature])


def test_what_lies_outside_the_file_is_not_read(store: Store, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(np.arange(4.0).tobytes())
    outside = write(tmp_path / "outside.csd", "S", {"a": SOUND["a"]})
    for link in ("external link", "soft link", "external data"):
        path = write(tmp_path / "s.csd", "S", {"b": SOUND["a"]})
        with h5py.File(path, "a") as file:
            if link == "external link":
                file["S/data/a"] = h5py.ExternalLink(str(outside), "/S/data/a")
            elif link == "soft link":
                file["S/data/a"] = h5py.SoftLink("/S/data/b")
            else:
                entry = file["S/data"].create_group("a")
                entry["intervals"] = np.zeros((2, 2))
                entry.create_dataset("features", (2, 2), "f8", external=[(str(secret), 0, 32)])
        refused(store, path)


def test_metadata_that_lies_outside_the_file_is_not_read(store: Store, tmp_path: Path) -> None:
    """Dimension names become columns of the store: what another file holds could be read there."""
    outside = tmp_path / "outside.h5"
    with h5py.File(outside, "w") as file:
        file.create_dataset("names", (1,), dtype=h5py.string_dtype())[0] = json.dumps(["secret 1", "secret 2"])
        file["number"] = np.array([7.0])
    for link in ("external link", "soft link", "virtual"):
        path = write(tmp_path / "s.csd", "S", {"a": SOUND["a"]})
        with h5py.File(path, "a") as file:
            metadata = file["S/metadata"]
            assert isinstance(metadata, h5py.Group)
            if link == "external link":
                metadata["dimension names"] = h5py.ExternalLink(str(outside), "/names")
            elif link == "soft link":
                metadata["dimension names"] = h5py.SoftLink("/S/metadata/root name")
            else:
                layout = h5py.VirtualLayout((1,), "f8")
                layout[:] = h5py.VirtualSource(outside, "number", (1,))
                metadata.create_virtual_dataset("dimension names", layout)
        refused(store, path)


@settings(max_examples=10, deadline=None)
@given(
    cuts=st.lists(st.integers(0, 40), min_size=2, max_size=6, unique=True).map(sorted),
    centres=st.lists(st.integers(0, 40), min_size=1, max_size=20),
    block_bytes=st.sampled_from([1, 16, 2**20]),
)
def test_every_frame_within_the_cuts_arrives_once(
    tmp_path_factory: pytest.TempPathFactory, cuts: list[int], centres: list[int], block_bytes: int
) -> None:
    """Clips that touch share no frame and lose none, however small the blocks that are held at once."""
    folder = tmp_path_factory.mktemp("cuts")
    edges = np.array(cuts, float)
    labels = {"v": (np.arange(len(cuts) - 1.0)[:, None], np.stack([edges[:-1], edges[1:]], 1))}
    at = np.array(centres, float)
    sound = {"v": (np.stack([at, np.arange(len(at))], 1), np.stack([at - 0.25, at + 0.25], 1))}
    files = [write(folder / "l.csd", "L", labels), write(folder / "s.csd", "S", sound)]
    store = Store.create(str(folder / "store"))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(reader, "BLOCK_BYTES", block_bytes)
        import_csd(
            store, files, labels={"y": "L"}, features=[FeatureColumn(Modality.AUDIO, "sound", "S")], corpus_id="c"
        )
    clips = contents(store)
    arrived = []
    for name, row in clips.items():
        start = cuts[row["segment"]]
        assert row["y"] == row["segment"]
        if row["audio_frames"] is not None:
            values, times = row["audio_frames"].values, row["audio_frames"].times
            assert np.array_equal(values[:, 0], times + start), name
            assert (values[:, 0] < cuts[row["segment"] + 1]).all()
            arrived += values[:, 1].tolist()
    inside = np.flatnonzero((at >= cuts[0]) & (at < cuts[-1]))
    assert sorted(arrived) == inside.tolist()


def test_the_command(tmp_path: Path) -> None:
    files = [write(tmp_path / f"{name}.csd", name, one) for name, one in (("labels", LABELS), ("sound", SOUND))]
    command = ["import", "csd", *map(str, files), "--store", str(tmp_path / "s")]
    command += ["--labels", "sentiment=labels:0", "--feature", "audio:covarep=sound", "--json"]
    result = json.loads(CliRunner().invoke(app, command, catch_exceptions=False).stdout)
    assert (result["corpus_id"], result["clips"], result["labels"]) == ("labels", 3, {"sentiment": 2})
