import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from miar.data.batches import MODALITIES
from miar.data.dataset import ClipDataset, ModalityData, Ragged
from miar.errors import UserError
from miar.evaluation.controls import shuffle_labels, shuffle_modality


def numbered_clips(has_audio: list[bool]) -> ClipDataset:
    """Clip i holds the number i in every modality it has, and as its label."""
    data = {}
    for name in MODALITIES:
        sequences = [
            None if name == "audio" and not has else np.full((1 + index % 3, 2), index, np.float32)
            for index, has in enumerate(has_audio)
        ]
        summary = np.array([[index] for index in range(len(has_audio))], np.float32)
        if name == "audio":
            summary[~np.array(has_audio, bool)] = np.nan
        data[name] = ModalityData.from_values(Ragged.from_list(sequences, 2), summary)
    return ClipDataset(
        clip_ids=[str(index) for index in range(len(has_audio))],
        modalities=data,
        feature_sets={name: {} for name in MODALITIES},
        targets=np.arange(len(has_audio), dtype=np.float64),
    )


def contents(dataset: ClipDataset, modality: str) -> list[int | None]:
    data = dataset.modalities[modality]
    assert data.summary is not None
    found = []
    for index in range(len(dataset)):
        values = data.sequences[index]
        if not data.available[index]:
            assert len(values) == 0
            found.append(None)
            continue
        assert set(values.flat) == {data.summary[index, 0]}
        found.append(int(values[0, 0]))
    return found


@settings(max_examples=50, deadline=None)
@given(st.lists(st.booleans(), min_size=2, max_size=40), st.integers(0, 2**32 - 1))
def test_every_clip_gets_the_audio_of_another_and_nothing_else_moves(has_audio, seed):
    dataset = numbered_clips(has_audio)
    shuffled = shuffle_modality(dataset, "audio", seed)
    before, after = contents(dataset, "audio"), contents(shuffled, "audio")
    assert [found is None for found in after] == [not has for has in has_audio]
    assert sorted(x for x in after if x is not None) == [x for x in before if x is not None]
    if sum(has_audio) > 1:
        assert all(old != new for old, new in zip(before, after, strict=True) if old is not None)
    for name in ("text", "face"):
        assert contents(shuffled, name) == contents(dataset, name)
    np.testing.assert_array_equal(shuffled.targets, dataset.targets)
    assert contents(dataset, "audio") == before


def test_seeds_differ_and_repeat():
    dataset = numbered_clips([True] * 30)
    first = contents(shuffle_modality(dataset, "face", 1), "face")
    assert first == contents(shuffle_modality(dataset, "face", 1), "face")
    assert first != contents(shuffle_modality(dataset, "face", 2), "face")


def test_a_modality_that_is_not_there_is_a_users_mistake():
    dataset = numbered_clips([True, True]).with_modalities(["text"])
    with pytest.raises(UserError, match="no face to shuffle; it holds: text"):
        shuffle_modality(dataset, "face", 0)


def test_labels_are_dealt_out_anew_among_labelled_clips():
    dataset = numbered_clips([True] * 200)
    dataset.targets[150:] = np.nan
    shuffled = shuffle_labels(dataset, 3)
    assert np.isnan(shuffled.targets[150:]).all()
    np.testing.assert_array_equal(np.sort(shuffled.targets[:150]), np.arange(150))
    assert abs(np.corrcoef(shuffled.targets[:150], np.arange(150))[0, 1]) < 0.2
    np.testing.assert_array_equal(dataset.targets[:150], np.arange(150))
    np.testing.assert_array_equal(shuffle_labels(dataset, 3).targets, shuffled.targets)
