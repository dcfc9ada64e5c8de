"""Flow ``refresh-features``: bring the feature store up to date with a corpus."""

from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger
from prefect.exceptions import TerminationSignal
from prefect.futures import PrefectFuture, as_completed
from prefect.task_runners import TaskRunner

from flows.artifacts import refresh_table
from flows.runners import threads
from miar.config import PipelineConfig, resolve_config
from miar.features.contract import Modality
from miar.pipeline.extract import worker_count
from miar.pipeline.plan import plan_refresh
from miar.pipeline.progress import advance
from miar.pipeline.refresh import lay_out, running_job, shard_names
from miar.pipeline.shards import ShardOutcome
from miar.pipeline.targets import Target, for_each, open_store, refresh_targets
from storage import Store
from tasks.commit import commit_shard
from tasks.extract import close_pool, draining, extract_shard
from tasks.segment import segment_files


# Shards have threads of their own, as many as the job has worker processes.
@flow(name="refresh-features", task_runner=threads(1), persist_result=False)
def refresh_features(
    store: str,
    corpus: str | None = None,
    config: dict[str, Any] | str | None = None,
    only: list[Modality] | None = None,
    retry_failed: bool = False,
    prepared: str | None = None,
) -> list[dict[str, Any]]:
    """Extract what is new or stale in a corpus, and commit it shard by shard.

    Args:
        store: Folder of the feature store; made if it is not there.
        corpus: Folder or object-store URL of the corpus; empty: every corpus that the store already knows.
        config: Pipeline configuration, as a tree or as the path of a YAML file; empty: the defaults.
        only: Modalities to refresh (text, audio, face); empty: all that are configured.
        retry_failed: Try again also the clips that failed three times on the same input.
        prepared: Folder of a plan that was already laid out (the command line does so); empty: plan now.
    """
    if prepared:
        return [_run(Store.open(store), Path(prepared))]
    opened = open_store(store, corpus)
    settings = resolve_config(config)
    if only:
        settings = settings.only(set(only))
    results, error = for_each(
        refresh_targets(opened, corpus), lambda target: _plan_and_run(opened, settings, target, retry_failed)
    )
    if error is not None:
        raise error
    return results


def _plan_and_run(store: Store, config: PipelineConfig, target: Target, retry_failed: bool) -> dict[str, Any]:
    config = target.configured(config)
    if target.root is not None and config.corpus.needs_segmentation:
        segment_files(
            store.uri,
            config.model_dump(mode="json"),
            target.root,
            corpus_id=target.corpus_id,
            retry_failed=retry_failed,
        )
    plan = plan_refresh(store, config, root=target.root, corpus_id=target.corpus_id, retry_failed=retry_failed)
    return _run(store, lay_out(store, plan))


def _run(store: Store, folder: Path) -> dict[str, Any]:
    with running_job(store, folder) as (job, result):
        for message in result["unavailable"].values():
            get_run_logger().warning(message)
        total = ShardOutcome(shard="", clips=0)
        result.update(rows_added=0, rows_replaced=0, rows_failed=0)
        names = shard_names(folder)
        with threads(worker_count(job, len(names))) as runner:
            try:
                _work_through(runner, folder, names, total, result)
            finally:
                # Where one shard ended the run, those still queued must not begin, and those in hand are given up.
                draining.set()
                close_pool(str(folder))
        result.update(counts=total.counts, seconds=total.seconds)
    refresh_table(result)
    return result


def _work_through(
    runner: TaskRunner[PrefectFuture[Any]], folder: Path, names: list[str], total: ShardOutcome, result: dict[str, Any]
) -> None:
    """Map the shards over the workers and commit each as it comes in.

    A request to stop (SIGTERM, Ctrl-C) lets the shards in hand finish and be committed.
    """
    draining.clear()
    futures = {runner.submit(extract_shard, {"folder": str(folder), "shard": name}): name for name in names}
    waiting = set(futures)
    stopped_by: BaseException | None = None
    while waiting:
        try:
            for future in as_completed(list(waiting)):
                outcomes = future.result()
                counts = None if outcomes is None else commit_shard(str(folder), futures[future], outcomes)
                # Not before the commit: should a signal end that, it is done again.
                waiting.discard(future)
                if outcomes is not None and counts is not None:
                    _count(outcomes, counts, total, result)
                    advance("clips", total.clips, result["clips_to_extract"])
        except (TerminationSignal, KeyboardInterrupt) as signal:
            if stopped_by is not None:
                raise
            stopped_by = signal
            draining.set()
            get_run_logger().warning("stopping: the shards in hand are finished first")
    if stopped_by is not None:
        raise stopped_by


def _count(outcomes: list[ShardOutcome], counts: dict[str, int], total: ShardOutcome, result: dict[str, Any]) -> None:
    for outcome in outcomes:
        total.add(outcome)
    for name, count in counts.items():
        result[f"rows_{name}"] += count
