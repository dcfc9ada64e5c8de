"""Shuffled epochs: every clip once, the same order after any break, disjoint shares, the same from the cache."""

import json
import pickle
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from miar.data.batches import Batch
from miar.data.epochs import Epochs
from miar.data.reading import SnapshotReader
from miar.data.selection import Selection
from miar.errors import UserError
from storage import Snapshot


def epochs_of(made: Snapshot, batch_size: int = 4, seed: int = 0, buffer: int = 11, **how: Any) -> Epochs:
    return SnapshotReader(made, label="sentiment").epochs(batch_size=batch_size, seed=seed, buffer_clips=buffer, **how)


def ids(batches) -> list[list[str]]:
    return [batch.clip_ids for batch in batches]


def flat(batches) -> list[str]:
    return [one for batch in batches for one in batch.clip_ids]


@given(st.integers(1, 9), st.integers(1, 70), st.integers(0, 5), st.integers(0, 200))
@settings(max_examples=12, deadline=None)
def test_an_epoch_goes_on_where_it_was_left(made: Snapshot, size: int, buffer: int, seed: int, left_at: int) -> None:
    whole = epochs_of(made, size, seed, buffer)
    first, second = ids(whole.batches()), ids(whole.batches())
    assert sorted(chain(*first)) == sorted(chain(*second)) == sorted(SnapshotReader(made).load().clip_ids)
    assert max(map(len, first)) <= size
    left_at %= len(first) + len(second)
    stopped, seen = epochs_of(made, size, seed, buffer), []
    while len(seen) < left_at:
        for batch in stopped.batches():
            seen.append(batch.clip_ids)
            if len(seen) == left_at:
                break
    state = json.loads(json.dumps(stopped.state_dict()))
    again = epochs_of(made, size, seed, buffer)
    again.load_state_dict(state)
    while again.epoch < 2:
        seen += ids(again.batches())
    assert seen == first + second


@given(st.integers(1, 7), st.integers(1, 20), st.integers(0, 3))
@settings(max_examples=10, deadline=None)
def test_shares_are_disjoint_and_leave_nothing_out(made: Snapshot, ranks: int, buffer: int, seed: int) -> None:
    chosen = Selection(splits=["train", "valid"])
    shares = [
        flat(epochs_of(made, 4, seed, buffer, selection=chosen, rank=rank, ranks=ranks).batches())
        for rank in range(ranks)
    ]
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
    assert sorted(chain(*shares)) == sorted(SnapshotReader(made).load(chosen).clip_ids)


def test_batches_hold_the_features_and_labels_of_their_clips(made: Snapshot, tmp_path: Path) -> None:
    dataset = SnapshotReader(made, label="sentiment").load()
    place = {clip_id: index for index, clip_id in enumerate(dataset.clip_ids)}
    for batch in epochs_of(made).batches():
        expected = dataset.batch(np.array([place[one] for one in batch.clip_ids]))
        assert_same(batch, expected)


def assert_same(one: Batch, other: Batch) -> None:
    assert one.clip_ids == other.clip_ids
    assert torch.equal(one.available, other.available)
    assert one.target is not None
    assert other.target is not None
    np.testing.assert_array_equal(one.target.numpy(), other.target.numpy())
    for name, part in one.modalities.items():
        assert part.values.numpy().tobytes() == other.modalities[name].values.numpy().tobytes()
        assert torch.equal(part.mask, other.modalities[name].mask)


def test_epochs_differ_and_are_seeded(made: Snapshot) -> None:
    epochs = epochs_of(made)
    first, second = flat(epochs.batches()), flat(epochs.batches())
    assert first != second
    assert flat(epochs_of(made).batches()) == first
    assert flat(epochs_of(made, seed=1).batches()) != first


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize("left_at", [5])
def test_worker_processes_share_an_epoch_and_go_on(made: Snapshot, left_at: int) -> None:
    whole = ids(epochs_of(made).batches(workers=3))
    assert sorted(chain(*whole)) == sorted(SnapshotReader(made).load().clip_ids)
    stopped = epochs_of(made)
    for count, _ in enumerate(stopped.batches(workers=3), 1):
        if count == left_at:
            break
    again = epochs_of(made)
    again.load_state_dict(stopped.state_dict())
    with pytest.raises(UserError, match="begun with 3 readers"):
        next(again.batches(workers=2))
    assert ids(again.batches(workers=3)) == whole[left_at:]


def test_a_spawned_worker_reads_the_same(made: Snapshot, tmp_path: Path) -> None:
    """Nothing hangs on a fork: what is pickled for a new process reads from the files, and maps the cache, anew."""
    for cache in (None, tmp_path):
        epochs = SnapshotReader(made, label="sentiment", cache=cache).epochs(batch_size=8)
        pickled = pickle.dumps(epochs)
        spawned = pickle.loads(pickled)
        for one, other in zip(spawned.batches(), epochs.batches(), strict=True):
            assert_same(one, other)


def test_a_position_of_other_epochs_is_refused(made: Snapshot) -> None:
    state = epochs_of(made).state_dict()
    for other in (epochs_of(made, seed=9), epochs_of(made, 5), epochs_of(made, selection=Selection(splits=["train"]))):
        with pytest.raises(UserError, match="this position is of other epochs"):
            other.load_state_dict(state)
    with pytest.raises(UserError, match="must be at least 1"):
        epochs_of(made, rank=2, ranks=2)
    with pytest.raises(UserError, match="leave persistent_workers out"):
        next(
            epochs_of(made).counted(
                DataLoader(epochs_of(made), batch_size=None, num_workers=1, persistent_workers=True)
            )
        )
