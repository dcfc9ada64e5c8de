"""Where somebody speaks: the Silero detector of voice that faster-whisper carries."""

from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
from numpy.typing import NDArray

from miar.config import ListeningConfig, MediaLimits
from miar.errors import UnavailableError
from miar.media.decode import MediaFile
from miar.segmentation.segments import Segment, Segments
from miar.segmentation.sound import SAMPLE_RATE, carried_over, pieces

METHOD = 1
"""Raised whenever a change here or in ``sound`` changes what comes out."""
PAD_S = 0.1
"""Of sound kept before and after speech: its first and last consonants are faint."""


class VoiceDetector:
    """Speech becomes clips without words."""

    def __init__(self, config: ListeningConfig) -> None:
        """
        Raises:
            UnavailableError: faster-whisper is not installed.
        """
        self._config = config
        self._version = faster_whisper_version()

    def made_of(self) -> list[object]:
        """Everything that changes what comes out."""
        return ["voice", METHOD, self._version, *detector_options(self._config).values()]

    def segment(self, file: MediaFile, limits: MediaLimits) -> Segments:
        """
        Raises:
            MediaError: the file cannot be read.
        """
        spoken = carried_over(pieces(file, limits), self._speech, lambda span: span)
        return Segments([Segment(*span) for span in whole_ms(spoken)])

    def _speech(self, samples: NDArray[np.float32], begin_s: float) -> list[tuple[float, float]]:
        from faster_whisper.vad import VadOptions, get_speech_timestamps

        found = get_speech_timestamps(samples, VadOptions(**detector_options(self._config)), SAMPLE_RATE)
        return [(begin_s + one["start"] / SAMPLE_RATE, begin_s + one["end"] / SAMPLE_RATE) for one in found]


def detector_options(config: ListeningConfig) -> dict[str, Any]:
    """As faster-whisper calls them."""
    return {
        "threshold": config.threshold,
        "min_speech_duration_ms": round(config.min_speech_s * 1000),
        "max_speech_duration_s": config.max_speech_s,
        "min_silence_duration_ms": round(config.min_pause_s * 1000),
        "speech_pad_ms": round(PAD_S * 1000),
    }


def whole_ms(spans: Iterator[tuple[float, float]]) -> Iterator[tuple[int, int]]:
    """Spans in s as whole ms, each at least 1 ms long and none beginning before the one before it ends."""
    end_ms = 0
    for start_s, end_s in spans:
        start_ms = max(end_ms, round(start_s * 1000))
        end_ms = max(start_ms + 1, round(end_s * 1000))
        yield start_ms, end_ms


def faster_whisper_version() -> str:
    """
    Raises:
        UnavailableError: it is not installed.
    """
    try:
        return version("faster-whisper")
    except PackageNotFoundError as error:
        raise UnavailableError(
            "corpus.segment_by is speech, which needs faster-whisper: pip install 'miar[asr]'"
        ) from error
