"""What a media file says about itself, without decoding it."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from miar.media.decode import MediaFile

if TYPE_CHECKING:
    from miar.config import MediaLimits


@dataclass(frozen=True, slots=True)
class AudioInfo:
    codec: str
    sample_rate: int
    """Hz"""
    channels: int


@dataclass(frozen=True, slots=True)
class VideoInfo:
    codec: str
    width: int
    height: int
    """Pixels as coded, before rotation."""
    fps: float | None
    """Mean frame rate; ``None`` where the header does not say."""


@dataclass(frozen=True, slots=True)
class MediaInfo:
    duration_s: float | None
    """By the header, or estimated by FFmpeg: a claim, not a measurement. ``None`` where there is none."""
    audio: AudioInfo | None
    video: VideoInfo | None


def probe(file: MediaFile, limits: "MediaLimits | None" = None) -> MediaInfo:
    """Read the header of ``file``: the streams that :func:`miar.media.decode.decode_spans` would decode.

    Raises:
        MediaError: it cannot be used, with one line that says why.
    """
    from miar.config import MediaLimits
    from miar.media.opening import open_media, pick_streams

    with open_media(file, limits or MediaLimits()) as container:
        audio, video = pick_streams(container)
        return MediaInfo(
            duration_s=None if container.duration is None else container.duration / 1_000_000,
            audio=audio
            and AudioInfo(
                audio.codec_context.name,
                audio.codec_context.sample_rate,
                audio.codec_context.layout.nb_channels,
            ),
            video=video
            and VideoInfo(
                video.codec_context.name,
                video.codec_context.width,
                video.codec_context.height,
                float(video.average_rate) if video.average_rate else None,
            ),
        )
