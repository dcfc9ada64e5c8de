"""Refreshes at the same time, and refreshes that are killed: real processes on one store."""

import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from made_jobs import FEATURE_SETS, carry_out, plan

from miar.pipeline.refresh import lay_out, running_job, shard_names
from miar.pipeline.rows import feature_spec
from miar.pipeline.shards import Shard
from storage import CLIPS, RUNS, Store, StoreError

PROGRAM = Path(__file__).with_name("made_jobs.py")

Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start(store: Store, corpus: Path) -> Iterator[Start]:
    """``start("text,opensmile", 2)``: a process that refreshes these and waits after two shards."""
    started: list[subprocess.Popen[str]] = []

    def begin(names: str, shards: int = 0) -> subprocess.Popen[str]:
        command = [sys.executable, str(PROGRAM), store.uri, str(corpus), names, str(shards)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        started.append(subprocess.Popen(command, text=True, **pipes))
        return started[-1]

    yield begin
    for process in started:
        process.kill()
        process.wait()


def _says(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def _goes_on(process: subprocess.Popen[str]) -> None:
    _, errors = process.communicate("\n", timeout=120)
    assert process.returncode == 0, errors


def _states(store: Store) -> Counter[str]:
    return Counter(store.table(RUNS).read(["state"])["state"].to_pylist())


def _rows(store: Store, name: str) -> Counter[str]:
    return Counter(store.table(feature_spec(FEATURE_SETS[name])).read(["clip_id"])["clip_id"].to_pylist())


def _assert_each_clip_once(store: Store, *names: str) -> None:
    clips = dict.fromkeys(store.table(CLIPS).read(["clip_id"])["clip_id"].to_pylist(), 1)
    assert len(clips) == 8
    for name in names:
        assert _rows(store, name) == clips, name


def test_different_extractors_at_once_and_the_same_one_not(store: Store, start: Start):
    first = start("text", 1)
    assert [_says(first), _says(first)] == ["in", "waiting"]
    second, third = start("opensmile,mediapipe", 1), start("mediapipe,text")
    assert [_says(second), _says(second)] == ["in", "waiting"]
    _, errors = third.communicate(timeout=120)
    assert third.returncode == 1
    assert len(errors.splitlines()) == 1
    assert "another refresh of" in errors
    assert "wait until it has ended" in errors
    # Neither has closed the other's run as one that was interrupted.
    assert _states(store) == {"running": 2}
    _goes_on(second)
    _goes_on(first)
    assert _states(store) == {"completed": 2}
    _assert_each_clip_once(store, *FEATURE_SETS)
    assert not list((Path(store.uri) / "_staging").iterdir())


def test_all_locks_or_none(store: Store, corpus: Path, start: Start):
    first = start("text", 1)
    assert [_says(first), _says(first)] == ["in", "waiting"]
    with pytest.raises(StoreError, match="refresh of text"):
        carry_out(store, plan(store, corpus, ["mediapipe", "text"]))
    carry_out(store, plan(store, corpus, ["mediapipe"]))
    _assert_each_clip_once(store, "mediapipe")


def test_a_killed_refresh_goes_on_where_it_was(store: Store, corpus: Path, start: Start):
    first = start("text", 3)  # of four shards, a file each
    assert [_says(first), _says(first)] == ["in", "waiting"]
    first.kill()
    first.wait()
    assert sum(_rows(store, "text").values()) == 6
    assert _states(store) == {"running": 1}
    result = carry_out(store, plan(store, corpus, ["text"]))
    assert (result["up_to_date"], result["to_extract"], result["shards"]) == ({"text": 6}, {"text": 2}, 1)
    assert _states(store) == {"completed": 1, "failed": 1}
    _assert_each_clip_once(store, "text")


def test_what_was_made_since_the_plan_is_not_made_again(store: Store, corpus: Path):
    early = plan(store, corpus)
    folder = lay_out(store, early)
    carry_out(store, plan(store, corpus, ["text"]))
    with running_job(store, folder) as (job, result):
        assert result["clips_to_extract"] == 8
        names = shard_names(folder)
        shards = [Shard.load(folder / "shards" / f"{name}.json") for name in names]
        text = FEATURE_SETS["text"].table
        assert sum(len(shard.clips) for shard in shards) == 8
        assert not any(text in clip.wants for shard in shards for clip in shard.clips)
        assert {shard.name for shard in shards} == set(names)
        assert job.versions[text] is None
    late = plan(store, corpus)
    folder = lay_out(store, late)
    carry_out(store, plan(store, corpus))
    with running_job(store, folder) as (_, result):
        assert shard_names(folder) == []
        assert result["clips_to_extract"] == 0
    _assert_each_clip_once(store, *FEATURE_SETS)
