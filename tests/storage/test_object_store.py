"""The same store on a real S3 API, which runs on this machine."""

import json
import os
import time
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import DeltaTable

from storage import LABELS, Store, StoreError, leases, object_files
from storage.files import open_files
from storage.object_files import ObjectFiles


@pytest.fixture
def remote(s3_environment: dict[str, str], tmp_path: Path) -> Store:
    return Store.create(f"s3://bucket/{tmp_path.name}/store")


def _values(table) -> dict[tuple[str, str], float]:
    rows = table.read(["clip_id", "name", "value"]).to_pylist()
    return {(row["clip_id"], row["name"]): row["value"] for row in rows}


def test_rows_are_merged_replaced_and_deleted(remote: Store, labels) -> None:
    table = Store.open(remote.uri).table(LABELS)
    table.merge(labels({("a", "x"): 0.0, ("b", "x"): 1.0}))
    table.merge(labels({("a", "x"): 2.0}), delete_keys=pa.table({"clip_id": ["b"], "name": ["x"]}))
    assert _values(table) == {("a", "x"): 2.0}
    assert table.version() == 1
    assert DeltaTable(table.path).to_pyarrow_table().num_rows == 1


def test_shards_are_registered_once_and_orphans_are_adopted(remote: Store, spec, features, wanted) -> None:
    table = remote.table(spec)
    hashes = {"a": "1", "b": "1", "c": "1"}
    rows = features(hashes, missing=["b"])
    shard = table.stage(rows, run_id="run-1", name="shard")
    assert table.stage(rows, run_id="run-2", name="shard") == shard
    assert table.orphans() == [shard]
    assert table.register([shard], wanted=wanted(hashes)).rows_added == 3
    assert table.register([shard], wanted=wanted(hashes)).rows_added == 0
    assert table.orphans() == []
    again = table.stage(features({"a": "2"}), run_id="run-3", name="other")
    assert table.register([again], wanted=wanted({"a": "2"})).rows_replaced == 1
    found = {row["clip_id"]: row for row in table.read().to_pylist()}
    assert {clip: row["input_hash"] for clip, row in found.items()} == {"a": "2", "b": "1", "c": "1"}
    expected = {row["clip_id"]: row["values"] for row in rows.to_pylist()}
    assert found["b"]["values"] is None
    assert found["c"]["values"] == expected["c"]


def test_a_snapshot_stays_as_it_was(remote: Store, spec, features, wanted) -> None:
    table = remote.table(spec)
    table.register([table.stage(features({"a": "1"}), run_id="r", name="one")], wanted=wanted({"a": "1"}))
    taken = remote.snapshots.take("before")
    before = taken.read(spec.name).to_pylist()
    table.register([table.stage(features({"a": "2"}), run_id="r", name="two")], wanted=wanted({"a": "2"}))
    opened = Store.open(remote.uri).snapshots.open("before")
    opened.verify()
    assert opened.read(spec.name).to_pylist() == before
    assert opened.id == taken.id


def test_one_request_tells_size_and_time_of_a_pinned_file(remote: Store, labels, monkeypatch) -> None:
    import obstore

    remote.table(LABELS).merge(labels({("a", "x"): 0.0}))
    pinned = {f"labels/{name}" for name in remote.snapshots.take("before").files(LABELS.name)}
    asked: list[str] = []
    head = obstore.head
    monkeypatch.setattr(obstore, "head", lambda store, name: asked.append(name) or head(store, name))
    remote.snapshots.open("before")
    assert [name for name in asked if name in pinned] == sorted(pinned)


def test_maintenance_verification_and_diff(remote: Store, spec, features, wanted) -> None:
    table = remote.table(spec)
    hashes = {"a": "1", "b": "1", "c": "1"}
    for clip in hashes:
        table.register([table.stage(features({clip: "1"}), run_id="r", name=clip)], wanted=wanted({clip: "1"}))
    remote.snapshots.take("before")
    again = table.stage(features({"a": "2"}), run_id="r", name="again")
    table.register([again], wanted=wanted({"a": "2"}))
    assert remote.maintain(retention_days=0.0).tables[0].merged == 3
    assert len(table.file_uris()) == 1
    remote.snapshots.open("before").verify()
    assert remote.diff("before").tables[spec.name].counts == {"added": 0, "changed": 1, "removed": 0}
    remote.snapshots.remove("before")
    assert remote.maintain(retention_days=0.0).summary()["removed"]["replaced"] == 3
    left = {finding.kind for finding in remote.verify().findings}
    assert left == {"clip unknown", "descriptor"}, "there are features alone, and nothing else is wrong"
    open_files(remote.uri).remove(f"{spec.name}/{table.file_uris()[0].rsplit('/', 1)[-1]}")
    assert "file missing" in {finding.kind for finding in remote.verify().findings}
    assert not {finding.kind for finding in remote.verify(repair=True).findings} - {"descriptor"}
    assert table.count() == 0


def test_four_writers_lose_and_double_nothing(remote: Store, s3_environment, processes, tmp_path: Path) -> None:
    stop, seen = tmp_path / "stop", processes.queue()

    def start(function, *args):
        return processes.start(processes.with_environment, s3_environment, function, *args)

    reader = start(processes.read_until, remote.uri, str(stop), seen)
    writers = [start(processes.write_shared, remote.uri, worker, 2, 12) for worker in range(4)]
    for writer in writers:
        writer.join(240)
        assert writer.exitcode == 0
    stop.touch()
    reader.join(60)
    assert isinstance(seen.get(timeout=10), int)
    clips = remote.table(processes.SPEC).read(["clip_id"])["clip_id"].to_pylist()
    assert sorted(clips) == sorted(f"c{i}" for i in range(12))


def test_a_name_is_never_taken_over(s3_environment, tmp_path: Path) -> None:
    files = ObjectFiles(f"s3://bucket/{tmp_path.name}")
    for text in ("first", "second"):
        Path(files.scratch(f"_staging/{text}")).write_text(text)
    assert files.publish("_staging/first", "a/file")
    assert not files.publish("_staging/second", "a/file")
    assert files.read("a/file") == "first"
    assert files.entries("a") == ["file"]
    files.discard("_staging/second")
    assert not Path(files.scratch("_staging/second")).exists()


def test_a_lock_excludes_others_until_it_is_released(remote: Store) -> None:
    with remote.lock("refresh-corpus"), pytest.raises(StoreError, match="another refresh-corpus is running"):
        Store.open(remote.uri).lock("refresh-corpus").__enter__()
    with Store.open(remote.uri).lock("refresh-corpus", once=True):
        pass
    assert open_files(remote.uri).entries("_locks") == []


def test_the_lock_of_a_dead_process_runs_out(remote: Store, s3_environment, processes, monkeypatch) -> None:
    monkeypatch.setattr(leases, "LEASE_S", 2.0)
    holder = leases.Lease(open_files(remote.uri)._store, "_locks/run%20x.json")  # type: ignore[attr-defined]
    assert holder._try()  # Taken and never renewed, as by a process that was killed.
    with pytest.raises(StoreError, match="another x is running"):
        remote.lock("x").__enter__()
    with remote.lock("x", timeout_s=30):
        assert not holder._put(holder._version, 2.0), "the dead one has lost it"


def test_a_lock_is_renewed_while_it_is_held(remote: Store, monkeypatch) -> None:
    monkeypatch.setattr(leases, "LEASE_S", 1.5)
    with remote.lock("x"):
        time.sleep(4)
        with pytest.raises(StoreError, match="another x is running"):
            remote.lock("x").__enter__()


def test_credentials_are_nowhere_in_the_store(remote: Store, s3_environment, labels) -> None:
    import obstore

    secret = s3_environment["AWS_SECRET_ACCESS_KEY"]
    remote.table(LABELS).merge(labels({("a", "x"): 0.0}))
    remote.snapshots.take()
    store = open_files(remote.uri)._store  # type: ignore[attr-defined]
    names = [one["path"] for batch in obstore.list(store) for one in batch]
    assert any("_delta_log" in name for name in names)
    for name in names:
        assert secret.encode() not in bytes(obstore.get(store, name).bytes()), name
    kept = [path for path in Path(os.environ["MIAR_SCRATCH"]).rglob("*") if path.is_file()]
    assert not any(secret in path.read_text(errors="replace") for path in kept)


def test_mistakes_are_one_line(s3_environment, tmp_path: Path, monkeypatch) -> None:
    with pytest.raises(StoreError, match="is not a store"):
        Store.open(f"s3://bucket/{tmp_path.name}/nothing")
    with pytest.raises(StoreError, match="cannot be opened as an object store"):
        Store.open("ftp://host/folder")
    files = open_files(f"s3://bucket/{tmp_path.name}/other")
    files.write("notes.txt", "mine")
    with pytest.raises(StoreError, match="holds other things"):
        Store.create(files.root)
    files.write("miar-store.json", json.dumps({"version": 999}))
    with pytest.raises(StoreError, match="newer version"):
        Store.open(files.root)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setitem(object_files.RETRIES, "max_retries", 1)
    with pytest.raises(StoreError, match="cannot reach s3://bucket/") as caught:
        Store.open(f"s3://bucket/{tmp_path.name}/unreachable")
    assert s3_environment["AWS_SECRET_ACCESS_KEY"] not in str(caught.value)
    assert "\n" not in str(caught.value)
