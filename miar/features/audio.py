"""Sound through openSMILE: low-level descriptors as the sequence, functionals as named per-clip values.

- One pass over the samples gives every level; ``opensmile`` itself makes a pass, and sets its components up anew, for
  each. The values are the same, bit by bit.
- ``deltas`` puts the descriptors' deltas beside them. openSMILE makes two frames of deltas more than of descriptors,
  from what it pads the end with: frame n of the deltas is the change about frame n, and those two are left out.
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
from pathlib import Path
from typing import Any

import numpy as np

from miar.errors import ConfigError
from miar.features.checksums import recall, remember
from miar.features.configs import OpenSmileConfig
from miar.features.contract import Extraction, FeatureSet, FloatArray, Modality, Status
from miar.features.loudness import heard, loudness, signal_to_noise_db

METHOD = 2
"""Raised whenever a change in this file or in ``loudness`` changes what comes out."""
RATE_HZ = 100.0
"""Every openSMILE set steps by 10 ms."""
LARGEST_SAMPLE = 32767 / 32768

LLD_LEVEL = "LowLevelDescriptors"
DELTAS_LEVEL = "LowLevelDescriptors_Deltas"
FUNCTIONALS_LEVEL = "Functionals"
WITHOUT_DELTAS = re.compile(r"e?GeMAPS")
SINKS_WITH_DELTAS = Path(__file__).with_name("opensmile_sinks.conf.inc")

_smiles: dict[tuple[str, str], Any] = {}
"""One ``Smile`` per set and level in this process: building one reads many files."""


class OpenSmileExtractor:
    """See the module's docstring."""

    def __init__(self, config: OpenSmileConfig) -> None:
        """
        Raises:
            ConfigError: openSMILE has no such feature set, or the set has no F0 or no deltas.
        """
        self._config = config
        self._feature_set = opensmile_feature_set(config)
        self._voicing = voicing_column(self._feature_set.columns, config.feature_set)
        self._smile = _smile(config.feature_set, LLD_LEVEL)

    @property
    def feature_set(self) -> FeatureSet:
        return self._feature_set

    @property
    def sample_rate(self) -> int:
        return self._config.sample_rate

    def extract(self, samples: FloatArray | None) -> Extraction:
        sound = heard(samples)
        if isinstance(sound, Extraction):
            return sound
        quality = loudness(sound)
        signal = np.clip(sound, -1.0, LARGEST_SAMPLE).astype(np.float32)
        levels = _all_levels(self._smile, signal, self._config.sample_rate, deltas=self._config.deltas)
        if levels is None:
            return Extraction.missing("too_short", quality)
        values, times, functionals = levels
        voiced = values[:, self._voicing] > 0
        quality["quality_voiced_share"] = float(voiced.mean())
        if quality["quality_voiced_share"] < self._config.min_voiced_share or not voiced.any():
            return Extraction.missing("no_voice", quality)
        quality["quality_snr_db"] = signal_to_noise_db(signal, self._config.sample_rate)
        return Extraction(
            Status.OK,
            values=values,
            times=times,
            summary=dict(zip(self._feature_set.summary_columns, map(float, functionals), strict=True)),
            quality=quality,
        )


def opensmile_feature_set(config: OpenSmileConfig) -> FeatureSet:
    """What an :class:`OpenSmileExtractor` of ``config`` gives. openSMILE is asked for the names once per machine.

    Raises:
        ConfigError: openSMILE has no such feature set, or the set has no F0 or no deltas.
    """
    columns, functionals = _names(config.feature_set, LLD_LEVEL), _names(config.feature_set, FUNCTIONALS_LEVEL)
    pitch = columns[voicing_column(columns, config.feature_set)]
    if config.deltas:
        columns += _names(config.feature_set, DELTAS_LEVEL)
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
            "deltas": config.deltas,
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


def _names(feature_set: str, level: str) -> tuple[str, ...]:
    key = f"opensmile/{version('opensmile')}-{feature_set}-{level}.json"
    known = recall(key)
    if not isinstance(known, list):
        known = list(_smile(feature_set, level).feature_names)
        remember(key, known)
    return tuple(known)


def _smile(feature_set: str, level: str) -> Any:
    import opensmile

    if (feature_set, level) not in _smiles:
        names = opensmile.FeatureSet.__members__
        if feature_set not in names:
            raise ConfigError(f"openSMILE has no feature set {feature_set}: use one of {', '.join(sorted(names))}")
        if level == DELTAS_LEVEL and WITHOUT_DELTAS.match(feature_set):
            able = ", ".join(sorted(name for name in names if not WITHOUT_DELTAS.match(name)))
            raise ConfigError(f"openSMILE's {feature_set} has no deltas: leave deltas out, or use one of {able}")
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Feature set .* is deprecated")
            smile = opensmile.Smile(opensmile.FeatureSet[feature_set], opensmile.FeatureLevel[level], num_workers=1)
        _smiles[feature_set, level] = smile
    return _smiles[feature_set, level]


def _all_levels(
    smile: Any, signal: FloatArray, sample_rate: int, *, deltas: bool
) -> tuple[FloatArray, FloatArray, FloatArray] | None:
    """One pass of openSMILE.

    Args:
        smile: of the feature set, whatever its level.
        signal: (n,) samples, at least -1 and below 1.
        sample_rate: in Hz.
        deltas: whether the descriptors' deltas stand behind them.

    Returns:
        The descriptors (n_frames, n_columns), the frames' centres (n_frames,) in seconds and the functionals
        (n_functionals,); ``None`` where the signal is too short for one frame.
    """
    if not signal.size:
        return None
    frames: list[FloatArray] = []
    changes: list[FloatArray] = []
    spans: list[tuple[float, float]] = []
    functionals: list[FloatArray] = []

    def take_frame(data: FloatArray, meta: Any) -> None:
        frames.append(data.copy())
        spans.append((meta.time, meta.lengthSec))

    run = smile._smile(_options(smile, sample_rate, deltas=deltas))
    try:
        run.external_sink_set_callback_ex("extsinklld", take_frame)
        run.external_sink_set_callback_ex("extsinkfunc", lambda data, _: functionals.append(data.copy()))
        if deltas:
            run.external_sink_set_callback_ex("extsinkdeltas", lambda data, _: changes.append(data.copy()))
        run.external_audio_source_write_data("extsource", (signal * 32768).astype(np.int16).tobytes())
        run.external_audio_source_set_eoi("extsource")
        run.run()
    finally:
        run.free()
    if not frames or not functionals:
        return None
    values = np.concatenate(frames)
    if deltas:
        values = np.concatenate([values, np.concatenate(changes)[: len(values)]], axis=1)
    starts, lengths = np.array(spans).T
    return values, (starts.round(9) + lengths[0] / 2).astype(np.float32), functionals[0].ravel()


def _options(smile: Any, sample_rate: int, *, deltas: bool) -> dict[str, Any]:
    """As ``opensmile`` sets them, with sinks for several levels: those that it ships, or those and one for deltas."""
    shared = Path(smile.default_config_root) / "shared"
    source = shared / "standard_external_wave_input.conf.inc"
    sink = SINKS_WITH_DELTAS if deltas else shared / "standard_external_data_output_multi.conf.inc"
    return {**smile._options(), "source": str(source), "sink": str(sink), "sampleRate": sample_rate, "nBits": 16}
