"""A store as the pipeline leaves it, filled with made rows through the store's own interface."""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from miar.corpus.model import clip_id
from miar.features.contract import Extraction, FeatureSet, Modality, Status
from miar.models.config import MIARConfig
from miar.pipeline.rows import descriptor_row, feature_rows, feature_spec
from miar.synth.corpus import _corpus_correlations
from miar.synth.expression import perform
from miar.synth.model import DISAGREE_FROM, draw_signals
from miar.synth.oracle import predict
from miar.synth.plan import assign_splits, plan_videos
from miar.synth.tables import write_truth
from miar.synth.video import REPORTED_UNITS, ClipFacts
from miar.training.config import TrainingConfig
from storage import CLIPS, FAILURES, FEATURE_SETS, LABELS, RUNS, SCORES, Store

HOSTILE = "</script><script>alert('words')</script><img src=x onerror=alert(1)> & \u2028 “@text”"
NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
CLIP_COUNT = 80
UNITS = ("AU01", "AU04", "AU12", "AU26")

TEXT = FeatureSet("text", Modality.TEXT, ("h0", "h1"), None, config={"model": "made"})
AUDIO = FeatureSet("opensmile", Modality.AUDIO, ("loudness",), 100.0, config={"set": "made"})
FACE = FeatureSet(
    "mediapipe",
    Modality.FACE,
    ("smile",),
    10.0,
    summary_columns=tuple(f"{unit.lower()}_mean" for unit in UNITS),
    config={"fps": 10},
)
TRAINED_WITH = {
    "label": "sentiment",
    "system": "miar",
    "snapshot": "trained-on",
    "features": {"text": TEXT.table, "audio": AUDIO.table},
    "model": {**asdict(MIARConfig()), "width": 32},
    "training": {**asdict(TrainingConfig()), "seed": 7, "loss": "mse", "learning_rate": 1e-05},
}
NO_FACE_CLIP, BROKEN_CLIP, EMPTY_CLIP = 3, 4, 5


@dataclass
class MadeStore:
    """The store, and the figures that the report must show."""

    store: Store
    root: Path
    clips: list[dict[str, Any]]
    truth: np.ndarray
    prediction: np.ndarray
    scored: np.ndarray
    """Which clips have a score."""
    faces: np.ndarray
    """Which clips show a face and were measured."""
    units_put_in: dict[str, np.ndarray]
    units_measured: dict[str, np.ndarray]


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> MadeStore:
    """A demo corpus of :data:`CLIP_COUNT` clips, extracted, labelled, scored and evaluated. Not to be written to."""
    return fill(tmp_path_factory.mktemp("made"))


@pytest.fixture
def empty_store(tmp_path: Path) -> Store:
    return Store.create(str(tmp_path / "empty"))


def fill(folder: Path, n: int = CLIP_COUNT) -> MadeStore:
    root = folder / "corpus <b>&"
    root.mkdir(parents=True)
    store = Store.create(str(folder / "store"))
    rng = np.random.default_rng(1)
    plans = list(plan_videos(n, 0))
    signals = draw_signals(0, 0, n)
    splits = assign_splits(plans[-1].speaker + 1, 0)
    facts, units = _facts(plans, signals, rng)
    predictions = predict(signals)
    write_truth(root / "truth.csv", plans, facts, signals, predictions)
    per_clip = np.repeat([splits[plan.speaker] for plan in plans], [plan.clips for plan in plans])
    document = {
        "oracle_correlations": _corpus_correlations(signals, predictions, per_clip == "test"),
        "disagreeing_from": DISAGREE_FROM,
    }
    (root / "corpus.json").write_text(json.dumps(document), "utf-8")
    clips = _clips(plans, splits, facts)
    truth, prediction = signals.sentiment.round(3), predictions["optimum"] + rng.normal(0, 0.4, n)
    scored = np.arange(n) != EMPTY_CLIP
    merge(store, CLIPS, clips)
    merge(store, LABELS, [_label(clip, value) for clip, value in zip(clips, truth, strict=True)])
    measured = _extract(store, clips, units, rng)
    merge(store, SCORES, [_score(clip, prediction[i], bool(scored[i]), i) for i, clip in enumerate(clips)])
    merge(store, FAILURES, _failures(clips))
    merge(store, RUNS, _runs(root))
    faces = signals.available[:, 2] & ~np.isin(np.arange(n), (NO_FACE_CLIP, BROKEN_CLIP))
    return MadeStore(store, root, clips, truth, prediction, scored, faces, units, measured)


def merge(store: Store, spec: Any, rows: list[dict[str, Any]]) -> None:
    store.table(spec).merge(pa.Table.from_pylist(rows, schema=spec.schema))


def _facts(plans: list, signals: Any, rng: np.random.Generator) -> tuple[dict, dict[str, np.ndarray]]:
    facts: dict[int, list[ClipFacts]] = {}
    units: dict[str, list[float]] = {unit: [] for unit in UNITS}
    for plan in plans:
        for segment in range(plan.clips):
            clip = plan.first_clip + segment
            acted = perform(float(signals.face[clip]), rng.uniform(0, 1, 30), rng).units
            named = {
                f"{unit}_{name}": float(statistic(acted[unit]))
                for unit in REPORTED_UNITS
                for name, statistic in (("mean", np.mean), ("max", np.max))
            }
            for unit in UNITS:
                units[unit].append(round(named[f"{unit}_mean"], 4))
            text = HOSTILE if clip == 0 else f"word {clip} “ünïcode” " + "and more " * (clip % 30)
            facts.setdefault(plan.number, []).append(ClipFacts(segment * 3000, segment * 3000 + 2800, text, named))
    return facts, {unit: np.array(values) for unit, values in units.items()}


def _clips(plans: list, splits: list[str], facts: dict[int, list[ClipFacts]]) -> list[dict[str, Any]]:
    return [
        {
            "clip_id": clip_id("demo", f"{plan.video_id}.mp4", fact.start_ms, fact.end_ms),
            "corpus_id": "demo",
            "video_id": plan.video_id,
            "segment": segment,
            "source_id": f"{plan.name}_{segment:02d}",
            "path": f"{plan.video_id}.mp4",
            "start_ms": fact.start_ms,
            "end_ms": fact.end_ms,
            "text": fact.text,
            "speaker": f"s{plan.speaker}",
            "split": splits[plan.speaker],
            "media_size": 1,
            "media_mtime_ns": 1,
            "state": "live",
            "updated_at": NOW,
            "run_id": "r",
        }
        for plan in plans
        for segment, fact in enumerate(facts[plan.number])
    ]


def _label(clip: dict[str, Any], value: float) -> dict[str, Any]:
    return {
        "clip_id": clip["clip_id"],
        "name": "sentiment",
        "corpus_id": "demo",
        "source_id": clip["source_id"],
        "value": float(value),
    }


def _extract(
    store: Store, clips: list[dict[str, Any]], units: dict[str, np.ndarray], rng: np.random.Generator
) -> dict[str, np.ndarray]:
    """Rows of the three feature tables; one clip has no face, and one has failed."""
    identities = {clip["clip_id"]: {**clip, "input_hash": "h"} for clip in clips}
    measured = {unit: 0.8 * values + rng.normal(0, 0.03, len(values)) for unit, values in units.items()}
    for described in (TEXT, AUDIO, FACE):
        extractions = []
        for i, clip in enumerate(clips):
            if described is FACE and i == NO_FACE_CLIP:
                extractions.append((clip["clip_id"], Extraction.missing("no_face")))
            elif i != BROKEN_CLIP or described is TEXT:
                summary = {name: float(measured[name[:4].upper()][i]) for name in described.summary_columns}
                values = np.ones((2, len(described.columns)), np.float32)
                found = Extraction(Status.OK, values=values, times=np.arange(2, dtype=np.float32), summary=summary)
                extractions.append((clip["clip_id"], found))
        store.table(feature_spec(described)).merge(feature_rows(described, extractions, identities, "r"))
        store.table(FEATURE_SETS).merge(descriptor_row(described))
    return measured


def _score(clip: dict[str, Any], prediction: float, scored: bool, i: int) -> dict[str, Any]:
    row = {name: clip[name] for name in ("clip_id", "corpus_id", "source_id", "video_id", "segment", "split")}
    row |= {
        "model_id": "miar-made",
        "label": "sentiment",
        "input_hash": "h",
        "base": 0.1,
        "snapshot_id": "snap-1",
        "run_id": "score-1",
        "scored_at": NOW,
    }
    if not scored:
        return row | {"status": "not_scored", "reason": "nothing_to_score", "available": ""}
    rest = float(prediction) - 0.1
    text, audio = (1.4 * rest, -0.6 * rest) if i % 7 == 0 else (0.6 * rest, 0.1 * rest)
    has_face = i not in (NO_FACE_CLIP, BROKEN_CLIP)
    return row | {
        "status": "scored",
        "prediction": float(prediction),
        "available": "text+audio+face" if has_face else "text+audio",
        "contribution_text": text if has_face else rest - audio,
        "contribution_audio": audio,
        "contribution_face": rest - text - audio if has_face else None,
        "weight_joint": 0.4,
    }


def _failures(clips: list[dict[str, Any]]) -> list[dict[str, Any]]:
    shared = {"corpus_id": "demo", "attempts": 1, "run_id": "r", "failed_at": NOW, "input_hash": ""}
    broken = clips[BROKEN_CLIP]
    return [
        shared
        | {
            "path": broken["path"],
            "clip_id": broken["clip_id"],
            "stage": FACE.extractor,
            "config_hash": FACE.config_hash,
            "error": "DecodeError",
            "message": f"the picture breaks off: {HOSTILE}",
        },
        shared
        | {
            "path": "videos/a <b>video</b>.mp4",
            "clip_id": "",
            "stage": "media",
            "config_hash": "",
            "error": "empty_file",
            "message": "the file is empty",
        },
    ]


def _runs(root: Path) -> list[dict[str, Any]]:
    metrics = {"mae": 0.8, "corr": 0.75, "ccc": 0.7, "acc2_non0": 0.8}
    less = {"mae": 1.1, "corr": 0.55, "ccc": 0.5, "acc2_non0": None}
    result = {
        "model_id": "miar-made",
        "split": "test",
        "snapshot_id": "trained-on",
        "overall": metrics,
        "subsets": {"text": less, "audio": less, "face": less, "text+audio": less, "text+audio+face": metrics},
        "baselines": {"ridge text": less},
        "intervals": {"corr": {"low": 0.61, "high": 0.84, "level": 0.95, "n_groups": 6}, "mae": None},
    }
    runs = {
        "refresh": ({"root": str(root)}, {"warnings": [f"3 files were odd: {HOSTILE}"]}),
        "train": (TRAINED_WITH, {"model_id": "miar-made", "snapshot_id": "trained-on"}),
        "evaluate": ({}, result),
        "score": ({}, {}),
    }
    return [
        {
            "run_id": f"{kind}-1",
            "kind": kind,
            "corpus_id": "demo" if kind == "refresh" else None,
            "state": "completed",
            "started_at": NOW + timedelta(minutes=minute),
            "ended_at": NOW + timedelta(minutes=minute, seconds=12),
            "config": json.dumps(config),
            "result": json.dumps(outcome),
        }
        for minute, (kind, (config, outcome)) in enumerate(runs.items())
    ]


@pytest.fixture(scope="session")
def fill_store() -> Callable[[Path], MadeStore]:
    """Makes a store of its own, for tests that write to it."""
    return fill
