"""Making, opening and locking a store."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from storage import LABELS, Store, StoreError


def one_line(error: pytest.ExceptionInfo[StoreError]) -> str:
    text = str(error.value)
    assert "\n" not in text
    return text


def test_create_can_be_repeated_and_opened(tmp_path: Path) -> None:
    first = Store.create(tmp_path / "a" / "store")
    assert json.loads((tmp_path / "a" / "store" / "miar-store.json").read_text())["version"] == 2
    assert Store.create(tmp_path / "a" / "store").uri == first.uri
    assert Store.open(tmp_path / "a" / "store").uri == first.uri
    assert Store.create(f"file://{tmp_path}/a/store").uri == first.uri


def test_open_refuses_what_is_no_store(tmp_path: Path) -> None:
    with pytest.raises(StoreError) as error:
        Store.open(tmp_path / "nothing")
    assert "is not a store" in one_line(error)
    assert not (tmp_path / "nothing").exists()


def test_create_refuses_a_folder_with_other_things_and_a_file(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(StoreError) as error:
        Store.create(tmp_path)
    assert "holds other things" in one_line(error)
    with pytest.raises(StoreError) as error:
        Store.create(tmp_path / "thesis.tex")
    assert "is a file" in one_line(error)


def test_open_refuses_a_newer_format(store: Store) -> None:
    (Path(store.uri) / "miar-store.json").write_text('{"format": "miar-store", "version": 3}')
    for way in (Store.open, Store.create):
        with pytest.raises(StoreError) as error:
            way(store.uri)
        assert "newer version (format 3, this one reads 2)" in one_line(error)


def test_open_refuses_a_broken_format_file(store: Store) -> None:
    (Path(store.uri) / "miar-store.json").write_text("{")
    with pytest.raises(StoreError) as error:
        Store.open(store.uri)
    assert "cannot be read" in one_line(error)


def test_a_url_that_nothing_reads_is_refused_in_one_line() -> None:
    with pytest.raises(StoreError) as error:
        Store.create("memory://store")
    assert "cannot be opened as an object store" in one_line(error)


def test_a_path_with_a_percent_sign_is_refused_and_one_with_spaces_works(tmp_path: Path, labels) -> None:
    with pytest.raises(StoreError, match="'%'"):
        Store.create(tmp_path / "a%20b")
    table = Store.create(tmp_path / "Ünder the (sea) #1").table(LABELS)
    table.merge(labels({("clip", "sentiment"): 1.0}))
    assert table.read(["value"])["value"].to_pylist() == [1.0]
    assert all(Path(uri).is_file() for uri in table.file_uris())


def test_lock_keeps_a_second_process_out_and_dies_with_its_holder(store: Store) -> None:
    with store.lock("refresh of demo/a b"):
        with pytest.raises(StoreError) as error, store.lock("refresh of demo/a b"):
            pass
        assert "another refresh of demo/a b is running" in one_line(error)
        with store.lock("training"):
            pass
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            f"import time; from storage import Store\nwith Store.open({store.uri!r}).lock('refresh'):\n"
            "    print('held', flush=True); time.sleep(60)",
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(StoreError), store.lock("refresh"):
        pass
    holder.kill()
    holder.wait()
    with store.lock("refresh", timeout_s=5, once=True):
        pass
    assert not list(Path(store.uri).glob("_locks/run%20refresh.lock")), "it was to be used once"


def test_importing_storage_loads_nothing_heavy() -> None:
    code = "import sys, storage; print(sorted({'pyarrow', 'deltalake', 'pandas', 'filelock'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"
    with pytest.raises(ImportError):
        from storage import nothing_of_this_name  # type: ignore[attr-defined] # noqa: F401
