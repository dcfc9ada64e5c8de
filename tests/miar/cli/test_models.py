"""What the commands about models show."""

import numpy as np

from miar.cli.models import _SHOWN
from miar.evaluation.metrics import SENTIMENT_RANGE, classification_metrics, regression_metrics


def test_every_figure_that_evaluate_shows_is_one_that_is_measured() -> None:
    labels = np.array([-1.0, 0.0, 1.0])
    numbers = regression_metrics(labels, labels, label_range=SENTIMENT_RANGE)
    classes = classification_metrics(labels + 1, labels + 1, n_classes=3)
    assert set(_SHOWN) - {"n"} <= {*numbers, *classes}
    assert set(classes) <= set(_SHOWN)
