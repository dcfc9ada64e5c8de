"""Shards through worker processes that are watched and replaced.

Native code (decoders, libsmile, MediaPipe) can crash or hang. It runs in processes of its own, so that costs the clip
that caused it and nothing else: the shard is tried again in halves, and the half that does it again in halves of that.
"""

import os
import signal
import time
from collections import Counter
from dataclasses import asdict
from functools import cache
from pathlib import Path

import pebble

from miar.features import runner
from miar.features.contract import Extraction, FeatureSet, Status
from miar.features.requests import ShardRequest
from miar.features.runner import extract_shard
from miar.hashing import stable_key
from miar.pipeline.rows import feature_rows, feature_spec
from miar.pipeline.shards import Job, Shard, ShardOutcome, names_of
from miar.pipeline.workers import WorkerPool
from storage import Store

SHORTEST_TIMEOUT_S = 120.0
"""For a piece of a shard, however small: its worker has to start and to load its models."""
SHORTEST_TIMEOUT_SHARE = 0.1
"""Of a whole shard's: a file's sound is decoded from its beginning, whatever part of it is wanted."""

Extractions = dict[str, list[tuple[str, Extraction]]]
"""Feature table -> (clip_id, extraction) pairs."""


class ExtractionPool:
    """Worker processes that keep their models loaded. As many threads as :attr:`workers` may call :meth:`run`."""

    def __init__(self, job_path: Path, shards: int):
        self._job_path = job_path
        self._job = Job.load(job_path)
        execution = self._job.config.execution
        self._timeout_s = execution.shard_timeout_s
        self.workers = worker_count(self._job, shards)
        self._pool = WorkerPool(self.workers, initialise_worker, 1 if self.workers > 1 else os.cpu_count() or 1)

    def run(self, shard: Shard) -> list[ShardOutcome]:
        """Extract one shard; more than one outcome where it had to be taken apart.

        Raises:
            OSError, StoreError: the store cannot be written; that is no clip's fault.
            PoolClosedError: the pool was closed meanwhile.
            UserError: worker processes cannot be started.
        """
        return self._run(shard, self._timeout_s)

    def close(self) -> None:
        """Stop the workers; shards in hand are given up."""
        self._pool.close()

    def _run(self, shard: Shard, timeout_s: float) -> list[ShardOutcome]:
        try:
            return [self._pool.call(_work, self._job_path, shard, timeout_s=timeout_s)]
        except pebble.ProcessExpired as error:
            return self._take_apart(shard, timeout_s, "WorkerCrashed", _crash_message(error))
        except TimeoutError:
            message = f"took longer than {timeout_s:g} s (execution.shard_timeout_s, {self._timeout_s:g} s for a shard)"
            return self._take_apart(shard, timeout_s, "WorkerTimedOut", message)

    def _take_apart(self, shard: Shard, timeout_s: float, error: str, message: str) -> list[ShardOutcome]:
        outcomes: list[ShardOutcome] = []
        for half in shard.halves():
            outcomes += self._run(half, self._time_for(timeout_s * shard.share_of(half)))
        if outcomes:
            return outcomes
        (clip,) = shard.clips
        failed = {table: [(clip.clip_id, Extraction.failed(error, message))] for table in clip.wants}
        return [_finish(self._job, shard, failed, {})]

    def _time_for(self, wanted_s: float) -> float:
        """A hang is found out the sooner, the smaller the piece is that it is looked for in."""
        least_s = max(SHORTEST_TIMEOUT_S, SHORTEST_TIMEOUT_SHARE * self._timeout_s)
        return min(self._timeout_s, max(least_s, wanted_s))


def worker_count(job: Job, shards: int) -> int:
    """How many processes work on a job: one without a shard would still load every model."""
    return max(1, min(job.config.execution.workers, shards))


def initialise_worker(threads: int) -> None:
    """In a worker process. It stands here so that all libraries are loaded before the first shard is taken up: a worker
    that dies over loading them has not taken it away from the others."""
    runner.initialise_worker(threads)


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
    store, names = Store.open(job.store), names_of(job.feature_sets)
    for feature_set in job.feature_sets:
        found = extractions.get(feature_set.table, [])
        outcome.counts[names[feature_set.table]] = _count(found)
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
            # The same shard may succeed for other clips another time, and a file's name says which rows are in it.
            name = f"{shard.name}-{stable_key(sorted(rows['clip_id'].to_pylist()))[:16]}"
            outcome.files[feature_set.table] = table.stage(rows, run_id=job.run_id, name=name)
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
    if code == -signal.SIGKILL:
        return "the worker process was killed on this clip (out of memory?)"
    if code is not None and code < 0:
        return f"native code crashed with {signal.Signals(-code).name} on this clip"
    return f"the worker process ended with exit code {code} on this clip"
