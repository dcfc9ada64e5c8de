"""How good predictions are, in the field's standard figures.

- Every figure is computed in float64 with numpy alone.
- A figure that is undefined (the correlation of a constant) is ``None`` with its reason, never 0 or a crash.
- Values that are not there are NaN: a clip without a label, a clip that was not scored. They are left out and
  counted. An infinity is a bug upstream and is refused.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
Indices = NDArray[np.intp]

SENTIMENT_RANGE = (-3.0, 3.0)
"""The label range of CMU-MOSI and CMU-MOSEI, the only one where Acc-7, Acc-5 and Acc-2 mean anything."""

_FLAT = 1e-6
"""Values whose spread is below this share of their size are constant: float32's rounding is no signal."""


class UndefinedMetricError(ValueError):
    """The data do not define this figure; the text says why."""


class Metrics(dict[str, float | None]):
    """Name -> value, ``None`` where a figure is undefined.

    Attributes:
        n: how many clips the figures are over.
        left_out: how many clips had no label or no prediction.
        undefined: name -> why the value is ``None``.
    """

    def __init__(self, n: int, left_out: int = 0) -> None:
        super().__init__()
        self.n = n
        self.left_out = left_out
        self.undefined: dict[str, str] = {}

    def measure(self, name: str, metric: Callable[[], float]) -> None:
        """Add one figure, or the reason why there is none."""
        try:
            self[name] = float(metric())
        except UndefinedMetricError as error:
            self[name] = None
            self.undefined[name] = str(error)


# --- Regression ---


def regression_metrics(
    target: ArrayLike, prediction: ArrayLike, *, label_range: tuple[float, float] | None = None
) -> Metrics:
    """MAE, RMSE, Pearson's correlation and Lin's concordance; on -3..3 also Acc-7, Acc-5, Acc-2 and F1.

    Args:
        target: (N,) in label units; NaN where a clip has no label.
        prediction: (N,) in label units; NaN where a clip was not scored.
        label_range: the range that the labels are defined on. The accuracies are there for -3..3 alone.

    Returns:
        ``mae``, ``rmse``, ``corr``, ``ccc``; for -3..3 ``acc7``, ``acc5``, ``acc2_has0``, ``f1_has0``,
        ``acc2_non0`` and ``f1_non0``. has0 sets >= 0 against < 0 over all clips, non0 sets > 0 against < 0
        over the clips whose label is not 0; F1 is weighted by support.

    Raises:
        ValueError: other shapes than (N,) twice, or an infinite value.
    """
    truth, guess, left_out = _paired(target, prediction)
    metrics = Metrics(len(truth), left_out)
    metrics.measure("mae", lambda: mean_absolute_error(truth, guess))
    metrics.measure("rmse", lambda: root_mean_squared_error(truth, guess))
    metrics.measure("corr", lambda: pearson(truth, guess))
    metrics.measure("ccc", lambda: concordance(truth, guess))
    if label_range == SENTIMENT_RANGE:
        _measure_sentiment(metrics, truth, guess)
    return metrics


def mean_absolute_error(target: Array, prediction: Array) -> float:
    _require_clips(target)
    return float(np.abs(prediction - target).mean())


def root_mean_squared_error(target: Array, prediction: Array) -> float:
    _require_clips(target)
    return float(np.sqrt(np.square(prediction - target).mean()))


def pearson(target: Array, prediction: Array) -> float:
    """Pearson's product-moment correlation.

    Raises:
        UndefinedMetricError: fewer than two clips, or one side is constant (to float32's resolution).
    """
    _require_clips(target, 2)
    for name, values in (("target", target), ("prediction", prediction)):
        if is_constant(values):
            raise UndefinedMetricError(f"the {name} is constant")
    x = target - target.mean()
    y = prediction - prediction.mean()
    # Scaled before they are multiplied, so that tiny or huge values neither vanish nor overflow.
    x, y = x / np.abs(x).max(), y / np.abs(y).max()
    return float(np.clip(x @ y / np.sqrt((x @ x) * (y @ y)), -1.0, 1.0))


def correlation(target: ArrayLike, prediction: ArrayLike) -> float:
    """:func:`pearson` as one number; NaN where it is not defined."""
    try:
        return pearson(np.asarray(target, np.float64), np.asarray(prediction, np.float64))
    except UndefinedMetricError:
        return float("nan")


def concordance(target: Array, prediction: Array) -> float:
    """Concordance correlation coefficient (Lin, 1989), with population moments.

    0 for a constant prediction of a target that varies: there the definition itself says 0.

    Raises:
        UndefinedMetricError: fewer than two clips, or both sides are the same constant.
    """
    _require_clips(target, 2)
    covariance = np.mean((target - target.mean()) * (prediction - prediction.mean()))
    spread = target.var() + prediction.var() + np.square(target.mean() - prediction.mean())
    if spread == 0:
        raise UndefinedMetricError("target and prediction are the same constant")
    return float(2 * covariance / spread)


def is_constant(values: Array) -> bool:
    """Whether ``values`` vary by no more than float32's rounding does."""
    return bool(np.ptp(values) <= _FLAT * np.abs(values).max())


def _measure_sentiment(metrics: Metrics, target: Array, prediction: Array) -> None:
    metrics.measure("acc7", lambda: _rounded_accuracy(target, prediction, 3))
    metrics.measure("acc5", lambda: _rounded_accuracy(target, prediction, 2))
    signed = target != 0
    cases = {
        "has0": ((target >= 0).astype(np.intp), (prediction >= 0).astype(np.intp)),
        "non0": ((target[signed] > 0).astype(np.intp), (prediction[signed] > 0).astype(np.intp)),
    }
    for name, (truth, guess) in cases.items():
        metrics.measure(f"acc2_{name}", lambda truth=truth, guess=guess: accuracy(truth, guess))
        metrics.measure(f"f1_{name}", lambda truth=truth, guess=guess: weighted_f1(truth, guess, 2))


def _rounded_accuracy(target: Array, prediction: Array, limit: int) -> float:
    """Accuracy of the 2 * limit + 1 classes that clipping to +-limit and rounding half to even make."""
    _require_clips(target)
    truth, guess = (np.rint(np.clip(values, -limit, limit)) for values in (target, prediction))
    return float((truth == guess).mean())


# --- Classification ---


def classification_metrics(target: ArrayLike, prediction: ArrayLike, *, n_classes: int) -> Metrics:
    """Weighted accuracy, unweighted accuracy and weighted F1.

    Args:
        target: (N,) class indices; NaN or a negative index where a clip has no label.
        prediction: (N,) class indices; NaN or a negative index where a clip was not scored.
        n_classes: how many classes there are.

    Returns:
        ``wa`` (share of clips that are right), ``ua`` (recall, averaged over the classes that occur) and
        ``f1`` (weighted by support).

    Raises:
        ValueError: an index of ``n_classes`` or more, one that is no whole number, or shapes that differ.
    """
    truth, guess, left_out = _paired_classes(target, prediction, n_classes)
    metrics = Metrics(len(truth), left_out)
    metrics.measure("wa", lambda: accuracy(truth, guess))
    metrics.measure("ua", lambda: unweighted_accuracy(truth, guess, n_classes))
    metrics.measure("f1", lambda: weighted_f1(truth, guess, n_classes))
    return metrics


def confusion_matrix(target: ArrayLike, prediction: ArrayLike, *, n_classes: int) -> NDArray[np.int64]:
    """(n_classes, n_classes) counts: rows are true classes, columns predicted ones. Arguments as above."""
    truth, guess, _ = _paired_classes(target, prediction, n_classes)
    return _confusion(truth, guess, n_classes)


def accuracy(target: Indices, prediction: Indices) -> float:
    """Share of clips whose class is right; the field's WA."""
    _require_clips(target)
    return float((target == prediction).mean())


def unweighted_accuracy(target: Indices, prediction: Indices, n_classes: int) -> float:
    """Mean recall over the classes that occur in ``target``; the field's UA."""
    _require_clips(target)
    counts = _confusion(target, prediction, n_classes)
    support = counts.sum(axis=1)
    occurs = support > 0
    return float((counts.diagonal()[occurs] / support[occurs]).mean())


def weighted_f1(target: Indices, prediction: Indices, n_classes: int) -> float:
    """F1 per class, averaged by how often the class occurs in ``target``."""
    _require_clips(target)
    counts = _confusion(target, prediction, n_classes)
    support = counts.sum(axis=1)
    involved = support + counts.sum(axis=0)
    f1 = np.divide(2 * counts.diagonal(), involved, out=np.zeros(n_classes), where=involved > 0)
    return float((f1 * support).sum() / support.sum())


def _confusion(target: Indices, prediction: Indices, n_classes: int) -> NDArray[np.int64]:
    cells = np.bincount(target * n_classes + prediction, minlength=n_classes * n_classes)
    return cells.reshape(n_classes, n_classes).astype(np.int64)


# --- Calibration ---


@dataclass(frozen=True)
class ReliabilityBin:
    """The clips whose confidence falls in ``[low, high)``; the last bin holds 1 as well."""

    low: float
    high: float
    n: int
    confidence: float | None
    """Mean confidence; ``None`` in an empty bin."""
    accuracy: float | None
    """Share that is right; ``None`` in an empty bin."""


def reliability_bins(confidence: ArrayLike, correct: ArrayLike, *, n_bins: int = 15) -> list[ReliabilityBin]:
    """The reliability diagram: equally wide bins of confidence, with what was right in each.

    Args:
        confidence: (N,) probability of the predicted class, 0 to 1.
        correct: (N,) whether the predicted class is right.

    Raises:
        ValueError: confidence outside 0..1 or NaN, or shapes that differ.
    """
    probability = np.asarray(confidence, dtype=np.float64)
    right = np.asarray(correct, dtype=np.float64)
    if probability.ndim != 1 or probability.shape != right.shape:
        raise ValueError(f"confidence {probability.shape} and correct {right.shape} must both be (N,)")
    if not np.all((probability >= 0) & (probability <= 1)):
        raise ValueError("confidence must lie in 0..1")
    edges = np.linspace(0, 1, n_bins + 1)
    place = np.clip(np.searchsorted(edges, probability, side="right") - 1, 0, n_bins - 1)
    bins = []
    for index in range(n_bins):
        inside = place == index
        n = int(inside.sum())
        mean = float(probability[inside].mean()) if n else None
        share = float(right[inside].mean()) if n else None
        bins.append(ReliabilityBin(float(edges[index]), float(edges[index + 1]), n, mean, share))
    return bins


def expected_calibration_error(bins: list[ReliabilityBin]) -> float | None:
    """Mean gap between confidence and accuracy, weighted by bin (Naeini et al., 2015); ``None``: no clips."""
    n = sum(each.n for each in bins)
    if n == 0:
        return None
    gaps = [
        each.n * abs(each.confidence - each.accuracy)
        for each in bins
        if each.confidence is not None and each.accuracy is not None
    ]
    return sum(gaps) / n


# --- Input ---


def _require_clips(target: NDArray, least: int = 1) -> None:
    if len(target) < least:
        raise UndefinedMetricError("there are no clips" if least == 1 else f"fewer than {least} clips")


def _paired(target: ArrayLike, prediction: ArrayLike) -> tuple[Array, Array, int]:
    """Both sides where both are there, and how many clips that left out."""
    truth = np.asarray(target, dtype=np.float64)
    guess = np.asarray(prediction, dtype=np.float64)
    if truth.ndim != 1 or truth.shape != guess.shape:
        raise ValueError(f"target {truth.shape} and prediction {guess.shape} must both be (N,)")
    if np.isinf(truth).any() or np.isinf(guess).any():
        raise ValueError("target and prediction must not be infinite")
    present = ~(np.isnan(truth) | np.isnan(guess))
    return truth[present], guess[present], int((~present).sum())


def _paired_classes(target: ArrayLike, prediction: ArrayLike, n_classes: int) -> tuple[Indices, Indices, int]:
    truth, guess, without = _paired(target, prediction)
    present = (truth >= 0) & (guess >= 0)
    for values in (truth, guess):
        if np.any(values != np.rint(values)) or np.any(values >= n_classes):
            raise ValueError(f"classes must be whole numbers below {n_classes}")
    left_out = without + int((~present).sum())
    return truth[present].astype(np.intp), guess[present].astype(np.intp), left_out
