"""Flow ``maintain``: merge small files of the store, write checkpoints, remove what nothing needs."""

from typing import Any

from prefect import flow

from flows.artifacts import maintenance_table
from tasks.maintain import maintain_store


@flow(name="maintain", persist_result=False)
def maintain(store: str, retention_days: float = 7.0, target_mb: int = 32, dry_run: bool = False) -> dict[str, Any]:
    """Keep the store small and quick to open. Refreshes and readers may go on meanwhile.

    Args:
        store: Folder of the feature store.
        retention_days: What was replaced or left behind within so many days stays, for those who still read it.
        target_mb: Size in MiB that small files are merged to.
        dry_run: Only say what would be done.
    """
    result = maintain_store(store, retention_days=retention_days, target_mb=target_mb, dry_run=dry_run)
    maintenance_table(result)
    return result
