"""Refreshes that are killed, and what is seen of their store: what the tests of kills, networks and disks share."""

import json
import random
import subprocess
import sys
import time
import wave
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from deltalake import DeltaTable
from watched_refresh import PHASES

from storage import Store

CLIPS_PER_FILE = 10
LEASE_S = 2.0
"""On an object store the lock of a killed run lasts so long; 30 seconds would make the tests long."""
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

    def __init__(self, root: Path, clips: int, store: str | None = None) -> None:
        """The corpus and the ledger stand in ``root``; the store too, unless another place is given for it."""
        self.corpus, self.store, self.ledger = root / "corpus", store or str(root / "store"), root / "ledger.jsonl"
        self.clips = clips
        self.rng = random.Random(0)
        make_corpus(self.corpus, clips)
        self.ledger.touch()

    def run(self, phase: str | None = None, variables: Mapping[str, str] | None = None) -> "Ended":
        """Refresh in a process group of its own, and be killed at ``phase``. ``variables``: the whole environment."""
        command = [sys.executable, str(HERE / "watched_refresh.py"), self.store, str(self.corpus), str(self.ledger)]
        command += ["--lease", str(LEASE_S)]
        if phase is not None:
            command += ["--phase", phase, "--skip", str(self.rng.randrange(3))]
        while True:
            done = subprocess.run(
                command, capture_output=True, text=True, check=False, start_new_session=True, timeout=300, env=variables
            )
            if "is running on" not in done.stderr:
                return done
            time.sleep(LEASE_S / 4)

    def lines(self) -> list[dict]:
        return [json.loads(line) for line in self.ledger.read_text().splitlines()]

    def kills(self) -> Counter[str]:
        return Counter(line["killed"] for line in self.lines() if "killed" in line)

    def live(self) -> dict[str, str]:
        """clip_id -> input_hash of the live rows, read through the log alone; every clip at most once."""
        names = Store.open(self.store).feature_tables() if self.lines() else []
        assert len(names) <= 1
        found: dict[str, str] = {}
        for name in names:
            rows = DeltaTable(f"{self.store}/{name}").to_pyarrow_table(columns=["clip_id", "input_hash"]).to_pydict()
            assert len(set(rows["clip_id"])) == len(rows["clip_id"]), "a clip stands twice"
            found = dict(zip(rows["clip_id"], rows["input_hash"], strict=True))
        return found

    def change_some(self) -> None:
        """A tenth of the files say something else: their rows are to be replaced."""
        rng = np.random.default_rng(self.rng.randrange(2**32))
        for path in self.rng.sample(sorted(self.corpus.glob("sound/*.wav")), self.clips // CLIPS_PER_FILE // 10):
            write_sound(path, rng)

    def assert_whole(self) -> None:
        """Every clip once, nothing computed twice, and ``verify`` finds nothing."""
        assert len(self.live()) == self.clips
        self.assert_nothing_was_computed_twice()
        found = Store.open(self.store).verify()
        assert found.clean, [finding.line() for finding in found.findings]

    def assert_nothing_was_computed_twice(self) -> None:
        published: set[tuple[str, str]] = set()
        for line in self.lines():
            again = published & set(line.get("extracting", {}).items())
            assert not again, f"{len(again)} clips of a finished shard were extracted again"
            published |= set(line.get("published", {}).items())


Ended = subprocess.CompletedProcess[str]


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
    watched.assert_whole()
    assert watched.kills() == {phase: kills // len(PHASES) for phase in PHASES}
