"""One decode pass over one file, and every extractor of sound and faces fed from it.

Decoding, listening and looking go on at the same time, in threads of their own and in bounded memory: a file that comes
slowly (from an object store) keeps nobody waiting who has something to do.
"""

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager
from typing import cast

from miar.config import MediaLimits
from miar.features.ahead import ahead
from miar.features.contract import AudioExtractor, Extraction, FaceExtractor, FaceSession, Modality
from miar.features.registry import Extractor
from miar.features.requests import ClipRequest, Timings
from miar.media.decode import MediaFile, Span, SpanEnd, SpanFrame, VideoRequest, decode_spans
from miar.media.errors import MediaError

MediaExtractor = AudioExtractor | FaceExtractor
EVENTS_AHEAD = 16
"""Frames that are decoded before anybody looks at them: at 640 x 360 pixels, 11 MB."""
CLIPS_AHEAD = 4
"""Clips whose sound waits to be listened to."""


def extract_source(
    open_file: Callable[[], AbstractContextManager[MediaFile]],
    clips: Sequence[ClipRequest],
    extractors: dict[str, MediaExtractor],
    limits: MediaLimits,
    timings: Timings | None = None,
) -> list[tuple[str, ClipRequest, Extraction]]:
    """Cut ``clips`` out of one file in one decode pass and give each to the extractors it wants.

    ``extractors`` (by table) agree on the sample rate, and on frame rate and size: see :func:`_passes`. Exactly one
    (table, clip, extraction) comes back for each table that each clip wants, whatever the file does.
    """
    run = _SourcePass(extractors, timings or Timings())
    spans: list[Span] = []
    cut: list[ClipRequest] = []
    for clip in clips:
        try:
            spans.append(Span(clip.start_ms, clip.end_ms))
            cut.append(clip)
        except ValueError as error:
            run.fail(clip, "BadSpan", str(error))
    if spans:
        run.decode(open_file, cut, spans, limits)
    return run.results


class _SourcePass:
    """The state of one decode pass over one file."""

    def __init__(self, extractors: dict[str, MediaExtractor], timings: Timings) -> None:
        self._audio = cast(dict[str, AudioExtractor], of_modality(extractors, Modality.AUDIO))
        self._face = cast(dict[str, FaceExtractor], of_modality(extractors, Modality.FACE))
        self._timings = timings
        self._sessions: dict[tuple[int, str], FaceSession] = {}
        self._broken: dict[tuple[int, str], Extraction] = {}
        self._heard: list[tuple[str, ClipRequest, Future[Extraction]]] = []
        self.results: list[tuple[str, ClipRequest, Extraction]] = []

    def decode(
        self,
        open_file: Callable[[], AbstractContextManager[MediaFile]],
        clips: Sequence[ClipRequest],
        spans: Sequence[Span],
        limits: MediaLimits,
    ) -> None:
        wanted = frozenset().union(*(clip.wants for clip in clips))
        audio = next((e for table, e in self._audio.items() if table in wanted), None)
        face = next((e for table, e in self._face.items() if table in wanted), None)
        waiting = set(range(len(clips)))
        try:
            with open_file() as file, ThreadPoolExecutor(1, "listener") as listener:
                events = decode_spans(
                    file,
                    spans,
                    audio_rate=audio.sample_rate if audio else None,
                    video=VideoRequest(face.fps, face.max_side) if face else None,
                    limits=limits,
                )
                for event in ahead(self._timed(events), EVENTS_AHEAD):
                    if isinstance(event, SpanFrame):
                        self._push(event, clips[event.span])
                    else:
                        waiting.discard(event.span)
                        self._finish(event, clips[event.span], listener)
        except MediaError as error:
            self._fail_all((clips[i] for i in waiting), error.kind.value, str(error))
        except Exception as error:  # noqa: BLE001 - a decoder's surprise ends this file, not the run
            self._fail_all((clips[i] for i in waiting), type(error).__name__, str(error))
        finally:
            self._abandon_sessions()
            self.results += [(table, clip, heard.result()) for table, clip, heard in self._heard]

    def fail(self, clip: ClipRequest, reason: str, message: str) -> None:
        """Every extractor of this pass that ``clip`` wants has failed."""
        for table in (*self._audio, *self._face):
            if table in clip.wants:
                self.results.append((table, clip, Extraction.failed(reason, message)))

    def _timed(self, events: Iterator[SpanFrame | SpanEnd]) -> Generator[SpanFrame | SpanEnd]:
        while True:
            with self._timings.measure("decode"):
                event = next(events, None)
            if event is None:
                return
            yield event

    def _push(self, event: SpanFrame, clip: ClipRequest) -> None:
        for table, extractor in self._face.items():
            key = (event.span, table)
            if table not in clip.wants or key in self._broken:
                continue
            try:
                with self._timings.measure("face"):
                    if key not in self._sessions:
                        self._sessions[key] = extractor.open()
                    self._sessions[key].push(event.frame)
            except Exception as error:  # noqa: BLE001 - any error of a model belongs to the clip it looks at
                self._broken[key] = Extraction.failed(error, str(error))

    def _finish(self, end: SpanEnd, clip: ClipRequest, listener: ThreadPoolExecutor) -> None:
        if end.problem is not None:
            self._abandon_sessions(end.span)
            self.fail(clip, end.problem.value, end.message or end.problem.value)
            return
        for table, extractor in self._audio.items():
            if table in clip.wants:
                if len(self._heard) >= CLIPS_AHEAD:  # the sound of those that nobody has listened to yet is held
                    wait([self._heard[-CLIPS_AHEAD][2]])
                self._heard.append((table, clip, listener.submit(self._hear, extractor, end)))
        for table in self._face:
            if table in clip.wants:
                with self._timings.measure("face"):
                    extraction = self._close(table, end)
                self.results.append((table, clip, extraction))

    def _hear(self, extractor: AudioExtractor, end: SpanEnd) -> Extraction:
        if end.bad_samples:
            message = f"{end.bad_samples} samples of the sound are NaN or infinite: export it again"
            return Extraction.failed("BadSamples", message)
        with self._timings.measure("audio"):
            return guarded(lambda: extractor.extract(end.audio))

    def _close(self, table: str, end: SpanEnd) -> Extraction:
        session = self._sessions.pop((end.span, table), None)
        broken = self._broken.pop((end.span, table), None)
        if session is None and broken is None:
            return Extraction.missing("no_frames" if end.has_video_stream else "no_video_stream")
        closed = guarded(session.close) if session is not None else None
        return broken or closed or Extraction.failed("NoSession", "the face extractor gave no result")

    def _fail_all(self, clips: Iterable[ClipRequest], reason: str, message: str) -> None:
        for clip in clips:
            self.fail(clip, reason, message)

    def _abandon_sessions(self, span: int | None = None) -> None:
        """Close those of a clip that failed, or of all clips: until then they hold native memory and threads."""
        for key in [key for key in self._sessions if span in (None, key[0])]:
            guarded(self._sessions.pop(key).close)
            self._broken.pop(key, None)


def guarded(extract: Callable[[], Extraction]) -> Extraction:
    try:
        return extract()
    except Exception as error:  # noqa: BLE001 - a bad clip never stops a run
        return Extraction.failed(error, str(error) or type(error).__name__)


def of_modality(extractors: Mapping[str, Extractor], *modalities: Modality) -> dict[str, Extractor]:
    return {table: e for table, e in extractors.items() if e.feature_set.modality in modalities}
