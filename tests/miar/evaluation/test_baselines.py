"""The baselines learn what is there, from training clips alone."""

from dataclasses import replace

import numpy as np
import pytest

from miar.data.batches import MODALITIES
from miar.data.dataset import ClipDataset, ModalityData, Ragged
from miar.errors import UserError
from miar.evaluation.baselines import late_fusion_baseline, pooled_features, ridge_baseline

NOISE = {"text": 1.0, "audio": 1.4, "face": 1.4}


def talking_clips(n: int, seed: int, absent: float = 0.2) -> ClipDataset:
    """Each modality carries the label through its own noise: face in how much it moves, the others in their level."""
    rng = np.random.default_rng(seed)
    label = rng.normal(size=n)
    data = {}
    for name in MODALITIES:
        signal = label + NOISE[name] * rng.normal(size=n)
        sequences = []
        for value in signal:
            frames = rng.normal(size=(rng.integers(40, 80), 6))
            frames = frames * np.exp(value / 4) if name == "face" else frames + value
            sequences.append(None if rng.random() < absent else frames.astype(np.float32))
        data[name] = ModalityData.from_values(Ragged.from_list(sequences, 6))
    return ClipDataset(
        clip_ids=[f"{seed}-{i}" for i in range(n)],
        modalities=data,
        feature_sets={name: {"extractor": name, "config_hash": "0"} for name in MODALITIES},
        targets=label,
        speakers=[f"speaker{i % 12}" for i in range(n)],
        video_ids=[f"video{i % 30}" for i in range(n)],
    )


@pytest.fixture(scope="module")
def train() -> ClipDataset:
    return talking_clips(300, 0)


@pytest.fixture(scope="module")
def test() -> ClipDataset:
    return talking_clips(400, 1)


def r(predictions: np.ndarray, dataset: ClipDataset) -> float:
    return float(np.corrcoef(predictions, dataset.targets)[0, 1])


def test_pooling_by_hand():
    sequences = [np.array([[1, 2], [3, np.nan]], np.float32), None, np.array([[5, 6]], np.float32)]
    summary = np.array([[0.5], [0.6], [np.nan]], np.float32)
    data = replace(
        ModalityData.from_values(Ragged.from_list(sequences, 2)), summary=summary, available=np.array([1, 0, 1]) > 0
    )
    np.testing.assert_allclose(
        pooled_features(data, deviation=True),
        [[2, 2, 1, 0, 0.5], [np.nan] * 5, [5, 6, 0, 0, np.nan]],
    )
    np.testing.assert_allclose(pooled_features(data, deviation=False)[0], [2, 2, 0.5])


def test_three_modalities_beat_each_alone(train, test):
    alone = {name: r(ridge_baseline(train, test, [name]), test) for name in MODALITIES}
    fused = r(ridge_baseline(train, test, MODALITIES), test)
    late = r(late_fusion_baseline(train, test, MODALITIES), test)
    assert min(alone.values()) > 0.4
    assert fused > max(alone.values()) + 0.05
    assert late > max(alone.values()) + 0.05


@pytest.mark.parametrize("baseline", [ridge_baseline, late_fusion_baseline])
def test_nothing_fitted_moves_with_the_clips_that_are_predicted(train, test, baseline):
    whole = baseline(train, test, MODALITIES)
    few = test.subset(np.arange(7))
    disturbed = replace(few, targets=np.full(7, 1e9))
    np.testing.assert_allclose(baseline(train, disturbed, MODALITIES), whole[:7], rtol=1e-10)


@pytest.mark.parametrize("baseline", [ridge_baseline, late_fusion_baseline])
def test_unlabelled_training_clips_are_left_out(train, test, baseline):
    blank = train.targets.copy()
    blank[200:] = np.nan
    with_blanks = baseline(replace(train, targets=blank), test, MODALITIES)
    np.testing.assert_allclose(with_blanks, baseline(train.subset(np.arange(200)), test, MODALITIES), rtol=1e-8)


def test_a_clip_without_anything_gets_a_finite_prediction_near_the_mean(train):
    nothing = talking_clips(5, 3, absent=1.0)
    for baseline in (ridge_baseline, late_fusion_baseline):
        np.testing.assert_allclose(baseline(train, nothing, MODALITIES), train.targets.mean(), atol=0.5)


@pytest.mark.parametrize("baseline", [ridge_baseline, late_fusion_baseline])
def test_one_speaker_is_enough(train, test, baseline):
    """Of one person's recordings, videos are left out together; of one video, clips."""
    one_speaker = replace(train, speakers=["one"] * len(train))
    assert r(baseline(one_speaker, test, MODALITIES), test) > 0.5
    one_video = replace(one_speaker, video_ids=["one"] * len(train))
    assert r(baseline(one_video, test, MODALITIES), test) > 0.5


@pytest.mark.parametrize("baseline", [ridge_baseline, late_fusion_baseline])
def test_users_mistakes_are_one_line(train, test, baseline):
    with pytest.raises(UserError, match="at least two labelled clips in the split 'train'"):
        baseline(train.subset([0]), test, MODALITIES)
    with pytest.raises(UserError, match="has no face; it holds: text"):
        baseline(train.with_modalities(["text"]), test, ["face"])
