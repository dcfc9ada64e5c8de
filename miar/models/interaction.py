"""MIAR's feature interaction and feature tokens.

[paper] feature interaction integrates context across modalities; feature tokens are global representations of
what each modality extracts from the others; there are four. The layout below is our reading (see
``docs/models.md``).
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from miar.models.blocks import AttentionPool, FeatureDropout, MultiHeadAttention, zero_where
from miar.models.encoder import Encoded

INITIAL_GATE = 0.1


class InteractionLayer(nn.Module):
    """H_m <- H_m + sum_n g_{m<-n} Z_{m<-n}, with Z_{m<-n} = CrossAttention(query H_m, keys and values H_n).

    The gates g are one learned number per channel and ordered pair, small at the start.
    """

    def __init__(self, modalities: tuple[str, ...], width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.norms = nn.ModuleDict({name: nn.LayerNorm(width) for name in modalities})
        pairs = [(to, origin) for to in modalities for origin in modalities if to != origin]
        self.attention = nn.ModuleDict({_pair(to, origin): MultiHeadAttention(width, heads) for to, origin in pairs})
        self.gates = nn.ParameterDict(
            {_pair(to, origin): nn.Parameter(torch.full((width,), INITIAL_GATE)) for to, origin in pairs}
        )
        self.dropout = FeatureDropout(dropout)

    def forward(self, encoded: Mapping[str, Encoded]) -> tuple[dict[str, Encoded], dict[str, dict[str, Encoded]]]:
        """New H_m, and Z_{m<-n} by m and n; Z is empty (mask and values) where m or n is absent."""
        normed = {name: self.norms[name](part.steps) for name, part in encoded.items()}
        updated: dict[str, Encoded] = {}
        taken: dict[str, dict[str, Encoded]] = {}
        for to, part in encoded.items():
            steps, taken[to] = part.steps, {}
            for origin in encoded:
                if origin == to:
                    continue
                source_mask = encoded[origin].mask
                mask = part.mask & source_mask.any(1, keepdim=True)
                attended = self.attention[_pair(to, origin)](normed[to], normed[origin], source_mask)
                attended = zero_where(attended, mask)
                taken[to][origin] = Encoded(attended, mask)
                steps = steps + self.dropout(self.gates[_pair(to, origin)] * attended)
            updated[to] = Encoded(steps, part.mask)
        return updated, taken


def _pair(to: str, origin: str) -> str:
    return f"{to}_from_{origin}"


class FeatureTokens(nn.Module):
    """The four tokens: tau_0 over every modality, tau_m over what m takes from the others.

    [paper] four feature tokens. Our reading: tau_m = AttentionPool(q_m, [Z_{m<-n}]_n), m's own H_m when it is
    alone; tau_0 = AttentionPool(q_0, [H_text; H_audio; H_face]), in which every modality starts with the same
    share, however many steps it has.
    """

    def __init__(self, modalities: tuple[str, ...], width: int, queries: int, dropout: float) -> None:
        super().__init__()
        self.joint = AttentionPool(width, queries, dropout)
        self.own = nn.ModuleDict({name: AttentionPool(width, queries, dropout) for name in modalities})
        self.marks = nn.ParameterDict({name: nn.Parameter(torch.zeros(width)) for name in modalities})

    def forward(
        self, encoded: Mapping[str, Encoded], taken: Mapping[str, Mapping[str, Encoded]]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """tau_0 (B, d), and tau_m (B, d) by modality; zero where a token has nothing to read."""
        parts = [zero_where(part.steps + self.marks[name], part.mask) for name, part in encoded.items()]
        masks = [part.mask for part in encoded.values()]
        shares = [-mask.sum(1, keepdim=True).clamp_min(1).log().expand(mask.shape) for mask in masks]
        joint = self.joint(torch.cat(parts, 1), torch.cat(masks, 1), torch.cat(shares, 1))
        return joint, {name: self._own(name, part, taken.get(name, {})) for name, part in encoded.items()}

    def _own(self, name: str, part: Encoded, taken: Mapping[str, Encoded]) -> Tensor:
        others = list(taken.values())
        company = part.mask.new_zeros(len(part.mask), 1)
        for other in others:
            company = company | other.mask.any(1, keepdim=True)
        sequences = [other.steps for other in others] + [part.steps]
        masks = [other.mask for other in others] + [part.mask & ~company]
        return self.own[name](torch.cat(sequences, 1), torch.cat(masks, 1))
