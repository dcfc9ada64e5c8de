"""One task run per shard: extract its clips in a watched worker process."""

import threading
from pathlib import Path

from prefect import task
from prefect.cache_policies import NO_CACHE

from miar.pipeline.extract import ExtractionPool
from miar.pipeline.refresh import shard_names
from miar.pipeline.shards import Shard, ShardOutcome
from miar.pipeline.workers import PoolClosedError

draining = threading.Event()
"""Set when the run was told to stop: shards in hand are finished, no further one is begun."""

_pools: dict[str, ExtractionPool] = {}
_pools_lock = threading.Lock()


# The store, not Prefect's cache, knows what is done.
@task(name="extract-shard", task_run_name="extract-{shard}", cache_policy=NO_CACHE, persist_result=False)
def extract_shard(folder: str, shard: str) -> list[ShardOutcome] | None:
    """Extract one shard of the job in ``folder``; ``None`` where the run was told to stop before it was done."""
    try:
        return _pool(folder).run(Shard.load(Path(folder) / "shards" / f"{shard}.json"))
    except PoolClosedError:
        return None


def _pool(folder: str) -> ExtractionPool:
    with _pools_lock:
        if draining.is_set():
            raise PoolClosedError
        if folder not in _pools:
            _pools[folder] = ExtractionPool(Path(folder) / "job.json", len(shard_names(Path(folder))))
        return _pools[folder]


def close_pool(folder: str) -> None:
    """Stop the worker processes of a job; they keep their models loaded until then."""
    with _pools_lock:
        pool = _pools.pop(folder, None)
    if pool is not None:
        pool.close()
