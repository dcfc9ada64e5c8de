"""Scoring from a snapshot of the store against a plain padded-batch loop over the same model.

    python -m benchmarks scoring --clips 600 --rounds 3 --device cpu

The loop is the one that a first evaluation script would hold: read the snapshot's tables, make one array per clip and
modality, take the clips as they come in batches of 32, pad each batch to its longest clip, call the model. To explain,
it calls the model once for each of the seven subsets of modalities. Both give the same predictions, which is checked.
The model is standardised and not trained: its weights change no cost. Clips are as long as spoken utterances are.
"""

import argparse
import tempfile
from collections.abc import Iterator
from statistics import median
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from benchmarks.history import record
from benchmarks.interleave import machine, ratio, show, take_turns
from miar.data.batches import MODALITIES, Batch, ModalityBatch, modality_subsets
from miar.data.from_store import load_dataset
from miar.features.action_units import ACTION_UNITS, BLENDSHAPES, unit_summary_columns
from miar.features.contract import Extraction, FeatureSet, Modality, Status
from miar.models.config import MIARConfig
from miar.models.miar import MIAR
from miar.pipeline.rows import descriptor_row, feature_rows, feature_spec
from miar.scoring.scorer import score_dataset
from storage import CLIPS, FEATURE_SETS, LABELS, Snapshot, Store

LOOP_BATCH = 32
TRAINING_CLIPS = 120
GATE_STEPS = 2
"""Choosing the gates is training, and takes longer than the scoring that is measured here."""
MISSING = 0.08
"""Share of clips without each modality."""
FRAME_RATES = {"text": 3.5, "audio": 100.0, "face": 10.0}
"""Steps a second: spoken sub-words, openSMILE frames, sampled pictures."""
FEATURE_SETS_MADE = {
    "text": FeatureSet("text", Modality.TEXT, tuple(f"l{i // 384 + 3}_{i % 384:03d}" for i in range(4 * 384)), None),
    "audio": FeatureSet(
        "opensmile",
        Modality.AUDIO,
        ("F0semitoneFrom27.5Hz_sma3nz", *(f"lld{i:02d}_sma3" for i in range(24))),
        100.0,
        tuple(f"{['loudness', 'mfcc', 'spectral', 'F'][i % 4]}_{i:02d}" for i in range(88)),
    ),
    "face": FeatureSet(
        "mediapipe",
        Modality.FACE,
        (*BLENDSHAPES, *ACTION_UNITS, "pitch", "yaw", "roll"),
        10.0,
        unit_summary_columns(),
    ),
}


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="benchmarks scoring")
    parser.add_argument("--clips", type=int, default=600)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    options = parser.parse_args(arguments)
    device = options.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    with tempfile.TemporaryDirectory() as folder:
        snapshot = made_snapshot(folder, options.clips)
        train = load_dataset(snapshot, label="sentiment", splits=["train"])
        model = MIAR.for_dataset(MIARConfig(gate_steps=GATE_STEPS), train)
        model.train(False)
        check_equal(model, snapshot, device)
        seconds = time_scoring(model, snapshot, device, options.rounds)
    found = {name: ratio(seconds, f"{name} loop", name) for name in ("predict", "explain")}
    middle = {name: round(median(values), 3) for name, values in seconds.items()}
    for name, what in (("predict", "predictions alone"), ("explain", "predictions and contributions")):
        rates = f"{options.clips / middle[name]:.0f} against {options.clips / middle[f'{name} loop']:.0f} clips/s"
        show(f"scoring from the store against a padded-batch loop on {device}, {what}", found[name], 3.0, detail=rates)
    print(f"  of the seconds, reading takes {middle['load']:.2f}; the loop's reading {middle['loop load']:.2f}")
    record("scoring", {**machine(), "device": device, "clips": options.clips, "ratios": found, "seconds": middle})


def time_scoring(model: MIAR, snapshot: Snapshot, device: str, rounds: int) -> dict[str, list[float]]:
    """From the files of a snapshot to predictions."""

    def ours(explain: bool) -> None:
        score_dataset(model, load_dataset(snapshot, label=None), explain=explain, device=device)

    ways = {
        "predict": lambda: ours(explain=False),
        "predict loop": lambda: drop(plain_loop(model, snapshot, device, explain=False)),
        "explain": lambda: ours(explain=True),
        "explain loop": lambda: drop(plain_loop(model, snapshot, device, explain=True)),
        "load": lambda: drop(load_dataset(snapshot, label=None)),
        "loop load": lambda: drop(plain_arrays(snapshot)),
    }
    return take_turns(ways, rounds)


def drop(_: object) -> None:
    """Nothing of a way's result is kept: :func:`take_turns` takes a number for the seconds."""


def check_equal(model: MIAR, snapshot: Snapshot, device: str) -> None:
    """Both ways score the same; this run also warms both up."""
    rows = score_dataset(model, load_dataset(snapshot, label=None), explain=False, device=device)
    ours = dict(zip(rows["clip_id"].to_pylist(), rows["prediction"].to_pylist(), strict=True))
    theirs = plain_loop(model, snapshot, device, explain=False)
    here = [clip_id for clip_id, value in ours.items() if value is not None]
    worst = max(abs(ours[clip_id] - float(theirs[clip_id][0])) for clip_id in here)
    assert worst < 1e-3, f"the loop's predictions differ by {worst}"


def plain_loop(model: MIAR, snapshot: Snapshot, device: str, *, explain: bool) -> dict[str, np.ndarray]:
    """clip_id -> (1,) prediction, or (7,) one for each subset."""
    clips = plain_arrays(snapshot)
    subsets = modality_subsets() if explain else torch.ones(1, len(MODALITIES), dtype=torch.bool)
    predictions = {}
    model.to(device)
    with torch.inference_mode():
        for batch in plain_batches(clips):
            placed = batch.to(device)
            columns = [model(placed.with_available(subset[None])).prediction.cpu() for subset in subsets]
            predictions |= dict(zip(batch.clip_ids, torch.stack(columns, 1).numpy(), strict=True))
    return predictions


def plain_arrays(snapshot: Snapshot) -> list[tuple[str, dict[str, tuple[np.ndarray, np.ndarray]]]]:
    """Clips with (values, summary) by modality, one array each."""
    found: dict[str, dict[str, tuple[np.ndarray, np.ndarray]]] = {
        clip_id: {} for clip_id in snapshot.read("clips", columns=["clip_id"])["clip_id"].to_pylist()
    }
    for name, feature_set in FEATURE_SETS_MADE.items():
        rows = snapshot.read(feature_set.table).to_pandas()
        summaries = rows[list(feature_set.summary_columns)].to_numpy(np.float32)
        for index, (clip_id, status, values) in enumerate(
            zip(rows["clip_id"], rows["status"], rows["values"], strict=True)
        ):
            if status == "ok":
                found[clip_id][name] = (values.reshape(-1, len(feature_set.columns)), summaries[index])
    return list(found.items())


def plain_batches(clips: list[tuple[str, dict[str, tuple[np.ndarray, np.ndarray]]]]) -> Iterator[Batch]:
    """Clips as they come, each modality padded to the batch's longest."""
    for start in range(0, len(clips), LOOP_BATCH):
        part = clips[start : start + LOOP_BATCH]
        modalities = {}
        for name, feature_set in FEATURE_SETS_MADE.items():
            longest = max((len(has[name][0]) for _, has in part if name in has), default=1)
            values = torch.zeros(len(part), longest, len(feature_set.columns))
            mask = torch.zeros(len(part), longest, dtype=torch.bool)
            summary = torch.full((len(part), len(feature_set.summary_columns)), torch.nan)
            for row, (_, has) in enumerate(part):
                if name in has:
                    length = len(has[name][0])
                    values[row, :length] = torch.from_numpy(has[name][0].copy())
                    mask[row, :length] = True
                    summary[row] = torch.from_numpy(has[name][1].copy())
            modalities[name] = ModalityBatch(values, mask, summary if feature_set.summary_columns else None)
        available = torch.tensor([[name in has for name in MODALITIES] for _, has in part])
        yield Batch([clip_id for clip_id, _ in part], modalities, available)


def made_snapshot(folder: str, clips: int) -> Snapshot:
    """A store of made features, a tenth of the clips being there to standardise by."""
    store = Store.create(folder)
    draw = np.random.default_rng(0)
    ids = [f"{draw.integers(2**63):016x}" for _ in range(clips)]
    seconds = np.clip(draw.lognormal(1.2, 0.6, clips), 0.8, 15.0)
    store.table(CLIPS).merge(pa.Table.from_pylist([_clip(i, one) for i, one in enumerate(ids)], schema=CLIPS.schema))
    labels = [
        {"clip_id": one, "name": "sentiment", "corpus_id": "made", "value": float(value)}
        for one, value in zip(ids, draw.normal(size=clips), strict=True)
    ]
    store.table(LABELS).merge(pa.Table.from_pylist(labels, schema=LABELS.schema))
    identities = {one: {"corpus_id": "made", "source_id": None, "input_hash": one} for one in ids}
    for name, feature_set in FEATURE_SETS_MADE.items():
        store.table(FEATURE_SETS).merge(descriptor_row(feature_set))
        table, files = store.table(feature_spec(feature_set)), []
        for start in range(0, clips, 500):
            chosen = slice(start, start + 500)
            made = [
                (one, _made(draw, name, feature_set, length))
                for one, length in zip(ids[chosen], seconds[chosen], strict=True)
            ]
            rows = feature_rows(feature_set, made, identities, "made")
            files.append(table.stage(rows, run_id="made", name=f"shard-{start}"))
        table.register(files, wanted=pa.table({"clip_id": ids, "input_hash": ids}))
    return store.snapshots.take()


def _clip(index: int, clip_id: str) -> dict[str, Any]:
    return {
        "clip_id": clip_id,
        "corpus_id": "made",
        "video_id": f"video-{index // 10:06d}",
        "segment": index % 10,
        "path": f"video-{index // 10:06d}.mp4",
        "split": "train" if index < TRAINING_CLIPS else "test",
        "state": "live",
    }


def _made(draw: np.random.Generator, name: str, feature_set: FeatureSet, seconds: float) -> Extraction:
    if draw.random() < MISSING:
        return Extraction.missing("made")
    frames = max(2, round(seconds * FRAME_RATES[name]))
    values = draw.standard_normal((frames, len(feature_set.columns)), np.float32)
    return Extraction(
        Status.OK,
        values=values,
        times=np.arange(frames, dtype=np.float32) / np.float32(FRAME_RATES[name]),
        summary={
            column: float(value)
            for column, value in zip(
                feature_set.summary_columns, draw.normal(size=len(feature_set.summary_columns)), strict=True
            )
        },
    )
