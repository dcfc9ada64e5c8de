"""openSMILE through our extractor, against openSMILE called directly."""

import os
from pathlib import Path

import numpy as np
import opensmile
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from miar.config import MediaLimits
from miar.errors import ConfigError
from miar.features.audio import (
    LARGEST_SAMPLE,
    OpenSmileExtractor,
    opensmile_feature_set,
    voiced_only,
)
from miar.features.configs import OpenSmileConfig
from miar.features.contract import Modality, Status
from miar.features.loudness import LEAST_SNR_DB, signal_to_noise_db
from miar.media.decode import Span, SpanEnd, decode_spans

RATE = 16_000
TALKING = Path(os.environ.get("MIAR_MODEL_DIR", "nowhere")).parent / "media" / "talking_1.mp4"
deprecated_sets = pytest.mark.filterwarnings("ignore:Feature set .* is deprecated")


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


@pytest.fixture(scope="module")
def speech() -> np.ndarray:
    """Two and a half seconds of somebody talking; made sound where the clip is not at hand."""
    if not TALKING.is_file():
        return voice(2.5)
    events = decode_spans(TALKING, [Span(1000, 3500)], audio_rate=RATE, video=None, limits=MediaLimits())
    return next(event.audio for event in events if isinstance(event, SpanEnd) and event.audio is not None)


def bare(name: str, level: str, sound: np.ndarray):
    return opensmile.Smile(opensmile.FeatureSet[name], opensmile.FeatureLevel(level)).process_signal(sound, RATE)


@deprecated_sets
@pytest.mark.parametrize("name", opensmile.FeatureSet.__members__)
def test_one_pass_gives_bit_by_bit_what_opensmile_gives_in_two(name, speech):
    descriptors, functionals = (bare(name, level, speech) for level in ("lld", "func"))
    extractor = OpenSmileExtractor(OpenSmileConfig(feature_set=name))
    extraction = extractor.extract(speech)
    assert extraction.status is Status.OK
    assert np.array_equal(extraction.values, descriptors.to_numpy())
    assert tuple(descriptors.columns) == extractor.feature_set.columns
    assert tuple(functionals.columns) == extractor.feature_set.summary_columns == tuple(extraction.summary)
    assert np.array_equal(list(extraction.summary.values()), functionals.to_numpy()[0])
    assert extractor.extract(np.zeros(RATE, dtype=np.float32)).reason == "no_voice"


WITH_DELTAS = [name for name in opensmile.FeatureSet.__members__ if "GeMAPS" not in name]


@pytest.mark.parametrize("name", WITH_DELTAS)
def test_deltas_come_of_the_same_pass_bit_by_bit_and_frame_by_frame(name, speech):
    descriptors, deltas, functionals = (bare(name, level, speech) for level in ("lld", "lld_de", "func"))
    extractor = OpenSmileExtractor(OpenSmileConfig(feature_set=name, deltas=True))
    extraction = extractor.extract(speech)
    n_frames, width = descriptors.shape
    assert len(deltas) == n_frames + 2
    assert extractor.feature_set.columns == (*descriptors.columns, *deltas.columns)
    assert np.array_equal(extraction.values[:, :width], descriptors.to_numpy())
    assert np.array_equal(extraction.values[:, width:], deltas.to_numpy()[:n_frames])
    assert np.array_equal(list(extraction.summary.values()), functionals.to_numpy()[0])
    starts = [frames.index.get_level_values("start").total_seconds() for frames in (descriptors, deltas)]
    np.testing.assert_allclose(
        starts[1][:n_frames], starts[0], atol=0.0101
    )  # openSMILE stamps some of them one step off
    plain = OpenSmileExtractor(OpenSmileConfig(feature_set=name))
    np.testing.assert_array_equal(plain.extract(speech).times, extraction.times)
    assert plain.feature_set.config_hash != extractor.feature_set.config_hash
    assert extractor.feature_set.columns.index(extractor.feature_set.voiced_columns[0]) < width


@pytest.mark.parametrize("name", ["emobase", "IS09", "IS10"])
def test_a_frame_s_deltas_are_the_regression_over_two_frames_on_each_side_of_it(name, speech):
    values = OpenSmileExtractor(OpenSmileConfig(feature_set=name, deltas=True)).extract(speech).values
    x, deltas = np.split(values, 2, axis=1)
    expected = (x[3:-1] - x[1:-3] + 2 * (x[4:] - x[:-4])) / 10
    np.testing.assert_allclose(deltas[2:-2], expected, atol=1e-5 * np.abs(x).max())


@pytest.mark.parametrize("name", [name for name in opensmile.FeatureSet.__members__ if "GeMAPS" in name])
def test_a_set_without_deltas_names_those_that_have_them(name):
    with pytest.raises(ConfigError, match=rf"{name} has no deltas.*ComParE_2016, IS09.*emobase") as caught:
        opensmile_feature_set(OpenSmileConfig(feature_set=name, deltas=True))
    assert all(other in str(caught.value) for other in WITH_DELTAS)


@deprecated_sets
@pytest.mark.filterwarnings("ignore:Segment too short")
@pytest.mark.parametrize("name", ["eGeMAPSv02", "ComParE_2016", "emobase", "IS11"])
def test_where_opensmile_gives_nan_the_clip_is_missing_and_never_zero(name, speech):
    extractor = OpenSmileExtractor(OpenSmileConfig(feature_set=name, min_voiced_share=0))
    seen = set()
    for milliseconds in (20, 50, 60, 120):
        sound = speech[RATE : RATE + RATE * milliseconds // 1000]
        frames, functionals = (bare(name, level, sound) for level in ("lld", "func"))
        is_nan = bool(frames.isna().any(axis=None) or functionals.isna().any(axis=None))
        found = extractor.extract(sound)
        assert (found.reason == "too_short") == is_nan, milliseconds
        if found.status is Status.OK:
            assert np.isfinite(found.values).all()
        else:
            assert found.values is None
            assert not found.summary
        seen.add(is_nan)
    assert seen == {True, False}


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


def test_added_noise_is_found_by_its_level(extractor, speech):
    noise = np.random.default_rng(3).normal(size=speech.size).astype(np.float32)
    power = float(np.mean(speech.astype(np.float64) ** 2))
    measured = [extractor.extract(speech).quality["quality_snr_db"]]
    for added in (30, 20, 15, 10, 5, 0):
        noisy = (speech + noise * np.sqrt(power / 10 ** (added / 10))).astype(np.float32)
        measured.append(signal_to_noise_db(noisy, RATE))
        if added <= 15:
            assert measured[-1] == pytest.approx(added, abs=1.5)
    assert measured == sorted(measured, reverse=True)
    assert measured[0] > 18
    assert signal_to_noise_db(noise, RATE) < -5
    assert signal_to_noise_db(np.full(RATE, 0.1, np.float32), RATE) == LEAST_SNR_DB


def test_real_speech_moves_every_quality_as_it_is_spoilt(extractor, speech):
    """Gain moves the level, gain beyond full scale the clipping, silence and noise the voiced share."""
    clean = extractor.extract(speech).quality
    quieter = extractor.extract(speech * np.float32(0.1)).quality
    assert clean["quality_level_db"] - quieter["quality_level_db"] == pytest.approx(20, abs=0.1)
    assert clean["quality_snr_db"] == pytest.approx(quieter["quality_snr_db"], abs=0.5)
    shares = [clean["quality_clipping_share"]]
    for peak in (1.5, 4, 20):
        loud = np.clip(speech * np.float32(peak / np.abs(speech).max()), -1, 1)
        shares.append(extractor.extract(loud).quality["quality_clipping_share"])
    assert shares == sorted(set(shares))
    assert shares[0] == 0
    silence = np.zeros_like(speech)
    noise = (np.random.default_rng(4).normal(size=speech.size) * 0.05).astype(np.float32)
    half = extractor.extract(np.concatenate([speech, silence])).quality["quality_voiced_share"]
    assert half == pytest.approx(clean["quality_voiced_share"] / 2, rel=0.2)
    for spoilt in (silence, noise):
        assert extractor.extract(spoilt).quality["quality_voiced_share"] < 0.02 < clean["quality_voiced_share"] / 4


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
