"""Size and parts of a MIAR model."""

from dataclasses import dataclass

from miar.errors import ConfigError


@dataclass(frozen=True)
class MIARConfig:
    """Size and parts of a MIAR model. A weight or a number of layers of 0 leaves its part out."""

    __pydantic_config__ = {"extra": "forbid", "use_attribute_docstrings": True}  # noqa: RUF012

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
    """Learn how the four tokens are mixed; off: their plain mean."""
    shared_width: int = 32
    """Width of the shared subspace in which modalities are aligned."""
    aux_weight: float = 0.1
    """Weight of the task loss of each token's own head."""
    contrastive_weight: float = 0.05
    """Weight of the symmetric InfoNCE between the modalities of a clip."""
    normalization_weight: float = 0.05
    """Weight of drawing the first two moments of the modalities together."""

    def __post_init__(self) -> None:
        if min(self.heads, self.max_steps, self.pool_queries, self.shared_width) < 1:
            raise ConfigError("heads, max_steps, pool_queries and shared_width must be at least 1")
        if self.width < 2 or self.width % (2 * self.heads):
            raise ConfigError(f"width {self.width} must be a multiple of 2 x heads ({2 * self.heads})")
        if min(self.encoder_layers, self.interaction_layers, self.gate_steps) < 0:
            raise ConfigError("encoder_layers, interaction_layers and gate_steps must be at least 0")
        if not all(weight >= 0 for weight in (self.aux_weight, self.contrastive_weight, self.normalization_weight)):
            raise ConfigError("aux_weight, contrastive_weight and normalization_weight must be at least 0")
        if not (0 <= self.dropout < 1 and 0 <= self.feature_dropout < 1):
            raise ConfigError("dropout and feature_dropout must be at least 0 and below 1")
