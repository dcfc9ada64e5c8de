"""Kill things in the middle of a refresh: nothing is lost, nothing doubled, finished shards are not done again."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from flow_helpers import assert_each_clip_once, feature_tables, live_clips, live_rows

pytestmark = [pytest.mark.xdist_group("faults"), pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from miar.synth import make_corpus

    root = tmp_path_factory.mktemp("kill") / "corpus"
    make_corpus(root, clips=24, seed=3)
    return root


def _start(corpus: Path, store: Path) -> subprocess.Popen:
    config = store.parent / "config.yaml"
    config.write_text(
        "execution: {workers: 2, shard_seconds: 1}\nextractors: [{extractor: opensmile}, {extractor: mediapipe}]\n"
    )
    command = [sys.executable, "-m", "miar.cli", "refresh", str(corpus), "--store", str(store), "--config", str(config)]
    return subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def _wait_for(condition, process: subprocess.Popen, seconds: float = 300) -> bool:
    """Until the condition holds; False where the process ended first."""
    for _ in range(int(seconds / 0.02)):
        if condition():
            return True
        if process.poll() is not None:
            return False
        time.sleep(0.02)
    raise TimeoutError("the refresh neither got there nor ended")


def _shards(store: Path) -> set[str]:
    return {path.stem for path in store.glob("features/*/*/*.parquet")}


@pytest.mark.slow
def test_killed_between_shards_and_started_again(corpus: Path, tmp_path: Path):
    store = tmp_path / "store"
    process = _start(corpus, store)
    assert _wait_for(lambda: len(_shards(store)) >= 1, process), process.stderr.read()
    _kill_tree(process)
    finished = {path: path.stat().st_mtime_ns for path in store.glob("features/*/*/*.parquet")}
    assert finished
    again = _start(corpus, store)
    _, errors = again.communicate(timeout=600)
    assert again.returncode == 0, errors
    assert_each_clip_once(store, ("opensmile", "mediapipe"))
    # A shard that was finished before the kill was adopted, not written again.
    assert all(path.exists() and path.stat().st_mtime_ns == when for path, when in finished.items())
    states = [row["state"] for row in live_rows(store, "runs")]
    assert sorted(states) == ["completed", "failed"]


def test_a_worker_process_that_dies_costs_nothing(corpus: Path, tmp_path: Path):
    store = tmp_path / "store"
    process = _start(corpus, store)
    workers: list[psutil.Process] = []

    def a_worker_has_models() -> bool:
        workers[:] = [child for child in psutil.Process(process.pid).children(recursive=True) if _is_extracting(child)]
        return bool(workers)

    assert _wait_for(a_worker_has_models, process), process.stderr.read()
    os.kill(workers[0].pid, signal.SIGKILL)
    _, errors = process.communicate(timeout=600)
    assert process.returncode == 0, errors
    assert len(live_clips(store)) == 24
    assert_each_clip_once(store, ("opensmile", "mediapipe"))
    for table in feature_tables(store).values():
        assert len(live_rows(store, table)) == 24


def test_asked_to_stop_it_finishes_the_shards_in_hand(corpus: Path, tmp_path: Path):
    store = tmp_path / "store"
    process = _start(corpus, store)
    assert _wait_for(lambda: len(_shards(store)) >= 1, process), process.stderr.read()
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=600)
    after_sigterm = _committed(store)
    assert after_sigterm
    # A terminal sends Ctrl-C to every process of the command, Prefect's server and the workers among them.
    process = _start(corpus, store)
    begun = len(_shards(store))
    assert _wait_for(lambda: len(_shards(store)) > begun, process), process.stderr.read()
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=600)
    assert process.returncode == 130
    assert "Traceback" not in errors
    assert errors.splitlines()[-1].endswith("the same command goes on from there")
    assert after_sigterm < _committed(store)
    again = _start(corpus, store)
    _, errors = again.communicate(timeout=600)
    assert again.returncode == 0, errors
    assert_each_clip_once(store, ("opensmile", "mediapipe"))


def _committed(store: Path) -> set[str]:
    return {row["clip_id"] for row in live_rows(store, feature_tables(store)["opensmile"])}


def _is_extracting(process: psutil.Process) -> bool:
    try:
        return any("mediapipe" in region.path for region in process.memory_maps())
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return False


def _kill_tree(process: subprocess.Popen) -> None:
    family = [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]
    for member in family:
        member.kill()
    process.wait()
