"""A refresh as the flow does it, without Prefect around it, that kills itself and its workers at a chosen point.

    python watched_refresh.py STORE CORPUS LEDGER --phase compute --skip 2

Every process writes a line to the ledger, outside the store, whenever a clip's extraction ends and whenever a shard has
its final name. At the chosen point, after ``--skip`` times, the whole process group gets SIGKILL.
"""

import argparse
import functools
import json
import os
import signal
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

PHASES = ("compute", "write and rename", "before commit", "after commit", "compaction")
_PLAN = "WATCHED_REFRESH"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("store")
    parser.add_argument("corpus")
    parser.add_argument("ledger")
    parser.add_argument("--phase", choices=PHASES)
    parser.add_argument("--skip", type=int, default=0)
    parser.add_argument("--lease", type=float)
    options = parser.parse_args()
    if options.lease is not None:
        from storage import leases

        leases.LEASE_S = options.lease
    os.environ[_PLAN] = json.dumps(vars(options))
    watch = install()
    compacting = options.phase == "compaction"
    # A few shards more, so that there is something to merge.
    refresh(options.store, options.corpus, most_shards=3 if compacting else None)
    if compacting:
        from storage import Store

        watch.compacting = True
        Store.open(options.store).maintain(target_bytes=2**20, retention_days=0)


def refresh(store_uri: str, corpus: str, most_shards: int | None = None) -> None:
    """Plan, map the shards over the workers, commit each as it comes in: what flows/refresh_features.py does."""
    from miar.config import parse_config
    from miar.pipeline import extract
    from miar.pipeline.plan import plan_refresh
    from miar.pipeline.refresh import commit_shard, lay_out, running_job, shard_names
    from miar.pipeline.shards import Shard
    from miar.pipeline.targets import open_store

    extract.initialise_worker = initialise_worker
    config = parse_config(
        {
            "extractors": [{"extractor": "opensmile"}],
            "execution": {"workers": 2, "shard_clips": 10},
            "corpus": {"corpus_id": "watched"},
        }
    )
    store = open_store(store_uri, corpus)
    folder = lay_out(store, plan_refresh(store, config, root=corpus))
    names = shard_names(folder)[:most_shards]
    with running_job(store, folder) as (job, _):
        if not names:
            return
        pool = extract.ExtractionPool(folder / "job.json", len(names))
        try:
            with ThreadPoolExecutor(2) as threads:
                shards = {name: Shard.load(folder / "shards" / f"{name}.json") for name in names}
                futures = {threads.submit(pool.run, shard): shard for shard in shards.values()}
                for future in as_completed(futures):
                    commit_shard(store, job, futures[future], future.result())
        finally:
            pool.close()


def initialise_worker(threads: int) -> None:
    """In a worker process: the same hooks, then what every worker does."""
    from miar.features import runner

    install()
    runner.initialise_worker(threads)


def install() -> "_Watch":
    """Watch the points of interest in this process."""
    watch = _Watch(json.loads(os.environ[_PLAN]))
    _watch_workers(watch)
    _watch_commits(watch)
    return watch


def _watch_workers(watch: "_Watch") -> None:
    from miar.features.audio import OpenSmileExtractor
    from miar.features.contract import Modality
    from miar.pipeline import extract
    from storage import shards
    from storage.files import LocalFiles
    from storage.object_files import ObjectFiles

    work, run, write = extract._work, OpenSmileExtractor.extract, shards.ShardWriter.write

    @functools.wraps(work)
    def working(job_path: Path, shard: Any) -> Any:
        inputs = {clip.clip_id: shard.input_hash(clip.clip_id, Modality.AUDIO) for clip in shard.clips}
        watch.note({"extracting": inputs})
        return work(job_path, shard)

    def extracting(self: Any, samples: Any) -> Any:
        watch.reached("compute")
        return run(self, samples)

    def writing(self: Any, batch: Any) -> None:
        write(self, batch)
        if "values" in batch.schema.names:
            self._flush()
            watch.reached("write and rename")
            watch.reached("compaction", when=watch.compacting)

    def watched(publish: Callable[..., bool]) -> Callable[..., bool]:
        def publishing(self: Any, draft: str, name: str) -> bool:
            if not name.startswith("features/"):
                return publish(self, draft, name)
            watch.reached("write and rename")
            done = publish(self, draft, name)
            if done and not watch.compacting:
                keys = pq.read_table(name, columns=["clip_id", "input_hash"], filesystem=self.filesystem()).to_pydict()
                watch.note({"published": dict(zip(keys["clip_id"], keys["input_hash"], strict=True))})
            watch.reached("before commit")
            return done

        return publishing

    extract._work = working
    OpenSmileExtractor.extract = extracting
    shards.ShardWriter.write = writing
    for files in (LocalFiles, ObjectFiles):
        files.publish = watched(files.publish)


def _watch_commits(watch: "_Watch") -> None:
    import storage.log

    commit = storage.log.commit

    def committing(files: Any, spec: Any, *args: Any, **kwargs: Any) -> None:
        features = spec.name.startswith("features/")
        watch.reached("before commit", when=features)
        watch.reached("compaction", when=features and watch.compacting)
        commit(files, spec, *args, **kwargs)
        watch.reached("after commit", when=features)
        watch.reached("compaction", when=features and watch.compacting)

    storage.log.commit = committing


class _Watch:
    def __init__(self, plan: dict[str, Any]) -> None:
        self._phase, self._left, self._ledger = plan["phase"], plan["skip"], Path(plan["ledger"])
        self.compacting = False

    def reached(self, phase: str, *, when: bool = True) -> None:
        if phase != self._phase or not when:
            return
        if self._left > 0:
            self._left -= 1
            return
        self.note({"killed": phase})
        os.killpg(0, signal.SIGKILL)

    def note(self, line: dict[str, Any]) -> None:
        """One write of one line: processes do not cut each other's lines."""
        with self._ledger.open("ab", buffering=0) as file:
            file.write(json.dumps(line).encode() + b"\n")


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    main()
