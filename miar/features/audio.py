"""Sound through openSMILE: low-level descriptors as the sequence, functionals as named per-clip values.

- The caller cuts the clip first, mixes down and resamples to :attr:`OpenSmileExtractor.sample_rate`; openSMILE itself
  reads channel 0 and never resamples.
- Samples are clipped to what 16 bits hold before openSMILE converts them: at +1.0 its conversion would wrap to -1.0.
- ``missing: no_audio_stream`` without samples; ``missing: too_short`` where openSMILE finds no whole frame (up to
  0.05 s for eGeMAPS); ``missing: no_voice`` where the share of voiced frames is below ``min_voiced_share``, which is
  the case for silence, music without pitch, and noise. A frame is voiced where the set's F0 descriptor is above 0.
- ``times`` are the centres of openSMILE's frames. In the GeMAPS family these are the 20 ms frames of the spectrum; F0
  looks at 60 ms from the same start.
"""

import re
import warnings
from importlib.metadata import version
from typing import Any

import numpy as np

from miar.errors import ConfigError
from miar.features.checksums import recall, remember
from miar.features.configs import OpenSmileConfig
from miar.features.contract import Extraction, FeatureSet, FloatArray, Modality, Status

METHOD = 1
"""Raised whenever a change in this file changes what comes out."""
RATE_HZ = 100.0
"""Every openSMILE set steps by 10 ms."""
FLOOR_DB = -120.0
"""Level of digital silence."""
CLIPPED_AT = 0.999
LARGEST_SAMPLE = 32767 / 32768

LLD_LEVEL = "LowLevelDescriptors"
FUNCTIONALS_LEVEL = "Functionals"

_smiles: dict[tuple[str, str], Any] = {}
"""One ``Smile`` per set and level in this process: it is not thread-safe, and building one reads many files."""


class OpenSmileExtractor:
    """See the module's docstring."""

    def __init__(self, config: OpenSmileConfig) -> None:
        """
        Raises:
            ConfigError: openSMILE has no such feature set, or the set has no F0 among its descriptors.
        """
        self._config = config
        self._feature_set = opensmile_feature_set(config)
        self._voicing = voicing_column(self._feature_set.columns, config.feature_set)
        self._descriptors = _smile(config.feature_set, LLD_LEVEL)
        self._functionals = _smile(config.feature_set, FUNCTIONALS_LEVEL)

    @property
    def feature_set(self) -> FeatureSet:
        return self._feature_set

    @property
    def sample_rate(self) -> int:
        return self._config.sample_rate

    def extract(self, samples: FloatArray | None) -> Extraction:
        if samples is None:
            return Extraction.missing("no_audio_stream")
        if samples.ndim != 1:
            raise ValueError(f"samples must be mono, (n,); got {samples.shape}")
        if not np.isfinite(samples).all():
            return Extraction.failed("BadSamples", "the sound holds NaN or infinite samples: export it again")
        quality = _loudness(samples)
        signal = np.clip(samples, -1.0, LARGEST_SAMPLE).astype(np.float32)
        frames = self._process(self._descriptors, signal)
        if frames is None:
            return Extraction.missing("too_short", quality)
        values = np.ascontiguousarray(frames.to_numpy(), dtype=np.float32)
        voiced = values[:, self._voicing] > 0
        quality["quality_voiced_share"] = float(voiced.mean())
        if quality["quality_voiced_share"] < self._config.min_voiced_share or not voiced.any():
            return Extraction.missing("no_voice", quality)
        quality["quality_snr_db"] = _speech_to_pause_db(signal, self._config.sample_rate)
        functionals = self._process(self._functionals, signal)
        if functionals is None:
            return Extraction.missing("too_short", quality)
        return Extraction(
            Status.OK,
            values=values,
            times=_centres(frames),
            summary=dict(zip(functionals.columns, map(float, functionals.to_numpy()[0]), strict=True)),
            quality=quality,
        )

    def _process(self, smile: Any, signal: FloatArray) -> Any | None:
        """openSMILE's table, or ``None`` where the signal is too short for one frame."""
        if not signal.size:
            return None
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Segment too short")
            table = smile.process_signal(signal, self._config.sample_rate)
        return None if table.isna().to_numpy().all() else table


def opensmile_feature_set(config: OpenSmileConfig) -> FeatureSet:
    """What an :class:`OpenSmileExtractor` of ``config`` gives. openSMILE is asked for the names once per machine.

    Raises:
        ConfigError: openSMILE has no such feature set, or the set has no F0 among its descriptors.
    """
    columns, functionals = _names(config.feature_set)
    pitch = columns[voicing_column(columns, config.feature_set)]
    voiced = [name for name in (*columns, *functionals) if voiced_only(name) and name != pitch]
    return FeatureSet(
        extractor="opensmile",
        modality=Modality.AUDIO,
        columns=columns,
        rate_hz=RATE_HZ,
        summary_columns=functionals,
        quality_columns=(
            "quality_voiced_share",
            "quality_level_db",
            "quality_clipping_share",
            "quality_snr_db",
        ),
        voiced_columns=(pitch, *voiced),
        config={
            "feature_set": config.feature_set,
            "sample_rate": config.sample_rate,
            "min_voiced_share": config.min_voiced_share,
            "method": METHOD,
        },
        library_versions={"opensmile": version("opensmile")},
    )


def voiced_only(name: str) -> bool:
    """Whether a descriptor, or a functional over one, means something in voiced frames only.

    openSMILE marks them ``nz``; the other families' F0, jitter, shimmer and harmonics do not say so in their names.
    What stands in an unvoiced frame is mostly 0, but -201 for formants' amplitudes and anything for formants: mask by
    the first of a set's ``voiced_columns``, its F0, never by a column's own zeros.
    """
    if re.search(r"_sma3?nz(_|$)", name):
        return "UV" not in name
    return re.match(r"(F0final|F0_|jitter|shimmer|logHNR)", name) is not None


def voicing_column(columns: tuple[str, ...], feature_set: str) -> int:
    """Where the F0 descriptor stands that says which frames are voiced.

    Raises:
        ConfigError: the set has none.
    """
    for index, name in enumerate(columns):
        if re.match(r"F0(semitone|final_|_)", name):
            return index
    raise ConfigError(f"openSMILE's {feature_set} has no F0 descriptor, so voice cannot be told from noise")


def _names(feature_set: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    key = f"opensmile/{version('opensmile')}-{feature_set}.json"
    known = recall(key)
    if not isinstance(known, dict):
        levels = (LLD_LEVEL, FUNCTIONALS_LEVEL)
        known = {level: list(_smile(feature_set, level).feature_names) for level in levels}
        remember(key, known)
    return tuple(known[LLD_LEVEL]), tuple(known[FUNCTIONALS_LEVEL])


def _smile(feature_set: str, level: str) -> Any:
    import opensmile

    if (feature_set, level) not in _smiles:
        names = opensmile.FeatureSet.__members__
        if feature_set not in names:
            raise ConfigError(f"openSMILE has no feature set {feature_set}: use one of {', '.join(sorted(names))}")
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Feature set .* is deprecated")
            smile = opensmile.Smile(opensmile.FeatureSet[feature_set], opensmile.FeatureLevel[level], num_workers=1)
        _smiles[feature_set, level] = smile
    return _smiles[feature_set, level]


def _loudness(samples: FloatArray) -> dict[str, float]:
    if not samples.size:
        return {"quality_level_db": FLOOR_DB, "quality_clipping_share": 0.0}
    power = float(np.mean(np.square(samples, dtype=np.float64)))
    return {
        "quality_level_db": max(FLOOR_DB, 10 * float(np.log10(max(power, 1e-30)))),
        "quality_clipping_share": float(np.mean(np.abs(samples) >= CLIPPED_AT)),
    }


def _speech_to_pause_db(signal: FloatArray, sample_rate: int) -> float:
    """Level of the loud frames over that of the quiet ones, in dB: 95th against 10th percentile of 20 ms frames.

    An estimate of the signal-to-noise ratio where a clip holds pauses, and a lower bound where it holds none.
    """
    size = max(1, sample_rate // 50)
    whole = signal[: signal.size // size * size].reshape(-1, size).astype(np.float64)
    if not whole.size:
        return 0.0
    level = 10 * np.log10(np.maximum(np.mean(whole**2, axis=1), 10 ** (FLOOR_DB / 10)))
    loud, quiet = np.percentile(level, [95, 10])
    return float(loud - quiet)


def _centres(frames: Any) -> FloatArray:
    """openSMILE's index holds starts and ends; audinterface overwrites the last end by the clip's."""
    starts = frames.index.get_level_values("start").total_seconds().to_numpy()
    first_end = frames.index.get_level_values("end")[0].total_seconds()
    return (starts + (first_end - starts[0]) / 2).astype(np.float32)
