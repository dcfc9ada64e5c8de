"""openSMILE through our extractor, against openSMILE called directly."""

import numpy as np
import opensmile
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from miar.errors import ConfigError
from miar.features.audio import (
    LARGEST_SAMPLE,
    OpenSmileExtractor,
    opensmile_feature_set,
    voiced_only,
)
from miar.features.configs import OpenSmileConfig
from miar.features.contract import Modality, Status

RATE = 16_000


def voice(seconds: float, f0: float = 140.0, level: float = 0.2) -> np.ndarray:
    """A buzz with a moving pitch and a formant-like decay of its harmonics, with pauses."""
    t = np.arange(int(seconds * RATE)) / RATE
    phase = 2 * np.pi * np.cumsum(f0 * (1 + 0.1 * np.sin(2 * np.pi * 1.5 * t))) / RATE
    sound = sum(np.sin(k * phase) / k for k in range(1, 12))
    pauses = (np.sin(2 * np.pi * 0.8 * t) > -0.6).astype(float)
    noise = np.random.default_rng(0).normal(size=t.size) * 0.002
    return (level * sound / np.abs(sound).max() * pauses + noise).astype(np.float32)


@pytest.fixture(scope="module")
def extractor() -> OpenSmileExtractor:
    return OpenSmileExtractor(OpenSmileConfig())


@pytest.mark.filterwarnings("ignore:Feature set .* is deprecated")
@pytest.mark.parametrize("name", opensmile.FeatureSet.__members__)
def test_one_pass_gives_bit_by_bit_what_opensmile_gives_in_two(name):
    sound = voice(2.5)
    levels = (opensmile.FeatureLevel.LowLevelDescriptors, opensmile.FeatureLevel.Functionals)
    descriptors, functionals = (
        opensmile.Smile(opensmile.FeatureSet[name], level).process_signal(sound, RATE) for level in levels
    )
    extractor = OpenSmileExtractor(OpenSmileConfig(feature_set=name))
    extraction = extractor.extract(sound)
    assert extraction.status is Status.OK
    assert np.array_equal(extraction.values, descriptors.to_numpy())
    assert tuple(descriptors.columns) == extractor.feature_set.columns
    assert tuple(functionals.columns) == extractor.feature_set.summary_columns == tuple(extraction.summary)
    assert np.array_equal(list(extraction.summary.values()), functionals.to_numpy()[0])
    assert extractor.extract(np.zeros(RATE, dtype=np.float32)).reason == "no_voice"


def test_shapes_types_and_declared_quality(extractor):
    extraction = extractor.extract(voice(1.0))
    features = extractor.feature_set
    assert features.modality is Modality.AUDIO
    assert extraction.values.shape == (96, 25)
    assert extraction.values.dtype == extraction.times.dtype == np.float32
    assert extraction.values.flags.c_contiguous
    assert set(extraction.quality) == set(features.quality_columns)
    assert len(extraction.summary) == 88


def test_times_are_the_centres_of_the_frames(extractor):
    sound = voice(2.0) * 0.001
    sound[RATE - 80 : RATE + 80] += np.random.default_rng(1).normal(size=160).astype(np.float32) * 0.3
    sound[int(1.5 * RATE) :] += voice(0.5)
    extraction = extractor.extract(sound)
    loudness = extraction.values[:120, extractor.feature_set.columns.index("Loudness_sma3")]
    assert extraction.times[int(loudness.argmax())] == pytest.approx(1.0, abs=0.011)
    np.testing.assert_allclose(np.diff(extraction.times), 0.01, atol=1e-4)
    assert extraction.times[0] == pytest.approx(0.01)


def test_no_samples_is_a_missing_stream(extractor):
    extraction = extractor.extract(None)
    assert (extraction.status, extraction.reason) == (Status.MISSING, "no_audio_stream")


@pytest.mark.parametrize("n_samples", [0, 1, 400, 800])
def test_up_to_a_twentieth_of_a_second_is_too_short(extractor, n_samples):
    extraction = extractor.extract(voice(1.0)[:n_samples])
    assert (extraction.status, extraction.reason) == (Status.MISSING, "too_short")
    assert "quality_level_db" in extraction.quality


@pytest.mark.parametrize("name", ["silence", "noise", "hum"])
def test_what_nobody_speaks_in_has_no_voice(extractor, name):
    t = np.arange(2 * RATE) / RATE
    sound = {
        "silence": np.zeros(2 * RATE),
        "noise": np.random.default_rng(0).normal(size=2 * RATE) * 0.05,
        "hum": 0.01 * np.sin(2 * np.pi * 50 * t),
    }[name]
    extraction = extractor.extract(sound.astype(np.float32))
    assert (extraction.status, extraction.reason) == (Status.MISSING, "no_voice")
    assert extraction.quality["quality_voiced_share"] < 0.02
    assert extraction.values is None


def test_the_rule_for_voice_is_the_configured_share():
    sound = np.zeros(4 * RATE, dtype=np.float32)
    sound[: RATE // 2] = voice(0.5)
    share = OpenSmileExtractor(OpenSmileConfig()).extract(sound).quality["quality_voiced_share"]
    assert 0.02 < share < 0.2
    strict = OpenSmileExtractor(OpenSmileConfig(min_voiced_share=share + 0.01)).extract(sound)
    loose = OpenSmileExtractor(OpenSmileConfig(min_voiced_share=share - 0.01)).extract(sound)
    assert (strict.reason, loose.status) == ("no_voice", Status.OK)


def test_level_and_clipping_are_measured(extractor):
    quiet, loud = extractor.extract(voice(1.0, level=0.05)), extractor.extract(voice(1.0, level=0.5))
    assert loud.quality["quality_level_db"] - quiet.quality["quality_level_db"] == pytest.approx(20, abs=0.5)
    clipped = extractor.extract(np.clip(voice(1.0, level=4.0), -1, 1))
    assert clipped.quality["quality_clipping_share"] > 0.05
    assert loud.quality["quality_clipping_share"] == 0
    assert extractor.extract(np.zeros(RATE, dtype=np.float32)).quality["quality_level_db"] == -120


def test_full_scale_does_not_wrap_around(extractor):
    bare = opensmile.Smile(opensmile.FeatureSet.eGeMAPSv02, opensmile.FeatureLevel.LowLevelDescriptors)
    """openSMILE's own conversion turns +1.0 into -1.0, which is a click in every period."""
    clipped = np.clip(voice(1.0, level=4.0), -1, 1).astype(np.float32)
    held = np.clip(clipped, -1, LARGEST_SAMPLE).astype(np.float32)
    expected = bare.process_signal(held, RATE).to_numpy()
    np.testing.assert_allclose(extractor.extract(clipped).values, expected, rtol=1e-4, atol=1e-4)
    assert np.abs(bare.process_signal(clipped, RATE).to_numpy() - expected).max() > 0.1


def test_the_pause_estimate_falls_with_noise(extractor):
    noise = np.random.default_rng(3).normal(size=2 * RATE).astype(np.float32)
    clean, noisy = extractor.extract(voice(2.0)), extractor.extract(voice(2.0) + 0.05 * noise)
    assert clean.quality["quality_snr_db"] > noisy.quality["quality_snr_db"] + 10


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_bad_samples_fail_the_clip_in_words(extractor, bad):
    sound = voice(0.5)
    sound[100] = bad
    extraction = extractor.extract(sound)
    assert (extraction.status, extraction.reason) == (Status.FAILED, "BadSamples")
    assert "\n" not in extraction.message


def test_stereo_is_a_programming_error(extractor):
    with pytest.raises(ValueError, match="mono"):
        extractor.extract(np.zeros((2, RATE), dtype=np.float32))


@settings(max_examples=15, deadline=None)
@given(n_samples=st.integers(0, 6000), level=st.sampled_from([0.0, 1e-4, 0.3, 3.0]), seed=st.integers(0, 99))
def test_any_signal_gives_finite_rows_or_a_reason(extractor, n_samples, level, seed):
    generator = np.random.default_rng(seed)
    sound = (generator.normal(size=n_samples) * level).astype(np.float32) + voice(0.4)[:n_samples].sum() * 0
    extraction = extractor.extract(sound.astype(np.float32))
    if extraction.status is Status.OK:
        assert np.isfinite(extraction.values).all()
        assert len(extraction.times) == len(extraction.values)
    else:
        assert extraction.reason in ("too_short", "no_voice")


def test_voiced_columns_start_with_the_pitch_that_says_which_frames_they_hold_for(extractor):
    features = extractor.feature_set
    values = extractor.extract(voice(2.0)).values
    assert features.voiced_columns[0] == "F0semitoneFrom27.5Hz_sma3nz"
    of_frames = [column for column in features.columns if column in features.voiced_columns]
    assert len(of_frames) == 15
    unvoiced = values[:, features.columns.index(features.voiced_columns[0])] == 0
    assert 0.1 < unvoiced.mean() < 0.9
    # 0 for pitch and voice quality, but -201 for the formants' amplitudes: "not 0" does not mean "voiced".
    inside = np.convolve(unvoiced, np.ones(3), mode="same") == 3
    for name in ("jitterLocal_sma3nz", "shimmerLocaldB_sma3nz", "HNRdBACF_sma3nz"):
        assert not values[inside][:, features.columns.index(name)].any()
    amplitude = values[inside][:, features.columns.index("F1amplitudeLogRelF0_sma3nz")]
    assert amplitude.min() == -201


def test_functionals_over_unvoiced_frames_are_not_voiced_columns():
    assert voiced_only("F0semitoneFrom27.5Hz_sma3nz_amean")
    assert voiced_only("mfcc1V_sma3nz_stddevNorm")
    assert not voiced_only("alphaRatioUV_sma3nz_amean")
    assert not voiced_only("loudness_sma3_amean")


def test_an_unknown_set_is_one_clear_line():
    with pytest.raises(ConfigError, match=r"no feature set eGeMAPSv99: use one of .*eGeMAPSv02") as caught:
        opensmile_feature_set(OpenSmileConfig(feature_set="eGeMAPSv99"))
    assert "\n" not in str(caught.value)


def test_the_hash_follows_what_changes_the_output():
    base = opensmile_feature_set(OpenSmileConfig()).config_hash
    assert opensmile_feature_set(OpenSmileConfig(sample_rate=48_000)).config_hash != base
    assert opensmile_feature_set(OpenSmileConfig(min_voiced_share=0.1)).config_hash != base
    assert opensmile_feature_set(OpenSmileConfig()).config_hash == base
