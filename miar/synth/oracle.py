"""How well the best readers of the signals do: the figures that every corpus publishes."""

from collections.abc import Iterator
from dataclasses import fields
from functools import cache

import numpy as np

from miar.evaluation.metrics import correlation
from miar.synth.model import (
    DISAGREE_FROM,
    BoolArray,
    FloatArray,
    Oracles,
    Signals,
    disagreement,
    draw_signals,
    linear_design,
    oracles,
)

READERS = ("text", "audio", "face", "linear", "optimum")
REFERENCE_CLIPS = 20_000
_REFERENCE_SEED = 20_000_003
_CHUNK = 250
"""Clips whose posteriors are integrated at once: 3 MB, which stays in the cache."""

Predictions = dict[str, FloatArray]
"""Reader -> (n,) predicted sentiment."""


def predict(signals: Signals) -> Predictions:
    """What every reader of :data:`READERS` predicts for n clips.

    ``linear`` is the best linear reader of the generative model (least squares on the reference sample), not of these
    clips.
    """
    return _exact(signals) | {"linear": linear_design(signals) @ _linear_weights()}


def correlations(signals: Signals, predictions: Predictions, chosen: BoolArray | None = None) -> dict[str, float]:
    """Reader -> Pearson correlation with the sentiment over the ``chosen`` clips (default: all).

    NaN where it is not defined: fewer than two clips, or a reader that says the same of all.
    """
    rows = np.ones(len(signals.sentiment), dtype=bool) if chosen is None else chosen
    return {name: correlation(signals.sentiment[rows], predictions[name][rows]) for name in READERS}


@cache
def reference_correlations() -> dict[str, dict[str, float]]:
    """The generative model's own figures, from a sample of :data:`REFERENCE_CLIPS` clips.

    Returns:
        ``all`` and ``disagreeing`` (clips whose signals lie :data:`DISAGREE_FROM` or more apart) -> reader -> r.
    """
    signals = _reference()
    predictions = predict(signals)
    return {
        "all": correlations(signals, predictions),
        "disagreeing": correlations(signals, predictions, disagreement(signals) >= DISAGREE_FROM),
    }


@cache
def _reference() -> Signals:
    return draw_signals(_REFERENCE_SEED, 0, REFERENCE_CLIPS)


@cache
def _linear_weights() -> FloatArray:
    signals = _reference()
    weights = np.linalg.lstsq(linear_design(signals), signals.sentiment, rcond=None)[0]
    return weights.astype(np.float64)


def _exact(signals: Signals) -> Predictions:
    parts = [oracles(chunk) for chunk in _chunks(signals)]
    return {field.name: np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(Oracles)}


def _chunks(signals: Signals) -> Iterator[Signals]:
    for start in range(0, len(signals.sentiment), _CHUNK):
        rows = slice(start, start + _CHUNK)
        yield Signals(**{field.name: getattr(signals, field.name)[rows] for field in fields(Signals)})
