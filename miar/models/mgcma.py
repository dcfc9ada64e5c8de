"""MGCMA: multi-granularity cross-modal alignment (arXiv 2412.20821).

[paper] alignment at three levels: of distributions (Gaussian representations, 2-Wasserstein distance, a similarity that
is trained contrastively), of tokens (self-attention, then cross-attention), of instances (a contrastive mapping of
speech-text pairs); cross-entropy on top. The paper aligns speech and text. Our reading:

    tokens         the trunk's transformer layers (self-attention), then its gated cross-attention   -> H'_m (B, L_m, d)
    instances      tau_m = AttentionPool(q_m, H'_m), there is no joint token; InfoNCE on normalize(W LayerNorm(tau_m))
    distributions  Gaussians of H_m, before modalities meet (:mod:`miar.objectives.distribution`)
    predict        head(sum_m w_m tau_m), w = softmax(score(tau)) over the modalities that are there

Alignment goes by pairs, so two or three modalities of any kind will do; one alone has no pair, and the task loss is all
that trains it. Each level is a switch of :class:`MGCMAConfig`: ``distribution_weight``, ``interaction_layers``,
``contrastive_weight``.
"""

from collections.abc import Mapping

from torch import Tensor, nn

from miar.models.blocks import AttentionPool
from miar.models.config import MGCMAConfig
from miar.models.encoder import Encoded
from miar.models.system import System


class ModalityTokens(nn.Module):
    """tau_m pools H'_m itself, which has met the other modalities; no joint token."""

    def __init__(self, modalities: tuple[str, ...], width: int, queries: int, dropout: float) -> None:
        super().__init__()
        self.own = nn.ModuleDict({name: AttentionPool(width, queries, dropout) for name in modalities})

    def forward(
        self, encoded: Mapping[str, Encoded], taken: Mapping[str, Mapping[str, Encoded]]
    ) -> tuple[None, dict[str, Tensor]]:
        """tau_m (B, d) by modality; zero where a modality is absent."""
        return None, {name: self.own[name](part.steps, part.mask) for name, part in encoded.items()}


class MGCMA(System):
    """The trunk with one token per modality, aligned at three levels."""

    config_class = MGCMAConfig
    token_reader = ModalityTokens
    paper = "2412.20821"
