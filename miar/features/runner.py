"""One shard of work: each file decoded once, every extractor fed from that one pass, words read in one batch.

Runs in a worker process that :func:`initialise_worker` prepared and that keeps its extractors loaded between shards.
Everything here is picklable, and everything that can go wrong with a clip ends as a ``failed`` extraction of that clip:

- a file that cannot be decoded fails its clips for the extractors that need the file, not for text;
- an exception inside an extractor fails the one clip it was working on.
"""

import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import cast

from miar.config import MediaLimits
from miar.corpus.sources import open_source
from miar.features.configs import ExtractorConfig
from miar.features.contract import (
    AudioExtractor,
    Extraction,
    FaceExtractor,
    FaceSession,
    Modality,
    TextExtractor,
)
from miar.features.registry import Extractor, build_extractor, feature_set_of
from miar.media.decode import MediaFile, Span, SpanEnd, SpanFrame, VideoRequest, decode_spans
from miar.media.errors import MediaError

MediaExtractor = AudioExtractor | FaceExtractor
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


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
    """Seconds, by where they were spent."""

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


@dataclass
class ShardExtraction:
    """What came of a shard."""

    results: dict[str, list[tuple[str, Extraction]]]
    """Feature table -> (clip id, extraction) for every clip that wanted it."""
    timings: Timings


def initialise_worker(threads: int = 1, *, quiet: bool = True) -> None:
    """Prepare a fresh worker process: ``threads`` native threads per library, and no chatter on stderr.

    MediaPipe and TensorFlow Lite write to file descriptor 2 whatever the log level, so the descriptor is pointed at
    nothing, while Python's own ``sys.stderr`` keeps the place that it wrote to. Never call this in a user's process.
    """
    for name in THREAD_VARIABLES:
        os.environ[name] = str(threads)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(threads)
    if quiet:
        sys.stderr.flush()
        sys.stderr = os.fdopen(os.dup(2), "w", buffering=1, encoding="utf-8", errors="backslashreplace")
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 2)
        os.close(nowhere)


def extract_shard(request: ShardRequest) -> ShardExtraction:
    """Extract everything that the shard's clips want.

    Raises:
        UnavailableError, ConfigError: an extractor that is wanted cannot be built; a planner has asked before.
        ValueError: a clip wants a feature set that no extractor of the request gives.
    """
    timings = Timings()
    with timings.measure("load"):
        extractors = _loaded_extractors(request)
    collected: dict[str, list[tuple[str, Extraction]]] = {table: [] for table in extractors}

    def collect(table: str, clip: ClipRequest, extraction: Extraction) -> None:
        collected[table].append((clip.clip_id, extraction))

    for table, extractor in _of(extractors, Modality.TEXT).items():
        extractor = cast(TextExtractor, extractor)
        with timings.measure("text"):
            for clip, extraction in extract_texts(extractor, [c for c in request.clips if table in c.wants]):
                collect(table, clip, extraction)
    media = cast(dict[str, MediaExtractor], _of(extractors, Modality.AUDIO, Modality.FACE))
    for path, clips in _by_path(request.clips, media):
        for tables in _passes(media):
            chosen = {table: media[table] for table in tables}
            wanting = [clip for clip in clips if not clip.wants.isdisjoint(chosen)]
            for table, clip, extraction in extract_source(
                lambda path=path: opened(request.root, path), wanting, chosen, request.limits, timings
            ):
                collect(table, clip, extraction)
    return ShardExtraction(collected, timings)


def extract_texts(extractor: TextExtractor, clips: Sequence[ClipRequest]) -> list[tuple[ClipRequest, Extraction]]:
    """All clips in one batch; where the batch raises, one by one, so that only the guilty one fails."""
    try:
        return list(zip(clips, extractor.extract([clip.text for clip in clips]), strict=True))
    except Exception:  # noqa: BLE001 - any error of a model belongs to the clip it reads
        return [(clip, _guarded(lambda clip=clip: extractor.extract([clip.text])[0])) for clip in clips]


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
        self._audio = cast(dict[str, AudioExtractor], _of(extractors, Modality.AUDIO))
        self._face = cast(dict[str, FaceExtractor], _of(extractors, Modality.FACE))
        self._timings = timings
        self._sessions: dict[tuple[int, str], FaceSession] = {}
        self._broken: dict[tuple[int, str], Extraction] = {}
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
            with open_file() as file:
                events = decode_spans(
                    file,
                    spans,
                    audio_rate=audio.sample_rate if audio else None,
                    video=VideoRequest(face.fps, face.max_side) if face else None,
                    limits=limits,
                )
                for event in self._timed(events):
                    if isinstance(event, SpanFrame):
                        self._push(event, clips[event.span])
                    else:
                        waiting.discard(event.span)
                        self._finish(event, clips[event.span])
        except MediaError as error:
            self._fail_all((clips[i] for i in waiting), error.kind.value, str(error))
        except Exception as error:  # noqa: BLE001 - a decoder's surprise ends this file, not the run
            self._fail_all((clips[i] for i in waiting), type(error).__name__, str(error))
        finally:
            self._abandon_sessions()

    def fail(self, clip: ClipRequest, reason: str, message: str) -> None:
        """Every extractor of this pass that ``clip`` wants has failed."""
        for table in (*self._audio, *self._face):
            if table in clip.wants:
                self.results.append((table, clip, Extraction.failed(reason, message)))

    def _timed(self, events: Iterator[SpanFrame | SpanEnd]) -> Iterator[SpanFrame | SpanEnd]:
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

    def _finish(self, end: SpanEnd, clip: ClipRequest) -> None:
        if end.problem is not None:
            self._abandon_sessions(end.span)
            self.fail(clip, end.problem.value, end.message or end.problem.value)
            return
        for table, extractor in self._audio.items():
            if table in clip.wants:
                self.results.append((table, clip, self._heard(extractor, end)))
        for table in self._face:
            if table in clip.wants:
                with self._timings.measure("face"):
                    extraction = self._close(table, end)
                self.results.append((table, clip, extraction))

    def _heard(self, extractor: AudioExtractor, end: SpanEnd) -> Extraction:
        if end.bad_samples:
            message = f"{end.bad_samples} samples of the sound are NaN or infinite: export it again"
            return Extraction.failed("BadSamples", message)
        with self._timings.measure("audio"):
            return _guarded(lambda: extractor.extract(end.audio))

    def _close(self, table: str, end: SpanEnd) -> Extraction:
        session = self._sessions.pop((end.span, table), None)
        broken = self._broken.pop((end.span, table), None)
        if session is None and broken is None:
            return Extraction.missing("no_frames" if end.has_video_stream else "no_video_stream")
        closed = _guarded(session.close) if session is not None else None
        return broken or closed or Extraction.failed("NoSession", "the face extractor gave no result")

    def _fail_all(self, clips: Iterable[ClipRequest], reason: str, message: str) -> None:
        for clip in clips:
            self.fail(clip, reason, message)

    def _abandon_sessions(self, span: int | None = None) -> None:
        """Close those of a clip that failed, or of all clips: until then they hold native memory and threads."""
        for key in [key for key in self._sessions if span in (None, key[0])]:
            _guarded(self._sessions.pop(key).close)
            self._broken.pop(key, None)


def opened(root: str, path: str) -> AbstractContextManager[MediaFile]:
    """A local path as it is; an object of a store as a binary file that is closed when left."""
    file = open_source(root, path)
    return nullcontext(file) if isinstance(file, str | os.PathLike) else file


def _guarded(extract: Callable[[], Extraction]) -> Extraction:
    try:
        return extract()
    except Exception as error:  # noqa: BLE001 - a bad clip never stops a run
        return Extraction.failed(error, str(error) or type(error).__name__)


_loaded: dict[str, Extractor] = {}
"""Extractors of this process, by feature table: models stay loaded from shard to shard."""


def _loaded_extractors(request: ShardRequest) -> dict[str, Extractor]:
    """The extractors that some clip wants, by table, in the request's order."""
    wanted = frozenset().union(*(clip.wants for clip in request.clips))
    chosen: dict[str, Extractor] = {}
    for config in request.extractors:
        table = feature_set_of(config).table
        if table in wanted:
            if table not in _loaded:
                _loaded[table] = build_extractor(config)
            chosen[table] = _loaded[table]
    unknown = sorted(wanted - set(chosen))
    if unknown:
        raise ValueError(f"no extractor of this shard gives {', '.join(unknown)}")
    return chosen


def _of(extractors: Mapping[str, Extractor], *modalities: Modality) -> dict[str, Extractor]:
    return {table: e for table, e in extractors.items() if e.feature_set.modality in modalities}


def _by_path(
    clips: Sequence[ClipRequest], extractors: Mapping[str, MediaExtractor]
) -> list[tuple[str, list[ClipRequest]]]:
    """Clips that want any of ``extractors``, by source file."""
    grouped: dict[str, list[ClipRequest]] = {}
    for clip in clips:
        if not clip.wants.isdisjoint(extractors):
            grouped.setdefault(clip.path, []).append(clip)
    return list(grouped.items())


def _passes(extractors: Mapping[str, MediaExtractor]) -> list[list[str]]:
    """Tables that one decode pass can serve together.

    A pass has one sample rate and one frame rate and size. The usual case, one audio and one face extractor, is one
    pass; a second face extractor that wants frames of another rate needs a second one.
    """
    sound = _grouped(_of(extractors, Modality.AUDIO), lambda e: cast(AudioExtractor, e).sample_rate)
    pictures = _grouped(
        _of(extractors, Modality.FACE), lambda e: (cast(FaceExtractor, e).fps, cast(FaceExtractor, e).max_side)
    )
    return [heard + seen for heard, seen in zip_longest(sound, pictures, fillvalue=[])]


def _grouped(extractors: Mapping[str, Extractor], key: Callable[[Extractor], object]) -> list[list[str]]:
    groups: dict[object, list[str]] = {}
    for table, extractor in extractors.items():
        groups.setdefault(key(extractor), []).append(table)
    return list(groups.values())
