"""Real worker processes over real sound: what stops, dies or hangs costs what it has in hand and nothing else."""

import multiprocessing
import os
import signal
import sys
import threading
import time
import wave
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import av
import numpy as np
import psutil
import pytest

from miar.config import PipelineConfig
from miar.errors import UnavailableError
from miar.features.configs import MediaPipeConfig
from miar.features.registry import availability
from miar.features.requests import ClipRequest
from miar.pipeline.extract import ExtractionPool
from miar.pipeline.plan import plan_refresh
from miar.pipeline.refresh import commit_shard, lay_out, shard_names
from miar.pipeline.rows import feature_spec
from miar.pipeline.shards import Job, Shard, make_shard
from miar.pipeline.workers import PoolClosedError
from storage import Store

pytestmark = pytest.mark.timeout(180)


def write_sound(path: Path, seconds: float = 1.0, hz: float = 150.0) -> None:
    """A buzz with the spectrum of a voice, so that openSMILE finds a pitch in it."""
    times = np.arange(round(seconds * 16_000)) / 16_000
    sound = sum(np.sin(2 * np.pi * hz * part * times) / part for part in range(1, 12))
    with wave.open(str(path), "wb") as out:
        out.setparams((1, 2, 16_000, 0, "NONE", ""))
        out.writeframes((np.asarray(sound) * 6000).astype("<i2").tobytes())


class Work:
    """A laid-out job over sound, and its pool."""

    def __init__(
        self, store: Store, corpus: Path, workers: int, extractor: str = "opensmile", **execution: float
    ) -> None:
        config = PipelineConfig.model_validate(
            {"extractors": [{"extractor": extractor}], "execution": {"workers": workers, **execution}}
        )
        self.store = store
        self.folder = lay_out(store, plan_refresh(store, config, root=str(corpus)))
        self.job = Job.load(self.folder / "job.json")
        self.shards = [Shard.load(self.folder / "shards" / f"{name}.json") for name in shard_names(self.folder)]
        self.pool = ExtractionPool(self.folder / "job.json", len(self.shards))

    def rows(self) -> dict[str, str]:
        """clip_id -> status, of all that was registered."""
        (feature_set,) = self.job.feature_sets
        rows = self.store.table(feature_spec(feature_set)).read(["clip_id", "status"]).to_pydict()
        return dict(zip(rows["clip_id"], rows["status"], strict=True))


@pytest.fixture
def sounds(tmp_path: Path) -> Path:
    root = tmp_path / "sounds"
    root.mkdir()
    for name in "abcd":
        write_sound(root / f"{name}.wav")
    return root


@pytest.fixture
def work(store: Store, sounds: Path) -> Iterator[Callable[..., Work]]:
    made: list[Work] = []

    def start(workers: int, corpus: Path = sounds, **options: Any) -> Work:
        made.append(Work(store, corpus, workers, **options))
        return made[-1]

    yield start
    for one in made:
        one.pool.close()


def _workers() -> list[psutil.Process]:
    return [psutil.Process(one.pid) for one in multiprocessing.active_children() if one.name == "pebble_pool_worker"]


def _until(condition: Callable[[], object], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_closing_wakes_those_who_wait_for_a_shard_in_hand(work):
    """A run that ends early must not wait for ever for what nobody works on any more."""
    two = work(2, shard_clips=1)
    with ThreadPoolExecutor(2) as threads:
        waiting = [threads.submit(two.pool.run, shard) for shard in two.shards[:2]]
        _until(lambda: len(_workers()) == 2)
        for worker in _workers():
            worker.suspend()
        two.pool.close()
        for future in waiting:
            with pytest.raises(PoolClosedError):
                future.result(timeout=30)
    with pytest.raises(PoolClosedError):
        two.pool.run(two.shards[2])
    assert not _workers()


def test_a_worker_that_dies_with_nothing_in_hand_costs_nothing(work):
    """Pebble gives a pool up for that."""
    one = work(1, shard_clips=1)
    assert len(one.pool.run(one.shards[0])) == 1
    (worker,) = _workers()
    worker.kill()
    time.sleep(1)  # until the pool has noticed
    (outcome,) = one.pool.run(one.shards[1])
    assert not outcome.failures


def test_a_worker_that_is_killed_before_it_takes_anything_up_costs_nothing(work):
    one = work(1, shard_clips=1)
    killed = threading.Thread(target=lambda: (_until(_workers), _workers()[0].kill()))
    killed.start()
    (outcome,) = one.pool.run(one.shards[0])
    killed.join()
    assert not outcome.failures


def test_a_killed_worker_is_not_called_a_crash_of_native_code(work):
    one = work(1, shard_clips=1)

    def kill_when_busy() -> None:
        _until(lambda: any(_has_loaded_opensmile(worker) for worker in _workers()))
        os.kill(_workers()[0].pid, signal.SIGKILL)

    killer = threading.Thread(target=kill_when_busy)
    killer.start()
    (outcome,) = one.pool.run(one.shards[0])
    killer.join()
    assert [failure["message"] for failure in outcome.failures] == [
        "the worker process was killed on this clip (out of memory?)"
    ]


def _has_loaded_opensmile(worker: psutil.Process) -> bool:
    try:
        return any("SMILEapi" in region.path for region in worker.memory_maps())
    except psutil.Error:
        return False


def test_two_configurations_of_one_extractor_are_counted_apart(store: Store, sounds: Path):
    config = PipelineConfig.model_validate(
        {
            "extractors": [{"extractor": "opensmile"}, {"extractor": "opensmile", "min_voiced_share": 0.5}],
            "execution": {"workers": 1},
        }
    )
    folder = lay_out(store, plan_refresh(store, config, root=str(sounds)))
    (name,) = shard_names(folder)
    pool = ExtractionPool(folder / "job.json", 1)
    try:
        (outcome,) = pool.run(Shard.load(folder / "shards" / f"{name}.json"))
    finally:
        pool.close()
    first, second = (f"opensmile/{one.config_hash}" for one in Job.load(folder / "job.json").feature_sets)
    assert outcome.counts == {first: {"ok": 4}, second: {"ok": 4}}


def test_a_shard_whose_staged_rows_are_others_another_time_is_staged_under_another_name(work, sounds: Path):
    """F2 cannot be read at first, so that its shard holds F1 alone; later both change and are put back."""
    good = (sounds / "b.wav").read_bytes()
    kept = {name: (sounds / name).read_bytes() for name in ("a.wav", "b.wav", "c.wav", "d.wav")}
    stamps = {name: (sounds / name).stat().st_mtime_ns for name in kept}

    def refresh() -> None:
        one = work(1)
        for shard in one.shards:
            commit_shard(one.store, one.job, shard, one.pool.run(shard))
        one.pool.close()

    def damage(shard: Shard) -> None:
        assert len(shard.clips) == 4
        (sounds / "b.wav").write_bytes(b"")

    first = work(1)
    damage(first.shards[0])  # after it was planned and fingerprinted
    commit_shard(first.store, first.job, first.shards[0], first.pool.run(first.shards[0]))
    assert len(first.rows()) == 3
    (sounds / "b.wav").write_bytes(good)
    for number, name in enumerate(kept):
        write_sound(sounds / name, seconds=1.5, hz=200.0 + number)
    refresh()
    for name, content in kept.items():
        (sounds / name).write_bytes(content)
        os.utime(sounds / name, ns=(0, stamps[name]))
    refresh()
    last = work(1)
    assert not last.shards
    assert set(last.rows().values()) == {"ok"}
    assert len(last.rows()) == 4


CRASHING = """
import os, signal
from miar.media import lanes

take = lanes.VideoLane._take


def crashing(self, frame):
    if abs(float(frame.pts * self.stream.time_base) - {at_s}) < 0.01:
        with open({log!r}, "a") as log:
            log.write("crash ")
        os.kill(os.getpid(), signal.SIGSEGV)
    return take(self, frame)


lanes.VideoLane._take = crashing
"""


@pytest.fixture
def filmed(tmp_path: Path) -> Path:
    """A video of 40 s in clips of five, with a keyframe each second."""
    root = tmp_path / "filmed"
    root.mkdir()
    with av.open(str(root / "a.mkv"), "w") as out:
        stream = out.add_stream("libx264", rate=10, options={"g": "10"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(400):
            picture = np.full((48, 64, 3), number % 250, np.uint8)
            out.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        out.mux(stream.encode(None))
    rows = [f"a.mkv,{start},{start + 5},{start}" for start in range(0, 40, 5)]
    (root / "manifest.csv").write_text("\n".join(["path,start,end,clip_id", *rows]))
    return root


def test_a_crash_of_the_decoder_costs_the_clip_in_which_it_lies(
    work, filmed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Not those that come after it in the file, and not an attempt for each of the others."""
    if isinstance(unavailable := availability(MediaPipeConfig()), UnavailableError):
        pytest.skip(str(unavailable))
    faults, log = tmp_path / "faults", tmp_path / "log"
    faults.mkdir()
    (faults / "sitecustomize.py").write_text(CRASHING.format(at_s=12.0, log=str(log)))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(faults), *sys.path]))
    one = work(1, filmed, extractor="mediapipe")
    (shard,) = one.shards
    outcomes = one.pool.run(shard)
    failures = [failure for outcome in outcomes for failure in outcome.failures]
    assert [failure["source_id"] for failure in failures] == ["10"]
    assert failures[0]["message"] == "native code crashed with SIGSEGV on this clip"
    assert sum(outcome.counts["mediapipe"].get("missing: no_face", 0) for outcome in outcomes) == 7
    # The whole, its first half, the half of that, the clip.
    assert log.read_text().split() == ["crash"] * 4


IDENTITY = {"corpus_id": "c", "source_id": None, "media_hash": "m", "text_hash": "t"}


def _cut(*clips: tuple[str, int, int | None]) -> Shard:
    requests = [
        ClipRequest(f"c{number}", path, start, end, None, frozenset(["features/x/y"]))
        for number, (path, start, end) in enumerate(clips)
    ]
    return make_shard(requests, {clip.clip_id: IDENTITY for clip in requests})


def test_halves_are_whole_files_or_parts_that_follow_each_other():
    files = _cut(("a", 0, 1000), ("a", 1000, 9000), ("b", 0, 1000), ("c", 0, 2000))
    first, second = files.halves()
    assert ([clip.path for clip in first.clips], [clip.path for clip in second.clips]) == (["a", "a"], ["b", "c"])
    assert files.share_of(first) == pytest.approx(9 / 12)
    one_file = _cut(("a", 7000, 8000), ("a", 0, 1000), ("a", 3000, 4000), ("a", 5000, 8000))
    first, second = one_file.halves()
    assert [clip.start_ms for clip in (*first.clips, *second.clips)] == [0, 3000, 5000, 7000]
    assert one_file.share_of(second) == pytest.approx(4 / 6)
    assert _cut(("a", 0, None), ("b", 0, 1000)).share_of(_cut(("a", 0, None))) == 0.5
    assert _cut(("a", 0, None)).halves() == []
    assert {half.name for half in one_file.halves()} == {half.name for half in one_file.halves()}


def test_smaller_pieces_have_less_time(work):
    one = work(1, shard_timeout_s=3600.0).pool
    assert [one._time_for(wanted_s) for wanted_s in (1800.0, 400.0, 3.0)] == [1800.0, 400.0, 360.0]
    assert work(1, shard_timeout_s=300.0).pool._time_for(3.0) == 120.0
    assert work(1, shard_timeout_s=5.0).pool._time_for(3.0) == 5.0
