"""Sound through a transformers encoder of samples (wav2vec 2.0, HuBERT, WavLM): hidden states frame by frame.

- The sequence holds one row per frame, the chosen layers side by side; the pooled vector is the mean over the frames of
  the layer that is named last.
- The caller cuts the clip first, mixes down and resamples to the rate that the model's ``preprocessor_config.json``
  names. Where that says ``do_normalize``, the whole clip is brought to mean 0 and variance 1, before it is cut.
- A frame covers what the convolutions see (25 ms of 16 kHz), and frames follow by their strides (20 ms); ``times`` are
  the frames' centres. What lies behind the last whole frame leaves no row.
- Nothing is ever padded, so that no mask is needed: one clip, or one window of it, is read at a time. Models with
  ``feat_extract_norm: group`` take their norm over all that they are given, and padding would change every frame.
- Sound longer than a window is read in windows that overlap by twice :data:`CONTEXT_SECONDS`; each frame is taken from
  the window in which it has at least that much sound on both sides, which is more than the positional convolution
  (1.28 s) sees. Attention reaches as far as the window does, so a long clip's rows are those of its windows.
- ``missing: no_audio_stream`` without samples; ``missing: too_short`` below one frame; ``missing: silence`` where the
  clip's level is below ``silence_db``. Nothing tells voice from noise or music: these encoders do not.
"""

from importlib.metadata import version
from math import ceil, prod
from pathlib import Path
from typing import Any

import numpy as np

from miar.errors import ConfigError
from miar.features.configs import SpeechConfig
from miar.features.contract import Extraction, FeatureSet, FloatArray, Modality, Status
from miar.features.encoders import (
    checksums,
    forward_pass,
    hidden_width,
    layer_columns,
    load_model,
    named_model,
    read_json,
    resolve_layers,
    resolve_precision,
)
from miar.features.loudness import heard, loudness, signal_to_noise_db
from miar.features.weights import find_speech_model

METHOD = 1
"""Raised whenever a change in this file or in ``loudness`` changes what comes out."""
CONTEXT_SECONDS = 1.5
"""Sound on each side of a frame that its window must hold, unless the clip ends there."""
PREPROCESSOR_FILES = ("preprocessor_config.json", "processor_config.json")


class Frames:
    """Where an encoder's frames lie, from the kernels and strides of its convolutions."""

    def __init__(self, model: dict[str, Any], sample_rate: int) -> None:
        kernels, strides = model["conv_kernel"], model["conv_stride"]
        self.sample_rate = sample_rate
        self.stride = prod(strides)
        """Samples from one frame to the next."""
        self.field = 1 + sum((kernel - 1) * prod(strides[:number]) for number, kernel in enumerate(kernels))
        """Samples that one frame covers."""

    def count(self, n_samples: float) -> int:
        """Whole frames in so many samples."""
        return max(0, int((n_samples - self.field) // self.stride) + 1)

    def samples(self, start: int, stop: int) -> slice:
        """What frames ``start`` to ``stop`` cover."""
        return slice(start * self.stride, (stop - 1) * self.stride + self.field)

    def centres(self, n_frames: int) -> FloatArray:
        """(n_frames,) in seconds."""
        return ((np.arange(n_frames) * self.stride + self.field / 2) / self.sample_rate).astype(np.float32)


class SpeechEncoderExtractor:
    """See the module's docstring. Loading costs seconds; keep one per process."""

    def __init__(self, config: SpeechConfig) -> None:
        """
        Raises:
            UnavailableError: the model is nowhere to be had, or a GPU is asked for that is not there.
            ConfigError: transformers cannot load it, it does not read samples, or it lacks a layer asked for.
        """
        from transformers import AutoModel

        folder = find_speech_model(config.model, config.revision)
        model, preprocessor = _read_configs(folder)
        self._config = config
        self._feature_set = speech_feature_set(config)
        self._layers = resolve_layers(config.model, config.layers, model)
        self._frames = Frames(model, preprocessor["sampling_rate"])
        self._normalize: bool = preprocessor["do_normalize"]
        precision = resolve_precision(config.precision, config.device)
        self._model: Any = load_model(AutoModel, folder, config.model, precision, config.device)
        del self._model.encoder.layers[max(1, *self._layers) :]  # What comes after the last kept layer is not computed.

    @property
    def feature_set(self) -> FeatureSet:
        return self._feature_set

    @property
    def sample_rate(self) -> int:
        return self._frames.sample_rate

    def extract(self, samples: FloatArray | None) -> Extraction:
        sound = heard(samples)
        if isinstance(sound, Extraction):
            return sound
        quality = loudness(sound)
        n_frames = self._frames.count(sound.size)
        if not n_frames:
            return Extraction.missing("too_short", quality)
        if quality["quality_level_db"] < self._config.silence_db:
            return Extraction.missing("silence", quality)
        windows = self._windows(n_frames)
        signal = _normalized(sound) if self._normalize else sound
        if len(windows) == 1:
            values = self._encode(signal, n_frames)
        else:
            parts = [self._encode(signal[self._frames.samples(w.start, w.stop)], len(w))[keep] for w, keep in windows]
            values = np.concatenate(parts)
        width = self._feature_set.pooled_dim
        quality["quality_snr_db"] = signal_to_noise_db(sound, self.sample_rate)
        quality["quality_windows"] = float(len(windows))
        return Extraction(
            Status.OK,
            values=values,
            times=self._frames.centres(n_frames),
            pooled=values[:, -width:].mean(axis=0, dtype=np.float64).astype(np.float32),
            quality=quality,
        )

    def _windows(self, n_frames: int) -> list[tuple[range, slice]]:
        """Windows of frames, and which frames of each are kept: every one once, in order."""
        size = self._frames.count(self._config.window_seconds * self.sample_rate)
        context = ceil(CONTEXT_SECONDS * self.sample_rate / self._frames.stride)
        found, done, start = [], 0, 0
        while done < n_frames:
            start = min(start, max(0, n_frames - size))
            stop = min(start + size, n_frames)
            end = stop if stop == n_frames else stop - context
            found.append((range(start, stop), slice(done - start, end - start)))
            done, start = end, end - context
        return found

    def _encode(self, signal: FloatArray, n_frames: int) -> FloatArray:
        """(n,) samples to (n_frames, layers * D)."""
        import torch

        with forward_pass():
            x = torch.from_numpy(signal)[None].to(self._model.device, self._model.dtype)
            states = self._model(x, output_hidden_states=True).hidden_states
            rows = torch.cat([states[layer][0] for layer in self._layers], dim=-1).float().cpu().numpy()
        if len(rows) != n_frames:
            raise ValueError(f"the encoder gave {len(rows)} frames, its convolutions make {n_frames}")
        return rows


def speech_feature_set(config: SpeechConfig) -> FeatureSet:
    """What a :class:`SpeechEncoderExtractor` of ``config`` gives, from the model's json files alone.

    Raises:
        UnavailableError: the model is nowhere to be had.
        ConfigError: it is no encoder of samples, or lacks one of the layers asked for.
    """
    folder = find_speech_model(config.model, config.revision)
    model, preprocessor = _read_configs(folder)
    frames = Frames(model, preprocessor["sampling_rate"])
    layers = resolve_layers(config.model, config.layers, model)
    return FeatureSet(
        extractor="speech",
        modality=Modality.AUDIO,
        columns=layer_columns(layers, hidden_width(model)),
        rate_hz=frames.sample_rate / frames.stride,
        quality_columns=("quality_level_db", "quality_clipping_share", "quality_snr_db", "quality_windows"),
        pooled_dim=hidden_width(model),
        layers=len(layers),
        config={
            **named_model(config.model),
            "layers": list(layers),
            "sample_rate": frames.sample_rate,
            "do_normalize": preprocessor["do_normalize"],
            "window_seconds": config.window_seconds,
            "context_seconds": CONTEXT_SECONDS,
            "silence_db": config.silence_db,
            "precision": resolve_precision(config.precision, config.device),
            "method": METHOD,
        },
        library_versions={"transformers": version("transformers")},
        weights=checksums(folder, PREPROCESSOR_FILES),
    )


def _read_configs(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """config.json, and the sampling rate and normalisation that the model was trained with."""
    model = read_json(folder / "config.json")
    is_plain = not ("squeeze_factor" in model or model.get("is_encoder_decoder"))
    if not (is_plain and model.get("conv_kernel") and model.get("conv_stride")):
        raise ConfigError(
            f"{folder.name} does not turn samples into frames by convolutions: choose a wav2vec 2.0, HuBERT or WavLM, "
            "or one of their kin"
        )
    path = next((folder / name for name in PREPROCESSOR_FILES if (folder / name).is_file()), None)
    if path is None:
        raise ConfigError(f"{folder.name} has no preprocessor_config.json, which says what sound it was trained on")
    said = read_json(path)
    said = said.get("feature_extractor", said)
    if said.get("feature_extractor_type", "Wav2Vec2FeatureExtractor") != "Wav2Vec2FeatureExtractor":
        raise ConfigError(
            f"{folder.name} reads what a {said['feature_extractor_type']} makes: only samples are supported"
        )
    return model, {"sampling_rate": said.get("sampling_rate", 16_000), "do_normalize": said.get("do_normalize", True)}


def _normalized(samples: FloatArray) -> FloatArray:
    """Mean 0 and variance 1, as transformers' ``Wav2Vec2FeatureExtractor`` does it."""
    x = samples.astype(np.float64)
    return ((x - x.mean()) / np.sqrt(x.var() + 1e-7)).astype(np.float32)
