"""What is asked of a worker, and where its time went. Everything here is picklable."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from miar.config import MediaLimits
from miar.features.configs import ExtractorConfig


@dataclass(frozen=True)
class ClipRequest:
    """One clip, and which feature sets it still lacks."""

    clip_id: str
    path: str
    """Of the source file, relative to the corpus root."""
    start_ms: int
    end_ms: int | None
    text: str | None
    wants: frozenset[str]
    """Names of feature tables (:attr:`FeatureSet.table`)."""


@dataclass(frozen=True)
class ShardRequest:
    """Whole source files and what is wanted of their clips."""

    root: str
    """Folder or object-store URL that the clips' paths are relative to."""
    clips: tuple[ClipRequest, ...]
    extractors: tuple[ExtractorConfig, ...]
    limits: MediaLimits = field(default_factory=MediaLimits)


@dataclass
class Timings:
    """Seconds, by where they were spent; decoding, listening and looking go on at the same time."""

    load: float = 0.0
    """Building extractors that this process did not have yet."""
    decode: float = 0.0
    text: float = 0.0
    audio: float = 0.0
    face: float = 0.0

    @contextmanager
    def measure(self, name: str) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            setattr(self, name, getattr(self, name) + time.perf_counter() - started)
