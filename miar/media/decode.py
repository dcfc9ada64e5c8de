"""One decode of a file serves audio and video, cut into any number of clips in one pass.

Notable:

- **One clock.** Audio and video are placed on one presentation clock whose zero is the container's start; a
  stream
  that starts later is later, so a clap and its flash coincide. Times that jump back or far ahead (recordings
  that were
  joined) are continued from where the stream was.
- **Cut, then resample.** A clip's sound is cut at the file's own rate, mixed down by the plain mean of its
  channels
  and resampled (soxr, HQ) as a stream of its own, so a clip never depends on its neighbours. Where a file has
  several
  audio or video tracks, the one marked as default is taken, else the first; a cover picture is not video.
- **Only sampled frames become RGB.** Conversion costs more than decoding, so a frame is converted, scaled and
  turned
  upright once, and only when some clip wants it.
- **Pictures long before the first span** are not decoded, which changes nothing that comes out.
- **Memory** is bounded by the clips that are open at one time: their resampled sound, and one frame each.

Importing this module is cheap; PyAV and soxr are imported when the first file is decoded.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from os import PathLike
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from miar.config import MediaLimits
    from miar.media.errors import MediaProblem

MediaFile = str | PathLike[str] | BinaryIO
"""A local path, or a binary file object that can seek."""


@dataclass(frozen=True, slots=True)
class VideoFrame:
    rgb: NDArray[np.uint8]
    """(height, width, 3)"""
    time_s: float
    """Centre of the frame, in seconds from the clip's start."""


@dataclass(frozen=True, slots=True)
class Span:
    """A part of a file, in ms on its presentation clock: from ``start_ms`` up to, not including,
    ``end_ms``."""

    start_ms: int
    end_ms: int | None
    """``None``: to the end of the file."""

    def __post_init__(self) -> None:
        if self.start_ms < 0 or (self.end_ms is not None and self.end_ms <= self.start_ms):
            raise ValueError(f"a span from {self.start_ms} to {self.end_ms} ms holds no time")


@dataclass(frozen=True)
class VideoRequest:
    """Which frames are wanted, and how large."""

    fps: float
    """Frames per second; of a slower video, every frame."""
    max_side: int
    """Longest side in pixels; larger frames are scaled down, smaller ones are left."""

    def __post_init__(self) -> None:
        if not self.fps > 0 or self.max_side < 1:
            raise ValueError(f"cannot sample {self.fps} frames/s of at most {self.max_side} pixels")


@dataclass(frozen=True, slots=True)
class SpanFrame:
    """One sampled frame of one span."""

    span: int
    """Position in the ``spans`` that were asked for."""
    frame: VideoFrame


@dataclass(frozen=True, slots=True)
class SpanEnd:
    """A span is complete: nothing more comes for it."""

    span: int
    audio: NDArray[np.float32] | None
    """(n,) mono at ``audio_rate``, from the span's start; silent before the audio stream starts. ``None``
    where the
    file has no audio stream or none was asked for."""
    duration_s: float
    """How much of the span lies within the file, in s."""
    video_frames: int
    """How many :class:`SpanFrame` came."""
    has_audio_stream: bool
    has_video_stream: bool
    problem: "MediaProblem | None" = None
    """Set where the span could not be wholly decoded: the clip failed, whatever audio and frames there
    are."""
    message: str | None = None
    """One line for a person, beside ``problem``."""
    bad_samples: int = 0
    """Samples at the file's own rate that were NaN or infinite and became 0: the sound is not to be trusted."""


def decode_spans(
    file: MediaFile,
    spans: Sequence[Span],
    *,
    audio_rate: int | None,
    video: VideoRequest | None,
    limits: "MediaLimits",
) -> Iterator[SpanFrame | SpanEnd]:
    """Decode ``file`` once, up to the last span's end, and hand out what each span needs.

    Args:
        file: Path, or binary file object that can seek (it is left open).
        spans: Any order; they may overlap. Every span gets exactly one :class:`SpanEnd`, also one that lies
            beyond the
            file's end. A span's frames come in order of time and before its end.
        audio_rate: Wanted sample rate in Hz; ``None`` decodes no audio.
        video: Wanted frames; ``None`` decodes no video.
        limits: What the file may ask of the machine. A file that is too large or whose frames are too large
            is
            refused; one that is too long is decoded up to the limit, and spans beyond it end with that
            problem.

    Raises:
        MediaError: before the first event: the file cannot be used at all, with one line that says why.
        ValueError: neither audio nor video was asked for.
    """
    if audio_rate is None and video is None:
        raise ValueError("ask for audio, for video, or for both")
    from miar.media.session import decode_file

    return decode_file(file, spans, audio_rate=audio_rate, video=video, limits=limits)
