"""One task run per chunk of clips: score them and commit their rows."""

from pathlib import Path

from prefect import task
from prefect.cache_policies import NO_CACHE

from miar.pipeline import score
from tasks.gpu import gpu


@task(
    name="score-chunk",
    task_run_name="score-{number}",
    retries=2,
    retry_delay_seconds=1,
    cache_policy=NO_CACHE,
    persist_result=False,
)
def score_chunk(folder: str, number: int) -> dict[str, int]:
    """Score chunk ``number`` of the job in ``folder``; returns clips by what was available."""
    with gpu():
        return score.score_chunk(Path(folder), number)
