"""The contract that every extractor keeps.

An extractor turns one clip into one sequence. What it is, its columns and the hash of everything that changes its
output stand in its :class:`FeatureSet`; what it found in a clip is an :class:`Extraction`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from miar.descriptors import table_name
from miar.hashing import stable_key
from miar.media.decode import VideoFrame

FloatArray = NDArray[np.float32]


class Modality(StrEnum):
    """What an extractor listens to. The order is the order of modalities everywhere."""

    TEXT = "text"
    AUDIO = "audio"
    FACE = "face"


class Status(StrEnum):
    """How an extraction ended."""

    OK = "ok"
    MISSING = "missing"
    """The clip has no such modality: a normal outcome, not tried again."""
    FAILED = "failed"
    """It should have worked and did not: kept with its reason, tried again by a later refresh."""


@dataclass(frozen=True)
class FeatureSet:
    """The descriptor of a feature table; models name it by ``extractor`` and ``config_hash``."""

    extractor: str
    modality: Modality
    columns: tuple[str, ...]
    """Names of the sequence's columns; several kept layers of an encoder are laid out one after the other."""
    rate_hz: float | None
    """Frames per second; ``None`` where steps are tokens or words."""
    summary_columns: tuple[str, ...] = ()
    """Named per-clip values stored as plain columns (the 88 functionals; mean, std and max per action unit)."""
    quality_columns: tuple[str, ...] = ()
    """Named per-clip quality values, each prefixed ``quality_``."""
    pooled_dim: int = 0
    """Width of the pooled vector; 0 where there is none."""
    layers: int = 1
    """How many encoder layers stand side by side in ``columns``; ``len(columns) % layers == 0``."""
    voiced_columns: tuple[str, ...] = ()
    """Columns that mean something in voiced frames only (jitter, shimmer, formants), F0 first: a frame is voiced where
    F0 is above 0. In unvoiced frames the others hold 0, -201 or noise."""
    config: dict[str, object] = field(default_factory=dict)
    """The resolved configuration: everything that was asked for and changes the output."""
    library_versions: dict[str, str] = field(default_factory=dict)
    weights: dict[str, str] = field(default_factory=dict)
    """File name -> sha256 of every weights file that was read."""

    @cached_property
    def config_hash(self) -> str:
        """16 hex digits over everything that changes the output."""
        return stable_key(
            [
                self.extractor,
                self.config,
                self.library_versions,
                self.weights,
                list(self.columns),
                list(self.summary_columns),
            ]
        )[:16]

    @classmethod
    def from_json(cls, tree: dict[str, Any]) -> "FeatureSet":
        """Undo ``dataclasses.asdict`` and a trip through JSON."""
        tuples = {name: tuple(tree[name]) for name in _TUPLES}
        return cls(**{**tree, **tuples, "modality": Modality(tree["modality"])})

    @property
    def table(self) -> str:
        """Where its rows live in the store."""
        return table_name(self.extractor, self.config_hash)


_TUPLES = ("columns", "summary_columns", "quality_columns", "voiced_columns")


@dataclass
class Extraction:
    """What one extractor found in one clip."""

    status: Status
    reason: str | None = None
    """``missing``: a short stable name (``no_audio_stream``, ``no_voice``, ``silence``, ``too_short``, ``no_face``,
    ``no_words``). ``failed``: the error's class name."""
    message: str | None = None
    """``failed``: one line for a person."""
    values: FloatArray | None = None
    """(n_frames, n_columns), C order."""
    times: FloatArray | None = None
    """(n_frames,) centres of the frames in seconds from the clip's start. Of words, which have no times of their own:
    the character at which each token starts in the text that the encoder read, not counting a prefix."""
    pooled: FloatArray | None = None
    """(pooled_dim,)"""
    summary: dict[str, float] = field(default_factory=dict)
    quality: dict[str, float] = field(default_factory=dict)
    """Kept for ``missing`` clips as well, where it could be measured."""

    @classmethod
    def missing(cls, reason: str, quality: dict[str, float] | None = None) -> "Extraction":
        return cls(Status.MISSING, reason=reason, quality=quality or {})

    @classmethod
    def failed(cls, error: BaseException | str, message: str) -> "Extraction":
        name = error if isinstance(error, str) else type(error).__name__
        return cls(Status.FAILED, reason=name, message=" ".join(message.split()))


class TextExtractor(Protocol):
    """Reads words. Batches across clips, since an encoder is far faster that way."""

    @property
    def feature_set(self) -> FeatureSet: ...

    def extract(self, texts: Sequence[str | None]) -> list[Extraction]: ...


class AudioExtractor(Protocol):
    """Reads a clip's sound."""

    @property
    def feature_set(self) -> FeatureSet: ...

    @property
    def sample_rate(self) -> int:
        """The rate it wants, in Hz; the caller resamples."""
        ...

    def extract(self, samples: FloatArray | None) -> Extraction:
        """``samples``: (n,) mono float32 in -1..1 at :attr:`sample_rate`, or ``None`` for a clip without sound."""
        ...


class FaceSession(Protocol):
    """One clip's frames, in order of time. Holds a bounded number of them."""

    def push(self, frame: VideoFrame) -> None: ...

    def close(self) -> Extraction: ...


class FaceExtractor(Protocol):
    """Reads a clip's frames."""

    @property
    def feature_set(self) -> FeatureSet: ...

    @property
    def fps(self) -> float:
        """Frames per second that it wants; the decoder picks the nearest frames."""
        ...

    @property
    def max_side(self) -> int:
        """Longest side in pixels that it wants; the decoder scales larger frames down."""
        ...

    def open(self) -> FaceSession: ...
