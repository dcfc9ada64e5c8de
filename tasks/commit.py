"""Register what a shard's worker left behind."""

import functools
from pathlib import Path

from prefect import task
from prefect.cache_policies import NO_CACHE

from miar.pipeline import refresh
from miar.pipeline.shards import Job, Shard, ShardOutcome
from storage import Store


# A commit that lost against another writer, or a disk that hiccuped, is worth another try: it is idempotent.
@task(
    name="commit-shard",
    task_run_name="commit-{shard}",
    retries=2,
    retry_delay_seconds=1,
    cache_policy=NO_CACHE,
    persist_result=False,
)
def commit_shard(folder: str, shard: str, outcomes: list[ShardOutcome]) -> dict[str, int]:
    """Commit the outcomes of one shard; returns rows added and replaced, and failures."""
    store, job = _opened(folder)
    return refresh.commit_shard(store, job, Shard.load(Path(folder) / "shards" / f"{shard}.json"), outcomes)


@functools.lru_cache(maxsize=1)
def _opened(folder: str) -> tuple[Store, Job]:
    """Once for a run: the store remembers which keys it has read, so that a commit reads those of new files alone."""
    job = Job.load(Path(folder) / "job.json")
    return Store.open(job.store), job
