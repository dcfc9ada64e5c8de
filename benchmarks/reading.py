"""Reading a snapshot through its reader: a pass against bare pyarrow, and epochs from the cache against from Parquet.

    python -m benchmarks reading --clips 2000 --rounds 5

A pass is a new reader and its :meth:`SnapshotReader.chunks`, every feature decoded, joined by clip and laid out as
arrays; pyarrow reads the same columns of the same files in batches and joins nothing. An epoch is a new reader and its
:meth:`SnapshotReader.epochs`, shuffled and padded into batches of 32. Readers are new so that none holds what it
decoded the round before. The features are those of the scoring benchmark.
"""

import argparse
import tempfile
import time
from pathlib import Path
from statistics import median

from benchmarks.history import record
from benchmarks.interleave import machine, ratio, show, take_turns
from benchmarks.scoring import FEATURE_SETS_MADE, made_snapshot
from miar.data.reading import SnapshotReader
from storage import Snapshot

BATCH = 32


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="benchmarks reading")
    parser.add_argument("--clips", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        snapshot = made_snapshot(f"{folder}/store", options.clips)
        started = time.perf_counter()
        cache = Path(folder) / "cache"
        SnapshotReader(snapshot, cache=cache)
        made = time.perf_counter() - started
        ways = {
            "pyarrow": lambda: read_bare(snapshot),
            "pass": lambda: expect(sum(len(part) for part in SnapshotReader(snapshot).chunks()), options.clips),
            "epoch": lambda: epoch(SnapshotReader(snapshot)),
            "cached epoch": lambda: epoch(SnapshotReader(snapshot, cache=cache)),
        }
        take_turns(ways, 1)
        seconds = take_turns(ways, options.rounds)
    found = {
        "pass": ratio(seconds, "pyarrow", "pass"),
        "cache": ratio(seconds, "epoch", "cached epoch"),
    }
    rates = {name: round(options.clips / median(taken)) for name, taken in seconds.items()}
    show("a pass over a snapshot against pyarrow", found["pass"], 0.9, detail=_rates(rates, "pass", "pyarrow"))
    show(
        "epochs from the cache against from Parquet", found["cache"], 1.0, detail=_rates(rates, "cached epoch", "epoch")
    )
    print(f"  making the cache took {made:.2f} s")
    result = {"clips": options.clips, "ratios": found, "clips_per_s": rates, "make_cache_s": round(made, 2)}
    record("reading", {**machine(), **result})


def read_bare(snapshot: Snapshot) -> None:
    """The features' columns, a few row groups at a time."""
    for feature_set in FEATURE_SETS_MADE.values():
        columns = ["clip_id", "values", *feature_set.summary_columns]
        for _ in snapshot.dataset(feature_set.table).to_batches(columns=columns, fragment_readahead=2):
            pass


def epoch(reader: SnapshotReader) -> None:
    expect(sum(map(len, reader.epochs(batch_size=BATCH).batches())), len(reader))


def expect(found: int, wanted: int) -> None:
    assert found == wanted, f"{found} of {wanted} clips were read"


def _rates(rates: dict[str, int], *names: str) -> str:
    return ", ".join(f"{name} {rates[name]} clips/s" for name in names)
