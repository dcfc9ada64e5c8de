"""One shard of work: each file decoded once, every extractor fed from that one pass, words read in one batch.

Runs in a worker process that :func:`initialise_worker` prepared and that keeps its extractors loaded between shards.
Everything here is picklable, and everything that can go wrong with a clip ends as a ``failed`` extraction of that clip:

- a file that cannot be decoded fails its clips for the extractors that need the file, not for text;
- an exception inside an extractor fails the one clip it was working on.
"""

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import zip_longest
from typing import cast

from miar.corpus.sources import open_source
from miar.features.contract import (
    AudioExtractor,
    Extraction,
    FaceExtractor,
    Modality,
    TextExtractor,
)
from miar.features.registry import Extractor, build_extractor, feature_set_of
from miar.features.requests import ClipRequest, ShardRequest, Timings
from miar.features.source_pass import MediaExtractor, extract_source, guarded, of_modality
from miar.media.decode import MediaFile

THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


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

    for table, extractor in of_modality(extractors, Modality.TEXT).items():
        extractor = cast(TextExtractor, extractor)
        with timings.measure("text"):
            for clip, extraction in extract_texts(extractor, [c for c in request.clips if table in c.wants]):
                collect(table, clip, extraction)
    media = cast(dict[str, MediaExtractor], of_modality(extractors, Modality.AUDIO, Modality.FACE))
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
        return [(clip, guarded(lambda clip=clip: extractor.extract([clip.text])[0])) for clip in clips]


def opened(root: str, path: str) -> AbstractContextManager[MediaFile]:
    """A local path as it is; an object of a store as a binary file that is closed when left."""
    file = open_source(root, path)
    return nullcontext(file) if isinstance(file, str | os.PathLike) else file


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
    sound = _grouped(of_modality(extractors, Modality.AUDIO), lambda e: cast(AudioExtractor, e).sample_rate)
    pictures = _grouped(
        of_modality(extractors, Modality.FACE), lambda e: (cast(FaceExtractor, e).fps, cast(FaceExtractor, e).max_side)
    )
    return [heard + seen for heard, seen in zip_longest(sound, pictures, fillvalue=[])]


def _grouped(extractors: Mapping[str, Extractor], key: Callable[[Extractor], object]) -> list[list[str]]:
    groups: dict[object, list[str]] = {}
    for table, extractor in extractors.items():
        groups.setdefault(key(extractor), []).append(table)
    return list(groups.values())
