"""Cut the files of a corpus that nobody has cut, as one task run."""

from dataclasses import asdict
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.logging import get_run_logger

from miar.config import parse_config
from miar.pipeline.segmentation import segment_corpus
from storage import Store


@task(name="segment-files", cache_policy=NO_CACHE, persist_result=False)
def segment_files(
    store: str, config: dict[str, Any], root: str, *, corpus_id: str | None = None, retry_failed: bool = False
) -> dict[str, Any]:
    """Files to clips, by listening or by length; returns counts. May be killed and run again."""
    done = segment_corpus(Store.open(store), parse_config(config), root, corpus_id, retry_failed=retry_failed)
    if done.warning is not None:
        get_run_logger().warning(done.warning)
    return asdict(done)
