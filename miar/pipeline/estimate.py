"""What a planned refresh will take: time, processor time and disk, from what earlier ones took on this store."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import get_args

import pyarrow as pa
from deltalake import DeltaTable

from miar.features.configs import ExtractorConfig
from miar.features.contract import FeatureSet, Modality
from miar.pipeline.plan import RefreshPlan
from miar.pipeline.rows import feature_spec
from miar.pipeline.runs import latest_runs
from storage import Store
from storage.arrow import pc

LATEST_RUNS = 20
"""How many of the last refreshes are asked; the machine and the configuration of older ones may have been others."""
STARTUP_SECONDS = 20.0
"""Until the first clip, by rough constants: Prefect starts, workers load their models."""
WORDS_PER_SECOND = 2.5
BYTES_PER_NUMBER = 3.0
"""Of a float32, after compression."""
BYTES_PER_ROW = 500
"""Ids, hashes and summaries."""
_MODALITIES = {one.model_fields["extractor"].default: one.modality for one in get_args(get_args(ExtractorConfig)[0])}


@dataclass(frozen=True)
class Estimate:
    """What a refresh will take, and what that is taken from."""

    wall_seconds: float
    cpu_hours: float
    """Of the workers, each of which keeps one core busy; what it costs."""
    disk_bytes: int
    """Of the rows to make. What they replace stays until maintenance removes it."""
    workers: int
    time_from: str
    disk_from: str


@dataclass(frozen=True)
class _History:
    """What earlier refreshes of the store took."""

    runs: int
    seconds_per_clip: Mapping[str, float]
    """Step (decode, text, audio, face, write) -> seconds of a worker for each clip that goes through it."""
    startup_seconds: float
    """What a run took beside that: starting, loading models, waiting for the last shard."""

    def covers(self, clips: Mapping[str, int]) -> bool:
        """Whether every step that clips go through was gone through before."""
        return all(step in self.seconds_per_clip for step, count in clips.items() if count)

    def seconds(self, clips: Mapping[str, int]) -> float:
        """Of one worker."""
        return sum(count * self.seconds_per_clip[step] for step, count in clips.items() if count)


def estimate_refresh(store: Store, plan: RefreshPlan) -> Estimate:
    """What running ``plan`` will take, on as many workers as it is configured for."""
    clips = _clips_by_step([(one.modality, plan.wanted[one.table]) for one in plan.feature_sets])
    history = _history(store)
    busy, startup = plan.seconds, STARTUP_SECONDS
    time_from = "rough constants: the store has no history of these extractors yet"
    if plan.is_empty:
        busy = startup = 0.0
        time_from = "there being nothing to extract"
    elif history.covers(clips):
        busy, startup = history.seconds(clips), history.startup_seconds
        time_from = f"what the store's last refreshes took ({history.runs} of them)"
    workers = min(plan.config.execution.workers, max(1, len(plan.shards)))
    disk, disk_from = _disk(store, plan)
    return Estimate(startup + busy / workers, busy / 3600, disk, workers, time_from, disk_from)


def _clips_by_step(wanted: Iterable[tuple[Modality, int]]) -> dict[str, int]:
    """Step -> clips that go through it. A file is decoded once for all extractors that look at it."""
    wanted = list(wanted)
    clips = {modality.value: sum(count for one, count in wanted if one is modality) for modality in Modality}
    decoded = max((count for modality, count in wanted if modality is not Modality.TEXT), default=0)
    return {**clips, "decode": decoded, "write": sum(count for _, count in wanted)}


def _history(store: Store) -> _History:
    spent: Counter[str] = Counter()
    clips: Counter[str] = Counter()
    startups: list[float] = []
    told = [
        run for run in latest_runs(store, "refresh") if run["state"] == "completed" and run["result"].get("seconds")
    ]
    for run in told[:LATEST_RUNS]:
        result = run["result"]
        extracted = [
            (_MODALITIES[name.split("/")[0]], sum(counts.values())) for name, counts in result["counts"].items()
        ]
        clips.update(_clips_by_step(extracted))
        # Models are loaded once by each worker, however many clips there are.
        busy = {step: seconds for step, seconds in result["seconds"].items() if step != "load"}
        spent.update(busy)
        wall = (run["ended_at"] - run["started_at"]).total_seconds()
        workers = min(run["config"]["execution"]["workers"], result["shards"])
        startups.append(max(0.0, wall - sum(busy.values()) / workers))
    rates = {step: seconds / clips[step] for step, seconds in spent.items() if clips[step]}
    return _History(len(startups), rates, median(startups) if startups else 0.0)


def _disk(store: Store, plan: RefreshPlan) -> tuple[int, str]:
    """Bytes, and what they are taken from."""
    total, guessed = 0.0, []
    for feature_set in plan.feature_sets:
        rows = plan.wanted[feature_set.table]
        row_bytes = _bytes_per_row(store, feature_set) if rows else 0.0
        if row_bytes is None:
            guessed.append(feature_set.extractor)
            row_bytes = _guessed_bytes_per_row(feature_set, plan.media_seconds / max(1, plan.clips_wanted))
        total += rows * row_bytes
    if guessed:
        return round(total), f"rough constants for {', '.join(guessed)}, which the store does not hold yet"
    return round(total), "the rows that the store holds" if total else "there being nothing to extract"


def _bytes_per_row(store: Store, feature_set: FeatureSet) -> float | None:
    """Compressed bytes of a row, from the table's log; ``None`` where it has none yet."""
    table = store.table(feature_spec(feature_set))
    if not table.exists():
        return None
    path = table.path if "://" in table.path else Path(table.path).as_uri()
    live = pa.table(DeltaTable(path).get_add_actions(flatten=True))
    rows = pc.sum(live["num_records"]).as_py() or 0
    return pc.sum(live["size_bytes"]).as_py() / rows if rows else None


def _guessed_bytes_per_row(feature_set: FeatureSet, length_s: float) -> float:
    frames = length_s * (feature_set.rate_hz or WORDS_PER_SECOND)
    numbers = frames * (len(feature_set.columns) + 1) + (feature_set.pooled_dim or 0)
    return BYTES_PER_ROW + BYTES_PER_NUMBER * numbers
