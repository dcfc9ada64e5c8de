"""The generative model of the demo corpus, and the exact predictions of those who know it.

Fixed and published: it is not changed to flatter a model. TN(m, s) is the normal distribution with mean m and
deviation s, truncated to [-3, 3].

    y        ~ TN(0, 1.9)                           sentiment, the label
    ironic   ~ Bernoulli(0.10)
    words    ~ TN(y, 0.85)     ironic: TN(-y, 0.85) the words say the opposite
    tone     ~ TN(y, 1.25)     ironic: TN(0, 0.8)   the voice tells nothing
    flat     ~ Bernoulli(0.05) ironic: Bernoulli(0.95)  ... but is monotonous
    face     ~ TN(y, 1.40)                          the face does not lie

Which of words, voice (tone and flat) and face a clip has is drawn independently of all this. The posterior mean of y
given any of them is a sum over irony and an integral over y,
done here by the midpoint rule.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]

LIMIT = 3.0
PRIOR_DEVIATION = 1.9
IRONY_SHARE = 0.10
WORDS_DEVIATION = 0.85
TONE_DEVIATION = 1.25
IRONIC_TONE_DEVIATION = 0.8
FACE_DEVIATION = 1.40
FLAT_SHARE = 0.05
IRONIC_FLAT_SHARE = 0.95

MODALITIES = ("text", "audio", "face")
"""Columns of every availability array, in this order."""

BLOCK = 80
"""Availability is dealt out in blocks of this many clips, shuffled, so that even a small corpus has every case."""
_INCOMPLETE = {(0, 1, 1): 4, (1, 0, 1): 4, (1, 1, 0): 4, (1, 0, 0): 1, (0, 1, 0): 1, (0, 0, 1): 1, (0, 0, 0): 1}

_STEPS = 241
_GRID = np.linspace(-LIMIT, LIMIT, 2 * _STEPS + 1)[1::2]
"""Midpoints of equal cells over [-3, 3]."""


@dataclass(frozen=True)
class Signals:
    """What n clips carry. Every array is (n,) but ``available`` (n, 3)."""

    sentiment: FloatArray
    ironic: BoolArray
    words: FloatArray
    tone: FloatArray
    flat: BoolArray
    face: FloatArray
    available: BoolArray


@dataclass(frozen=True)
class Oracles:
    """Posterior means of the sentiment, (n,) each: what the best reader of these signals predicts."""

    text: FloatArray
    audio: FloatArray
    face: FloatArray
    optimum: FloatArray


def draw_signals(seed: int, first: int, count: int) -> Signals:
    """The signals of clips ``first`` .. ``first + count - 1`` of corpus ``seed``, whichever others are drawn."""
    rows = np.array([_draw_one(np.random.default_rng([seed, clip, 0x516])) for clip in range(first, first + count)])
    y, ironic, words, tone, flat, face = rows.reshape(-1, 6).T
    available = np.array([availability(seed, clip) for clip in range(first, first + count)], dtype=bool)
    return Signals(y, ironic > 0.5, words, tone, flat > 0.5, face, available.reshape(-1, 3))


def availability(seed: int, clip: int) -> tuple[bool, bool, bool]:
    """Which of text, audio and face clip number ``clip`` has."""
    block, place = divmod(clip, BLOCK)
    cases = [case for case, share in _INCOMPLETE.items() for _ in range(share)]
    cases += [(1, 1, 1)] * (BLOCK - len(cases))
    text, audio, face = cases[int(np.random.default_rng([seed, block, 0xA7A]).permutation(BLOCK)[place])]
    return bool(text), bool(audio), bool(face)


def oracles(signals: Signals) -> Oracles:
    """Exact E[y | signals], for each modality alone and for all that a clip has.

    A clip that lacks the modality gets the prior mean, 0.
    """
    log_prior = -0.5 * (_GRID / PRIOR_DEVIATION) ** 2
    evidence = _log_likelihoods(signals) * signals.available.T[:, None, :, None]

    def posterior_mean(modalities: tuple[int, ...]) -> FloatArray:
        log_joint = log_prior + np.log([1 - IRONY_SHARE, IRONY_SHARE])[:, None, None]
        log_joint = log_joint + evidence[list(modalities)].sum(axis=0)  # (2, n, grid)
        weight = np.exp(log_joint - log_joint.max(axis=(0, 2), keepdims=True)).sum(axis=0)
        return (weight @ _GRID) / weight.sum(axis=1)

    return Oracles(posterior_mean((0,)), posterior_mean((1,)), posterior_mean((2,)), posterior_mean((0, 1, 2)))


def linear_design(signals: Signals) -> FloatArray:
    """(n, 8) what a linear reader sees: each signal (0 where it is missing), what is there, and a constant."""
    text, audio, face = signals.available.T
    columns = [signals.words * text, signals.tone * audio, signals.flat * audio, signals.face * face]
    return np.stack([*columns, text, audio, face, np.ones(len(text))], axis=1).astype(np.float64)


def disagreement(signals: Signals) -> FloatArray:
    """(n,) the widest gap between the signals that a clip has; 0 with fewer than two."""
    stacked = np.stack([signals.words, signals.tone, signals.face], axis=1)
    highest = np.where(signals.available, stacked, -np.inf).max(axis=1)
    lowest = np.where(signals.available, stacked, np.inf).min(axis=1)
    return np.where(signals.available.sum(axis=1) > 1, highest - lowest, 0.0)


DISAGREE_FROM = 3.0
"""Clips whose signals lie at least this far apart count as those where modalities disagree."""


def _draw_one(rng: np.random.Generator) -> tuple[float, ...]:
    y = _truncated_normal(rng, 0.0, PRIOR_DEVIATION)
    ironic = rng.random() < IRONY_SHARE
    words = _truncated_normal(rng, -y if ironic else y, WORDS_DEVIATION)
    tone = _truncated_normal(rng, 0.0 if ironic else y, IRONIC_TONE_DEVIATION if ironic else TONE_DEVIATION)
    flat = rng.random() < (IRONIC_FLAT_SHARE if ironic else FLAT_SHARE)
    face = _truncated_normal(rng, y, FACE_DEVIATION)
    return y, float(ironic), words, tone, float(flat), face


def _truncated_normal(rng: np.random.Generator, mean: float, deviation: float) -> float:
    while True:  # at least one draw in six falls inside for the means and deviations above
        value = rng.normal(mean, deviation)
        if abs(value) <= LIMIT:
            return float(value)


def _log_likelihoods(signals: Signals) -> FloatArray:
    """(3 modalities, 2: sincere and ironic, n, grid)"""
    words, tone, face = (value[:, None] for value in (signals.words, signals.tone, signals.face))
    flat = np.where(signals.flat, np.log(FLAT_SHARE), np.log(1 - FLAT_SHARE))[:, None]
    ironic_flat = np.where(signals.flat, np.log(IRONIC_FLAT_SHARE), np.log(1 - IRONIC_FLAT_SHARE))[:, None]
    said = [_log_density(words, mean, WORDS_DEVIATION) for mean in (_GRID, -_GRID)]
    heard = [
        _log_density(tone, _GRID, TONE_DEVIATION) + flat,
        _log_density(tone, np.zeros_like(_GRID), IRONIC_TONE_DEVIATION) + ironic_flat,
    ]
    seen = [_log_density(face, _GRID, FACE_DEVIATION)] * 2
    return np.stack([np.stack(said), np.stack(heard), np.stack(seen)])


def _log_density(value: FloatArray, mean: FloatArray, deviation: float) -> FloatArray:
    """Log density of TN(mean, deviation) at ``value`` (n, 1), for means (grid,), up to a common constant."""
    cells = np.exp(-0.5 * ((_GRID[:, None] - mean) / deviation) ** 2).sum(axis=0)
    mass = cells * (2 * LIMIT / _STEPS)
    return -0.5 * ((value - mean) / deviation) ** 2 - np.log(mass)
