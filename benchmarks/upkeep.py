"""What maintenance makes of a store with many small commits: opening it before and after.

    python -m benchmarks upkeep --commits 10000

The first two commits are the store's own; the others are written as it writes them, one shard and one log entry each,
without the checks and checkpoints that make a real commit take tens of milliseconds. What is opened is the same: a log
of that many entries, each naming a small Parquet file of its own.
"""

import argparse
import json
import tempfile
import time
import uuid
from pathlib import Path
from statistics import median

import pyarrow as pa

from benchmarks.history import record
from benchmarks.interleave import machine
from storage import LABELS, Store
from storage.shards import statistics, write_shard

GOAL_S = 1.0


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="benchmarks upkeep")
    parser.add_argument("--commits", type=int, default=10_000)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        store = made_store(Path(folder) / "store", options.commits)
        before = time_opening(store.uri, options.commits, rounds=1)
        started = time.perf_counter()
        store.maintain()
        maintained = time.perf_counter() - started
        after = time_opening(store.uri, options.commits, rounds=5)
        started = time.perf_counter()
        clean = store.verify().clean
        verified = time.perf_counter() - started
    assert clean, "maintenance spoilt the store"
    verdict = "met" if after < GOAL_S else "NOT met"
    print(
        f"a store of {options.commits} small commits opens in {after:.3f} s after maintenance"
        f" (goal: under {GOAL_S:g} s, {verdict}); before: {before:.2f} s; maintenance took {maintained:.0f} s,"
        f" verification after it {verified:.1f} s"
    )
    seconds = {"before": before, "after": after, "maintain": maintained, "verify": verified}
    record("upkeep", {**machine(), "commits": options.commits, "seconds": {k: round(v, 3) for k, v in seconds.items()}})


def made_store(folder: Path, commits: int) -> Store:
    """One label a commit."""
    store = Store.create(folder)
    table = store.table(LABELS)
    table.merge(_row(0))
    table.merge(_row(1))
    log = Path(table.path) / "_delta_log"
    second = [json.loads(line) for line in (log / f"{1:020}.json").read_text().splitlines()]
    for number in range(2, commits):
        name = f"{uuid.uuid4().hex}.parquet"
        write_shard(f"{table.path}/{name}", _row(number), LABELS)
        said = {
            "path": name,
            "size": (Path(table.path) / name).stat().st_size,
            "stats": statistics(store._files, LABELS, name),
        }
        actions = [{"add": {**action["add"], **said}} if "add" in action else action for action in second]
        (log / f"{number:020}.json").write_text("\n".join(map(json.dumps, actions)))
    return store


def _row(number: int) -> pa.Table:
    row = {"clip_id": f"clip-{number:06}", "name": "mood", "corpus_id": "made", "value": float(number)}
    return pa.Table.from_pylist([dict.fromkeys(LABELS.schema.names) | row], schema=LABELS.schema)


def time_opening(uri: str, rows: int, rounds: int) -> float:
    """Seconds from nothing to the number of live rows; median of the rounds."""
    seconds = []
    for _ in range(rounds):
        started = time.perf_counter()
        found = Store.open(uri).table(LABELS).count()
        seconds.append(time.perf_counter() - started)
        assert found == rows, f"{found} of {rows} rows are live"
    return median(seconds)
