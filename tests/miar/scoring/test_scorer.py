"""Scores of a model whose Shapley values are known in closed form, and of MIAR itself."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from miar.data.batches import MODALITIES, Batch
from miar.data.dataset import ClipDataset, ModalityData, Ragged
from miar.errors import FeatureMismatchError
from miar.models.miar import MIAR, MIARConfig
from miar.models.output import TrainingRecord
from miar.models.target import TargetSpec
from miar.scoring.scorer import CONTRIBUTIONS, SCORE_SCHEMA, WEIGHTS, score_dataset
from miar.scoring.subsets import predict_subsets

WIDTHS = {"text": 3, "audio": 5, "face": 4}


def descriptor(modality: str) -> dict[str, Any]:
    return {
        "extractor": modality,
        "config_hash": "0" * 16,
        "columns": [f"{modality}{i}" for i in range(WIDTHS[modality])],
    }


def make_dataset(patterns: list[str], seed: int = 0, classes: tuple[str, ...] = (), longest: int = 12) -> ClipDataset:
    """Clips that have the modalities that their pattern names by first letter: ``taf``, ``tf``, ``""``."""
    rng = np.random.default_rng(seed)
    data = {}
    for name in MODALITIES:
        sequences = [
            rng.normal(size=(rng.integers(1, longest + 1), WIDTHS[name])).astype(np.float32)
            if name[0] in pattern
            else None
            for pattern in patterns
        ]
        data[name] = ModalityData.from_values(Ragged.from_list(sequences, WIDTHS[name]))
    targets = rng.integers(0, len(classes), len(patterns)) if classes else rng.normal(size=len(patterns))
    return ClipDataset(
        clip_ids=[f"clip{i}" for i in range(len(patterns))],
        modalities=data,
        feature_sets={name: descriptor(name) for name in MODALITIES},
        targets=targets.astype(np.float64),
        classes=classes,
        label="sentiment",
    )


@dataclass
class Output:
    prediction: Tensor
    token_weights: Tensor
    probabilities: Tensor | None
    available: Tensor


class MeanSum(nn.Module):
    """base + the sum over modalities of the mean of their values, plus ``pair`` where text meets audio.

    In closed form the Shapley value of a modality is its own mean, and text and audio share ``pair`` equally.
    """

    def __init__(self, pair: float = 0.0, base: float = 0.25) -> None:
        super().__init__()
        self.pair = pair
        self.target = TargetSpec("sentiment", base, 1.0)
        self.record = TrainingRecord()
        self.device = torch.device("cpu")
        self.encodings = 0
        self.rows_fused = 0

    def check_feature_sets(self, given) -> None:
        assert set(given) == set(MODALITIES)

    def encode(self, batch: Batch) -> Tensor:
        """(B, M) mean over all values of a clip's frames."""
        assert not self.training
        self.encodings += 1
        means = []
        for name in MODALITIES:
            part = batch.modalities[name]
            frames = part.mask.sum(1).clamp_min(1)
            means.append((part.values.mean(-1) * part.mask).sum(1) / frames)
        return torch.stack(means, 1)

    def fuse(self, encoded: Tensor, available: Tensor) -> Output:
        self.rows_fused += len(encoded)
        met = available[:, 0] & available[:, 1]
        total = (encoded * available).sum(1) + self.target.base + self.pair * met
        prediction = torch.where(available.any(1), total, torch.nan)
        weights = torch.cat([torch.ones(len(total), 1), available.float()], 1)
        return Output(prediction, weights / weights.sum(1, keepdim=True), None, available)


PATTERNS = ["taf", "ta", "f", "", "tf", "af", "t", "a", "taf", "taf", "ta"]


def column(table: pa.Table, name: str) -> np.ndarray:
    return np.array([np.nan if value is None else value for value in table[name].to_pylist()])


def test_contributions_of_a_linear_model_are_its_terms():
    dataset = make_dataset(PATTERNS)
    table = score_dataset(MeanSum(pair=0.8), dataset, device="cpu")
    for row, pattern in zip(table.to_pylist(), PATTERNS, strict=True):
        index = int(row["clip_id"].removeprefix("clip"))
        for name in MODALITIES:
            if name[0] not in pattern:
                assert row[f"contribution_{name}"] is None
                continue
            term = float(dataset.modalities[name].sequences[index].mean())
            share = 0.4 if name != "face" and {"t", "a"} <= set(pattern) else 0
            assert row[f"contribution_{name}"] == pytest.approx(term + share, abs=1e-6)


def test_rows_say_what_was_scored_from_what():
    table = score_dataset(MeanSum(), make_dataset(PATTERNS), device="cpu")
    assert table.schema == SCORE_SCHEMA
    assert table["clip_id"].to_pylist() == [f"clip{i}" for i in range(len(PATTERNS))]
    assert table["available"].to_pylist()[:5] == ["text+audio+face", "text+audio", "face", None, "text+face"]
    nothing = table.to_pylist()[3]
    assert (nothing.pop("clip_id"), nothing.pop("status")) == ("clip3", "not_scored")
    assert nothing.pop("reason") == "nothing_to_score"
    assert set(nothing.values()) == {None}
    scored = table.filter(pa.array([bool(pattern) for pattern in PATTERNS]))
    assert set(scored["status"].to_pylist()) == {"scored"}
    assert scored["reason"].null_count == len(scored)
    assert set(scored["base"].to_pylist()) == {0.25}
    np.testing.assert_allclose(sum(column(scored, name) for name in WEIGHTS), 1, rtol=1e-6)


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.sampled_from(["taf", "ta", "tf", "af", "t", "a", "f", ""]), min_size=1, max_size=30),
    st.integers(1, 40),
    st.floats(-2, 2),
)
def test_efficiency_dummy_and_batches(patterns, batch_size, pair):
    dataset = make_dataset(patterns)
    dataset.modalities["face"].sequences.values[:] = 0  # face adds nothing to any coalition
    table = score_dataset(MeanSum(pair), dataset, batch_size=batch_size, device="cpu")
    sums = np.nansum([column(table, name) for name in CONTRIBUTIONS], axis=0)
    explained = column(table, "prediction") - column(table, "base")
    scored = np.array([bool(pattern) for pattern in patterns])
    np.testing.assert_allclose(sums[scored], explained[scored], atol=1e-5)
    faces = column(table, "contribution_face")
    assert np.nanmax(np.abs(faces), initial=0) < 1e-6
    one_by_one = score_dataset(MeanSum(pair), dataset, batch_size=1, device="cpu")
    for name in ("prediction", *CONTRIBUTIONS, *WEIGHTS):
        np.testing.assert_allclose(column(table, name), column(one_by_one, name), atol=1e-5)


def test_symmetry():
    dataset = make_dataset(["ta"] * 5)
    for name in ("text", "audio"):
        dataset.modalities[name].sequences.values[:] = 1.5
    table = score_dataset(MeanSum(pair=1.0), dataset, device="cpu")
    np.testing.assert_allclose(column(table, "contribution_text"), 2.0, atol=1e-6)
    np.testing.assert_allclose(column(table, "contribution_audio"), 2.0, atol=1e-6)


def test_each_clip_is_encoded_once_and_nothing_is_fused_that_no_clip_has():
    model = MeanSum()
    score_dataset(model, make_dataset(["taf"] * 8 + ["t"] * 8), batch_size=8, device="cpu")
    assert model.encodings == 2
    assert model.rows_fused == 8 * 7 + 8
    model = MeanSum()
    table = score_dataset(model, make_dataset(["taf"] * 8), batch_size=8, device="cpu", explain=False)
    assert model.rows_fused == 8
    assert all(table[name].null_count == 8 for name in CONTRIBUTIONS)
    assert table["prediction"].null_count == 0


def test_a_prediction_that_is_no_number_is_not_a_score():
    dataset = make_dataset(["taf", "taf"])
    dataset.modalities["text"].sequences.values[0] = np.nan
    table = score_dataset(MeanSum(), dataset, device="cpu")
    assert table["status"].to_pylist() == ["not_scored", "scored"]
    assert table["reason"].to_pylist() == ["not_finite", None]
    assert table["prediction"].to_pylist()[0] is None


def test_an_empty_dataset_gives_an_empty_table():
    table = score_dataset(MeanSum(), make_dataset([]), device="cpu")
    assert (table.num_rows, table.schema) == (0, SCORE_SCHEMA)


def miar_model(dataset: ClipDataset, seed: int = 0) -> MIAR:
    torch.manual_seed(seed)
    model = MIAR.for_dataset(MIARConfig(width=16, heads=2, max_steps=8, shared_width=8), dataset)
    with torch.no_grad():  # an untrained model's gates and scores are nearly the same for every clip
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model


@pytest.fixture(scope="module")
def scored_by_miar() -> tuple[MIAR, ClipDataset, pa.Table]:
    dataset = make_dataset(PATTERNS * 3, seed=1, longest=30)
    model = miar_model(dataset)
    return model, dataset, score_dataset(model, dataset, batch_size=16, device="cpu")


def test_miar_contributions_sum_to_what_they_explain(scored_by_miar):
    _, dataset, table = scored_by_miar
    scored = dataset.available.any(axis=1)
    sums = np.nansum([column(table, name) for name in CONTRIBUTIONS], axis=0)
    explained = column(table, "prediction") - column(table, "base")
    np.testing.assert_allclose(sums[scored], explained[scored], atol=1e-5)
    np.testing.assert_allclose(column(table, "base")[scored], dataset.targets.mean())
    for index, name in enumerate(CONTRIBUTIONS):
        np.testing.assert_array_equal(np.isfinite(column(table, name)), dataset.available[:, index])
    assert np.nanstd(column(table, "contribution_text")) > 1e-3


def test_miar_scores_equal_its_own_forward_pass_clip_by_clip(scored_by_miar):
    model, dataset, table = scored_by_miar
    model.eval()
    for index in np.flatnonzero(dataset.available.any(axis=1)):
        with torch.inference_mode():
            output = model(dataset.batch(np.array([index])))
        assert table["prediction"][index].as_py() == pytest.approx(output.prediction.item(), abs=1e-5)
        weights = [table[name][index].as_py() for name in WEIGHTS]
        np.testing.assert_allclose(weights, output.token_weights[0], atol=1e-5)


def test_miar_subsets_equal_clips_that_lack_the_other_modalities(scored_by_miar):
    model, dataset, _ = scored_by_miar
    predicted = predict_subsets(model, dataset, device="cpu")
    alone = predict_subsets(model, dataset.with_modalities(["audio"]), device="cpu")
    np.testing.assert_allclose(predicted.given(0b010), alone.own(), atol=1e-5)
    assert np.isfinite(alone.own()).sum() == dataset.available[:, 1].sum()


def test_order_and_company_of_clips_do_not_matter(scored_by_miar):
    model, dataset, table = scored_by_miar
    order = np.random.default_rng(0).permutation(len(dataset))[:20]
    again = score_dataset(model, dataset.subset(order), batch_size=7, device="cpu")
    assert again["clip_id"].to_pylist() == [dataset.clip_ids[i] for i in order]
    for name in ("prediction", *CONTRIBUTIONS, *WEIGHTS):
        np.testing.assert_allclose(column(again, name), column(table, name)[order], atol=1e-5)
    repeated = score_dataset(model, dataset, batch_size=16, device="cpu")
    assert repeated.equals(table)


def test_the_model_is_left_as_it_was(scored_by_miar):
    model, dataset, _ = scored_by_miar
    model.train()
    torch.set_float32_matmul_precision("high")
    try:
        score_dataset(model, dataset, device="cpu")
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision("highest")
    assert model.training
    assert all(parameter.requires_grad and not parameter.is_inference() for parameter in model.head.parameters())


def test_other_features_are_refused(scored_by_miar):
    model, dataset, _ = scored_by_miar
    other = replace(
        dataset, feature_sets=dataset.feature_sets | {"audio": descriptor("audio") | {"config_hash": "1" * 16}}
    )
    with pytest.raises(FeatureMismatchError, match="audio/1111"):
        score_dataset(model, other)


def test_classes_are_explained_in_probability():
    classes = ("happy", "neutral", "sad")
    dataset = make_dataset(PATTERNS * 3, seed=2, classes=classes)
    model = miar_model(dataset)
    table = score_dataset(model, dataset, device="cpu")
    shares = dict(zip(classes, np.bincount(dataset.targets.astype(int)) / len(dataset), strict=True))
    model.eval()
    for index, row in enumerate(table.to_pylist()):
        if not PATTERNS[index % len(PATTERNS)]:
            assert (row["status"], row["category"], row["prediction"]) == ("not_scored", None, None)
            continue
        with torch.inference_mode():
            output = model(dataset.batch(np.array([index])))
        assert output.probabilities is not None
        assert row["category"] == classes[int(output.probabilities[0].argmax())]
        assert row["prediction"] == pytest.approx(float(output.probabilities.max()), abs=1e-5)
        assert row["base"] == pytest.approx(shares[row["category"]])
        total = sum(row[name] or 0 for name in CONTRIBUTIONS)
        assert total == pytest.approx(row["prediction"] - row["base"], abs=1e-5)
