"""The generative model keeps the figures that are published, and its oracles are what they claim to be."""

import dataclasses

import numpy as np
import pytest

from miar.synth.corpus import _corpus_correlations
from miar.synth.model import BLOCK, LIMIT, Signals, availability, disagreement, draw_signals, oracles
from miar.synth.oracle import correlations, predict, reference_correlations
from miar.synth.plan import SPLIT_SHARES, assign_splits, emotion, plan_videos


def rows(signals: Signals, chosen: slice | np.ndarray) -> Signals:
    return Signals(**{f.name: getattr(signals, f.name)[chosen] for f in dataclasses.fields(Signals)})


@pytest.fixture(scope="module")
def signals() -> Signals:
    return draw_signals(77, 0, 8_000)


def test_reliabilities_lie_in_the_published_bands():
    everything, disagreeing = reference_correlations()["all"], reference_correlations()["disagreeing"]
    singles = [everything[name] for name in ("text", "audio", "face")]
    assert all(0.60 <= r <= 0.70 for r in singles)
    assert 0.83 <= everything["optimum"] <= 0.88
    assert everything["optimum"] > everything["linear"] + 0.04 > max(singles) + 0.14
    assert disagreeing["optimum"] > 0.80
    assert disagreeing["optimum"] > disagreeing["linear"] + 0.25


def test_the_optimum_beats_every_other_reader_in_squared_error(signals):
    errors = {name: np.mean((p - signals.sentiment) ** 2) for name, p in predict(signals).items()}
    assert min(errors, key=errors.__getitem__) == "optimum"


def test_the_optimum_is_calibrated(signals):
    """A posterior mean regresses the truth with slope 1 and intercept 0, also among the ironic-looking clips."""
    predicted = oracles(rows(signals, slice(0, 2_000))).optimum
    truth, flat = signals.sentiment[:2_000], signals.flat[:2_000]
    for chosen in (np.ones(2_000, dtype=bool), flat):
        slope, intercept = np.polyfit(predicted[chosen], truth[chosen], 1)
        assert slope == pytest.approx(1, abs=0.08)
        assert intercept == pytest.approx(0, abs=0.12)


def test_the_posterior_equals_brute_force(signals):
    """Against samples of the model itself, weighted by how near they come to one clip's face signal."""
    wide = draw_signals(3, 0, 20_000)
    near = np.abs(wide.face - 1.5) < 0.1
    one = dataclasses.replace(
        rows(signals, slice(0, 1)), face=np.array([1.5]), available=np.array([[False, False, True]])
    )
    standard_error = wide.sentiment[near].std() / np.sqrt(near.sum())
    assert oracles(one).optimum[0] == pytest.approx(wide.sentiment[near].mean(), abs=4 * standard_error)


def test_a_reader_that_says_the_same_of_all_has_no_correlation(signals):
    few = rows(signals, slice(0, 200))
    noise = np.random.default_rng(0).normal(scale=1e-8, size=200)
    found = correlations(few, predict(few) | {"text": 0.5 + noise})
    assert np.isnan(found["text"])
    assert found["optimum"] > 0.7


def test_what_can_be_scored_is_published_apart():
    """A clip with nothing at all is predicted as the mean by an oracle, and not at all by a model."""
    few, in_test = draw_signals(0, 0, 160), np.arange(160) % 2 == 1
    predictions = predict(few)
    published = _corpus_correlations(few, predictions, in_test)
    chosen = in_test & few.available.any(axis=1)
    assert chosen.sum() < in_test.sum()
    r = np.corrcoef(predictions["optimum"][chosen], few.sentiment[chosen])[0, 1]
    assert published["test_scorable"]["optimum"] == pytest.approx(r, abs=6e-4)


def test_flat_voice_turns_the_words_around():
    base = rows(draw_signals(0, 0, 1), slice(0, 1))
    said = dataclasses.replace(
        base, words=np.array([2.5]), tone=np.array([1.0]), face=np.array([-1.5]), available=np.ones((1, 3), bool)
    )
    lively = oracles(dataclasses.replace(said, flat=np.array([False]))).optimum[0]
    flat = oracles(dataclasses.replace(said, flat=np.array([True]))).optimum[0]
    assert flat < -0.8 < 0.8 < lively


def test_an_absent_modality_says_nothing(signals):
    few = rows(signals, slice(0, 200))
    hidden = dataclasses.replace(few, available=np.zeros((200, 3), dtype=bool))
    assert np.abs(oracles(hidden).optimum).max() < 1e-9
    deaf = dataclasses.replace(few, available=np.tile([True, False, True], (200, 1)))
    other = dataclasses.replace(deaf, tone=-few.tone, flat=~few.flat)
    np.testing.assert_array_equal(oracles(deaf).optimum, oracles(other).optimum)


def test_signals_are_bounded_and_do_not_depend_on_how_they_are_asked_for(signals):
    for name in ("sentiment", "words", "tone", "face"):
        assert np.abs(getattr(signals, name)).max() <= LIMIT
    part = draw_signals(77, 500, 20)
    for field in dataclasses.fields(Signals):
        np.testing.assert_array_equal(getattr(part, field.name), getattr(signals, field.name)[500:520])
    assert disagreement(part).shape == (20,)


def test_every_block_has_every_case():
    for seed in (0, 1):
        cases = [availability(seed, clip) for clip in range(BLOCK)]
        assert len(set(cases)) == 8
        assert cases.count((True, True, True)) == 64
        assert cases.count((False, False, False)) == 1


@pytest.mark.parametrize("clips", [1, 4, 5, 17, 240, 1_003])
def test_plans_hold_every_clip_once(clips):
    plans = list(plan_videos(clips, 0))
    covered = [plan.first_clip + segment for plan in plans for segment in range(plan.clips)]
    assert covered == list(range(clips))
    assert all(1 <= plan.clips <= 6 for plan in plans)


def test_240_clips_have_24_speakers_and_splits_of_a_useful_size():
    plans = list(plan_videos(240, 0))
    assert plans[-1].speaker + 1 == 24
    splits = assign_splits(24, 0)
    assert splits == assign_splits(24, 0) != assign_splits(24, 1)
    share = {split: splits.count(split) / 24 for split in ("train", "valid", "test")}
    assert share["test"] == SPLIT_SHARES["test"]
    assert 0.5 < share["train"] < 0.65
    assert assign_splits(1, 0) == ["train"]


def test_emotions_cover_the_scale_in_order():
    assert [emotion(y) for y in (-3, -1, 0, 1, 3)] == ["anger", "sadness", "neutral", "contentment", "joy"]
