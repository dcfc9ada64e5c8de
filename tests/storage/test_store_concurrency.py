"""Several processes write one store while others read: nothing lost, nothing doubled, nothing half."""

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import DeltaTable

from storage import LABELS, CommitConflictError, Store
from storage import commits as commits_module


@pytest.mark.parametrize(
    ("rounds", "n_clips"), [(3, 60), pytest.param(41, 2000, marks=pytest.mark.slow)], ids=["small", "large"]
)
def test_eight_writers_two_readers_and_maintenance(
    store: Store, processes, tmp_path: Path, rounds: int, n_clips: int
) -> None:
    stop, seen = tmp_path / "stop", processes.queue()
    watchers = [processes.start(processes.read_until, store.uri, str(stop), seen) for _ in range(2)]
    watchers.append(processes.start(processes.maintain_until, store.uri, str(stop), seen))
    writers = [processes.start(processes.write_shared, store.uri, worker, rounds, n_clips) for worker in range(8)]
    for writer in writers:
        writer.join(600)
        assert writer.exitcode == 0
    stop.touch()
    for _ in watchers:
        looks = seen.get(timeout=120)
        assert isinstance(looks, int), looks
        assert looks > 0
    for watcher in watchers:
        watcher.join(60)
        assert watcher.exitcode == 0
    clips = store.table(processes.SPEC).read(["clip_id"])["clip_id"].to_pylist()
    assert sorted(clips) == sorted(f"c{i}" for i in range(n_clips))
    values = dict(zip(*store.table(LABELS).read(["clip_id", "value"]).to_pydict().values(), strict=True))
    own = {f"own-{worker}-{n}": worker * 1000.0 + n for worker in range(8) for n in range(rounds)}
    assert {key: value for key, value in values.items() if key.startswith("own")} == own
    assert values["left"] == values["right"]
    assert len(values) == len(own) + 2
    left = {finding.kind for finding in store.verify().findings}
    assert left <= {"clip unknown", "descriptor"}, "the writers make features alone, and nothing else is wrong"


def test_a_foreign_writer_between_plan_and_commit_makes_a_new_plan(store: Store, labels, monkeypatch) -> None:
    table, other = store.table(LABELS), Store.open(store.uri).table(LABELS)
    table.merge(labels({("a", "x"): 0.0}))
    write = commits_module.write_shards
    rivals = [labels({("a", "x"): 1.0, ("b", "x"): 1.0}), labels({("c", "x"): 1.0})]

    def interrupted(*args, **kwargs) -> None:
        write(*args, **kwargs)
        if rivals:
            other.merge(rivals.pop(0))

    monkeypatch.setattr(commits_module, "write_shards", interrupted)
    result = table.merge(labels({("a", "x"): 2.0, ("b", "x"): 2.0}))
    assert (result.rows_added, result.rows_replaced) == (0, 2)
    values = dict(zip(*table.read(["clip_id", "value"]).to_pydict().values(), strict=True))
    assert values == {"a": 2.0, "b": 2.0, "c": 1.0}
    assert table.orphans() == []


def test_a_rival_that_never_rests_is_a_conflict_error(store: Store, labels, monkeypatch) -> None:
    table, other = store.table(LABELS), Store.open(store.uri).table(LABELS)
    write, turns = commits_module.write_shards, iter(range(1000))
    nested = threading.local()

    def interrupted(*args, **kwargs) -> None:
        write(*args, **kwargs)
        if not getattr(nested, "inside", False):
            nested.inside = True
            other.merge(labels({("rival", "x"): float(next(turns))}))
            nested.inside = False

    monkeypatch.setattr(commits_module, "write_shards", interrupted)
    monkeypatch.setattr(commits_module, "MAX_ATTEMPTS", 4)
    with pytest.raises(CommitConflictError) as error:
        table.merge(labels({("a", "x"): 2.0}))
    assert "\n" not in str(error.value)
    assert table.read(["clip_id"])["clip_id"].to_pylist() == ["rival"]
    assert table.orphans() == []
    assert list((Path(store.uri) / "_staging").iterdir()) == []


def test_two_first_commits_of_one_table(store: Store, labels, monkeypatch) -> None:
    """Creating the table is a commit like any other: of two, the second plans again."""
    table, other = store.table(LABELS), Store.open(store.uri).table(LABELS)
    write, rivals = commits_module.write_shards, [labels({("b", "x"): 1.0})]

    def interrupted(*args, **kwargs) -> None:
        write(*args, **kwargs)
        if rivals:
            other.merge(rivals.pop())

    monkeypatch.setattr(commits_module, "write_shards", interrupted)
    table.merge(labels({("a", "x"): 1.0}))
    assert sorted(table.read(["clip_id"])["clip_id"].to_pylist()) == ["a", "b"]
    assert DeltaTable(table.path).version() == 1


def test_the_same_shard_registered_by_two_at_once(store: Store, spec, features, wanted, monkeypatch) -> None:
    table, other = store.table(spec), Store.open(store.uri).table(spec)
    hashes = {"a": "1", "b": "1"}
    shard = table.stage(features(hashes), run_id="r", name="shard")
    write, rivals = commits_module.write_shards, [1]

    def interrupted(*args, **kwargs) -> None:
        write(*args, **kwargs)
        if rivals:
            rivals.pop()
            other.register([shard], wanted=wanted(hashes))

    monkeypatch.setattr(commits_module, "write_shards", interrupted)
    assert table.register([shard], wanted=wanted(hashes)).files_ignored == 1
    assert table.count() == 2
    assert table.version() == 0


def test_a_snapshot_waits_for_the_commit_that_is_under_way(store: Store, labels, monkeypatch) -> None:
    """While the guard is held nothing moves, so a snapshot is a vector of versions that stood together."""
    table = store.table(LABELS)
    table.merge(labels({("a", "x"): 0.0}))
    taken: list[pa.Table] = []
    with store._guard():
        thread = threading.Thread(target=lambda: taken.append(store.snapshots.take().read("labels")))
        thread.start()
        thread.join(0.3)
        assert thread.is_alive()
        assert not taken
    thread.join(10)
    assert taken[0].num_rows == 1


def test_threads_may_share_a_table(store: Store, spec, features, wanted) -> None:
    table = store.table(spec)
    everything = {f"c{i}": "1" for i in range(40)}

    def register(worker: int) -> int:
        mine = {clip: h for i, (clip, h) in enumerate(everything.items()) if (i + worker) % 4 != 0}
        shard = table.stage(features(mine), run_id="r", name=f"shard-{worker}")
        return table.register([shard], wanted=wanted(everything)).rows_added

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(register, range(4))) == 40
    assert sorted(table.read(["clip_id"])["clip_id"].to_pylist()) == sorted(everything)


def test_a_lock_of_a_persons_choice_does_not_stop_commits(store: Store, labels) -> None:
    with store.lock("commit"), store.lock("snapshots"):
        store.table(LABELS).merge(labels({("a", "x"): 1.0}))
        assert store.snapshots.take().tables() == ["labels"]
