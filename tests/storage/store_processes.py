"""What the child processes of the kill and concurrency tests do. Importable, so that they can be started."""

import os
import signal
import time

import pyarrow as pa

import storage.commits
import storage.log
from storage import LABELS, Store, feature_table
from storage.files import LocalFiles
from storage.shards import ShardWriter

SPEC = feature_table("features/text/feed", n_columns=2, summary_columns=[], quality_columns=[])


def feature_rows(hashes: dict[str, str]) -> pa.Table:
    rows = [
        dict.fromkeys(SPEC.schema.names)
        | {"clip_id": clip, "input_hash": input_hash, "status": "ok", "n_frames": 2}
        | {"values": [float(len(clip))] * 4, "times": [0.0, 0.1]}
        for clip, input_hash in hashes.items()
    ]
    return pa.Table.from_pylist(rows, schema=SPEC.schema)


def wanted_rows(hashes: dict[str, str]) -> pa.Table:
    return pa.table({"clip_id": list(hashes), "input_hash": list(hashes.values())})


def label_rows(values: dict[str, float]) -> pa.Table:
    rows = [{**dict.fromkeys(LABELS.schema.names), "clip_id": k, "name": "x", "value": v} for k, v in values.items()]
    return pa.Table.from_pylist(rows, schema=LABELS.schema)


def die(*_: object, **__: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60)


def die_at(point: str) -> None:
    """Make this process kill itself when it gets to a point."""
    write = ShardWriter.write
    publish = LocalFiles.publish
    commit = storage.log.commit

    def half_written(self: ShardWriter, batch: pa.RecordBatch) -> None:
        write(self, batch)
        self._flush()
        die()

    def renamed(self: LocalFiles, draft: str, name: str) -> bool:
        publish(self, draft, name)
        die()
        return True

    def committed(*args, **kwargs) -> None:
        commit(*args, **kwargs)
        die()

    if point == "half written":
        ShardWriter.write = half_written
    elif point == "written":
        LocalFiles.publish = die  # type: ignore[method-assign, assignment]
    elif point == "renamed":
        LocalFiles.publish = renamed
    elif point == "committed":
        storage.log.commit = committed
    else:
        raise AssertionError(point)


def stage_and_die(uri: str, point: str, hashes: dict[str, str]) -> None:
    table = Store.open(uri).table(SPEC)
    die_at(point)
    table.register([table.stage(feature_rows(hashes), run_id="dead", name="shard")], wanted=wanted_rows(hashes))


def register_and_die(uri: str, point: str, shard: str, hashes: dict[str, str]) -> None:
    table = Store.open(uri).table(SPEC)
    die_at(point)
    table.register([shard], wanted=wanted_rows(hashes))


def merge_and_die(uri: str, point: str, values: dict[str, float]) -> None:
    table = Store.open(uri).table(LABELS)
    die_at(point)
    table.merge(label_rows(values))


def maintain_and_die(uri: str, point: str) -> None:
    die_at(point)
    Store.open(uri).maintain(retention_days=0.0)


def work_for_ever(uri: str, seed: int) -> None:
    """Stages, registers and merges until it is killed: what it writes depends on the round alone."""
    store = Store.open(uri)
    table, labels = store.table(SPEC), store.table(LABELS)
    for round_ in range(seed, 10_000):
        hashes = {f"c{i}": f"h{round_}" for i in range(round_ % 3, 30)}
        shard = table.stage(feature_rows(hashes), run_id=f"run-{seed}", name=f"shard-{round_}")
        table.register([*table.orphans(), shard], wanted=wanted_rows(hashes))
        labels.merge(label_rows({"left": round_, "right": round_}))


def write_shared(uri: str, worker: int, rounds: int, n_clips: int) -> None:
    """Registers shards that overlap with those of the other workers, and merges labels of its own and of all."""
    store = Store.open(uri)
    table, labels = store.table(SPEC), store.table(LABELS)
    everything = wanted_rows({f"c{i}": "h" for i in range(n_clips)})
    for round_ in range(rounds):
        mine = {f"c{i}": "h" for i in range(n_clips) if i % rounds == round_ and (i + worker) % 4 != 0}
        shard = table.stage(feature_rows(mine), run_id=f"run-{worker}", name=f"shard-{worker}-{round_}")
        table.register([shard], wanted=everything)
        value = float(worker * 1000 + round_)
        labels.merge(label_rows({f"own-{worker}-{round_}": value, "left": value, "right": value}))


def maintain_until(uri: str, stop: str, failures) -> None:
    """Merges files and vacuums all the time, pins and unpins; puts how often into the queue."""
    store = Store.open(uri)
    turns = 0
    while not os.path.exists(stop):
        snapshot = store.snapshots.take("moving")
        before = {name: snapshot.read(name) for name in snapshot.tables()}
        report = store.maintain(retention_days=10 / 86400)
        again = store.snapshots.open("moving")
        if report.problems or {name: again.read(name) for name in again.tables()} != before:
            failures.put(f"maintenance spoilt something: {report.problems}")
        store.snapshots.remove("moving")
        turns += 1
    failures.put(turns)


def read_until(uri: str, stop: str, failures) -> None:
    """Reads all the time; puts what it saw wrong into the queue, and how often it looked."""
    store = Store.open(uri)
    looks, versions = 0, (-1, -1)
    while not os.path.exists(stop):
        clips = store.table(SPEC).read(["clip_id"])["clip_id"].to_pylist()
        if len(clips) != len(set(clips)):
            failures.put(f"{len(clips) - len(set(clips))} clips twice")
        values = {row["clip_id"]: row["value"] for row in store.table(LABELS).read().to_pylist()}
        if values.get("left") != values.get("right"):
            failures.put(f"half a commit: {values['left']} and {values['right']}")
        now = (store.table(SPEC).version() or -1, store.table(LABELS).version() or -1)
        if now[0] < versions[0] or now[1] < versions[1]:
            failures.put(f"version went back from {versions} to {now}")
        versions, looks = now, looks + 1
    failures.put(looks)


def with_environment(variables: dict[str, str], function, *args) -> None:
    """Children come from a server that was started earlier, with the environment of that time."""
    os.environ.update(variables)
    function(*args)
