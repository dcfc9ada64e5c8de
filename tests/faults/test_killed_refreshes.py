"""A refresh that is killed again and again, at every phase, ends with every clip once and computes nothing twice."""

import json
import random
import subprocess
import sys
import wave
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from deltalake import DeltaTable
from watched_refresh import PHASES

from storage import Store

pytestmark = pytest.mark.xdist_group("faults")

CLIPS_PER_FILE = 10
HERE = Path(__file__).parent


def make_corpus(root: Path, clips: int) -> None:
    """Short sounds, ten to a file, cut by a manifest."""
    rng = np.random.default_rng(0)
    rows = ["path,start,end,speaker"]
    (root / "sound").mkdir(parents=True)
    for number in range(clips // CLIPS_PER_FILE):
        path = f"sound/{number:04d}.wav"
        write_sound(root / path, rng)
        rows += [f"{path},{0.2 * i:.1f},{0.2 * (i + 1):.1f},s{number % 7}" for i in range(CLIPS_PER_FILE)]
    (root / "manifest.csv").write_text("\n".join(rows) + "\n")


def write_sound(path: Path, rng: np.random.Generator) -> None:
    """Two seconds of a buzz of random pitch."""
    time = np.arange(2 * 16_000) / 16_000
    pitch = rng.uniform(90, 240)
    buzz = sum(np.sin(2 * np.pi * pitch * k * time) / k for k in range(1, 12))
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 16_000, 0, "NONE", ""))
        file.writeframes((buzz * 4000).astype("<i2").tobytes())


class Watched:
    """One store, refreshed again and again, and what was seen of it."""

    def __init__(self, root: Path, clips: int) -> None:
        self.corpus, self.store, self.ledger = root / "corpus", root / "store", root / "ledger.jsonl"
        self.clips = clips
        self.rng = random.Random(0)
        make_corpus(self.corpus, clips)
        self.ledger.touch()

    def run(self, phase: str | None = None) -> subprocess.CompletedProcess[str]:
        """Refresh, and be killed at ``phase``."""
        command = [
            sys.executable,
            str(HERE / "watched_refresh.py"),
            str(self.store),
            str(self.corpus),
            str(self.ledger),
        ]
        if phase is not None:
            command += ["--phase", phase, "--skip", str(self.rng.randrange(3))]
        return subprocess.run(command, capture_output=True, text=True, check=False, start_new_session=True, timeout=300)

    def lines(self) -> list[dict]:
        return [json.loads(line) for line in self.ledger.read_text().splitlines()]

    def kills(self) -> Counter[str]:
        return Counter(line["killed"] for line in self.lines() if "killed" in line)

    def live(self) -> dict[str, str]:
        """clip_id -> input_hash of the live rows, read through the log alone; every clip at most once."""
        (table,) = [path.parent for path in self.store.glob("features/*/*/_delta_log")] or [None]
        if table is None:
            return {}
        rows = DeltaTable(str(table)).to_pyarrow_table(columns=["clip_id", "input_hash"]).to_pydict()
        assert len(set(rows["clip_id"])) == len(rows["clip_id"]), "a clip stands twice"
        return dict(zip(rows["clip_id"], rows["input_hash"], strict=True))

    def assert_nothing_was_computed_twice(self) -> None:
        published: set[tuple[str, str]] = set()
        for line in self.lines():
            again = published & set(line.get("extracting", {}).items())
            assert not again, f"{len(again)} clips of a finished shard were extracted again"
            published |= set(line.get("published", {}).items())

    def change_some(self) -> None:
        """A tenth of the files say something else: their rows are to be replaced."""
        rng = np.random.default_rng(self.rng.randrange(2**32))
        for path in self.rng.sample(sorted(self.corpus.glob("sound/*.wav")), self.clips // CLIPS_PER_FILE // 10):
            write_sound(path, rng)


def kill_and_check(watched: Watched, kills: int) -> None:
    """Kill at each phase in turn. Where a run ends before it could be killed, the corpus changes and it goes on."""
    seen: dict[str, str] = {}
    for number in range(kills):
        phase = PHASES[number % len(PHASES)]
        before = watched.kills()[phase]
        for _ in range(5):
            ended = watched.run(phase)
            if watched.kills()[phase] > before:
                break
            assert ended.returncode == 0, ended.stderr[-2000:]
            watched.change_some()
        live = watched.live()
        assert seen.keys() <= live.keys(), "a committed clip was lost"
        seen = live
    ended = watched.run()
    assert ended.returncode == 0, ended.stderr[-2000:]
    print(f"killed: {dict(watched.kills())}")
    assert len(watched.live()) == watched.clips
    watched.assert_nothing_was_computed_twice()
    found = Store.open(watched.store).verify()
    assert found.clean, [finding.line() for finding in found.findings]


def test_ten_kills(tmp_path: Path) -> None:
    watched = Watched(tmp_path, 400)
    kill_and_check(watched, 10)
    assert all(count == 2 for count in watched.kills().values())
    assert set(watched.kills()) == set(PHASES)


@pytest.mark.slow
@pytest.mark.timeout(5400)
def test_a_hundred_kills_of_two_thousand_clips(tmp_path: Path) -> None:
    watched = Watched(tmp_path, 2000)
    kill_and_check(watched, 100)
    assert all(count >= 15 for count in watched.kills().values())
    assert set(watched.kills()) == set(PHASES)
