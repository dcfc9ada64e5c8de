"""What is removed when something is wrong, or while somebody is at work: never what is needed."""

import contextlib
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from storage import FEATURE_SETS, LABELS, Store, StoreError, TableSpec, vacuum
from storage.file_checks import TableCheck
from storage.files import LocalFiles
from storage.plans import LiveKeys
from storage.table import KeyedTable

LONG_AGO = time.time() - 30 * 86400


def make_old(folder: Path) -> None:
    """As if nothing in the folder had been touched for a month, the folders themselves included."""
    for path in sorted(folder.rglob("*"), reverse=True):
        os.utime(path, (LONG_AGO, LONG_AGO))


def orphan(store: Store, spec: TableSpec, features) -> Path:
    """A shard that a run left a month ago."""
    table = store.table(spec)
    path = Path(table.path) / table.stage(features({"left": "1"}), run_id="dead", name="left")
    os.utime(path, (LONG_AGO, LONG_AGO))
    shutil.rmtree(Path(store.uri) / "_receipts")
    return path


@pytest.fixture
def committed(store: Store, labels) -> Store:
    """Twenty commits, and a checkpoint that covers them all; every commit added a file that is live."""
    for number in range(20):
        store.table(LABELS).merge(labels({(f"clip-{number:02}", "x"): 1.0}))
    assert len(store.table(LABELS).file_uris()) == 20
    return store


def entry(store: Store, number: int) -> Path:
    return Path(store.table(LABELS).path) / "_delta_log" / f"{number:020}.json"


LOST: dict[str, Callable[[Store], object]] = {
    "one in the middle": lambda store: entry(store, 5).unlink(),
    "the newest": lambda store: entry(store, 19).unlink(),
    "the first": lambda store: entry(store, 0).unlink(),
    "all": lambda store: [entry(store, number).unlink() for number in range(20)],
    "the words of one": lambda store: entry(store, 19).write_text(""),
}


@pytest.mark.parametrize("case", LOST, ids=str)
def test_files_stay_where_the_log_has_lost_entries(committed: Store, spec: TableSpec, features, case: str) -> None:
    live = {Path(uri) for uri in committed.table(LABELS).file_uris()}
    left = orphan(committed, spec, features)
    LOST[case](committed)
    for dry_run in (True, False):
        report = committed.maintain(retention_days=0.0, target_bytes=1, dry_run=dry_run)
        assert [file.path for file in report.removed if file.path.startswith("labels/")] == []
        assert [file.path for file in report.removed] == [f"{spec.name}/left.parquet"]
        (problem,) = (line for line in report.problems if "removed from labels" in line)
        assert "the log" in problem
        assert "miar verify" in problem
        assert "\n" not in problem
    assert all(path.exists() for path in live)
    assert not left.exists(), "what is wrong with one table keeps no other from being cleared"
    if case in ("one in the middle", "the newest", "the words of one"):
        assert committed.table(LABELS).count() == committed.table(LABELS).read().num_rows == 20


@pytest.mark.parametrize("case", ["one in the middle", "the newest"])
def test_a_repair_leaves_the_checkpoint_that_covers_what_the_log_lost(committed: Store, case: str) -> None:
    LOST[case](committed)
    found = committed.verify(repair=True)
    assert not found.repaired
    assert [finding.kind for finding in found.findings] == ["log"]
    assert "the entry is gone" in found.findings[0].what
    assert committed.table(LABELS).read().num_rows == 20


def test_a_log_that_is_gone_but_for_its_checkpoint_is_named(committed: Store) -> None:
    LOST["all"](committed)
    assert [finding.where for finding in committed.verify().findings] == ["labels/_delta_log"]


def test_one_log_that_cannot_be_read_keeps_no_other_table_from_being_cleared(
    committed: Store, spec: TableSpec, features
) -> None:
    left = orphan(committed, spec, features)
    entry(committed, 5).write_text("{")
    looked = committed.maintain(retention_days=0.0, target_bytes=1, dry_run=True)
    done = committed.maintain(retention_days=0.0, target_bytes=1)
    for report in (looked, done):
        assert [file.path for file in report.removed] == [f"{spec.name}/left.parquet"]
        (problem,) = report.problems
        assert "nothing more was removed from labels: labels/_delta_log/" in problem
        assert f"{5:020}.json cannot be read" in problem
    assert not left.exists()


def test_damaged_descriptors_keep_no_table_from_being_cared_for(catalogued, spec, features, wanted, labels) -> None:
    store = catalogued({"a": "1"})
    table = store.table(spec)
    table.register([table.stage(features({"a": "1"}), run_id="r", name="a")], wanted=wanted({"a": "1"}))
    for name in "xyz":
        store.table(LABELS).merge(labels({("a", name): 1.0}))
    Path(store.table(FEATURE_SETS).file_uris()[0]).write_bytes(b"")
    report = store.maintain()
    assert {care.table: care.merged for care in report.tables} == {
        "clips": 0,
        "labels": 3,
        "feature_sets": 0,
        spec.name: 0,
    }
    (problem,) = report.problems
    assert "without their descriptors: the table feature_sets cannot be read" in problem
    assert problem.count("miar verify") == 1


@pytest.fixture(params=["local", "s3"])
def anywhere(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "local":
        return Store.create(tmp_path / "store")
    request.getfixturevalue("s3_environment")
    return Store.create(f"s3://bucket/{tmp_path.name}/store")


RUN = "refresh-20260101T120000-0a1b2c"


def laid_out_long_ago(store: Store, run: str) -> Path:
    folder = Path(store.staging(run))
    (folder / "shards").mkdir()
    (folder / "job.json").write_text("{}")
    make_old(folder.parent)
    return folder


def locks(store: Store) -> set[str]:
    return {name.rsplit(".", 1)[0] for name in store._files.entries("_locks")}


def test_what_a_living_run_staged_stays_however_old_it_is(anywhere: Store) -> None:
    folder = laid_out_long_ago(anywhere, RUN)
    with Store.open(anywhere.uri).lock(RUN, once=True):
        for dry_run in (True, False):
            assert anywhere.maintain(retention_days=0.0, dry_run=dry_run).removed == []
        assert (folder / "job.json").exists()
        with pytest.raises(StoreError, match="is running"):
            anywhere.lock(RUN).__enter__()
    looked = anywhere.maintain(retention_days=0.0, dry_run=True).removed
    assert {file.path for file in looked} == {f"_staging/{RUN}/job.json", f"_staging/{RUN}/shards"}
    assert folder.exists()
    assert not any(RUN in name for name in locks(anywhere)), "looking leaves nothing behind"
    assert anywhere.maintain(retention_days=0.0).removed == looked
    assert not folder.exists()
    assert not any(RUN in name for name in locks(anywhere))


def test_empty_folders_of_dead_runs_go(anywhere: Store) -> None:
    dead, deep, young = (Path(anywhere.staging(run)) for run in ("dead", "deep", "young"))
    (deep / "shards" / "more").mkdir(parents=True)
    make_old(dead.parent)
    os.utime(young)
    assert len(anywhere.maintain().removed) == 2
    assert sorted(path.name for path in dead.parent.iterdir()) == ["young"]


def test_locks_of_runs_that_ended_long_ago_go_and_no_other(anywhere: Store) -> None:
    living, young = "score-20260101T120000-ffffff", f"train-{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}-000000"
    others = (living, young, "refresh", "refresh of opensmile (0123) for corpus", "score-all", "20260101T120000-0a1b2c")
    for name in (RUN, *others):
        # As runs left them when every lock was kept.
        with anywhere.lock(name):
            pass
    kept = locks(anywhere)
    with anywhere.lock(living):
        for dry_run in (True, True, False):
            (file,) = anywhere.maintain(dry_run=dry_run).removed
            assert (file.why, RUN in file.path) == ("lock", True)
        assert {name for name in kept if RUN not in name} <= locks(anywhere)
    assert not any(RUN in name for name in locks(anywhere))
    with anywhere.lock(RUN, once=True):
        pass


@contextlib.contextmanager
def watched(store: Store, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Callable, list[tuple[str, str]]]]:
    """The store's guard, and what is asked of its files while somebody holds that: (method, name)."""
    asked: list[tuple[str, str]] = []
    held: list[bool] = []

    @contextlib.contextmanager
    def guard() -> Iterator[None]:
        with store._guard():
            held.append(True)
            yield
            held.pop()

    def noted(method: str) -> Callable:
        real = getattr(LocalFiles, method)

        def call(self: LocalFiles, name: str):
            if held:
                asked.append((method, name))
            return real(self, name)

        return call

    with monkeypatch.context() as patches:
        for method in ("read", "stat"):
            patches.setattr(LocalFiles, method, noted(method))
        yield guard, asked


def test_the_log_is_read_before_commits_have_to_wait(committed: Store, monkeypatch) -> None:
    stray = Path(committed.table(LABELS).path) / "stray.parquet"
    shutil.copy(committed.table(LABELS).file_uris()[0], stray)
    keys = LiveKeys(committed._files, LABELS)
    with watched(committed, monkeypatch) as (guard, asked):
        assert KeyedTable(committed._files, LABELS, guard, keys).orphans() == ["stray.parquet"]
        check = TableCheck(committed._files, LABELS, guard)
        check.run()
        check.check_orphans()
        assert check.findings == []
    assert [name for method, name in asked if method == "read" and name.endswith(".json")] == []


def test_files_are_looked_at_once_while_commits_wait(committed: Store, monkeypatch) -> None:
    table = committed.table(LABELS)
    replaced = {Path(uri).name for uri in table.file_uris()}
    committed.maintain()
    assert len(table.file_uris()) == 1
    monkeypatch.setattr(vacuum, "_AT_ONCE", 3)
    with watched(committed, monkeypatch) as (guard, asked):
        gone = vacuum.Vacuum(committed._files, guard, committed.snapshots, retention_s=0.0).remove()
    assert {Path(file.path).name for file in gone if file.why == "replaced"} == replaced
    looked_at = [Path(name).name for method, name in asked if method == "stat" and Path(name).name in replaced]
    assert sorted(looked_at) == sorted(replaced)
