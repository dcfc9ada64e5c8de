"""How long it takes to find out that nothing changed.

    python -m benchmarks planning --clips 20000,100000

Runs :func:`miar.pipeline.plan.plan_refresh` on a made store in which every clip is up to date in three feature sets:
reading the catalogue, comparing it with the listing, the anti-join of every feature set. Two things are made instead
of measured: the corpus listing (walking a folder of that many files measures the disk), and the descriptors of the
extractors (their weights are hashed once per machine). Each size runs in a process of its own, so that its peak memory
can be told.
"""

import argparse
import contextlib
import multiprocessing
import resource
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime
from statistics import median
from time import perf_counter
from unittest import mock

import numpy as np
import pyarrow as pa

from benchmarks.history import record
from benchmarks.interleave import machine
from miar.config import PipelineConfig
from miar.corpus.model import Clip, CorpusListing, Label, Source, clip_id, media_hash, text_hash
from miar.features.contract import FeatureSet, Modality
from miar.pipeline import plan as planning
from miar.pipeline.rows import descriptor_row, feature_spec
from storage import CLIPS, FEATURE_SETS, LABELS, Store

CORPUS = "made"
CLIPS_PER_FILE = 10
SHARD_CLIPS = 1000
FEATURE_SETS_MADE = {
    name: FeatureSet(extractor=name, modality=modality, columns=("one",), rate_hz=10.0)
    for name, modality in (("text", Modality.TEXT), ("opensmile", Modality.AUDIO), ("mediapipe", Modality.FACE))
}
GOAL_SECONDS, GOAL_CLIPS = 10.0, 1_000_000


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="benchmarks planning")
    parser.add_argument("--clips", default="20000,100000", help="sizes of the store, smallest first")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args(arguments)
    sizes = [int(size) for size in options.clips.split(",")]
    found = [measure(size, options.rounds) for size in sizes]
    goal = GOAL_SECONDS * 100_000 / GOAL_CLIPS
    for one in found:
        pace = one["seconds"] * 100_000 / one["clips"]
        print(
            f"plan of {one['clips']:,} unchanged clips in 3 feature sets: {one['seconds']:.2f} s, "
            f"{pace:.2f} s per 100,000 clips: {pace / goal:.2f} x the goal's pace ({goal:g} s, "
            f"{'met' if pace <= goal else 'NOT met'}); at its peak {one['peak_mb']:.0f} MB"
        )
    growth = found[-1]["seconds"] / found[0]["seconds"]
    print(f"growth: {growth:.2f} x the seconds for {sizes[-1] / sizes[0]:.2f} x the clips")
    record("planning", {**machine(), "sizes": found, "growth": growth})


def measure(clips: int, rounds: int) -> dict[str, float]:
    """Median seconds of a plan, and the planning process's peak memory."""
    with tempfile.TemporaryDirectory() as folder:
        fill(Store.create(folder), made_listing(clips))
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            seconds, peak_mb = pool.submit(_plan_repeatedly, folder, clips, rounds).result()
    return {"clips": clips, "seconds": median(seconds), "peak_mb": peak_mb}


def _plan_repeatedly(folder: str, clips: int, rounds: int) -> tuple[list[float], float]:
    """In a process of its own."""
    store, listing, seconds = Store.open(folder), made_listing(clips), []
    config = PipelineConfig()
    with _given(listing):
        for _ in range(rounds):
            started = perf_counter()
            plan = planning.plan_refresh(store, config, root="made", corpus_id=CORPUS)
            seconds.append(perf_counter() - started)
            counts = plan.summary()
            assert plan.is_empty, f"the made store is not up to date: {counts}"
            assert counts["up_to_date"] == dict.fromkeys(FEATURE_SETS_MADE, clips), f"clips were left out: {counts}"
    return seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


@contextlib.contextmanager
def _given(listing: CorpusListing) -> Iterator[None]:
    """The listing and the descriptors are at hand; everything else of a plan is done."""
    sets = list(FEATURE_SETS_MADE.values())
    with (
        mock.patch.object(planning, "list_corpus", return_value=listing),
        mock.patch.object(planning, "available_feature_sets", return_value=(sets, {})),
    ):
        yield


def made_listing(clips: int) -> CorpusListing:
    """Files of ten clips of 3 s each, with words, a speaker, a split and a label."""
    listing = CorpusListing(CORPUS, "made")
    for index in range(clips):
        number, segment = divmod(index, CLIPS_PER_FILE)
        path = f"videos/{number // 100:05d}/{number:07d}.mp4"
        listing.sources[path] = Source(path, size=4_000_000 + number, mtime_ns=1_700_000_000_000_000_000, is_media=True)
        start, end = segment * 3000, segment * 3000 + 2800
        clip = Clip(
            clip_id=clip_id(CORPUS, path, start, end),
            corpus_id=CORPUS,
            video_id=f"{number:07d}",
            segment=segment,
            path=path,
            start_ms=start,
            end_ms=end,
            text=f"the words that are spoken in clip number {index} of this corpus",
            source_id=f"{number:07d}_{segment}",
            speaker=f"speaker-{number % 997}",
            split=("train", "valid", "test")[number % 3],
        )
        listing.clips.append(clip)
        listing.labels.append(Label(clip.clip_id, "sentiment", (index % 61) / 10 - 3, None))
    return listing


def fill(store: Store, listing: CorpusListing) -> None:
    """Bring the store to where a complete refresh of the listing leaves it."""
    now = datetime.now(UTC)
    clips = [_clip_row(clip, listing.sources[clip.path], now) for clip in listing.clips]
    store.table(CLIPS).merge(pa.Table.from_pylist(clips, schema=CLIPS.schema))
    sources = {clip.clip_id: clip.source_id for clip in listing.clips}
    labels = [
        {
            "clip_id": label.clip_id,
            "name": label.name,
            "corpus_id": CORPUS,
            "source_id": sources[label.clip_id],
            "value": label.value,
            "category": None,
        }
        for label in listing.labels
    ]
    store.table(LABELS).merge(pa.Table.from_pylist(labels, schema=LABELS.schema))
    for feature_set in FEATURE_SETS_MADE.values():
        store.table(FEATURE_SETS).merge(descriptor_row(feature_set))
        _fill_features(store, feature_set, clips, now)


def _clip_row(clip: Clip, source: Source, now: datetime) -> dict[str, object]:
    fingerprint = f"fingerprint of {clip.path}"
    return {
        **{name: getattr(clip, name) for name in Clip.__slots__},
        "media_size": source.size,
        "media_mtime_ns": source.mtime_ns,
        "fingerprint": fingerprint,
        "media_hash": media_hash(fingerprint, clip.start_ms, clip.end_ms),
        "text_hash": text_hash(clip.text),
        "state": "live",
        "updated_at": now,
        "run_id": "made",
    }


def _fill_features(store: Store, feature_set: FeatureSet, clips: list[dict[str, object]], now: datetime) -> None:
    """Rows of one number each, in shards as large as a refresh makes them; planning reads none of the numbers."""
    table = store.table(feature_spec(feature_set))
    hash_name = "text_hash" if feature_set.modality is Modality.TEXT else "media_hash"
    names = []
    for start in range(0, len(clips), SHARD_CLIPS):
        part = clips[start : start + SHARD_CLIPS]
        ones = pa.ListArray.from_arrays(np.arange(len(part) + 1, dtype=np.int32), np.ones(len(part), np.float32))
        columns = {
            "clip_id": [row["clip_id"] for row in part],
            "corpus_id": [CORPUS] * len(part),
            "source_id": [row["source_id"] for row in part],
            "input_hash": [row[hash_name] for row in part],
            "status": ["ok"] * len(part),
            "reason": pa.nulls(len(part), pa.string()),
            "n_frames": [1] * len(part),
            "values": ones,
            "times": ones,
            "pooled": pa.nulls(len(part), ones.type),
            "run_id": ["made"] * len(part),
            "extracted_at": [now] * len(part),
        }
        names.append(table.stage(pa.table(columns), run_id="made", name=f"shard-{start:08d}"))
    wanted = {"clip_id": [row["clip_id"] for row in clips], "input_hash": [row[hash_name] for row in clips]}
    table.register(names, wanted=pa.table(wanted))
