"""Shards through worker processes that are watched and replaced.

Native code (decoders, libsmile, MediaPipe) can crash or hang. It runs in processes of its own, so that costs the clip
that caused it and nothing else: the shard is tried again file by file, then clip by clip.
"""

import multiprocessing
import os
import signal
import threading
import time
from collections import Counter
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import asdict
from functools import cache
from pathlib import Path

import pebble

from miar.features.contract import Extraction, FeatureSet, Status
from miar.features.runner import ShardRequest, extract_shard, initialise_worker
from miar.pipeline.interrupts import children_deaf_to_ctrl_c
from miar.pipeline.rows import feature_rows, feature_spec
from miar.pipeline.shards import Job, Shard, ShardOutcome
from storage import Store

Extractions = dict[str, list[tuple[str, Extraction]]]
"""Feature table -> (clip_id, extraction) pairs."""


class ExtractionPool:
    """Worker processes that keep their models loaded.

    :meth:`run` blocks; threads that call it hold :attr:`a_free_worker` meanwhile, so that no shard waits in the pool.
    """

    def __init__(self, job_path: Path, shards: int):
        self._job_path = job_path
        self._job = Job.load(job_path)
        execution = self._job.config.execution
        self._timeout_s = execution.shard_timeout_s
        # A worker without a shard would still load every model.
        workers = min(execution.workers, shards)
        self.a_free_worker = threading.Semaphore(workers)
        self._pool = pebble.ProcessPool(
            max_workers=workers,
            initializer=initialise_worker,
            initargs=(1 if workers > 1 else os.cpu_count() or 1,),
            # A forked child would inherit locks that threads of the parent hold.
            context=multiprocessing.get_context("spawn"),
        )

    def run(self, shard: Shard) -> list[ShardOutcome]:
        """Extract one shard; more than one outcome where it had to be taken apart.

        Raises:
            OSError, StoreError: the store cannot be written; that is no clip's fault.
        """
        try:
            # The first call starts the workers.
            with children_deaf_to_ctrl_c():
                future = self._pool.schedule(_work, args=(self._job_path, shard), timeout=self._timeout_s)
            return [future.result()]
        except pebble.ProcessExpired as error:
            return self._take_apart(shard, "WorkerCrashed", _crash_message(error))
        except FutureTimeoutError:
            message = f"took longer than {self._timeout_s:g} s (execution.shard_timeout_s)"
            return self._take_apart(shard, "WorkerTimedOut", message)

    def close(self) -> None:
        """Stop the workers; shards in hand are given up."""
        self._pool.stop()
        self._pool.join()

    def _take_apart(self, shard: Shard, error: str, message: str) -> list[ShardOutcome]:
        outcomes = [outcome for piece in shard.pieces() for outcome in self.run(piece)]
        if outcomes:
            return outcomes
        (clip,) = shard.clips
        failed = {table: [(clip.clip_id, Extraction.failed(error, message))] for table in clip.wants}
        return [_finish(self._job, shard, failed, {})]


def _work(job_path: Path, shard: Shard) -> ShardOutcome:
    """In a worker process: extract, stage, and say what came of it."""
    job = _job(job_path)
    request = ShardRequest(
        root=job.root or "",
        clips=shard.clips,
        extractors=job.config.extractors,
        limits=job.config.corpus.limits,
    )
    found = extract_shard(request)
    return _finish(job, shard, found.results, asdict(found.timings))


@cache
def _job(path: Path) -> Job:
    return Job.load(path)


def _finish(job: Job, shard: Shard, extractions: Extractions, seconds: dict[str, float]) -> ShardOutcome:
    started = time.perf_counter()
    outcome = ShardOutcome(shard=shard.name, clips=len(shard.clips), seconds=dict(seconds))
    store = Store.open(job.store)
    for feature_set in job.feature_sets:
        found = extractions.get(feature_set.table, [])
        outcome.counts[feature_set.extractor] = _count(found)
        outcome.failures += _failures(shard, feature_set, found)
        identities = {
            clip_id: {
                **shard.identities[clip_id],
                "input_hash": shard.input_hash(clip_id, feature_set.modality),
            }
            for clip_id, _ in found
        }
        rows = feature_rows(feature_set, found, identities, job.run_id)
        if rows.num_rows:
            table = store.table(feature_spec(feature_set))
            outcome.files[feature_set.table] = table.stage(rows, run_id=job.run_id, name=shard.name)
    outcome.seconds["write"] = time.perf_counter() - started
    return outcome


def _count(found: list[tuple[str, Extraction]]) -> dict[str, int]:
    return dict(
        Counter(f"missing: {one.reason}" if one.status is Status.MISSING else one.status.value for _, one in found)
    )


def _failures(
    shard: Shard, feature_set: FeatureSet, found: list[tuple[str, Extraction]]
) -> list[dict[str, str | None]]:
    paths = {clip.clip_id: clip.path for clip in shard.clips}
    return [
        {
            "corpus_id": shard.identities[clip_id]["corpus_id"],
            "path": paths[clip_id],
            "clip_id": clip_id,
            "stage": feature_set.extractor,
            "config_hash": feature_set.config_hash,
            "source_id": shard.identities[clip_id]["source_id"],
            "input_hash": shard.input_hash(clip_id, feature_set.modality),
            "error": one.reason,
            "message": one.message,
        }
        for clip_id, one in found
        if one.status is Status.FAILED
    ]


def _crash_message(error: pebble.ProcessExpired) -> str:
    code = error.exitcode
    if code is not None and code < 0:
        return f"native code crashed with {signal.Signals(-code).name} on this clip"
    return f"the worker process ended with exit code {code} on this clip"
