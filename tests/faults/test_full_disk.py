"""A refresh onto a disk that fills up says so, loses nothing, and goes on when there is room."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from watched import Watched

pytestmark = [pytest.mark.xdist_group("faults"), pytest.mark.slow]

DISK_BYTES = 8 * 2**20
NAMED = "MIAR_FULL_DISK_DIR"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on a small file system: a tmpfs of its own, or the one that the variable names."""
    if named := os.environ.get(NAMED):
        folder = Path(named) / tmp_path.name
        folder.mkdir()
        yield folder
        shutil.rmtree(folder)
        return
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(folder)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip(f"there is no mount command; name a directory on a small file system in {NAMED}")
    if done.returncode != 0:
        pytest.skip(f"no tmpfs can be mounted ({done.stderr.strip()}); name a directory on a small one in {NAMED}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(disk: Path, left_bytes: int) -> Path:
    """Leave so much room and no more."""
    ballast = disk / "ballast"
    ballast.unlink(missing_ok=True)
    free = shutil.disk_usage(disk).free
    assert free < 2**30, f"{disk} has {free / 2**30:.0f} GiB free; {NAMED} is to name a directory on a smaller disk"
    with ballast.open("wb") as file:
        for _ in range((free - left_bytes) // 4096):
            file.write(bytes(4096))
    return ballast


def test_a_disk_that_fills_up(small_disk: Path, tmp_path: Path) -> None:
    watched = Watched(tmp_path, 400, str(small_disk / "store"))
    ended = []
    # From no room for the store itself, by room for some shards, to room for a shard and not for its commit.
    for left_bytes in (0, 20_000, 60_000, 100_000, 60_000, 20_000):
        ballast = fill(small_disk, left_bytes)
        ended.append(watched.run())
        watched.assert_nothing_was_computed_twice()
        ballast.unlink()
        watched.live()
    assert [done.returncode for done in ended] == [1] * len(ended)
    for done in ended:
        last = done.stderr.strip().rsplit("\n", 1)[-1]
        assert "StoreError: cannot write" in last, done.stderr[-2000:]
        assert "No space left on device" in last
    done = watched.run()
    assert done.returncode == 0, done.stderr[-2000:]
    watched.assert_whole()
