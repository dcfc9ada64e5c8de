"""What a model says, and where it comes from."""

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from miar.data.batches import MODALITIES
from miar.models.encoder import Encoded

TOKENS = ("joint", *MODALITIES)
"""Order of the four tokens. A system without a joint one gives it no weight."""


@dataclass
class Output:
    """What a model says of B clips. Whatever a clip has no modality for is NaN (weights: 0)."""

    prediction: Tensor
    """(B,) in label units; for classes, the index of the likeliest."""
    token_weights: Tensor
    """(B, 4) over :data:`TOKENS`: how tokens were mixed. It is not what a modality was worth: tau_m carries other
    modalities' values."""
    token_predictions: Tensor
    """(B, 4) what each token's own head says, as ``prediction``."""
    logits: Tensor
    """(B, O) the head's output: O = 1 in deviations from the training mean, or one logit per class."""
    token_logits: Tensor
    """(B, 4, O)"""
    probabilities: Tensor | None
    """(B, C) of the classes; ``None`` for a label that is a number."""
    available: Tensor
    """(B, M) the modalities that were read."""
    has_token: Tensor
    """(B, 4) bool, the tokens that there are."""
    fused: Tensor
    """(B, d) sum_k w_k tau_k, what the head reads; 0 for a clip with no modality."""
    shared: dict[str, Tensor] = field(default_factory=dict)
    """u_m (B, p) by modality, of unit length; 0 where m is absent."""
    sequences: dict[str, Encoded] = field(default_factory=dict)
    """H_m by modality, before they interact; for the objectives."""


@dataclass
class TrainingRecord:
    """Where a model comes from."""

    training_clip_ids: frozenset[str] = frozenset()
    validation_clip_ids: frozenset[str] = frozenset()
    snapshot_id: str | None = None
    training_config: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)
