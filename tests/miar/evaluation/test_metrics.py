"""Every figure against an implementation that we did not write."""

import json
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats
from sklearn import metrics as sk
from torchmetrics.functional.classification import binary_calibration_error
from torchmetrics.functional.regression import concordance_corrcoef

from miar.evaluation.metrics import (
    SENTIMENT_RANGE,
    classification_metrics,
    confusion_matrix,
    expected_calibration_error,
    regression_metrics,
    reliability_bins,
)

SENTIMENT = st.floats(-3.5, 3.5, width=32)
ZERO: Any = 0  # scikit-learn takes it, its annotations do not


def value(metrics, name) -> float:
    assert metrics[name] is not None, metrics.undefined
    return metrics[name]


@st.composite
def two_sides(draw):
    n = draw(st.integers(3, 40))
    return tuple(draw(arrays(np.float64, n, elements=SENTIMENT)) for _ in range(2))


@settings(max_examples=60, deadline=None)
@given(two_sides())
def test_errors_and_accuracies_equal_sklearn(sides):
    target, prediction = sides
    ours = regression_metrics(target, prediction, label_range=SENTIMENT_RANGE)
    assert value(ours, "mae") == pytest.approx(sk.mean_absolute_error(target, prediction))
    assert value(ours, "rmse") == pytest.approx(sk.root_mean_squared_error(target, prediction))
    for name, limit in (("acc7", 3), ("acc5", 2)):
        classes = [[round(min(max(v, -limit), limit)) for v in side] for side in (target, prediction)]
        assert value(ours, name) == pytest.approx(sk.accuracy_score(*classes))
    assert value(ours, "acc2_has0") == pytest.approx(sk.accuracy_score(target >= 0, prediction >= 0))
    has0 = sk.f1_score(target >= 0, prediction >= 0, average="weighted", zero_division=ZERO)
    assert value(ours, "f1_has0") == pytest.approx(has0)
    signed = target != 0
    if signed.any():
        truth, guess = target[signed] > 0, prediction[signed] > 0
        assert value(ours, "acc2_non0") == pytest.approx(sk.accuracy_score(truth, guess))
        non0 = sk.f1_score(truth, guess, average="weighted", zero_division=ZERO)
        assert value(ours, "f1_non0") == pytest.approx(non0)
    else:
        assert ours["acc2_non0"] is None
        assert ours.undefined["acc2_non0"] == "there are no clips"


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(3, 200), st.floats(-5, 5), st.floats(1e-3, 1e3))
def test_correlations_equal_scipy_and_torchmetrics(seed, n, offset, scale):
    rng = np.random.default_rng(seed)
    target = rng.normal(size=n)
    prediction = scale * (0.5 * target + rng.normal(size=n)) + offset
    ours = regression_metrics(target, prediction)
    assert value(ours, "corr") == pytest.approx(stats.pearsonr(target, prediction)[0], abs=1e-10)
    theirs = concordance_corrcoef(torch.from_numpy(prediction), torch.from_numpy(target))
    # torchmetrics takes sample moments, Lin population moments: they differ by n / (n - 1) in some terms.
    assert value(ours, "ccc") == pytest.approx(float(theirs), rel=2 / n)


def test_concordance_by_its_definition():
    target, prediction = np.array([1.0, 2.0, 3.0, 4.0]), np.array([1.5, 1.5, 3.5, 5.5])
    # means 2.5 and 3; population variances 1.25 and 2.75; covariance 1.75; (2.5 - 3) ** 2 = .25
    assert value(regression_metrics(target, prediction), "ccc") == pytest.approx(2 * 1.75 / (1.25 + 2.75 + 0.25))


def test_rounding_is_half_to_even_after_clipping():
    target = np.array([0.0, 2.0, 2.0, 3.0, -2.0])
    prediction = np.array([0.5, 1.5, 2.5, 9.0, -2.6])
    ours = regression_metrics(target, prediction, label_range=SENTIMENT_RANGE)
    assert ours["acc7"] == pytest.approx(4 / 5)  # -2.6 rounds to -3
    assert ours["acc5"] == pytest.approx(1)  # 3 and 9 clip to 2, -2.6 to -2


def test_accuracies_are_for_the_sentiment_scale_alone():
    names = set(regression_metrics([0.0, 1.0], [1.0, 0.0], label_range=(0.0, 1.0)))
    assert names == {"mae", "rmse", "corr", "ccc"}
    assert set(regression_metrics([0.0, 1.0], [1.0, 0.0])) == names


@pytest.mark.parametrize(
    ("target", "prediction", "reason"),
    [
        ([1.0, 2.0, 3.0], [0.1, 0.1, 0.1], "the prediction is constant"),
        ([1.0, 2.0, 3.0], [0.7, 0.7 + 3e-8, 0.7 - 3e-8], "the prediction is constant"),
        ([2.0, 2.0, 2.0], [0.0, 1.0, 2.0], "the target is constant"),
        ([2.0], [1.0], "fewer than 2 clips"),
        ([], [], "fewer than 2 clips"),
    ],
)
def test_an_undefined_correlation_is_null_with_a_reason(target, prediction, reason):
    ours = regression_metrics(target, prediction)
    assert ours["corr"] is None
    assert ours.undefined["corr"] == reason
    json.dumps(ours, allow_nan=False)


def test_a_small_scale_is_still_a_signal():
    target = np.array([1.0, 2.0, 3.0])
    assert value(regression_metrics(target, 1e-200 * target), "corr") == pytest.approx(1)
    assert value(regression_metrics(target, 1e100 * (target - 2)), "corr") == pytest.approx(1)


def test_concordance_of_constants():
    assert regression_metrics([1.0, 2.0], [0.0, 0.0])["ccc"] == 0
    both = regression_metrics([1.0, 1.0], [1.0, 1.0])
    assert both["ccc"] is None
    assert both.undefined["ccc"] == "target and prediction are the same constant"


def test_clips_without_label_or_score_are_left_out_and_counted():
    nan = float("nan")
    ours = regression_metrics([1.0, nan, 3.0, 2.0], [1.5, 1.0, nan, 4.0])
    assert (ours.n, ours.left_out) == (2, 2)
    assert ours["mae"] == pytest.approx(1.25)


@pytest.mark.parametrize("bad", [float("inf"), float("-inf")])
def test_an_infinity_is_refused(bad):
    with pytest.raises(ValueError, match="infinite"):
        regression_metrics([1.0, 2.0], [bad, 1.0])


def test_shapes_must_agree():
    with pytest.raises(ValueError, match="must both be"):
        regression_metrics([1.0, 2.0], [[1.0], [2.0]])


@settings(max_examples=60, deadline=None)
@given(st.data(), st.integers(2, 6), st.integers(1, 50))
def test_classification_equals_sklearn(data, n_classes, n):
    classes = arrays(np.int64, n, elements=st.integers(0, n_classes - 1))
    target, prediction = data.draw(classes), data.draw(classes)
    ours = classification_metrics(target, prediction, n_classes=n_classes)
    assert ours["wa"] == pytest.approx(sk.accuracy_score(target, prediction))
    occurring = np.unique(target)
    recall = sk.recall_score(target, prediction, labels=occurring, average="macro", zero_division=ZERO)
    assert ours["ua"] == pytest.approx(recall)
    weighted = sk.f1_score(target, prediction, average="weighted", zero_division=ZERO)
    assert ours["f1"] == pytest.approx(weighted)
    theirs = sk.confusion_matrix(target, prediction, labels=range(n_classes))
    np.testing.assert_array_equal(confusion_matrix(target, prediction, n_classes=n_classes), theirs)


def test_classification_without_clips_or_labels():
    ours = classification_metrics([-1, -1], [0, 1], n_classes=2)
    assert (ours.n, ours.left_out) == (0, 2)
    assert ours == {"wa": None, "ua": None, "f1": None}
    with pytest.raises(ValueError, match="whole numbers below 2"):
        classification_metrics([0, 2], [0, 1], n_classes=2)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 300), st.integers(1, 20))
def test_calibration_error_equals_torchmetrics(seed, n, n_bins):
    rng = np.random.default_rng(seed)
    confidence = rng.uniform(0, 0.999, n)
    correct = rng.random(n) < confidence**2
    bins = reliability_bins(confidence, correct, n_bins=n_bins)
    theirs = binary_calibration_error(
        torch.from_numpy(confidence), torch.from_numpy(correct.astype(np.int64)), n_bins=n_bins, norm="l1"
    )
    assert expected_calibration_error(bins) == pytest.approx(float(theirs), abs=1e-5)
    assert sum(each.n for each in bins) == n


def test_reliability_keeps_its_ends_and_refuses_what_is_no_probability():
    bins = reliability_bins([0.0, 1.0, 1.0], [False, True, False], n_bins=2)
    assert [each.n for each in bins] == [1, 2]
    assert (bins[1].confidence, bins[1].accuracy) == (1.0, 0.5)
    assert expected_calibration_error(reliability_bins([], [])) is None
    for bad in (1.1, -0.1, float("nan")):
        with pytest.raises(ValueError, match=r"0\.\.1"):
            reliability_bins([bad], [True])
