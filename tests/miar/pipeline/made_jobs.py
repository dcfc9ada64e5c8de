"""Plans that are carried out with made values: the plan, the commits and the locks are the real ones, no model runs.

Also a program of its own, so that tests can start, hold and kill real processes:

    python made_jobs.py STORE CORPUS EXTRACTORS SHARDS

plans, takes the locks, prints ``in``, commits so many shards, prints ``waiting``, waits for a line, and does the rest.
"""

import sys
from collections.abc import Callable, Sequence

import numpy as np

from miar.config import PipelineConfig
from miar.features.contract import Extraction, FeatureSet, Modality, Status
from miar.pipeline.plan import RefreshPlan, plan_feature_sets
from miar.pipeline.refresh import commit_shard, lay_out, running_job, shard_names
from miar.pipeline.rows import feature_rows, feature_spec
from miar.pipeline.shards import Job, Shard, ShardOutcome
from storage import Store, StoreError

FEATURE_SETS = {
    name: FeatureSet(extractor=name, modality=modality, columns=("one", "two"), rate_hz=10.0)
    for name, modality in (("text", Modality.TEXT), ("opensmile", Modality.AUDIO), ("mediapipe", Modality.FACE))
}
CUES = "1\n00:00:00,000 --> 00:00:01,000\n{0} one\n\n2\n00:00:01,000 --> 00:00:02,000\n{0} two\n"
SMALL_SHARDS = PipelineConfig.model_validate({"execution": {"workers": 2, "shard_clips": 3}})

Outcome = Callable[[str, FeatureSet], Extraction]


def ok(_: str, __: FeatureSet) -> Extraction:
    return Extraction(Status.OK, values=np.ones((3, 2), np.float32), times=np.arange(3, dtype=np.float32))


def plan(store: Store, corpus: object, names: Sequence[str] = tuple(FEATURE_SETS), **options) -> RefreshPlan:
    config = options.pop("config", SMALL_SHARDS)
    return plan_feature_sets(store, config, [FEATURE_SETS[name] for name in names], root=str(corpus), **options)


def carry_out(store: Store, planned: RefreshPlan, outcome: Outcome = ok) -> dict:
    """Do everything that is planned; returns the run's result."""
    with running_job(store, folder := lay_out(store, planned)) as (job, result):
        for name in shard_names(folder):
            commit(store, job, Shard.load(folder / "shards" / f"{name}.json"), outcome)
        return result


def commit(store: Store, job: Job, shard: Shard, outcome: Outcome = ok) -> None:
    """What a worker and the committer do for one shard."""
    done = ShardOutcome(shard=shard.name, clips=len(shard.clips))
    for one in job.feature_sets:
        found = [(clip.clip_id, outcome(clip.clip_id, one)) for clip in shard.clips if one.table in clip.wants]
        identities = {
            clip_id: {**shard.identities[clip_id], "input_hash": shard.input_hash(clip_id, one.modality)}
            for clip_id, _ in found
        }
        paths = {clip.clip_id: clip.path for clip in shard.clips}
        done.failures += [
            {
                "corpus_id": job.corpus_id,
                "path": paths[clip_id],
                "clip_id": clip_id,
                "stage": one.extractor,
                "config_hash": one.config_hash,
                "source_id": None,
                "input_hash": identities[clip_id]["input_hash"],
                "error": extraction.reason,
                "message": extraction.message,
            }
            for clip_id, extraction in found
            if extraction.status is Status.FAILED
        ]
        rows = feature_rows(one, found, identities, job.run_id)
        if rows.num_rows:
            done.files[one.table] = store.table(feature_spec(one)).stage(rows, run_id=job.run_id, name=shard.name)
    commit_shard(store, job, shard, [done])


def main(uri: str, corpus: str, names: str, shards: str) -> None:
    store = Store.open(uri)
    folder = lay_out(store, plan(store, corpus, names.split(",")))
    with running_job(store, folder) as (job, _):
        print("in", flush=True)
        for number, name in enumerate(shard_names(folder)):
            if number == int(shards):
                print("waiting", flush=True)
                sys.stdin.readline()
            commit(store, job, Shard.load(folder / "shards" / f"{name}.json"))
    print("out", flush=True)


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except StoreError as error:
        sys.exit(str(error))
