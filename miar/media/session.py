"""The pass over one file: demultiplex, decode, and say of every span how it ended."""

from collections.abc import Iterator, Sequence
from typing import Any

import av.error
from av.container import InputContainer
from av.packet import Packet

from miar.config import MediaLimits
from miar.media.clock import FileClock
from miar.media.decode import MediaFile, Span, SpanEnd, SpanFrame, VideoRequest
from miar.media.errors import MediaError, MediaProblem
from miar.media.lanes import AudioLane, Lane, VideoLane, end_s
from miar.media.opening import open_media, pick_streams
from miar.media.skipping import CannotSkipError

TOLERATED_LOSS_S = 0.25
"""A span may miss this much of what its file promised: the last packets of many sound files do not decode."""
TOLERATED_CLAIM_S = 0.5
"""Headers round, and count what players skip."""

_TRUE_HEADERS = frozenset({"mov", "matroska", "avi", "wav", "w64", "flac", "aiff", "asf", "caf"})
"""Containers that write down how long they are; elsewhere FFmpeg estimates it."""
INTERLEAVE_S = 2.0
"""How far apart in time a file keeps audio and video that belong together, at most."""
_MICROSECONDS = 1_000_000


def decode_file(
    file: MediaFile,
    spans: Sequence[Span],
    *,
    audio_rate: int | None,
    video: VideoRequest | None,
    limits: MediaLimits,
) -> Iterator[SpanFrame | SpanEnd]:
    """See :func:`miar.media.decode.decode_spans`."""
    try:
        with open_media(file, limits) as container:
            yield from _Session(container, spans, audio_rate, video, limits, may_skip=True).run()
    except CannotSkipError:
        with open_media(file, limits) as container:
            yield from _Session(container, spans, audio_rate, video, limits, may_skip=False).run()


def claimed_duration_s(container: InputContainer) -> float | None:
    """How long the header says the file is, in s; ``None`` where it does not say."""
    if container.duration is None or container.format.name.split(",")[0] not in _TRUE_HEADERS:
        return None
    return container.duration / _MICROSECONDS


class _Session:
    def __init__(
        self,
        container: InputContainer,
        spans: Sequence[Span],
        audio_rate: int | None,
        video: VideoRequest | None,
        limits: MediaLimits,
        *,
        may_skip: bool,
    ) -> None:
        self._container = container
        self._spans = spans
        self._limits = limits
        self._audio_stream, self._video_stream = pick_streams(container)
        zero_s = max(0, container.start_time or 0) / _MICROSECONDS  # below zero is pre-roll, which is not shown
        self._claimed_s = claimed_duration_s(container)
        self._clock = FileClock(zero_s, self._claimed_s)
        self._audio: AudioLane | None = None
        self._video: VideoLane | None = None
        if audio_rate is not None and self._audio_stream is not None:
            self._audio = AudioLane(self._audio_stream, self._clock, spans, limits, audio_rate)
        if video is not None and self._video_stream is not None:
            # More threads make one file faster and many files slower.
            self._video_stream.codec_context.thread_count = 1
            self._video = VideoLane(self._video_stream, self._clock, spans, limits, video, may_skip=may_skip)
        self._lanes: dict[int, Lane] = {lane.stream.index: lane for lane in (self._audio, self._video) if lane}
        self._lanes_left = [len(self._lanes)] * len(spans)
        self._read_s = 0.0
        self._is_over = False
        self._stop: tuple[MediaProblem, str] | None = None

    def run(self) -> Iterator[SpanFrame | SpanEnd]:
        if not self._lanes:
            self._is_over = True
            self._read_s = (self._container.duration or 0) / _MICROSECONDS
            yield from map(self._end, range(len(self._spans)))
        for event in self._events():
            if isinstance(event, SpanFrame):
                yield event
                continue
            self._lanes_left[event] -= 1
            if self._lanes_left[event] == 0:
                yield self._end(event)

    def _events(self) -> Iterator[SpanFrame | int]:
        """Frames, and a span's position each time that one lane is done with it."""
        yield from self._read()
        for lane in self._lanes.values():
            yield from self._guarded(lane.catch_up())
        self._is_over = any(not lane.is_done for lane in self._lanes.values())
        for lane in self._lanes.values():
            if not lane.is_done and not self._stop:
                yield from self._guarded(lane.decode(None))
        self._judge_length()
        for lane in self._lanes.values():
            yield from lane.close()

    def _read(self) -> Iterator[SpanFrame | int]:
        streams = [stream for stream in (self._audio_stream, self._video_stream) if stream]
        packets = self._container.demux(streams)
        while not self._stop and not all(lane.is_done for lane in self._lanes.values()):
            try:
                packet = next(packets)
            except StopIteration:
                return
            except OSError as error:
                self._stop = MediaProblem.UNREADABLE, f"the file cannot be read on: {error}"
                return
            except av.error.FFmpegError as error:
                self._stop = MediaProblem.TRUNCATED, f"the file is cut off or damaged: {error.strerror}"
                return
            if packet.size == 0:
                continue
            self._note_position(packet)
            lane = self._lanes.get(packet.stream_index)
            if lane is not None and not lane.is_done:
                yield from self._guarded(lane.decode(packet))

    def _guarded(self, events: Iterator[SpanFrame | int]) -> Iterator[SpanFrame | int]:
        """A limit that is met on the way stops the pass; the spans that are complete keep what they have."""
        try:
            yield from events
        except MediaError as error:
            self._stop = error.kind, str(error)

    def _note_position(self, packet: "Packet[Any]") -> None:
        if packet.pts is not None and packet.time_base is not None:
            end_s = float((packet.pts + (packet.duration or 0)) * packet.time_base) - self._clock.zero_s
            self._read_s = max(self._read_s, end_s)

    def _judge_length(self) -> None:
        """A file that is over long before its header says is one that was cut off."""
        if not self._is_over or self._stop or self._claimed_s is None or self._clock.jumps:
            return
        if self._claimed_s - self._read_s > TOLERATED_CLAIM_S:
            self._stop = (
                MediaProblem.TRUNCATED,
                f"the file ends after {self._read_s:.1f} s; its header says {self._claimed_s:.1f} s",
            )

    def _end(self, index: int) -> SpanEnd:
        span = self._spans[index]
        start_s, stop_s = span.start_ms / 1000, end_s(span)
        duration_s = max(0.0, min(stop_s, self._media_end_s() if self._is_over else stop_s) - start_s)
        problem, message = self._verdict(start_s, stop_s)
        audio, bad_samples = self._audio.clips.pop(index) if self._audio else (None, 0)
        return SpanEnd(
            span=index,
            audio=audio,
            duration_s=duration_s,
            video_frames=self._video.frame_counts.pop(index, 0) if self._video else 0,
            has_audio_stream=self._audio_stream is not None,
            has_video_stream=self._video_stream is not None,
            problem=problem,
            message=message,
            bad_samples=bad_samples,
        )

    def _verdict(self, start_s: float, stop_s: float) -> tuple[MediaProblem | None, str | None]:
        if self._is_over and self._stop and stop_s > self._reached_s() + TOLERATED_LOSS_S:
            return self._stop
        if self._is_over and start_s >= self._media_end_s():
            at = f"the clip starts at {start_s:.2f} s, the file ends at {self._media_end_s():.2f} s"
            return MediaProblem.BEYOND_END, at
        lost_s = max((lane.lost_s(start_s, stop_s) for lane in self._lanes.values()), default=0.0)
        if lost_s > TOLERATED_LOSS_S:
            return MediaProblem.DAMAGED, f"{lost_s:.2f} s of the clip do not decode"
        return None, None

    def _media_end_s(self) -> float:
        ends_s = [lane.clock.end_s or 0.0 for lane in self._lanes.values()]
        return max(ends_s, default=0.0) if self._clock.jumps else max(self._read_s, *ends_s, 0.0)

    def _reached_s(self) -> float:
        """Up to where all streams were decoded, leaving out one that was over long before."""
        ends_s = [lane.clock.end_s or 0.0 for lane in self._lanes.values()]
        return min(end for end in ends_s if end >= max(ends_s) - INTERLEAVE_S)
