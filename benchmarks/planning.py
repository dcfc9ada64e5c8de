"""How long it takes to find out that nothing changed.

    python -m benchmarks planning --clips 10000,1000000
    python -m benchmarks planning --layout transcripts

Runs :func:`miar.pipeline.plan.plan_feature_sets` on a corpus and a store in which every clip is up to date in three
feature sets. All of it is inside: the folder is walked, its manifest of one row per clip (ten clips a file, with words,
speaker, split and a label) is read, every clip is compared with the catalogue, every label with the store's, and the
keys of every feature set with the clips. With ``--layout transcripts`` there is a transcript beside every file instead,
which the store remembers, so that it is not read again.

What is made beforehand: media files are empty (a plan does not open a file of a known size and time), feature rows hold
one number each (a plan does not read them), and the extractors' descriptors are given (their weights are hashed once
per process). The files have just been written, so the folder and the store are in the page cache. Each size is planned
in a process of its own, so that its peak memory can be told.
"""

import argparse
import csv
import multiprocessing
import os
import resource
import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from time import perf_counter, process_time
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks.history import record
from benchmarks.interleave import machine
from miar.config import PipelineConfig
from miar.corpus.listing import list_corpus
from miar.features.contract import FeatureSet, Modality
from miar.pipeline import catalogue
from miar.pipeline.plan import plan_feature_sets
from miar.pipeline.rows import descriptor_row, feature_spec
from storage import FEATURE_SETS, Store

CORPUS = "made"
CLIPS_PER_FILE = 10
SHARD_CLIPS = 1000
CONFIG = PipelineConfig()
FEATURE_SETS_MADE = [
    FeatureSet(extractor=name, modality=modality, columns=("one",), rate_hz=10.0)
    for name, modality in (("text", Modality.TEXT), ("opensmile", Modality.AUDIO), ("mediapipe", Modality.FACE))
]
LONG_AGO = 1_700_000_000
"""A transcript that was only just written is read again; these are not."""
GOAL_SECONDS, GOAL_CLIPS, GOAL_MB = 10.0, 1_000_000, 2048
PARTS = ("catalogue", "listing", "comparison", "keys")


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="benchmarks planning")
    parser.add_argument("--clips", default="10000,100000", help="sizes of the corpus, smallest first")
    parser.add_argument("--layout", choices=("manifest", "transcripts"), default="manifest")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args(arguments)
    sizes = [int(size) for size in options.clips.split(",")]
    found = [measure(size, options.rounds, options.layout) for size in sizes]
    for one in found:
        _show(one)
    growth = found[-1]["seconds"] / found[0]["seconds"]
    print(f"growth: {growth:.2f} x the seconds for {sizes[-1] / sizes[0]:.2f} x the clips")
    record("planning", {**machine(), "layout": options.layout, "sizes": found, "growth": growth})


def _show(one: dict[str, Any]) -> None:
    goal = GOAL_SECONDS * max(1.0, one["clips"] / GOAL_CLIPS)
    print(
        f"plan of {one['clips']:,} unchanged clips in {len(FEATURE_SETS_MADE)} feature sets: {one['seconds']:.2f} s, "
        f"{one['cpu_seconds']:.2f} s of processor (goal for {GOAL_CLIPS:,}: at most {GOAL_SECONDS:g} s, "
        f"{_verdict(one['seconds'] <= goal)})"
    )
    print("  " + ", ".join(f"{name} {one['parts'][name]:.2f} s" for name in PARTS))
    print(
        f"  peak memory {one['peak_mb']:.0f} MB, {one['idle_mb']:.0f} MB of it before the plan "
        f"(goal: at most {GOAL_MB} MB, {_verdict(one['peak_mb'] <= GOAL_MB)})"
    )


def _verdict(met: bool) -> str:
    return "met" if met else "NOT met"


def measure(clips: int, rounds: int, layout: str) -> dict[str, Any]:
    """Median seconds of a plan, and the planning process's peak memory."""
    with tempfile.TemporaryDirectory() as folder:
        _in_a_process(_make, Path(folder), clips, layout)
        return {"clips": clips, **_in_a_process(_plan_repeatedly, Path(folder), clips, rounds)}


def _in_a_process(step: Callable[..., Any], *arguments: Any) -> Any:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(step, *arguments).result()


def _plan_repeatedly(folder: Path, clips: int, rounds: int) -> dict[str, Any]:
    store, root = Store.open(folder / "store"), str(folder / CORPUS)
    idle_mb, seconds, cpu_seconds = _peak_mb(), [], []
    for _ in range(rounds):
        began, cpu_began = perf_counter(), process_time()
        plan = plan_feature_sets(store, CONFIG, FEATURE_SETS_MADE, root=root)
        seconds.append(perf_counter() - began)
        cpu_seconds.append(process_time() - cpu_began)
        counts = plan.summary()
        assert plan.is_empty, counts
        assert counts["new"] == counts["changed"] == counts["gone"] == 0, counts
        assert counts["up_to_date"] == {one.extractor: clips for one in FEATURE_SETS_MADE}, counts
        assert plan.changes.labels.num_rows == plan.changes.clips.num_rows == 0
        del plan
    peak_mb = _peak_mb()
    parts = [_parts(store, root) for _ in range(rounds)]
    middle = {name: median(one[name] for one in parts) for name in PARTS[:-1]}
    total = median(seconds)
    return {
        "seconds": total,
        "cpu_seconds": median(cpu_seconds),
        "idle_mb": idle_mb,
        "peak_mb": peak_mb,
        "parts": {**middle, "keys": total - sum(middle.values())},
    }


def _parts(store: Store, root: str) -> dict[str, float]:
    """Seconds of the steps before the keys of the feature sets."""
    marks = [perf_counter()]
    known = catalogue.known_clips(store, CORPUS)
    splits, words = catalogue.known_splits(known), catalogue.remembered(store, CORPUS)
    marks.append(perf_counter())
    listing = list_corpus(root, CONFIG.corpus, splits, words)
    marks.append(perf_counter())
    catalogue.compare(store, listing, known, CONFIG.corpus.max_lost_share)
    marks.append(perf_counter())
    return dict(zip(PARTS, np.diff(marks).tolist(), strict=False))


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _make(folder: Path, clips: int, layout: str) -> None:
    """A corpus, and a store where a complete refresh of it leaves it."""
    make_corpus(folder / CORPUS, clips, layout)
    store = Store.create(folder / "store")
    changes = plan_feature_sets(store, CONFIG, [], root=str(folder / CORPUS)).changes
    catalogue.apply(store, changes, "made")
    for feature_set in FEATURE_SETS_MADE:
        store.table(FEATURE_SETS).merge(descriptor_row(feature_set))
        _fill(store, feature_set, changes.live)


def make_corpus(root: Path, clips: int, layout: str) -> None:
    """Empty media files of ten clips of 3 s each, with words; in a manifest, also with speakers, splits and labels."""
    root.mkdir()
    rows = [["path", "start", "end", "clip_id", "text", "speaker", "split", "sentiment"]]
    for number in range(0, -(-clips // CLIPS_PER_FILE)):
        path = f"videos/{number // 100:05d}/{number:07d}.mp4"
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()
        indices = range(number * CLIPS_PER_FILE, min(clips, (number + 1) * CLIPS_PER_FILE))
        if layout == "manifest":
            rows += [_manifest_row(path, number, segment, index) for segment, index in enumerate(indices)]
        else:
            _write_transcript((root / path).with_suffix(".srt"), indices)
    if layout == "manifest":
        with (root / "manifest.csv").open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows(rows)


def _manifest_row(path: str, number: int, segment: int, index: int) -> list[str | float]:
    own_id, split = f"{number:07d}_{segment}", ("train", "valid", "test")[number % 3]
    times = (segment * 3, segment * 3 + 2.8)
    return [path, *times, own_id, _words(index), f"speaker-{number % 997}", split, (index % 61) / 10 - 3]


def _write_transcript(path: Path, indices: range) -> None:
    cues = [
        f"{at + 1}\n00:00:{at * 3:02d},000 --> 00:00:{at * 3 + 2:02d},800\n{_words(index)}\n"
        for at, index in enumerate(indices)
    ]
    path.write_text("\n".join(cues), encoding="utf-8")
    os.utime(path, (LONG_AGO, LONG_AGO))


def _words(index: int) -> str:
    return f"the words, as they are spoken, of clip number {index} in this corpus"


def _fill(store: Store, feature_set: FeatureSet, clips: pa.Table) -> None:
    """Rows of one number each, in shards as large as a refresh makes them; planning reads none of the numbers."""
    table = store.table(feature_spec(feature_set))
    hashes = clips["text_hash" if feature_set.modality is Modality.TEXT else "media_hash"]
    wanted = clips.select(["clip_id", "corpus_id", "source_id"]).append_column("input_hash", hashes)
    names = []
    for start in range(0, clips.num_rows, SHARD_CLIPS):
        part = wanted.slice(start, SHARD_CLIPS)
        count = part.num_rows
        ones = pa.ListArray.from_arrays(np.arange(count + 1, dtype=np.int32), np.ones(count, np.float32))
        columns = {
            **{name: part[name] for name in part.column_names},
            "status": pa.repeat("ok", count),
            "reason": pa.nulls(count, pa.string()),
            "n_frames": pa.repeat(1, count),
            "values": ones,
            "times": ones,
            "pooled": pa.nulls(count, ones.type),
            "run_id": pa.repeat("made", count),
            "extracted_at": pa.repeat(datetime.now(UTC), count),
        }
        names.append(table.stage(pa.table(columns), run_id="made", name=f"shard-{start:08d}"))
    table.register(names, wanted=wanted)
