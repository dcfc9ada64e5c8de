"""The memory-mapped copy of a snapshot: the same bit for bit, made once, made again when it is damaged."""

import multiprocessing
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from miar.data import cache
from miar.data.reading import SnapshotReader
from miar.errors import UserError
from storage import Snapshot


@pytest.fixture(scope="module")
def folder(made: Snapshot, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cache")
    SnapshotReader(made, cache=folder)
    return folder


def the_copy(folder: Path) -> Path:
    (found,) = [one for one in folder.iterdir() if one.is_dir()]
    return found


def assert_same(made: Snapshot, folder: Path, positions: np.ndarray) -> None:
    plain = SnapshotReader(made, label="mood").read(positions)
    cached = SnapshotReader(made, label="mood", cache=folder).read(positions)
    assert cached.clip_ids == plain.clip_ids
    assert cached.targets.tobytes() == plain.targets.tobytes()
    for name, data in plain.modalities.items():
        other = cached.modalities[name]
        assert other.available.tolist() == data.available.tolist()
        for index in range(len(plain)):
            assert other.sequences[index].tobytes() == data.sequences[index].tobytes()
            assert other.sequences[index].shape == data.sequences[index].shape
        if data.summary is not None:
            assert other.summary is not None
            assert other.summary.tobytes() == data.summary.tobytes()


@given(st.lists(st.integers(0, 10**6), max_size=30))
@settings(max_examples=25, deadline=None)
def test_the_copy_is_the_same_bit_for_bit(made: Snapshot, folder: Path, numbers: list[int]) -> None:
    count = len(SnapshotReader(made))
    assert_same(made, folder, np.array([number % count for number in numbers], np.int64))


def test_epochs_come_in_the_same_order(made: Snapshot, folder: Path) -> None:
    plain, cached = (
        SnapshotReader(made, cache=one).epochs(batch_size=5, seed=3, buffer_clips=13) for one in (None, folder)
    )
    assert plain.state_dict() == cached.state_dict()
    for one, other in zip(plain.batches(), cached.batches(), strict=True):
        assert one.clip_ids == other.clip_ids
        for name, part in one.modalities.items():
            assert part.values.numpy().tobytes() == other.modalities[name].values.numpy().tobytes()


def test_reading_copies_no_frames(made: Snapshot, folder: Path) -> None:
    reader = SnapshotReader(made, cache=folder)
    one, other = reader.read(np.array([3, 1])), reader.load()
    for name, data in one.modalities.items():
        values = data.sequences.values
        assert np.shares_memory(values, other.modalities[name].sequences.values)
        assert not values.flags.writeable
        assert np.shares_memory(data.sequences[0], values) or not data.sequences.lengths[0]


def _truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 4)


def _change(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-3] ^= 255
    path.write_bytes(content)


def _garble(path: Path) -> None:
    path.write_text("{}")


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("audio/values.npy", _truncate),
        ("text/values.npy", _change),
        ("face/starts.npy", os.unlink),
        (cache.MANIFEST, os.unlink),
        (cache.MANIFEST, _garble),
    ],
)
def test_a_damaged_copy_is_made_again(made: Snapshot, tmp_path: Path, name: str, damage) -> None:
    everything = np.arange(len(SnapshotReader(made)))
    assert_same(made, tmp_path, everything)
    damage(the_copy(tmp_path) / name)
    assert_same(made, tmp_path, everything)


def test_a_whole_copy_is_not_made_again(made: Snapshot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    SnapshotReader(made, cache=tmp_path)
    values = the_copy(tmp_path) / "text" / "values.npy"
    os.utime(values)
    before = values.stat().st_mtime_ns
    SnapshotReader(made, cache=tmp_path)
    assert values.stat().st_mtime_ns == before
    monkeypatch.setattr(cache, "FORMAT", cache.FORMAT + 1)
    SnapshotReader(made, cache=tmp_path)
    assert values.stat().st_mtime_ns != before


def _written_at(made: Snapshot, folder: Path) -> int:
    SnapshotReader(made, cache=folder)
    return (the_copy(folder) / "text" / "values.npy").stat().st_mtime_ns


def test_processes_make_one_copy(made: Snapshot, tmp_path: Path) -> None:
    with multiprocessing.get_context("fork").Pool(3) as pool:
        written = pool.starmap(_written_at, [(made, tmp_path)] * 6)
    assert len(set(written)) == 1
    assert [one.name for one in tmp_path.iterdir() if one.is_dir()] == [the_copy(tmp_path).name]


def test_a_full_disk_is_one_clear_line_and_leaves_nothing(
    made: Snapshot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    place = Path.open
    monkeypatch.setattr(
        Path, "open", lambda self, *how: place(Path("/dev/full") if self.name == "starts.npy" else self, *how)
    )
    with pytest.raises(UserError, match=r"cannot be written \(No space left on device\): make room"):
        SnapshotReader(made, cache=tmp_path)
    assert not [one for one in tmp_path.iterdir() if one.is_dir()]
    with pytest.raises(UserError, match="choose another folder"):
        SnapshotReader(made, cache=Path("/dev/full") / "cache")
