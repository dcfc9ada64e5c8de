"""SIGKILL anywhere: what was committed stays, what was not is nowhere, and doing it again ends the same."""

import random
import signal
import time
from pathlib import Path

import pytest

from storage import LABELS, Store

OLD = {"a": "old", "b": "old", "c": "old"}
NEW = {"a": "new", "d": "new"}
AFTER = {"a": "new", "b": "old", "c": "old", "d": "new"}


def live(table) -> dict[str, str]:
    rows = table.read(["clip_id", "input_hash", "values"])
    found = dict(zip(rows["clip_id"].to_pylist(), rows["input_hash"].to_pylist(), strict=True))
    assert len(found) == rows.num_rows == table.count()
    return found


@pytest.fixture
def table(store: Store, processes):
    table = store.table(processes.SPEC)
    shard = table.stage(processes.feature_rows(OLD), run_id="first", name="old")
    table.register([shard], wanted=processes.wanted_rows(OLD))
    return table


def killed(process) -> None:
    process.join(60)
    assert process.exitcode == -signal.SIGKILL


def drafts(store: Store, run_id: str) -> list[Path]:
    return list((Path(store.uri) / "_staging" / run_id).glob("*"))


@pytest.mark.parametrize("point", ["half written", "written", "renamed", "committed"])
def test_a_worker_killed_while_it_hands_over_a_shard(store: Store, table, processes, point: str) -> None:
    killed(processes.start(processes.stage_and_die, store.uri, point, NEW))
    assert live(table) == (AFTER if point == "committed" else OLD)
    assert table.orphans() == (["shard.parquet"] if point == "renamed" else [])
    assert len(drafts(store, "dead")) == (1 if point in ("half written", "written") else 0)
    store.clear_staging("dead")
    shard = table.stage(processes.feature_rows(NEW), run_id="next", name="shard")
    table.register([*table.orphans(), shard], wanted=processes.wanted_rows(NEW))
    assert live(table) == AFTER
    assert table.orphans() == []


@pytest.mark.parametrize("point", ["half written", "renamed", "committed"])
def test_a_committer_killed_while_it_replaces_rows(store: Store, table, processes, point: str) -> None:
    shard = table.stage(processes.feature_rows(NEW), run_id="next", name="new")
    killed(processes.start(processes.register_and_die, store.uri, point, shard, NEW))
    assert live(table) == (AFTER if point == "committed" else OLD)
    assert len(table.orphans()) == {"half written": 1, "renamed": 2, "committed": 0}[point]
    table.register([*table.orphans(), shard], wanted=processes.wanted_rows(AFTER))
    assert live(table) == AFTER


@pytest.mark.parametrize("point", ["half written", "renamed", "committed"])
def test_a_merge_that_is_killed_happens_whole_or_not_at_all(store: Store, processes, point: str) -> None:
    table = store.table(LABELS)
    table.merge(processes.label_rows({"left": 1.0, "right": 1.0, "other": 0.0}))
    killed(processes.start(processes.merge_and_die, store.uri, point, {"left": 2.0, "right": 2.0}))
    values = dict(zip(*table.read(["clip_id", "value"]).to_pydict().values(), strict=True))
    expected = 2.0 if point == "committed" else 1.0
    assert values == {"left": expected, "right": expected, "other": 0.0}
    table.merge(processes.label_rows({"left": 2.0, "right": 2.0}))
    values = dict(zip(*table.read(["clip_id", "value"]).to_pydict().values(), strict=True))
    assert values == {"left": 2.0, "right": 2.0, "other": 0.0}


@pytest.mark.parametrize("point", ["half written", "written", "renamed", "committed"])
def test_merging_files_that_is_killed_loses_and_doubles_nothing(store: Store, table, processes, point: str) -> None:
    for clip in NEW:
        shard = table.stage(processes.feature_rows({clip: NEW[clip]}), run_id="next", name=f"new-{clip}")
        table.register([shard], wanted=processes.wanted_rows(NEW))
    killed(processes.start(processes.maintain_and_die, store.uri, point))
    assert live(table) == AFTER
    assert len(table.file_uris()) == (1 if point == "committed" else 3)
    assert len(table.orphans()) == (1 if point == "renamed" else 0)
    table.register(table.orphans(), wanted=processes.wanted_rows(AFTER))
    assert live(table) == AFTER, "what was merged is offered again, and is there already"
    store.maintain(retention_days=0.0)
    assert live(table) == AFTER
    assert len(table.file_uris()) == 1
    left = {finding.kind for finding in store.verify().findings}
    assert left == {"clip unknown", "descriptor"}, "there are features alone, and nothing else is wrong"


def test_kills_at_any_moment(store: Store, processes) -> None:
    rng = random.Random(7)
    table, labels = store.table(processes.SPEC), store.table(LABELS)
    for seed in (0, 1000, 2000, 3000):
        worker = processes.start(processes.work_for_ever, store.uri, seed)
        while f"run-{seed}" not in {path.name for path in (Path(store.uri) / "_staging").glob("*")}:
            time.sleep(0.01)
        time.sleep(rng.uniform(0.1, 0.6))
        worker.kill()
        worker.join()
        live(table)
        values = dict(zip(*labels.read(["clip_id", "value"]).to_pydict().values(), strict=True))
        assert len(set(values.values())) <= 1
    final = {f"c{i}": "final" for i in range(30)}
    shard = table.stage(processes.feature_rows(final), run_id="final", name="final")
    table.register([*table.orphans(), shard], wanted=processes.wanted_rows(final))
    assert live(table) == final
    assert (table.version() or 0) > 4
