"""A real server and a real worker: deploy, run, put a bad clip in, kill the worker, run again."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from flow_helpers import assert_each_clip_once, live_clips, live_rows

pytestmark = [pytest.mark.xdist_group("prefect"), pytest.mark.timeout(900)]

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A Prefect server of its own, with nothing in it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    home = tmp_path_factory.mktemp("prefect")
    # A test harness in this process must not leak its settings into the server's.
    own = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    settings = own | {
        "PREFECT_HOME": str(home),
        "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PATH": f"{BIN}:{os.environ['PATH']}",
    }
    log = (home / "server.log").open("w")
    server = subprocess.Popen(
        [BIN / "prefect", "server", "start", "--port", str(port)], env=settings, stdout=log, stderr=log
    )
    try:
        _until(lambda: _healthy(port), 300, "the server did not start")
        yield settings
    finally:
        _kill_tree(server.pid)


@pytest.fixture
def deployed(environment: dict[str, str]) -> dict[str, str]:
    done = subprocess.run(["make", "deploy"], cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return environment


def test_deploy_run_fail_kill_and_run_again(deployed: dict[str, str], space, tmp_path: Path) -> None:
    shutil.rmtree(space.store_path / "scores")
    (space.corpus / "videos" / "broken.mp4").write_text("not a video")
    parameters = {
        "store": str(space.store_path),
        "model": str(space.model),
        "corpus": str(space.corpus),
        "config": {"execution": {"workers": 2}},
    }
    with _worker(deployed, tmp_path / "worker.log"):
        assert _run(deployed, parameters) == "COMPLETED", (tmp_path / "worker.log").read_text()[-3000:]
    first = _scores(space.store_path)
    assert set(first) == live_clips(space.store_path)
    assert {row["path"] for row in live_rows(space.store_path, "failures")} == {"videos/broken.mp4"}
    _assert_equal_to_a_direct_call(space, first)
    # Everything once more, killed in the middle and run again.
    shutil.rmtree(space.store_path / "scores")
    shutil.rmtree(space.store_path / "features")
    with _worker(deployed, tmp_path / "killed.log") as worker:
        _start(deployed, parameters)
        _until(lambda: list(space.store_path.glob("features/*/*/*.parquet")), 480, "no shard was finished")
        _kill_tree(worker.pid)
    with _worker(deployed, tmp_path / "again.log"):
        assert _run(deployed, parameters) == "COMPLETED", (tmp_path / "again.log").read_text()[-3000:]
    second = _scores(space.store_path)
    assert second.keys() == first.keys()
    for clip_id, row in second.items():
        assert row["status"] == first[clip_id]["status"]
        assert row["prediction"] == pytest.approx(first[clip_id]["prediction"], abs=1e-5), clip_id
    assert_each_clip_once(space.store_path)


def _scores(store: Path) -> dict[str, dict]:
    rows = live_rows(store, "scores")
    assert len({row["clip_id"] for row in rows}) == len(rows)
    return {row["clip_id"]: row for row in rows}


def _assert_equal_to_a_direct_call(space, scores: dict[str, dict]) -> None:
    from miar.data.from_store import load_dataset
    from miar.models.miar import MIAR
    from miar.scoring.scorer import score_dataset

    model = MIAR.from_pretrained(space.model)
    dataset = load_dataset(space.store.snapshots.take(), label=None, feature_sets=model.feature_tables)
    direct = score_dataset(model, dataset).to_pylist()
    assert {row["clip_id"] for row in direct} == set(scores)
    for row in direct:
        assert scores[row["clip_id"]]["status"] == row["status"]
        assert scores[row["clip_id"]]["prediction"] == pytest.approx(row["prediction"], abs=1e-5)


def _start(environment: dict[str, str], parameters: dict, *extra: str) -> subprocess.CompletedProcess[str]:
    command = [BIN / "prefect", "deployment", "run", "score-corpus/default"]
    command += [word for name, value in parameters.items() for word in ("-p", f"{name}={json.dumps(value)}")]
    return subprocess.run([*command, *extra], env=environment, capture_output=True, text=True, check=False)


def _run(environment: dict[str, str], parameters: dict) -> str:
    """Start a run as a user does, and wait for its end; returns the state it ended in."""
    started = _start(environment, parameters)
    assert started.returncode == 0, started.stdout + started.stderr
    state = "PENDING"

    def ended() -> bool:
        nonlocal state
        state = _latest_run(environment)["state_type"]
        return state in {"COMPLETED", "FAILED", "CANCELLED", "CRASHED"}

    _until(ended, 600, "the run did not end")
    return state


def _latest_run(environment: dict[str, str]) -> dict:
    body = json.dumps({"sort": "EXPECTED_START_TIME_DESC", "limit": 50}).encode()
    request = urllib.request.Request(
        f"{environment['PREFECT_API_URL']}/flow_runs/filter", body, {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=20) as answer:
        runs = [run for run in json.load(answer) if run["deployment_id"]]
    return runs[0]


class _worker:  # noqa: N801 - a context manager, read as a noun
    """A worker of the CPU pool; gone with everything it started when the block is left."""

    def __init__(self, environment: dict[str, str], log: Path):
        self.environment, self.log = environment, log

    def __enter__(self) -> subprocess.Popen:
        file = self.log.open("w")
        command = [BIN / "prefect", "worker", "start", "--pool", "miar-cpu"]
        self.process = subprocess.Popen(command, env=self.environment, stdout=file, stderr=file)
        return self.process

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            _kill_tree(self.process.pid)


def _until(condition: Callable[[], object], seconds: float, complaint: str) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, complaint
        time.sleep(0.5)


def _healthy(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/health", timeout=2) as answer:
            return answer.status == 200
    except OSError:
        return False


def _kill_tree(pid: int) -> None:
    try:
        family = [*psutil.Process(pid).children(recursive=True), psutil.Process(pid)]
    except psutil.NoSuchProcess:
        return
    for member in family:
        try:
            member.send_signal(signal.SIGKILL)
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(family, timeout=10)
