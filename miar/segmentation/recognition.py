"""What is said, and when each word is: Whisper through faster-whisper.

Whisper's own segments become clips. It hears the sound in pieces of ten minutes, without what it heard before as a
hint, and decodes at temperature 0: the same sound gives the same words.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from miar.config import ListeningConfig, MediaLimits
from miar.features.checksums import sha256_of
from miar.features.weights import find_whisper
from miar.media.decode import MediaFile
from miar.media.transcripts import Word
from miar.segmentation.segments import Segment, Segments
from miar.segmentation.sound import SAMPLE_RATE, carried_over, pieces
from miar.segmentation.voice import detector_options, faster_whisper_version, whole_ms

METHOD = 1
"""Raised whenever a change here or in ``sound`` changes what comes out."""

Heard = tuple[float, float, str, tuple[tuple[float, float, str], ...]]
"""Start and end in s, what is said, and its words with theirs."""


class Recognizer:
    """Speech becomes clips with words. The model is loaded when the first file is heard."""

    def __init__(self, config: ListeningConfig) -> None:
        """
        Raises:
            UnavailableError: faster-whisper is not installed, or the model is nowhere to be had.
        """
        assert config.recognizer is not None
        self._config = config
        self._version = faster_whisper_version()
        self._folder = find_whisper(config.recognizer)
        self._model: Any = None
        self._language: str | None = None

    def made_of(self) -> list[object]:
        """Everything that changes what comes out."""
        weights = {path.name: sha256_of(path) for path in sorted(self._folder.iterdir()) if path.suffix != ".md"}
        options = detector_options(self._config)
        return ["whisper", METHOD, self._version, self._config.language, weights, *options.values()]

    def segment(self, file: MediaFile, limits: MediaLimits) -> Segments:
        """
        Raises:
            MediaError: the file cannot be read.
        """
        self._language = self._config.language
        heard = list(carried_over(pieces(file, limits), self._hear, lambda one: (one[0], one[1])))
        spans = whole_ms((start_s, end_s) for start_s, end_s, *_ in heard)
        segments = [Segment(*span, one[2]) for span, one in zip(spans, heard, strict=True)]
        return Segments(segments, list(_words(heard)), self._language)

    def _hear(self, samples: NDArray[np.float32], begin_s: float) -> list[Heard]:
        if self._model is None:
            self._model = _load(self._folder)
        found, info = self._model.transcribe(
            samples,
            language=self._language,
            temperature=0.0,
            condition_on_previous_text=False,
            word_timestamps=True,
            vad_filter=True,
            vad_parameters=detector_options(self._config),
        )
        end_s = begin_s + len(samples) / SAMPLE_RATE
        heard = [_heard(one, begin_s, end_s) for one in found]
        if heard:  # a silent piece says nothing about the language
            self._language = info.language
        # What it hears in the silence that it pads sound with was never said.
        return [one for one in heard if one[2] and one[0] < end_s]


def _heard(segment: Any, begin_s: float, end_s: float) -> Heard:
    """What faster-whisper says of a piece of sound from ``begin_s`` to ``end_s``."""
    words = (
        (begin_s + word.start, min(begin_s + word.end, end_s), word.word.strip())
        for word in segment.words or ()
        if begin_s + word.start < end_s
    )
    return begin_s + segment.start, min(begin_s + segment.end, end_s), " ".join(segment.text.split()), tuple(words)


def _load(folder: Path) -> Any:
    from faster_whisper import WhisperModel

    threads = int(os.environ.get("OMP_NUM_THREADS") or 0)
    return WhisperModel(str(folder), cpu_threads=threads, local_files_only=True)


def _words(heard: list[Heard]) -> Iterator[Word]:
    for *_, words in heard:
        for start_s, end_s, text in words:
            if text:
                start_ms = round(start_s * 1000)
                yield Word(start_ms, max(start_ms + 1, round(end_s * 1000)), text)
