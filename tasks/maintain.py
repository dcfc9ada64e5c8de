"""Look after a store, as one task run."""

from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.logging import get_run_logger

from storage import Store


@task(name="maintain-store", cache_policy=NO_CACHE, persist_result=False)
def maintain_store(store: str, *, retention_days: float, target_mb: int, dry_run: bool) -> dict[str, Any]:
    """Merge files, write checkpoints, remove what nothing needs; returns counts. May be killed and run again."""
    report = Store.open(store).maintain(target_bytes=target_mb * 2**20, retention_days=retention_days, dry_run=dry_run)
    for problem in report.problems:
        get_run_logger().warning(problem)
    return report.summary()
