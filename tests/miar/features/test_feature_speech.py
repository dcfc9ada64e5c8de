"""Encoders of sound through our extractor, against transformers called directly on the same samples.

The encoders are small and random, with the kernels, strides and positional reach of the published ones.
"""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from made_encoders import DEPTH, SPEECH_KINDS, SPEECH_RATE, WIDTH, save_speech_encoder, write
from transformers import AutoFeatureExtractor, AutoModel

from miar.config import MediaLimits
from miar.errors import ConfigError, UnavailableError
from miar.features import source_pass
from miar.features.configs import OpenSmileConfig, SpeechConfig
from miar.features.contract import Extraction, Modality, Status
from miar.features.registry import build_extractor, feature_set_of
from miar.features.requests import ClipRequest, ShardRequest
from miar.features.runner import extract_shard
from miar.features.speech import CONTEXT_SECONDS, SpeechEncoderExtractor, speech_feature_set
from miar.media.decode import Span, SpanEnd, decode_spans

TALKING = Path(os.environ.get("MIAR_MODEL_DIR", "nowhere")).parent / "media" / "talking_1.mp4"
LAYERS = tuple(range(DEPTH + 1))
BOTH = ["wav2vec2 group", "wav2vec2 layer"]


def sound(seconds: float, level: float = 0.1) -> np.ndarray:
    t = np.arange(int(seconds * SPEECH_RATE)) / SPEECH_RATE
    noise = np.random.default_rng(5).normal(size=t.size)
    return (level * (np.sin(2 * np.pi * (200 + 30 * np.sin(3 * t)) * t) * np.sin(1.7 * t) + 0.2 * noise)).astype("f4")


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("encoders")
    return {kind: save_speech_encoder(root / kind, kind) for kind in SPEECH_KINDS}


def extractor(folder: Path, **changes) -> SpeechEncoderExtractor:
    return SpeechEncoderExtractor(SpeechConfig(model=str(folder), **{"layers": LAYERS, **changes}))


def bare(folder: Path, samples: np.ndarray) -> np.ndarray:
    """(layers, T, D) by transformers, the samples prepared by its own feature extractor."""
    prepare, model = AutoFeatureExtractor.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    inputs = prepare(samples, sampling_rate=SPEECH_RATE, return_tensors="pt").input_values
    with torch.no_grad():
        states = model(inputs, output_hidden_states=True).hidden_states
    return np.stack([state[0].numpy() for state in states])


def side_by_side(states: np.ndarray) -> np.ndarray:
    return states.transpose(1, 0, 2).reshape(states.shape[1], -1)


@pytest.mark.parametrize("kind", SPEECH_KINDS)
def test_every_layer_equals_the_bare_network(saved, kind):
    samples = sound(2.03)
    found = extractor(saved[kind]).extract(samples)
    states = bare(saved[kind], samples)
    assert found.status is Status.OK
    assert found.values.shape == (101, (DEPTH + 1) * WIDTH)
    np.testing.assert_allclose(found.values, side_by_side(states), atol=1e-4)
    np.testing.assert_allclose(found.pooled, states[-1].mean(0), atol=1e-4)
    np.testing.assert_allclose(
        extractor(saved[kind], layers=(3, 1)).extract(samples).pooled, states[1].mean(0), atol=1e-4
    )


@pytest.mark.parametrize("kind", SPEECH_KINDS)
@pytest.mark.parametrize("layers", [(0,), (1,), (2, 0)])
def test_what_comes_after_the_last_kept_layer_is_not_computed_and_changes_nothing(saved, kind, layers):
    samples = sound(0.5)
    short = extractor(saved[kind], layers=layers)
    assert len(short._model.encoder.layers) == max(1, *layers)
    states = bare(saved[kind], samples)
    np.testing.assert_allclose(short.extract(samples).values, side_by_side(states[list(layers)]), atol=1e-4)


@pytest.mark.skipif(not TALKING.is_file(), reason="the talking clips are not at hand")
@pytest.mark.parametrize("kind", BOTH)
def test_real_speech_equals_the_bare_network_on_the_same_samples(saved, kind):
    events = decode_spans(TALKING, [Span(0, None)], audio_rate=SPEECH_RATE, video=None, limits=MediaLimits())
    samples = next(event.audio for event in events if isinstance(event, SpanEnd))
    found = extractor(saved[kind], window_seconds=120).extract(samples)
    np.testing.assert_allclose(found.values, side_by_side(bare(saved[kind], samples)), atol=1e-4)
    assert found.quality["quality_level_db"] > -50
    assert found.times[-1] == pytest.approx(len(samples) / SPEECH_RATE, abs=0.04)


def test_the_feature_set_is_known_without_the_network(saved):
    config = SpeechConfig(model=str(saved["hubert layer"]), layers=(1, -1))
    features = speech_feature_set(config)
    assert features == feature_set_of(config) == build_extractor(config).feature_set
    assert (features.extractor, features.modality, features.layers) == ("speech", Modality.AUDIO, 2)
    assert (features.columns[0], features.columns[-1]) == ("l1_000", "l3_031")
    assert (features.rate_hz, features.pooled_dim) == (50.0, WIDTH)
    assert set(features.weights) == {"config.json", "model.safetensors", "preprocessor_config.json"}
    extraction = build_extractor(config).extract(sound(1))
    assert set(extraction.quality) == set(features.quality_columns)


def test_times_are_the_centres_of_what_the_frames_see(saved):
    """One click in silence moves those frames of the convolutions, and only those, that cover it."""
    from miar.features.speech import Frames

    network = AutoModel.from_pretrained(saved["wav2vec2 layer"]).eval()
    frames = Frames(network.config.to_dict(), SPEECH_RATE)
    assert (frames.stride, frames.field) == (320, 400)
    silent, click = np.zeros(SPEECH_RATE, np.float32), np.zeros(SPEECH_RATE, np.float32)
    click[9000] = 1
    with torch.no_grad():
        rows = [network.feature_extractor(torch.from_numpy(x)[None])[0].T.numpy() for x in (silent, click)]
    moved = np.flatnonzero(np.abs(rows[0] - rows[1]).max(axis=1) > 1e-6)
    assert len(rows[0]) == frames.count(SPEECH_RATE)
    times = extractor(saved["wav2vec2 layer"]).extract(sound(1)).times
    np.testing.assert_array_equal(moved, np.flatnonzero(np.abs(times - 9000 / SPEECH_RATE) <= 200 / SPEECH_RATE))
    np.testing.assert_allclose(times[:2], [0.0125, 0.0325])


@pytest.mark.parametrize("seconds", [5.0, 5.02, 9.3])
def test_long_sound_is_read_in_windows_that_agree_where_they_meet(tmp_path, seconds):
    """Layer 0 sees no farther than the positional convolution, so its rows are those of the whole sound, everywhere."""
    folder = save_speech_encoder(tmp_path / "model", "wav2vec2 layer")
    samples = sound(seconds)
    whole, cut = (extractor(folder, window_seconds=w, layers=(0, 2)).extract(samples) for w in (120, 5))
    assert whole.quality["quality_windows"] == 1
    assert cut.quality["quality_windows"] > (seconds > 5.02)
    np.testing.assert_array_equal(cut.times, whole.times)
    np.testing.assert_allclose(cut.values[:, :WIDTH], whole.values[:, :WIDTH], atol=1e-4)
    if seconds > 5.02:
        assert np.abs(cut.values[:, WIDTH:] - whole.values[:, WIDTH:]).max() > 1e-3  # attention does see farther


@pytest.mark.parametrize("kind", BOTH)
def test_a_window_s_middle_equals_the_network_on_that_window(tmp_path, kind):
    folder = save_speech_encoder(tmp_path / "model", kind, do_normalize=False)
    samples = sound(9)
    found = extractor(folder, window_seconds=5, layers=(3,)).extract(samples)
    size, context = 249, 75  # whole frames in 5 s, and in 1.5 s
    start = size - 2 * context
    for number, first in ((0, 0), (1, start)):
        inside = samples[first * 320 : (first + size - 1) * 320 + 400]
        expected = bare(folder, inside)[3]
        assert len(expected) == size
        kept = slice(context if number else 0, size - context)
        np.testing.assert_allclose(found.values[first + kept.start : first + kept.stop], expected[kept], atol=1e-4)
    assert CONTEXT_SECONDS == 1.5


@settings(max_examples=60, deadline=None)
@given(n_frames=st.integers(1, 3000), window_seconds=st.floats(5, 30))
def test_every_frame_is_kept_once_with_its_context(shared_extractor, n_frames, window_seconds):
    shared_extractor._config = SpeechConfig(window_seconds=window_seconds)
    kept = []
    for window, part in shared_extractor._windows(n_frames):
        assert len(window) <= window_seconds * 50
        frames = window[part]
        assert frames[0] == 0 or frames[0] - window[0] >= 75
        assert frames[-1] == n_frames - 1 or window[-1] - frames[-1] >= 75
        kept.extend(frames)
    assert kept == list(range(n_frames))


@pytest.fixture(scope="module")
def shared_extractor(saved) -> SpeechEncoderExtractor:
    return extractor(saved["hubert group"])


def test_what_is_missing_says_why(shared_extractor):
    for samples, reason in (
        (None, "no_audio_stream"),
        (np.zeros(0, np.float32), "too_short"),
        (sound(1)[:399], "too_short"),
        (np.zeros(SPEECH_RATE, np.float32), "silence"),
        (sound(1, level=1e-4), "silence"),
    ):
        found = shared_extractor.extract(samples)
        assert (found.status, found.reason) == (Status.MISSING, reason)
        assert ("quality_level_db" in found.quality) == (samples is not None)
    one = shared_extractor.extract(sound(1)[:400])
    assert one.values.shape == (1, (DEPTH + 1) * WIDTH)
    assert np.isfinite(one.values).all()


def test_the_level_of_silence_is_the_configured_one(saved):
    quiet = sound(1, level=1e-4)
    loose = extractor(saved["hubert group"], silence_db=-100).extract(quiet)
    assert loose.status is Status.OK
    assert -100 < loose.quality["quality_level_db"] < -70


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_bad_samples_fail_the_clip_in_words(shared_extractor, bad):
    samples = sound(0.5)
    samples[100] = bad
    found = shared_extractor.extract(samples)
    assert (found.status, found.reason) == (Status.FAILED, "BadSamples")


def test_loudness_does_not_matter_to_a_model_that_normalises(saved, tmp_path):
    loud, quiet = (extractor(saved["wavlm group"]).extract(sound(1, level)) for level in (0.4, 0.04))
    np.testing.assert_allclose(loud.values, quiet.values, atol=1e-3)
    raw = extractor(save_speech_encoder(tmp_path / "raw", "wav2vec2 layer", do_normalize=False))
    assert np.abs(raw.extract(sound(1, 0.4)).values - raw.extract(sound(1, 0.04)).values).max() > 0.01


def test_the_hash_follows_what_changes_the_output(saved, tmp_path):
    folder = Path(shutil.copytree(saved["wavlm layer"], tmp_path / "copy"))
    base = SpeechConfig(model=str(folder), layers=(1,))
    hashes = {speech_feature_set(base).config_hash}
    for change in ({"layers": (2,)}, {"window_seconds": 10}, {"silence_db": -80}, {"precision": "bfloat16"}):
        hashes.add(speech_feature_set(base.model_copy(update=change)).config_hash)
    write(folder / "preprocessor_config.json", {"sampling_rate": 8000, "do_normalize": False})
    changed = speech_feature_set(base)
    assert changed.rate_hz == 25
    assert len({*hashes, changed.config_hash}) == 6
    assert speech_feature_set(base.model_copy(update={"device": "cpu"})) == changed


def test_bfloat16_is_near_float32(saved):
    exact, rough = (extractor(saved["hubert layer"], precision=p).extract(sound(1)) for p in ("float32", "bfloat16"))
    assert rough.values.dtype == np.float32
    assert 1e-4 < np.abs(rough.values - exact.values).max() < 0.1 * np.abs(exact.values).max()


def _no_convolutions(folder: Path) -> None:
    write(folder / "config.json", {"model_type": "whisper", "hidden_size": 32, "num_hidden_layers": 3})


def _with_decoder(folder: Path) -> None:
    write(folder / "config.json", json.loads((folder / "config.json").read_text()) | {"is_encoder_decoder": True})


def _squeezed(folder: Path) -> None:
    write(folder / "config.json", json.loads((folder / "config.json").read_text()) | {"squeeze_factor": 2})


def _no_preprocessor(folder: Path) -> None:
    (folder / "preprocessor_config.json").unlink()


def _spectra(folder: Path) -> None:
    write(folder / "preprocessor_config.json", {"feature_extractor_type": "SeamlessM4TFeatureExtractor"})


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (_no_convolutions, "samples into frames"),
        (_squeezed, "samples into frames"),
        (_with_decoder, "samples into frames"),
        (_no_preprocessor, "no preprocessor_config.json"),
        (_spectra, "SeamlessM4TFeatureExtractor"),
    ],
)
def test_an_encoder_of_anything_but_samples_is_one_line(saved, tmp_path, spoil, says):
    folder = Path(shutil.copytree(saved["hubert group"], tmp_path / "copy"))
    spoil(folder)
    with pytest.raises(ConfigError, match=says) as caught:
        speech_feature_set(SpeechConfig(model=str(folder), layers=(1,)))
    assert "\n" not in str(caught.value)


def test_a_model_that_is_nowhere_says_how_to_fetch_it(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UnavailableError, match=r"speech model some-org/not-here .*miar fetch some-org/not-here@v2"):
        speech_feature_set(SpeechConfig(model="some-org/not-here", revision="v2"))


def test_the_processor_s_file_says_as_much_as_the_preprocessor_s(saved, tmp_path):
    folder = Path(shutil.copytree(saved["hubert group"], tmp_path / "copy"))
    said = json.loads((folder / "preprocessor_config.json").read_text())
    _no_preprocessor(folder)
    write(folder / "processor_config.json", {"feature_extractor": said | {"do_normalize": False}})
    assert speech_feature_set(SpeechConfig(model=str(folder), layers=(1,))).config["do_normalize"] is False


@pytest.mark.skipif(not TALKING.is_file(), reason="the talking clips are not at hand")
def test_two_audio_extractors_hear_one_decode_pass(saved, monkeypatch):
    configs = (OpenSmileConfig(), SpeechConfig(model=str(saved["wavlm group"]), layers=(1, 2)))
    tables = [feature_set_of(config).table for config in configs]
    passes = []

    def counted(*arguments, **settings):
        passes.append(settings["audio_rate"])
        return decode_spans(*arguments, **settings)

    monkeypatch.setattr(source_pass, "decode_spans", counted)
    clip = ClipRequest("a", TALKING.name, 500, 2500, None, frozenset(tables))
    done = extract_shard(ShardRequest(str(TALKING.parent), (clip,), configs)).results
    assert passes == [SPEECH_RATE]
    events = decode_spans(TALKING, [Span(500, 2500)], audio_rate=SPEECH_RATE, video=None, limits=MediaLimits())
    samples = next(event.audio for event in events if isinstance(event, SpanEnd))
    for table, config in zip(tables, configs, strict=True):
        expected: Extraction = build_extractor(config).extract(samples)
        ((name, found),) = done[table]
        assert (name, found.status) == ("a", Status.OK)
        np.testing.assert_allclose(found.values, expected.values, atol=1e-5)
