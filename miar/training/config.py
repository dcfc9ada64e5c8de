"""How a model is trained."""

import math
from dataclasses import dataclass
from typing import Literal

from miar.errors import ConfigError


@dataclass(frozen=True)
class TrainingConfig:
    """The training loop. The defaults suit a few hundred clips on two processor cores."""

    __pydantic_config__ = {"extra": "forbid", "use_attribute_docstrings": True}  # noqa: RUF012

    epochs: int = 40
    """Most passes over the training clips."""
    patience: int = 10
    """Passes without a better validation score before training stops."""
    batch_size: int = 32
    """Clips per step."""
    learning_rate: float = 3e-4
    """Peak learning rate of AdamW."""
    adapter_rate: float = 0.1
    """Learning rate of the feature projections, relative to the rest. AdamW moves every weight alike, and hundreds of
    columns moved alike fit the noise of a few hundred clips before the rest has learned anything."""
    weight_decay: float = 0.05
    """Decoupled weight decay; norms, biases, gates and other vectors have none."""
    warmup_share: float = 0.1
    """Share of all steps in which the learning rate rises, before it falls along a cosine."""
    clip_norm: float = 1.0
    """Largest norm of a gradient."""
    ema_decay: float = 0.98
    """Decay per step of the averaged weights that are validated and kept; 0: no averaging."""
    modality_dropout: float = 0.5
    """Share of training clips shown under a random non-empty subset of their modalities, each subset alike."""
    loss: Literal["huber", "mse"] = "huber"
    """Loss for a label that is a number; classes are trained by cross-entropy."""
    huber_delta: float = 1.0
    """Where the Huber loss turns linear, in standard deviations of the label."""
    label_smoothing: float = 0.05
    """Label smoothing of the cross-entropy."""
    near_label: float = 0.5
    """Clips whose labels differ by at most this many standard deviations are no contrastive negatives."""
    min_clips: int = 20
    """Fewest labelled training clips to start with."""
    seed: int = 0
    """Seeds weights, order, dropout and modality dropout; on a processor the same seed gives the same model."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """``auto``: a GPU where there is one."""

    def __post_init__(self) -> None:
        if min(self.epochs, self.patience, self.min_clips) < 1 or self.batch_size < 2:
            raise ConfigError("epochs, patience and min_clips must be at least 1, and batch_size at least 2")
        sizes = (self.learning_rate, self.adapter_rate, self.clip_norm, self.huber_delta)
        if not all(0 < size < math.inf for size in sizes):
            raise ConfigError("learning_rate, adapter_rate, clip_norm and huber_delta must be finite and above 0")
        shares = (self.modality_dropout, self.warmup_share, self.ema_decay, self.label_smoothing)
        if not all(0 <= share <= 1 for share in shares) or self.ema_decay == 1:
            raise ConfigError("modality_dropout, warmup_share, label_smoothing and ema_decay must lie between 0 and 1")
