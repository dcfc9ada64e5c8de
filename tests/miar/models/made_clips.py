"""Clips with a known answer, made from random numbers: small, fast, and never real."""

import numpy as np

from miar.data.dataset import ClipDataset, ModalityData, Ragged

WIDTHS = {"text": 2 * 6, "audio": 5, "face": 4}


def made_descriptors() -> dict:
    return {
        "text": {
            "extractor": "text",
            "config_hash": "t" * 16,
            "columns": [f"layer{layer}_{column}" for layer in range(2) for column in range(6)],
            "layers": 2,
            "voiced_columns": [],
            "summary_columns": [],
        },
        "audio": {
            "extractor": "opensmile",
            "config_hash": "a" * 16,
            "columns": ["F0", "loudness", "mfcc1", "mfcc2", "dead"],
            "layers": 1,
            "voiced_columns": ["F0"],
            "summary_columns": [f"mfcc{index}_amean" for index in range(5)],
        },
        "face": {
            "extractor": "mediapipe",
            "config_hash": "f" * 16,
            "columns": ["AU01", "AU04", "AU12", "AU26"],
            "layers": 1,
            "voiced_columns": [],
            "summary_columns": [f"AU{index:02d}_{kind}" for kind in ("mean", "std") for index in (1, 4, 12, 26)],
        },
    }


def made_dataset(
    count: int = 48,
    *,
    seed: int = 0,
    missing: float = 0.0,
    lengths: tuple[int, int] = (3, 14),
    noise: float = 1.0,
    prefix: str = "clip",
) -> ClipDataset:
    """Each modality carries the label with noise of its own; ``missing`` of the cells are absent.

    The last column of the audio is constant, and its first, a pitch, is above 0 in half of the frames and 0 in the
    others.
    """
    draw = np.random.default_rng(seed)
    directions = {name: np.random.default_rng(7).normal(size=width) for name, width in WIDTHS.items()}
    target = draw.normal(size=count)
    absent = draw.random((count, 3)) < missing
    sequences: dict[str, list] = {name: [] for name in WIDTHS}
    summaries = {"audio": np.full((count, 5), np.nan, np.float32), "face": np.full((count, 8), np.nan, np.float32)}
    for clip in range(count):
        for index, (name, width) in enumerate(WIDTHS.items()):
            if absent[clip, index]:
                sequences[name].append(None)
                continue
            steps = draw.integers(*lengths)
            signal = target[clip] + noise * draw.normal()
            values = draw.normal(size=(steps, width)) + signal * directions[name]
            if name == "audio":
                values[:, 4] = 3.5
                values[:, 0] = np.exp(0.3 * values[:, 0])
                values[draw.random(steps) < 0.5, 0] = 0.0
            sequences[name].append(values.astype(np.float32))
            if name in summaries:
                summaries[name][clip] = draw.normal(size=summaries[name].shape[1]) + signal
    modalities = {
        name: ModalityData.from_values(Ragged.from_list(parts, WIDTHS[name]), summaries.get(name))
        for name, parts in sequences.items()
    }
    ids = [f"{prefix}{seed}-{clip}" for clip in range(count)]
    return ClipDataset(ids, modalities, made_descriptors(), 1.5 * target + 0.3, label="sentiment")


def as_classes(dataset: ClipDataset, edges: tuple[float, ...] = (-0.5, 1.0)) -> ClipDataset:
    """The same clips with the label cut into classes."""
    from dataclasses import replace

    codes = np.digitize(dataset.targets, edges).astype(np.float64)
    return replace(dataset, targets=codes, classes=("negative", "neutral", "positive")[: len(edges) + 1])
