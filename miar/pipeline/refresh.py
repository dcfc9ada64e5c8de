"""The steps of a refresh, as plain functions: lay out a plan as a folder of shards, run it, register what was made.

The folder ``_staging/<run>/`` in the store holds ``job.json``, ``plan.json`` and ``shards/*.json``, so that whoever
does the work (a thread, a process, another machine) is handed paths and not arrays.
"""

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from miar.features.contract import FeatureSet
from miar.pipeline import catalogue
from miar.pipeline.plan import RefreshPlan
from miar.pipeline.rows import descriptor_row, feature_spec
from miar.pipeline.runs import recorded_run, staging_folder
from miar.pipeline.shards import Job, Shard, ShardOutcome
from storage import FAILURES, FEATURE_SETS, Store, StoreError

_SHAPE = ["columns", "summary_columns", "quality_columns", "pooled_dim"]
"""What the rows of one feature table share: names and widths."""


def lay_out(store: Store, plan: RefreshPlan) -> Path:
    """Bring the catalogue into line with the corpus and write the plan's shards; returns the job's folder.

    Nothing has to be undone if nobody ever runs it: the next plan finds the same work.
    """
    catalogue.apply(store, plan.changes, plan.run_id)
    for feature_set in plan.feature_sets:
        # A corpus of sound alone gets no empty table of faces.
        if plan.wanted[feature_set.table]:
            _describe(store, feature_set)
    folder = staging_folder(store, plan.run_id)
    try:
        _save(plan, store.uri, folder)
    except OSError as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise StoreError(f"cannot write {folder}: {error.strerror or error}") from error
    return folder


def _save(plan: RefreshPlan, store_uri: str, folder: Path) -> None:
    (folder / "shards").mkdir(parents=True, exist_ok=True)
    Job(store_uri, plan.run_id, plan.corpus_id, plan.root, plan.config, tuple(plan.feature_sets), plan.versions).save(
        folder
    )
    for shard in plan.shards:
        shard.save(folder / "shards")
    (folder / "plan.json").write_text(json.dumps(plan.summary()), encoding="ascii")


def shard_names(folder: Path) -> list[str]:
    """The shards of a laid-out job, in a stable order."""
    return sorted(path.stem for path in (folder / "shards").glob("*.json"))


@contextmanager
def running_job(store: Store, folder: Path) -> Iterator[tuple[Job, dict[str, Any]]]:
    """Hold the locks of the job's feature sets and keep the run's row while the body works through a laid-out job.

    Yields the job, and the run's result (it starts as the plan's summary) for the body to fill. The folder is gone
    afterwards, also where the job could not be begun.

    Raises:
        StoreError: another refresh of the same corpus is making one of the same feature sets.
    """
    job = Job.load(folder / "job.json")
    config = {"root": _absolute(job.root), **job.config.model_dump(mode="json")}
    try:
        with (
            _feature_set_locks(store, job),
            recorded_run(store, "refresh", run_id=job.run_id, corpus_id=job.corpus_id, config=config) as result,
        ):
            result.update(json.loads((folder / "plan.json").read_text(encoding="ascii")))
            result["clips_to_extract"] -= _drop_finished(store, job, folder)
            yield job, result
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def refuse_if_taken(store: Store, plan: RefreshPlan) -> None:
    """Find out now, and not when everything has been started, that another refresh makes the same.

    Raises:
        StoreError: it does.
    """
    for feature_set in plan.feature_sets:
        with store.lock(lock_name(plan.corpus_id, feature_set)):
            pass


@contextmanager
def _feature_set_locks(store: Store, job: Job) -> Iterator[None]:
    """All of them or none, in one order for everybody. Refreshes of other extractors may run beside this one."""
    with ExitStack() as held:
        for name in sorted(lock_name(job.corpus_id, feature_set) for feature_set in job.feature_sets):
            held.enter_context(store.lock(name))
        yield


def lock_name(corpus_id: str, feature_set: FeatureSet) -> str:
    """What a refresh holds while it makes a feature set of a corpus; read by whoever finds it taken."""
    return f"refresh of {feature_set.extractor} ({feature_set.config_hash}) for {corpus_id}"


def _drop_finished(store: Store, job: Job, folder: Path) -> int:
    """Take out of the shards what another run committed between the plan and the locks: nothing is made twice.

    Returns how many clips are left out altogether.
    """
    done: set[tuple[str, str, str]] = set()
    for feature_set in job.feature_sets:
        table = store.table(feature_spec(feature_set))
        if table.version() != job.versions[feature_set.table]:
            rows = table.read(["clip_id", "input_hash"], pc.field("corpus_id") == job.corpus_id).to_pydict()
            done |= {(feature_set.table, *row) for row in zip(rows["clip_id"], rows["input_hash"], strict=True)}
    if not done:
        return 0
    dropped = 0
    modality = {feature_set.table: feature_set.modality for feature_set in job.feature_sets}
    for name in shard_names(folder):
        path = folder / "shards" / f"{name}.json"
        shard = Shard.load(path)
        left = shard.without(
            lambda clip, table, shard=shard: (table, clip, shard.input_hash(clip, modality[table])) in done
        )
        if left is shard:
            continue
        path.unlink()
        dropped += len(shard.clips) - (len(left.clips) if left is not None else 0)
        if left is not None:
            left.save(path.parent)
    return dropped


def _absolute(root: str | None) -> str | None:
    """A link stays one: what it leads to may be another folder the next time."""
    return root if root is None or "://" in root else os.path.abspath(root)


def _describe(store: Store, feature_set: FeatureSet) -> None:
    same = (pc.field("extractor") == feature_set.extractor) & (pc.field("config_hash") == feature_set.config_hash)
    row = descriptor_row(feature_set)
    known = store.table(FEATURE_SETS).read(columns=_SHAPE, filter=same).to_pylist()
    if not known:
        store.table(FEATURE_SETS).merge(row)
    elif other := [name for name, value in row.select(_SHAPE).to_pylist()[0].items() if known[0][name] != value]:
        raise StoreError(
            f"{feature_set.table} was written with other {', '.join(other)} than this extractor makes: give the"
            " extractor a configuration of its own, so that its rows get a table of their own"
        )


def commit_shard(store: Store, job: Job, shard: Shard, outcomes: Sequence[ShardOutcome]) -> dict[str, int]:
    """Register what came of one shard: its feature rows, its failures, and the failures it mended.

    Committing the same outcomes twice changes nothing. Returns the rows added and replaced, and the failures.
    """
    counts = {"added": 0, "replaced": 0, "failed": 0}
    failures = [failure for outcome in outcomes for failure in outcome.failures]
    for feature_set in job.feature_sets:
        files = [outcome.files[feature_set.table] for outcome in outcomes if feature_set.table in outcome.files]
        if files:
            table = store.table(feature_spec(feature_set))
            done = table.register(files, wanted=_wanted(shard, feature_set))
            counts["added"] += done.rows_added
            counts["replaced"] += done.rows_replaced
    counts["failed"] = len(failures)
    _record_failures(store, job, shard, failures)
    return counts


def _wanted(shard: Shard, feature_set: FeatureSet) -> pa.Table:
    clips = [clip.clip_id for clip in shard.clips if feature_set.table in clip.wants]
    hashes = [shard.input_hash(clip_id, feature_set.modality) for clip_id in clips]
    return pa.table({"clip_id": pa.array(clips, pa.string()), "input_hash": pa.array(hashes, pa.string())})


def _record_failures(store: Store, job: Job, shard: Shard, failures: list[dict[str, Any]]) -> None:
    """Failures that stand are counted up, once in a run; those that this shard mended are taken away."""
    touched = {
        (job.corpus_id, clip.path, clip.clip_id, feature_set.extractor, feature_set.config_hash)
        for feature_set in job.feature_sets
        for clip in shard.clips
        if feature_set.table in clip.wants
    }
    clips = pa.array([clip.clip_id for clip in shard.clips], pa.string())
    chosen = (pc.field("corpus_id") == job.corpus_id) & pc.field("clip_id").isin(clips)
    standing = {
        key: row
        for row in store.table(FAILURES).read(filter=chosen).to_pylist()
        if (key := tuple(row[name] for name in FAILURES.key)) in touched
    }
    rows = []
    for failure in failures:
        earlier = standing.pop(tuple(failure[name] for name in FAILURES.key), None)
        if earlier is not None and earlier["run_id"] == job.run_id:
            continue  # this very commit was made before
        again = earlier is not None and earlier["input_hash"] == failure["input_hash"]
        attempts = earlier["attempts"] + 1 if earlier and again else 1
        rows.append({**failure, "attempts": attempts, "run_id": job.run_id, "failed_at": datetime.now(UTC)})
    if rows or standing:
        mended = {name: pa.array([key[i] for key in standing], pa.string()) for i, name in enumerate(FAILURES.key)}
        store.table(FAILURES).merge(
            pa.Table.from_pylist(rows, schema=FAILURES.schema),
            delete_keys=pa.table(mended) if standing else None,
        )
