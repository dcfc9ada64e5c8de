"""Ragged clips and how they are batched."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from miar.data.dataset import ClipDataset, ModalityData, Ragged
from miar.data.standardise import sequence_moments, vector_moments

DESCRIPTOR = {"extractor": "made", "config_hash": "0", "columns": ["a", "b"]}


def made(lengths: list[int], seed: int = 0) -> ClipDataset:
    draw = np.random.default_rng(seed)
    parts = [draw.normal(size=(length, 2)).astype(np.float32) for length in lengths]
    data = ModalityData.from_values(Ragged.from_list(parts, 2))
    return ClipDataset(
        [f"c{index}" for index in range(len(lengths))], {"audio": data}, {"audio": DESCRIPTOR},
        np.arange(len(lengths), dtype=np.float64),
    )  # fmt: skip


@given(
    st.lists(st.integers(0, 30), min_size=1, max_size=40),
    st.integers(1, 9),
    st.booleans(),
    st.booleans(),
    st.integers(1, 200),
)
@settings(max_examples=80, deadline=None)
def test_every_clip_comes_once_and_whole(
    lengths: list[int], size: int, shuffle: bool, sort: bool, max_values: int
) -> None:
    dataset = made(lengths)
    generator = torch.Generator().manual_seed(0)
    seen = []
    for batch in dataset.batches(
        size, shuffle=shuffle, sort_by_length=sort, generator=generator, max_values=max_values
    ):
        part = batch.modalities["audio"]
        assert len(batch) == 1 or (len(batch) <= size and part.values.numel() <= max(max_values, 2 * len(batch)))
        for row, clip_id in enumerate(batch.clip_ids):
            index = int(clip_id[1:])
            seen.append(index)
            kept = part.values[row][part.mask[row]].numpy()
            np.testing.assert_array_equal(kept, dataset.modalities["audio"].sequences[index])
            assert bool(batch.available[row, 1]) == (lengths[index] > 0)
            assert not batch.available[row, [0, 2]].any()
            assert batch.target is not None
            assert float(batch.target[row]) == index
    assert sorted(seen) == list(range(len(lengths)))


def test_sorting_brings_like_lengths_together_and_shuffling_is_seeded() -> None:
    dataset = made(np.random.default_rng(0).integers(1, 200, 300).tolist())

    def padded(**how: object) -> int:
        return sum(batch.modalities["audio"].mask.numel() for batch in dataset.batches(16, **how))  # type: ignore[arg-type]

    assert padded(sort_by_length=True) < padded(shuffle=True, sort_by_length=True) < padded(shuffle=True)

    def order(seed: int) -> list[str]:
        generator = torch.Generator().manual_seed(seed)
        batches = dataset.batches(16, shuffle=True, sort_by_length=True, generator=generator)
        return [clip_id for batch in batches for clip_id in batch.clip_ids]

    assert order(1) == order(1) != order(2)


def test_subsets_share_the_frames() -> None:
    dataset = made([3, 4, 5, 6])
    some = dataset.subset([3, 1])
    assert some.clip_ids == ["c3", "c1"]
    assert some.targets.tolist() == [3.0, 1.0]
    assert some.modalities["audio"].sequences.values is dataset.modalities["audio"].sequences.values
    np.testing.assert_array_equal(some.modalities["audio"].sequences[0], dataset.modalities["audio"].sequences[3])
    split = replace(dataset, splits=["train", "test", None, "test"])
    assert split.where_split("test").clip_ids == ["c1", "c3"]
    assert split.subset(np.array([False, True, True, False])).clip_ids == ["c1", "c2"]
    assert len(dataset.with_modalities(["text"]).modalities) == 0


def test_a_clip_of_nan_has_no_modality() -> None:
    parts = [np.full((3, 2), np.nan, np.float32), np.array([[np.nan, 1.0]], np.float32), None]
    assert ModalityData.from_values(Ragged.from_list(parts, 2)).available.tolist() == [False, True, False]
    summary = np.array([[1.0], [np.nan], [2.0]], np.float32)
    assert ModalityData.from_values(Ragged.from_list(parts, 2), summary).available.tolist() == [True, True, True]


def test_what_does_not_fit_together_is_refused() -> None:
    dataset = made([3, 4])
    with pytest.raises(ValueError, match="2 clips"):
        replace(dataset, targets=np.zeros(3))
    with pytest.raises(ValueError, match="do not match"):
        replace(dataset, feature_sets={})


def test_what_is_kept_whole_are_speakers_or_videos_or_clips() -> None:
    ids, speakers, videos = ["a", "b", "c"], ["s", "s", "t"], ["v", "w", "w"]
    whole = ClipDataset(ids, {}, {}, np.zeros(3), speakers=speakers, video_ids=videos)
    assert whole.groups() == speakers
    assert replace(whole, speakers=["s", None, "t"]).groups() == videos
    assert replace(whole, speakers=["s"] * 3).groups() == videos
    assert replace(whole, speakers=["s"] * 3, video_ids=["v"] * 3).groups() == ids


def test_with_available_only_takes_away() -> None:
    batch = made([3, 0]).batch(np.arange(2))
    every = batch.with_available(torch.ones(2, 3, dtype=torch.bool))
    assert torch.equal(every.available, batch.available)
    assert not batch.with_available(torch.zeros(2, 3, dtype=torch.bool)).available.any()


@given(st.lists(st.integers(1, 20), min_size=1, max_size=10), st.integers(0, 50))
@settings(max_examples=40, deadline=None)
def test_moments_are_those_of_all_frames(lengths: list[int], seed: int) -> None:
    draw = np.random.default_rng(seed)
    parts = [(draw.normal(size=(length, 3)) * [1, 100, 1e-3] + [5, -1e4, 0]).astype(np.float32) for length in lengths]
    frames = np.concatenate(parts).astype(np.float64)
    moments = sequence_moments(Ragged.from_list(parts, 3), np.zeros(3, bool))
    np.testing.assert_allclose(moments.mean, frames.mean(0), rtol=1e-6, atol=1e-9)
    if len(frames) > 1:
        np.testing.assert_allclose(1 / moments.scale[:2], frames.std(0)[:2], rtol=1e-4)


def test_moments_skip_what_is_unknown_unvoiced_or_dead() -> None:
    nan, inf = np.nan, np.inf
    pitch, amplitude = [0.0, 2.0, 4.0, 0.0], [-201.0, 5.0, 7.0, -201.0]
    frames = np.array([pitch, [1.0, nan, inf, 3.0], [7.0] * 4, amplitude], np.float32).T
    moments = sequence_moments(Ragged.from_list([frames], 4), np.array([True, False, False, True]), pitch=0)
    np.testing.assert_allclose(moments.mean, [3.0, 2.0, 7.0, 6.0])
    np.testing.assert_allclose(moments.scale, [1.0, 1.0, 0.0, 1.0])
    unknown = vector_moments(np.full((4, 2), np.nan, np.float32))
    assert unknown.scale.tolist() == [0.0, 0.0]


def test_joined_sequences_are_a_view_where_they_follow_each_other() -> None:
    sequences = made([3, 0, 4, 2]).modalities["audio"].sequences
    for indices, shared in (([0, 1, 2], True), ([2, 3], True), ([3, 0], False), ([0, 2], True), ([2, 2], False)):
        part = sequences.subset(np.array(indices))
        flat, offsets = part.joined()
        assert np.shares_memory(flat, sequences.values) == shared
        for row, index in enumerate(indices):
            np.testing.assert_array_equal(flat[offsets[row] : offsets[row + 1]], sequences[index])
    flat, offsets = sequences.subset(np.array([], np.int64)).joined()
    assert (flat.shape, offsets.tolist()) == ((0, 2), [0])
