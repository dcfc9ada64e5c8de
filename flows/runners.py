"""The task runners of the flows. Always with a size: Prefect's default is unbounded."""

from typing import Any, cast

from prefect.futures import PrefectFuture
from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner


def threads(size: int) -> TaskRunner[PrefectFuture[Any]]:
    """A pool of ``size`` threads."""
    # Prefect's runners are invariant in the kind of future they make, its decorators are not.
    return cast(TaskRunner[PrefectFuture[Any]], ThreadPoolTaskRunner(max_workers=size))
