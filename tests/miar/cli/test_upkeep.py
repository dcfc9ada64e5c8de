"""The commands that look after a store, as a person types them."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from storage import CLIPS, LABELS, SCORES, Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Two clips with a label each, written one by one."""
    made = Store.create(tmp_path / "store")
    for clip in "ab":
        _merge(made, CLIPS, clip_id=clip, corpus_id="corpus", state="live")
        _merge(made, LABELS, clip_id=clip, name="mood", value=1.0)
    return made


def _merge(store: Store, spec, **row: object) -> None:
    store.table(spec).merge(pa.Table.from_pylist([dict.fromkeys(spec.schema.names) | row], schema=spec.schema))


@pytest.fixture
def miar(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run the command line here; returns exit code, stdout and stderr."""
    from miar.cli import main

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["miar", *map(str, arguments)])
        with pytest.raises(SystemExit) as leave:
            main()
        found = capsys.readouterr()
        return int(leave.value.code or 0), found.out, found.err

    return run


def test_snapshots_are_listed_and_removed(miar, store: Store) -> None:
    assert "no snapshot yet" in miar("snapshots", store.uri)[1]
    taken = store.snapshots.take("paper")
    store.snapshots.take("thesis")
    _, listed, _ = miar("snapshots", store.uri)
    assert taken.id in listed
    assert "paper, thesis" in listed
    ((one,), _) = (json.loads(miar("snapshots", store.uri, "--json")[1]), None)
    assert one["names"] == ["paper", "thesis"]
    assert "kept under the name thesis" in miar("snapshots", store.uri, "--remove", "paper")[1]
    _merge(store, SCORES, clip_id="a", model_id="m", snapshot_id=taken.id)
    code, said, warned = miar("snapshots", store.uri, "--remove", "thesis")
    assert code == 0
    assert f"snapshot {taken.id} is removed" in said
    assert "1 score came from it" in warned
    assert miar("snapshots", store.uri, "--remove", "thesis")[0] == 2


def test_diff(miar, store: Store) -> None:
    store.snapshots.take("before")
    _merge(store, LABELS, clip_id="a", name="mood", value=2.0)
    _merge(store, CLIPS, clip_id="b", corpus_id="corpus", state="gone")
    code, said, _ = miar("diff", store.uri, "before")
    assert code == 0
    assert "labels changed: a mood" in said
    assert "clips removed: b" in said
    tree = json.loads(miar("diff", store.uri, "before", "now", "--json")[1])
    assert tree["tables"]["clips"]["counts"] == {"added": 0, "changed": 0, "removed": 1}
    assert tree["tables"]["labels"]["changed"] == ["a mood"]
    code, _, problem = miar("diff", store.uri, "before", "later")
    assert code == 2
    assert "no snapshot is called later; there are: before" in problem


def test_maintain(miar, store: Store) -> None:
    code, said, _ = miar("maintain", store.uri, "--dry-run")
    assert code == 0
    assert "nothing would be removed" in said
    assert store.table(LABELS).version() == 1
    tree = json.loads(miar("maintain", store.uri, "--retention-days", "0", "--json")[1])
    assert {one["table"]: one["merged"] for one in tree["tables"]} == {"clips": 2, "labels": 2}
    assert tree["removed"] == {"replaced": 4}
    assert tree["removed_bytes"] > 0
    assert store.table(LABELS).count() == 2
    _merge(store, CLIPS, clip_id="c", corpus_id="corpus", state="live")
    Path(store.table(CLIPS).file_uris()[0]).write_bytes(b"")
    code, _, warned = miar("maintain", store.uri)
    assert code == 1
    assert "clips was left as it is" in warned


def test_verify_leaves_with_0_or_1(miar, store: Store) -> None:
    code, said, _ = miar("verify", store.uri)
    assert code == 0
    assert said == "2 tables, 4 files, 4 rows, 0 snapshots: nothing wrong\n"
    Path(store.table(LABELS).file_uris()[0]).unlink()
    code, said, problems = miar("verify", store.uri)
    assert code == 1
    assert said.endswith("1 problem\n")
    (line,) = problems.splitlines()
    assert line.startswith("file missing: labels/")
    assert "`--repair` takes it out of the table" in line
    tree = json.loads(miar("verify", store.uri, "--json")[1])
    assert (tree["clean"], tree["findings"][0]["kind"]) == (False, "file missing")
    code, said, problems = miar("verify", store.uri, "--repair")
    assert (code, problems) == (0, "")
    assert said.startswith("mended: labels/")
    assert miar("verify", store.uri)[0] == 0


def test_mistakes_are_one_line(miar, tmp_path: Path) -> None:
    for command in (["snapshots"], ["maintain"], ["verify"], ["diff", "a"]):
        code, _, problem = miar(command[0], tmp_path / "nowhere", *command[1:])
        assert code == 2
        (line,) = problem.splitlines()
        assert "is not a store" in line
