"""Every kind of damage is found and named; what is safe is mended, and what is not is left and said."""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from storage import CLIPS, FEATURE_SETS, LABELS, RUNS, Store, TableSpec, key_checks, log
from storage.shards import write_shard

HASHES = {f"clip-{i:02}": "1" for i in range(30)}


@dataclass
class Filled:
    """A store with two shards of features, and what stands in it."""

    store: Store
    spec: TableSpec
    features: Callable[..., pa.Table]
    wanted: Callable[[dict[str, str]], pa.Table]

    def __post_init__(self) -> None:
        self.table = self.store.table(self.spec)
        self.log = Path(self.table.path) / "_delta_log"

    def live(self, name: str = "") -> Path:
        """The live file of a table whose name sorts first."""
        return Path(self.store.table(LABELS if name == "labels" else self.spec).file_uris()[0])

    def extract(self, hashes: dict[str, str], name: str) -> None:
        """As a refresh does it: shards are staged and registered."""
        shard = self.table.stage(self.features(hashes), run_id="r", name=name)
        self.table.register([shard], wanted=self.wanted(hashes))

    def refresh(self) -> None:
        """Extract what the table lacks."""
        there = self.table.read(["clip_id"])["clip_id"].to_pylist()
        if lacking := {clip: h for clip, h in HASHES.items() if clip not in there}:
            self.extract(lacking, "again")

    def put(self, rows: pa.Table, name: str, spec: TableSpec | None = None) -> None:
        """Into the log without any check, as a broken writer would."""
        spec = spec or self.spec
        write_shard(f"{self.store.uri}/{spec.name}/{name}", rows, spec)
        files = self.store._files
        log.commit(files, spec, log.load(files, spec), removed=[], added=[name])


@pytest.fixture
def filled(catalogued, spec: TableSpec, features, wanted, labels) -> Filled:
    store = catalogued(HASHES)
    store.table(LABELS).merge(labels({("clip-00", "x"): 1.0, ("clip-01", "x"): 2.0}))
    made = Filled(store, spec, features, wanted)
    halves = list(HASHES.items())
    made.extract(dict(halves[:15]), "first")
    made.extract(dict(halves[15:]), "second")
    return made


def delete(path: Path) -> None:
    path.unlink()


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def flip_a_data_byte(path: Path) -> None:
    """In the middle of a page, with size and time as they were: only the page's checksum knows."""
    before, content = path.stat(), bytearray(path.read_bytes())
    column = next(i for i in range(99) if pq.read_metadata(path).schema.column(i).path.startswith("values"))
    chunk = pq.read_metadata(path).row_group(0).column(column)
    content[chunk.data_page_offset + chunk.total_compressed_size - 3] ^= 0xFF
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def other_columns(path: Path) -> None:
    pq.write_table(pq.read_table(path).drop_columns(["input_hash"]), path)


def wrong_widths(filled: Filled) -> None:
    rows = filled.features({"clip-00": "9", "clip-01": "9"})
    index = rows.schema.get_field_index("n_frames")
    broken = rows.set_column(index, "n_frames", pa.array([77, 78], pa.int32()))
    filled.table.merge(rows.slice(0, 0), delete_keys=pa.table({"clip_id": ["clip-00", "clip-01"]}))
    filled.put(broken, "broken.parquet")


def no_key(filled: Filled) -> None:
    rows = filled.features({"clip-00": "1"})
    filled.put(rows.set_column(0, "clip_id", pa.nulls(1, pa.string())), "broken.parquet")


def doubled(filled: Filled) -> None:
    filled.put(filled.features({"clip-03": "old", "clip-20": "old", "clip-21": "1"}), "doubled.parquet")


def edit_last_entry(filled: Filled, change: Callable[[dict], None]) -> None:
    """Change the newest entry of the log, which no checkpoint covers yet."""
    path = sorted(filled.log.glob("*.json"))[-1]
    actions = [json.loads(line) for line in path.read_text().splitlines()]
    for action in actions:
        if "add" in action:
            change(action["add"])
    path.write_text("\n".join(map(json.dumps, actions)))


def wrong_size(filled: Filled) -> None:
    edit_last_entry(filled, lambda add: add.update(size=add["size"] + 1))


def wrong_statistics(filled: Filled) -> None:
    edit_last_entry(filled, lambda add: add.update(stats=add["stats"].replace("clip-15", "clip-25")))


def wrong_count(filled: Filled) -> None:
    edit_last_entry(filled, lambda add: add.update(stats=add["stats"].replace('"numRecords": 15', '"numRecords": 16')))


def wrong_checkpoint(filled: Filled) -> None:
    """A checkpoint from before the last commit, given the last commit's number."""
    from deltalake import DeltaTable

    DeltaTable(filled.table.path).create_checkpoint()
    filled.extract({"clip-00": "0"}, "later")
    filled.extract({"clip-00": "1"}, "sooner")
    at = [filled.log / f"{version:020}.checkpoint.parquet" for version in (1, 3)]
    at[0].rename(at[1])
    text = (filled.log / "_last_checkpoint").read_text()
    (filled.log / "_last_checkpoint").write_text(text.replace('"version":1', '"version":3'))


def unreadable_checkpoint(filled: Filled) -> None:
    from deltalake import DeltaTable

    DeltaTable(filled.table.path).create_checkpoint()
    truncate(filled.log / f"{1:020}.checkpoint.parquet")


def no_checkpoint(filled: Filled) -> None:
    for round_ in range(42):
        filled.extract({"clip-00": str(round_ % 2)}, f"round-{round_ % 2}")
    for path in filled.log.glob("*checkpoint*"):
        path.unlink()


def foreign_orphan(filled: Filled) -> None:
    pq.write_table(pa.table({"x": [1]}), filled.log.parent / "stray.parquet")


MENDED: dict[str, tuple[Callable[[Filled], object], str, str]] = {
    "deleted": (lambda f: delete(f.live()), "file missing", "the log names it, and it is not there"),
    "truncated": (lambda f: truncate(f.live()), "file unreadable", "cannot be read"),
    "empty": (lambda f: f.live().write_bytes(b""), "file unreadable", "the file of 0 bytes, not"),
    "flipped": (lambda f: flip_a_data_byte(f.live()), "file unreadable", "cannot be read"),
    "columns": (lambda f: other_columns(f.live()), "columns", "it has no input_hash"),
    "widths": (wrong_widths, "rows", "len(values) is not n_frames * 3 in 2 rows, first clip-00"),
    "no key": (no_key, "rows", "no clip_id in 1 rows"),
    "doubled": (doubled, "keys doubled", "3 keys stand more than once"),
    "size": (wrong_size, "statistics", "bytes, not"),
    "statistics": (wrong_statistics, "statistics", "clip_id from clip-15 to clip-29 with 0 nulls"),
    "count": (wrong_count, "statistics", "15 rows, not 16"),
    "wrong checkpoint": (wrong_checkpoint, "checkpoint", "the checkpoint says other than the log"),
    "unreadable checkpoint": (unreadable_checkpoint, "checkpoint", "the table cannot be opened"),
    "no checkpoint": (no_checkpoint, "checkpoint", "no checkpoint that can be read"),
    "orphan": (foreign_orphan, "orphan", "a shard that was never registered, and cannot be"),
}


def test_a_sound_store_is_clean(filled: Filled) -> None:
    filled.store.snapshots.take("paper")
    filled.store.maintain()
    found = filled.store.verify()
    assert found.clean, [finding.line() for finding in found.findings]
    assert (found.tables, found.rows, found.snapshots) == (4, 63, 1)
    assert Store.create(Path(filled.store.uri).parent / "empty").verify().clean


@pytest.mark.parametrize("case", MENDED, ids=str)
def test_damage_is_named_and_mended(filled: Filled, case: str) -> None:
    damage, kind, what = MENDED[case]
    damage(filled)
    found = filled.store.verify()
    named = [finding for finding in found.findings if finding.kind == kind]
    assert named, [finding.line() for finding in found.findings]
    assert any(what in finding.what for finding in named), [finding.line() for finding in named]
    assert all("\n" not in finding.line() for finding in found.findings)
    assert all(finding.where.startswith(filled.spec.name) for finding in found.findings)
    assert filled.store.verify().findings == found.findings, "looking changes nothing"
    mended = filled.store.verify(repair=True)
    assert mended.clean, [finding.line() for finding in mended.findings]
    assert {finding.where for finding in named} <= {finding.where for finding in mended.repaired}
    assert filled.store.verify().clean
    filled.refresh()
    rows = filled.table.read(["clip_id", "input_hash"])
    assert dict(zip(*rows.to_pydict().values(), strict=True)) == HASHES
    assert rows.num_rows == len(HASHES)
    assert filled.store.verify().clean


def test_files_left_in_tables_without_input_hashes_are_no_error(filled: Filled) -> None:
    """As a merge leaves them that was killed before its commit."""
    for spec in (LABELS, CLIPS):
        live = Path(filled.store.table(spec).file_uris()[0])
        shutil.copy(live, live.with_name("left.parquet"))
    assert filled.store.verify().clean
    truncate(Path(filled.store.table(LABELS).path) / "left.parquet")
    (finding,) = filled.store.verify().findings
    assert (finding.kind, finding.where) == ("orphan", "labels/left.parquet")
    assert "`--repair` deletes it; the table never had its rows" in finding.todo
    assert filled.store.verify(repair=True).clean


def test_of_rows_that_share_a_key_the_current_one_is_kept(filled: Filled) -> None:
    before = filled.table.read().sort_by("clip_id")
    doubled(filled)
    filled.store.verify(repair=True)
    after = filled.table.read().sort_by("clip_id")
    assert after.equals(before)


def test_what_cannot_be_made_anew_is_left_and_said(filled: Filled, labels) -> None:
    truncate(filled.live("labels"))
    filled.put(labels({("clip-05", "x"): 1.0}), "one.parquet", LABELS)
    filled.put(labels({("clip-05", "x"): 2.0}), "two.parquet", LABELS)
    found = filled.store.verify(repair=True)
    assert sorted(finding.kind for finding in found.findings) == ["file unreadable", "keys doubled"]
    assert all(finding.where.startswith("labels") for finding in found.findings)
    assert any("restore it from a backup, or delete it" in finding.todo for finding in found.findings)
    assert not found.repaired
    (broken,) = (path for path in filled.live("labels").parent.glob("*.parquet") if len(path.name) > 20)
    delete(broken)
    again = filled.store.verify(repair=True)
    assert [finding.kind for finding in again.findings] == ["keys doubled"]
    assert [finding.kind for finding in again.repaired] == ["file missing"]


def test_equal_labels_that_stand_twice_become_one(filled: Filled, labels) -> None:
    filled.put(labels({("clip-00", "x"): 1.0}), "again.parquet", LABELS)
    assert [finding.kind for finding in filled.store.verify().findings] == ["keys doubled"]
    assert filled.store.verify(repair=True).clean
    assert sorted(filled.store.table(LABELS).read()["value"].to_pylist()) == [1.0, 2.0]


def test_snapshots_that_lost_something_are_named(filled: Filled) -> None:
    snapshot = filled.store.snapshots.take("paper")
    flip_a_data_byte(filled.live())
    kinds = {finding.kind: finding for finding in filled.store.verify(repair=True).findings}
    assert set(kinds) == {"snapshot file"}
    assert kinds["snapshot file"].where == f"{filled.spec.name}/first.parquet"
    assert "snapshot paper needs it, and its checksum is another" in kinds["snapshot file"].what
    assert f"--remove {snapshot.id}" in kinds["snapshot file"].todo
    filled.store.snapshots.remove("paper")
    assert filled.store.verify().clean
    (Path(filled.store.uri) / "_snapshots" / "0123456789abcdef.json").write_text("{")
    assert [finding.kind for finding in filled.store.verify().findings] == ["snapshot record"]


def test_a_log_that_lost_an_entry_is_not_mended(filled: Filled) -> None:
    filled.extract({"clip-00": "0"}, "later")
    entries = [filled.log / f"{version:020}.json" for version in (1, 0)]
    for entry, problem in zip(entries, ("the entry is gone", "the first entry of the log is gone"), strict=True):
        entry.unlink()
        found = filled.store.verify(repair=True)
        assert not found.clean
        assert {finding.kind for finding in found.findings} == {"log"}
        assert any(problem in finding.what for finding in found.findings)
        assert not found.repaired


def test_rows_of_unknown_clips_and_undescribed_tables_are_named(filled: Filled, features, wanted) -> None:
    filled.extract({"stranger": "1"}, "strange")
    (finding,) = filled.store.verify(repair=True).findings
    assert (finding.kind, finding.where) == ("clip unknown", filled.spec.name)
    assert "the first is stranger" in finding.what
    key = pa.table({"extractor": ["opensmile"], "config_hash": ["0123456789abcdef"]})
    filled.store.table(FEATURE_SETS).merge(FEATURE_SETS.schema.empty_table(), delete_keys=key)
    kinds = {finding.kind for finding in filled.store.verify().findings}
    assert kinds == {"clip unknown", "descriptor"}


def test_keys_are_checked_a_share_at_a_time(filled: Filled, monkeypatch) -> None:
    doubled(filled)
    filled.extract({"stranger": "1"}, "strange")
    whole = [(finding.kind, finding.where) for finding in filled.store.verify().findings]
    held: list[int] = []
    keys = key_checks._keys

    def counting(*args) -> pa.Table:
        held.append((found := keys(*args)).num_rows)
        return found

    monkeypatch.setattr(key_checks, "SHARE_ROWS", 7)
    monkeypatch.setattr(key_checks, "_keys", counting)
    shared = [(finding.kind, finding.where) for finding in filled.store.verify().findings]
    assert set(shared) == set(whole)
    assert max(held) < 25
    assert filled.store.verify(repair=True).findings
    assert filled.table.count() == len(HASHES) + 1


def test_json_says_all(filled: Filled) -> None:
    delete(filled.live())
    tree = json.loads(json.dumps(filled.store.verify().to_json()))
    assert tree["clean"] is False
    assert tree["checked"] == {"tables": 4, "files": 4, "rows": 48, "snapshots": 0}
    assert tree["findings"][0]["repairable"] is True
    assert tree["repaired"] == []


def test_runs_are_checked_like_any_table(filled: Filled) -> None:
    run = dict.fromkeys(RUNS.schema.names) | {"run_id": "r1"}
    filled.store.table(RUNS).merge(pa.Table.from_pylist([run], schema=RUNS.schema))
    Path(filled.store.table(RUNS).file_uris()[0]).unlink()
    (finding,) = filled.store.verify().findings
    assert finding.where.startswith("runs/")
    assert "lost unless it is restored" in finding.todo


def test_a_table_whose_only_log_entry_is_gone_is_named(store: Store, labels) -> None:
    store.table(LABELS).merge(labels({("a", "x"): 1.0}))
    taken = store.snapshots.take()
    for entry in (Path(store.uri) / "labels" / "_delta_log").glob("*.json"):
        entry.unlink()
    (finding,) = [one for one in Store.open(store.uri).verify().findings if one.kind == "log"]
    assert (finding.where, finding.what) == (
        "labels/_delta_log",
        "the first entry of the log is gone, and with it the table",
    )
    store.snapshots.remove(taken.id)
    (finding,) = [one for one in Store.open(store.uri).verify().findings if one.kind == "log"]
    assert "there are files and no log" in finding.what
