"""Size, parts and objectives of a model, by system.

The three systems have one trunk and one set of settings; a system's own class says what is on in it. So a part of one
can be switched on in another, and an ablation is a weight of 0.
"""

import math
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

from miar.errors import ConfigError

SampleWeighting = Literal["off", "certain", "uncertain", "certain_first"]
_AT_LEAST_0 = (
    "aux_weight",
    "contrastive_weight",
    "normalization_weight",
    "distribution_weight",
    "combination_weight",
    "distillation_weight",
    "category_width",
    "sample_weighting_strength",
)


@dataclass(frozen=True)
class SystemConfig:
    """Size, parts and objectives of a model. A weight or a number of layers of 0 leaves its part out."""

    __pydantic_config__ = {"extra": "forbid", "use_attribute_docstrings": True}  # noqa: RUF012
    system: ClassVar[str]

    width: int = 64
    """Width d of every step and token."""
    heads: int = 4
    """Attention heads; divides the width."""
    encoder_layers: int = 1
    """Transformer layers of each modality before they interact."""
    interaction_layers: int = 1
    """Gated cross-modal layers; 0: modalities meet in the joint token only."""
    max_steps: int = 128
    """Longest sequence behind the strided stem, in steps."""
    pool_queries: int = 2
    """Learned queries of each attention pooling."""
    dropout: float = 0.2
    """Dropout within layers and on tokens."""
    feature_dropout: float = 0.5
    """Share of feature columns hidden from a clip in training, before their projection: what keeps hundreds of
    columns from fitting a few hundred clips."""
    layer_mix: bool = True
    """Learn the mix of a text encoder's layers; off: their plain mean."""
    summaries: bool = True
    """Read per-clip vectors (functionals, action unit statistics) as steps beside the sequence."""
    pooled_readout: bool = True
    """Start from ridge regressions on pooled features, stacked by the modalities that are there; what the tokens say is
    a correction that starts at 0. Off: the tokens say all."""
    gate_steps: int = 60
    """Most steps of boosting by which one modality's features learn to change what another's readout means; 0: none.
    How many are taken is chosen by cross-validation within the training clips."""
    token_weighting: bool = True
    """Learn how the tokens are mixed; off: their plain mean."""
    shared_width: int = 32
    """Width of the subspaces in which modalities, or clips, are compared."""
    aux_weight: float = 0.0
    """Weight of the task loss of each token's own head."""
    contrastive_weight: float = 0.0
    """Weight of the symmetric InfoNCE between the tokens of a clip's modalities (MGCMA's instance level)."""
    normalization_weight: float = 0.0
    """Weight of drawing the first two moments of the modalities together."""
    distribution_weight: float = 0.0
    """Weight of MGCMA's distribution level: InfoNCE on the 2-Wasserstein distance of the modalities' Gaussians."""
    combination_weight: float = 0.0
    """Weight of MCUR's MCB-CL: clips of one category, shown under the same modalities, are drawn together."""
    category_width: float = 0.0
    """What a category is where the label is a number: bins of this many standard deviations; 0: negative, zero and
    positive."""
    distillation_weight: float = 0.0
    """Weight of drawing what a clip's subset of modalities says towards what all of them say."""
    views: int = 1
    """Random subsets of its modalities under which a clip is shown in one training batch."""
    sample_weighting: SampleWeighting = "off"
    """MCUR's SUGR: whose task loss weighs more, that of clips which the model is certain or uncertain about, or first
    the one and later the other."""
    sample_weighting_strength: float = 0.5
    """Change of the logarithm of a clip's weight for one standard deviation of uncertainty."""
    sample_weighting_warmup: float = 0.2
    """Share of the training in which that strength rises from 0."""

    def __post_init__(self) -> None:
        if min(self.heads, self.max_steps, self.pool_queries, self.shared_width, self.views) < 1:
            raise ConfigError("heads, max_steps, pool_queries, shared_width and views must be at least 1")
        if self.width < 2 or self.width % (2 * self.heads):
            raise ConfigError(f"width {self.width} must be a multiple of 2 x heads ({2 * self.heads})")
        if min(self.encoder_layers, self.interaction_layers, self.gate_steps) < 0:
            raise ConfigError("encoder_layers, interaction_layers and gate_steps must be at least 0")
        if not all(0 <= getattr(self, name) < math.inf for name in _AT_LEAST_0):
            raise ConfigError(f"{', '.join(_AT_LEAST_0)} must be finite and at least 0")
        if not (0 <= self.dropout < 1 and 0 <= self.feature_dropout < 1):
            raise ConfigError("dropout and feature_dropout must be at least 0 and below 1")
        if not 0 <= self.sample_weighting_warmup <= 1:
            raise ConfigError("sample_weighting_warmup must lie between 0 and 1")
        if self.sample_weighting not in get_args(SampleWeighting):
            raise ConfigError(f"sample_weighting must be one of {', '.join(get_args(SampleWeighting))}")


@dataclass(frozen=True)
class MIARConfig(SystemConfig):
    """MIAR: feature tokens, contrastive alignment, normalization."""

    system: ClassVar[str] = "miar"
    aux_weight: float = 0.1
    contrastive_weight: float = 0.05
    normalization_weight: float = 0.05


@dataclass(frozen=True)
class MGCMAConfig(SystemConfig):
    """MGCMA: alignment at the level of distributions, of tokens (the interaction layers) and of instances."""

    system: ClassVar[str] = "mgcma"
    contrastive_weight: float = 0.05
    distribution_weight: float = 0.05


@dataclass(frozen=True)
class MCURConfig(SystemConfig):
    """MCUR: two views of every clip, contrast by category and modalities, distillation, weights by uncertainty."""

    system: ClassVar[str] = "mcur"
    views: int = 2
    combination_weight: float = 0.05
    distillation_weight: float = 0.1
    sample_weighting: SampleWeighting = "certain"


CONFIGS: dict[str, type[SystemConfig]] = {kind.system: kind for kind in (MIARConfig, MGCMAConfig, MCURConfig)}
"""By the name that `miar train --system` takes and a checkpoint names."""
