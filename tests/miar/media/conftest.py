"""Footage that the tests make: pictures and sound with known contents at known times."""

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from miar.config import MediaLimits
from miar.media.decode import Span, SpanEnd, SpanFrame, VideoRequest, decode_spans


def write_footage(
    path: Path,
    *,
    seconds: float = 2.0,
    video: str | None = "libx264",
    audio: str | None = "aac",
    fps: int = 25,
    size: tuple[int, int] = (64, 48),
    pixels: str = "yuv420p",
    rate: int = 48_000,
    layout: str = "mono",
    sample_format: str = "fltp",
    video_start_s: float = 0.0,
    audio_start_s: float = 0.0,
    picture: Callable[[float], Any] | None = None,
    sound: Any = None,
    frame_times: list[int] | None = None,
    rotation: float | None = None,
    options: dict[str, str] | None = None,
    video_options: dict[str, str] | None = None,
    container_format: str | None = None,
) -> Path:
    """A file whose pictures are flat greys ``picture(t)`` and whose sound is ``sound``, (channels, n) in -1..1."""
    frames: list[tuple[float, Any, Any]] = []
    with av.open(str(path), "w", format=container_format, options=options or {}) as output:
        if video:
            stream: Any = output.add_stream(video, rate=fps, options=video_options or {})
            stream.width, stream.height, stream.pix_fmt = size[0], size[1], pixels
            if rotation is not None:
                stream.set_display_rotation(rotation)
            ticks = frame_times or [round(video_start_s * fps) + i for i in range(round(seconds * fps))]
            for tick in ticks:
                value = picture(tick / fps) if picture else 128
                image = np.broadcast_to(np.asarray(value, np.uint8), (size[1], size[0], 3))
                frame: Any = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
                frame.pts, frame.time_base = tick, Fraction(1, fps)
                frames.append((tick / fps, stream, frame))
        if audio:
            track: Any = output.add_stream(audio, rate=rate)
            track.layout = layout
            values = tone(seconds, rate) if sound is None else np.asarray(sound, np.float32)
            for at in range(0, values.shape[1], 1024):
                block = av.AudioFrame.from_ndarray(
                    np.ascontiguousarray(values[:, at : at + 1024]), format="fltp", layout=layout
                )
                block.sample_rate, block.time_base = rate, Fraction(1, rate)
                block.pts = at + round(audio_start_s * rate)
                frames.append((block.pts / rate, track, block))
        for _, stream, frame in sorted(frames, key=lambda item: item[0]):
            output.mux(stream.encode(frame))
        for stream in output.streams:
            output.mux(stream.encode(None))  # pyright: ignore[reportAttributeAccessIssue]
    return path


def tone(seconds: float, rate: int, channels: int = 1, hz: float = 220.0, level: float = 0.25) -> Any:
    times = np.arange(round(seconds * rate)) / rate
    return np.tile(level * np.sin(2 * np.pi * hz * times), (channels, 1)).astype(np.float32)


class Decoded:
    """Everything that one decode handed out, by span."""

    def __init__(self, file: Any, spans: list[Span], fps: float, max_side: int, **options: Any) -> None:
        self.frames: dict[int, list[Any]] = {at: [] for at in range(len(spans))}
        self.ends: dict[int, SpanEnd] = {}
        video = VideoRequest(fps, max_side) if fps else None
        for event in decode_spans(file, spans, video=video, **options):
            if isinstance(event, SpanFrame):
                assert event.span not in self.ends, "a frame after its span's end"
                self.frames[event.span].append(event.frame)
            else:
                assert event.span not in self.ends, "two ends of one span"
                self.ends[event.span] = event
        assert sorted(self.ends) == list(range(len(spans)))
        for at, frames in self.frames.items():
            times = [frame.time_s for frame in frames]
            assert times == sorted(set(times))
            assert self.ends[at].video_frames == len(frames)

    def times(self, span: int = 0) -> list[float]:
        return [frame.time_s for frame in self.frames[span]]

    def sound(self, span: int = 0) -> Any:
        samples = self.ends[span].audio
        assert samples is not None
        return samples


def decode(
    file: Any,
    spans: list[Span] | None = None,
    *,
    fps: float = 25.0,
    max_side: int = 640,
    audio_rate: int | None = 16_000,
    limits: MediaLimits | None = None,
) -> Decoded:
    wanted = spans or [Span(0, None)]
    options = {"audio_rate": audio_rate, "limits": limits or MediaLimits()}
    return Decoded(file, wanted, fps, max_side, **options)


@pytest.fixture
def footage(tmp_path: Path) -> Callable[..., Path]:
    """``footage(name, **what)`` -> path of a new file."""
    return lambda name, **what: write_footage(tmp_path / name, **what)


@pytest.fixture(name="decode")
def decode_fixture() -> Callable[..., Decoded]:
    return decode


@pytest.fixture(name="tone")
def tone_fixture() -> Callable[..., Any]:
    return tone
