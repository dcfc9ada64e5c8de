"""Cut the files of a corpus that nobody has cut: the step before a refresh where clips come from listening.

What is found is kept as the file's transcript, so the corpus reads it as it reads any other, and a file that did not
change is not heard again. Files are cut in worker processes that are watched and replaced, and what is found is
committed as it comes: a run that is killed goes on where it was.
"""

import time
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import pebble
import pyarrow as pa

from miar.config import CorpusConfig, ExecutionConfig, PipelineConfig
from miar.corpus.listing import corpus_name
from miar.corpus.model import TRANSCRIPT_COLUMNS, WORD_COLUMNS, Source
from miar.corpus.words import segment_row, word_row
from miar.features.runner import initialise_worker, opened
from miar.media.errors import MediaError
from miar.pipeline import catalogue
from miar.pipeline.plan import listed_corpus
from miar.pipeline.progress import advance
from miar.pipeline.runs import new_run_id
from miar.pipeline.workers import WorkerPool
from miar.segmentation.segmenter import Segmenter, segmenter_id, segmenter_of
from miar.segmentation.segments import Segments
from storage import Store

COMMIT_EVERY_S = 30.0
"""A kill loses what was cut since the last commit."""
MOST_UNCOMMITTED = 1000


@dataclass
class Segmentation:
    """What one run of the step did."""

    files: int = 0
    segments: int = 0
    failed: int = 0
    """Files that could not be cut: they stand among the corpus' problems, and are left alone until they change."""
    warning: str | None = None
    """Why less is found than was asked for."""


def segment_corpus(
    store: Store, config: PipelineConfig, root: str, corpus_id: str | None = None, *, retry_failed: bool = False
) -> Segmentation:
    """Cut every file of the corpus that the configuration wants cut and that was not yet, or not in this way.

    Raises:
        CorpusError: the corpus cannot be listed.
        StoreError: another run is cutting the same corpus.
        UnavailableError: nobody here can tell voice from noise.
    """
    segmenter, warning = segmenter_of(config.corpus)
    done = Segmentation(warning=warning)
    if segmenter is None:
        return done
    name = corpus_id or config.corpus.corpus_id or corpus_name(root)
    with store.lock(f"segmentation of {name}"):
        listing, _ = listed_corpus(store, config, root, name, retry_failed=retry_failed)
        run_id, reader = new_run_id("segmentation"), segmenter_id(segmenter)
        for rows, words in _batches(root, listing.unsegmented, config.corpus, config.execution, reader, done):
            catalogue.remember(store, name, run_id, rows, words)
    return done


def _batches(
    root: str,
    sources: list[Source],
    corpus: CorpusConfig,
    execution: ExecutionConfig,
    reader: int,
    done: Segmentation,
) -> Iterator[tuple[pa.Table, pa.Table]]:
    """Rows of transcripts and of words to commit, counted into ``done`` as they come."""
    rows: list[dict[str, Any]] = []
    words: list[dict[str, Any]] = []
    since = time.monotonic()
    for source, found in _cut_all(root, sources, corpus, execution):
        rows.append(segment_row(source, found, reader))
        if isinstance(found, Segments) and found.words:
            words.append(word_row(source.path, source.path, found.words, found.language))
        done.files += 1
        done.segments += len(found.segments) if isinstance(found, Segments) else 0
        done.failed += not isinstance(found, Segments)
        advance("files cut into clips", done.files, len(sources))
        if len(rows) == MOST_UNCOMMITTED or time.monotonic() - since > COMMIT_EVERY_S:
            yield _tables(rows, words)
            rows, words, since = [], [], time.monotonic()
    if rows:
        yield _tables(rows, words)


def _tables(rows: list[dict[str, Any]], words: list[dict[str, Any]]) -> tuple[pa.Table, pa.Table]:
    return pa.Table.from_pylist(rows, schema=TRANSCRIPT_COLUMNS), pa.Table.from_pylist(words, schema=WORD_COLUMNS)


def _cut_all(
    root: str, sources: list[Source], corpus: CorpusConfig, execution: ExecutionConfig
) -> Iterator[tuple[Source, Segments | str]]:
    """Each file with how it is cut, or one line that says why it cannot be, as they come."""
    workers = max(1, min(execution.workers, len(sources)))
    pool = WorkerPool(workers, initialise_worker, 1)

    def cut(source: Source) -> tuple[Source, Segments | str]:
        try:
            return source, pool.call(_cut, root, source.path, corpus, timeout_s=execution.shard_timeout_s)
        except pebble.ProcessExpired as error:
            return source, f"the worker process ended with exit code {error.exitcode} on this file"
        except TimeoutError:
            return source, f"took longer than {execution.shard_timeout_s:g} s (execution.shard_timeout_s)"

    with ThreadPoolExecutor(workers) as threads:
        try:
            yield from _as_they_come(threads, cut, sources, workers)
        finally:
            pool.close()


def _as_they_come(threads: ThreadPoolExecutor, cut: Any, sources: list[Source], workers: int) -> Iterator[Any]:
    """No more are handed out than workers take up soon, so that a run that ends leaves nothing behind."""
    waiting: set[Future[Any]] = set()
    left = iter(sources)
    while True:
        for source in left:
            waiting.add(threads.submit(cut, source))
            if len(waiting) > 2 * workers:
                break
        if not waiting:
            return
        ready, waiting = wait(waiting, return_when=FIRST_COMPLETED)
        for future in ready:
            yield future.result()


def _cut(root: str, path: str, corpus: CorpusConfig) -> Segments | str:
    """In a worker process."""
    try:
        with opened(root, path) as file:
            return _segmenter(corpus.model_dump_json()).segment(file, corpus.limits)
    except MediaError as error:
        return str(error)
    except Exception as error:  # noqa: BLE001 - a model's surprise is about the file it listens to
        return " ".join(f"{type(error).__name__}: {error}".split())[:300]


@lru_cache(maxsize=1)
def _segmenter(corpus: str) -> Segmenter:
    """Its model stays loaded from file to file."""
    segmenter, _ = segmenter_of(CorpusConfig.model_validate_json(corpus))
    assert segmenter is not None
    return segmenter
