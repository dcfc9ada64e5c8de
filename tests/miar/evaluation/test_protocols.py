"""Evaluations against figures computed clip by clip from the model's own forward pass."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from sklearn import metrics as sk

from miar.data.batches import MODALITIES
from miar.data.dataset import ClipDataset, ModalityData, Ragged
from miar.errors import FeatureMismatchError, UserError
from miar.evaluation.controls import shuffle_labels, shuffle_modality
from miar.evaluation.metrics import SENTIMENT_RANGE, regression_metrics
from miar.evaluation.protocols import LEAST_CLIPS_PER_SPEAKER, evaluate
from miar.models.miar import MIAR, MIARConfig
from miar.training.config import TrainingConfig
from miar.training.loop import fit

WIDTHS = {"text": 4, "audio": 3, "face": 5}
CLASSES = ("happy", "neutral", "sad")
SUBSETS = ["text", "audio", "face", "text+audio", "text+face", "audio+face", "text+audio+face"]
# Of 40 clips, some miss one modality, some two, and the last has none.
PATTERNS = ["taf"] * 24 + ["ta"] * 6 + ["tf"] * 4 + ["af"] * 3 + ["t", "f", ""]


def make_dataset(patterns: list[str], seed: int, classes: tuple[str, ...] = ()) -> ClipDataset:
    """Every modality carries the label in its level, with noise of its own."""
    rng = np.random.default_rng(seed)
    labels = rng.uniform(-3, 3, len(patterns))
    data = {}
    for name in MODALITIES:
        levels = labels + rng.normal(scale=1.5, size=len(patterns))
        sequences = [
            (rng.normal(size=(rng.integers(3, 9), WIDTHS[name])) + level).astype(np.float32)
            if name[0] in pattern
            else None
            for pattern, level in zip(patterns, levels, strict=True)
        ]
        data[name] = ModalityData.from_values(Ragged.from_list(sequences, WIDTHS[name]))
    descriptors: dict[str, dict[str, Any]] = {
        name: {"extractor": name, "config_hash": "0", "columns": [str(i) for i in range(WIDTHS[name])]}
        for name in MODALITIES
    }
    return ClipDataset(
        clip_ids=[f"{seed}-{i}" for i in range(len(patterns))],
        modalities=data,
        feature_sets=descriptors,
        targets=np.digitize(labels, [-1, 1]).astype(float) if classes else labels,
        speakers=[f"speaker{i % 5}" for i in range(len(patterns))],
        classes=classes,
        label="sentiment",
    )


def trained(classes: tuple[str, ...] = ()) -> MIAR:
    train, valid = make_dataset(PATTERNS * 4, 100, classes), make_dataset(PATTERNS, 101, classes)
    config = MIARConfig(width=16, heads=2, max_steps=8, shared_width=8, encoder_layers=0)
    return fit(config, train, valid, TrainingConfig(epochs=8, learning_rate=5e-3, device="cpu")).model


@pytest.fixture(scope="module")
def model() -> MIAR:
    return trained()


@pytest.fixture(scope="module")
def classifier() -> MIAR:
    return trained(CLASSES)


@pytest.fixture(scope="module")
def dataset() -> ClipDataset:
    return make_dataset(PATTERNS * 2, 1)


def clip_by_clip(model: MIAR, dataset: ClipDataset, subset: str) -> np.ndarray:
    """(N,) predictions of each clip on its own, by the model called directly."""
    keep = torch.tensor([[name in subset.split("+") for name in MODALITIES]])
    with torch.inference_mode():
        return np.array(
            [
                model(dataset.batch(np.array([index])).with_available(keep)).prediction.item()
                for index in range(len(dataset))
            ]
        )


def test_overall_and_each_subset_equal_the_model_called_clip_by_clip(model, dataset):
    result = evaluate(model, dataset, label_range=SENTIMENT_RANGE)
    assert list(result.subsets) == SUBSETS
    for name, metrics in [("text+audio+face", result.overall), *result.subsets.items()]:
        predictions = clip_by_clip(model, dataset, name)
        shown = np.isfinite(predictions)
        assert (metrics.n, metrics.left_out) == (shown.sum(), (~shown).sum())
        expected = regression_metrics(dataset.targets[shown], predictions[shown], label_range=SENTIMENT_RANGE)
        assert metrics == pytest.approx(dict(expected), abs=1e-5)
        assert "acc7" in metrics
    assert result.subsets["text"].left_out == 2 * (3 + 1 + 1)
    assert result.overall.left_out == 2


def test_the_model_learned_and_fusion_helps(model, dataset):
    result = evaluate(model, dataset)
    corr = {name: metrics["corr"] or 0 for name, metrics in result.subsets.items()}
    assert corr["text+audio+face"] > 0.7
    assert corr["text+audio+face"] > max(corr["text"], corr["audio"], corr["face"])


def test_controls_cost_what_they_take_away(model, dataset):
    whole = evaluate(model, dataset).overall["corr"] or 0
    for name in MODALITIES:
        assert (evaluate(model, shuffle_modality(dataset, name, 0)).overall["corr"] or 0) < whole
    dealt = [evaluate(model, shuffle_labels(dataset, seed)).overall["corr"] or 0 for seed in range(8)]
    assert abs(np.mean(dealt)) < 0.15


def test_patterns_and_intervals(model, dataset):
    result = evaluate(model, dataset)
    patterns = {name: metrics.n for name, metrics in result.patterns.items()}
    counted = {"text+audio+face": 48, "text+audio": 12, "text+face": 8, "audio+face": 6, "text": 2, "face": 2}
    assert patterns == counted
    assert next(iter(patterns)) == "text+audio+face"
    for name in ("corr", "mae"):
        interval, value = result.intervals[name], result.overall[name]
        assert interval is not None
        assert value is not None
        assert interval.low < value < interval.high
        assert interval.n_groups == 5
    assert evaluate(model, dataset).intervals == result.intervals


def test_speakers(model, dataset):
    few = LEAST_CLIPS_PER_SPEAKER - 1
    speakers = ["rare"] * few + [None] + [f"speaker{i % 3}" for i in range(len(dataset) - few - 1)]
    named = replace(dataset, speakers=speakers)
    spread = evaluate(model, named).speakers["mae"]
    predictions = clip_by_clip(model, dataset, "text+audio+face")
    maes = []
    for speaker in ("speaker0", "speaker1", "speaker2"):
        rows = (np.array(speakers) == speaker) & np.isfinite(predictions)
        maes.append(sk.mean_absolute_error(dataset.targets[rows], predictions[rows]))
    expected = (3, np.mean(maes), np.std(maes), min(maes), max(maes))
    got = (spread.speakers, spread.mean, spread.deviation, spread.least, spread.greatest)
    assert got == pytest.approx(expected, abs=1e-5)
    assert evaluate(model, replace(dataset, speakers=[None] * len(dataset))).speakers == {}


def test_classes(classifier):
    dataset = make_dataset(PATTERNS * 2, 1, CLASSES)
    result = evaluate(classifier, dataset)
    with torch.inference_mode():
        outputs = [classifier(dataset.batch(np.array([index]))) for index in range(len(dataset))]
    predictions = np.array([output.prediction.item() for output in outputs])
    shown = np.isfinite(predictions)
    truth, guess = dataset.targets[shown], predictions[shown]
    assert result.overall["wa"] == pytest.approx(sk.accuracy_score(truth, guess))
    assert result.overall["ua"] == pytest.approx(sk.balanced_accuracy_score(truth, guess))
    assert result.overall["f1"] == pytest.approx(sk.f1_score(truth, guess, average="weighted"))
    assert result.confusion == sk.confusion_matrix(truth, guess, labels=[0, 1, 2]).tolist()
    assert (result.overall["wa"] or 0) > 0.5
    assert result.calibration is not None
    confidences = [output.probabilities.max().item() for output in outputs if output.prediction.isfinite()]
    held = sum(each.n * (each.confidence or 0) for each in result.calibration.bins)
    assert held == pytest.approx(sum(confidences), abs=1e-3)
    assert list(result.subsets) == SUBSETS
    assert set(result.speakers) == {"wa", "ua"}
    json.dumps(result.to_json(), allow_nan=False)


def test_classes_are_matched_by_name_not_by_position(classifier):
    dataset = make_dataset(PATTERNS * 2, 1, CLASSES)
    turned = dataset.with_classes(CLASSES[::-1])
    assert evaluate(classifier, turned).overall == evaluate(classifier, dataset).overall


def test_the_json_tree_is_flat_where_tables_read_it(model, dataset):
    tree = json.loads(json.dumps(evaluate(model, dataset).to_json(), allow_nan=False))
    assert set(tree["overall"]) == {"n", "not_scored", "mae", "rmse", "corr", "ccc"}
    assert list(tree["subsets"]) == SUBSETS
    assert tree["patterns"]["text"]["n"] == 2
    assert tree["intervals"]["corr"]["low"] < tree["overall"]["corr"]
    alone = evaluate(model, dataset.subset([0])).to_json()
    assert alone["overall"]["corr"] is None
    assert alone["undefined"]["overall.corr"] == "fewer than 2 clips"
    assert alone["intervals"] == {"corr": None, "mae": None}


def test_subsets_that_no_clip_has_are_not_listed(model, dataset):
    assert list(evaluate(model, dataset.with_modalities(["text", "face"])).subsets) == ["text", "face", "text+face"]


def test_clips_that_the_model_was_trained_on_are_refused(model, dataset):
    train = make_dataset(PATTERNS * 4, 100)
    with pytest.raises(UserError, match="156 of the 160 clips were used to train"):
        evaluate(model, train)
    report = evaluate(model, train, training_report=True)
    assert report.training_clips == 156
    assert report.to_json()["clips"]["training"] == 156
    assert evaluate(model, dataset).training_clips == 0


def test_clips_that_chose_the_epoch_are_counted(model):
    assert evaluate(model, make_dataset(PATTERNS, 101)).validation_clips == 39


def test_unlabelled_clips_are_left_out(model, dataset):
    targets = dataset.targets.copy()
    targets[::2] = np.nan
    half = evaluate(model, replace(dataset, targets=targets))
    assert half.unlabelled == len(dataset) // 2
    assert half.overall == evaluate(model, dataset.subset(np.arange(1, len(dataset), 2))).overall


def test_users_mistakes(model, classifier, dataset):
    with pytest.raises(UserError, match="no clip to evaluate has the label 'sentiment'"):
        evaluate(model, replace(dataset, targets=np.full(len(dataset), np.nan)))
    with pytest.raises(UserError, match="predicts classes and the labels are a number"):
        evaluate(classifier, dataset)
    other = dataset.feature_sets | {"face": dataset.feature_sets["face"] | {"config_hash": "1"}}
    with pytest.raises(FeatureMismatchError):
        evaluate(model, replace(dataset, feature_sets=other))
