"""Masked attention, the parts that every system is made of.

Each takes key masks in which a row may be False throughout (an absent modality). Its output there is exactly
zero, and
so is its gradient: a softmax over nothing is never formed.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def zero_where(values: Tensor, keep: Tensor) -> Tensor:
    """``values`` (..., d) with zeros where ``keep`` (...) is False; what stood there reaches no gradient."""
    return torch.where(keep.unsqueeze(-1), values, values.new_zeros(()))


def never_empty(mask: Tensor) -> Tensor:
    """``mask`` (B, L) with the first key let in where a row has none, so that a softmax over it is defined."""
    first = torch.zeros_like(mask)
    first[:, 0] = ~mask.any(dim=1)
    return mask | first


def sinusoids(steps: int, width: int, device: torch.device) -> Tensor:
    """(steps, width) fixed positions (Vaswani et al. 2017, section 3.5)."""
    position = torch.arange(steps, device=device, dtype=torch.float32)[:, None]
    rate = torch.exp(torch.arange(0, width, 2, device=device) * (-math.log(10_000.0) / width))
    angles = position * rate
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)[:, :width]


class MultiHeadAttention(nn.Module):
    """Scaled dot-product attention; queries (B, Q, d), keys and values (B, L, d), key mask (B, L) -> (B, Q, d)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)

    def forward(self, queries: Tensor, keys: Tensor, key_mask: Tensor) -> Tensor:
        q = self._split(self.query(queries))
        k, v = (self._split(part) for part in self.key_value(keys).chunk(2, dim=-1))
        allowed = never_empty(key_mask)[:, None, None, :]
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=allowed)
        merged = self.out(attended.transpose(1, 2).flatten(2))
        return zero_where(merged, key_mask.any(dim=1, keepdim=True).expand(merged.shape[:2]))

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class FeatureDropout(nn.Module):
    """Dropout that hides a channel from all steps of a clip alike: (B, L, d) -> (B, L, d).

    Neighbouring frames say nearly the same, so hiding one value of one frame hides nothing; it is also the
    cheaper draw by a factor of L.
    """

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.share == 0:
            return x
        kept = torch.rand(x.shape[0], 1, x.shape[2], device=x.device) >= self.share
        return x * (kept.to(x.dtype) / (1.0 - self.share))


class TransformerLayer(nn.Module):
    """Pre-norm self-attention and feed-forward: (B, L, d) -> (B, L, d), zero behind the mask."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(width)
        self.attention = MultiHeadAttention(width, heads)
        self.feed_forward = nn.Sequential(
            nn.LayerNorm(width),
            nn.Linear(width, 2 * width),
            nn.GELU(),
            nn.Linear(2 * width, width),
        )
        self.dropout = FeatureDropout(dropout)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        normed = self.attention_norm(x)
        x = x + self.dropout(self.attention(normed, normed, mask))
        x = x + self.dropout(self.feed_forward(x))
        return zero_where(x, mask)


class AttentionPool(nn.Module):
    """Learned queries over a sequence: (B, L, d), mask (B, L) -> (B, d); zero where the mask is empty.

    Values are pooled as they are, so that a strong step counts for more than a weak one; only the logits see them
    normalised. Several queries are pooled side by side and joined by one linear map. At the start every query is 0, so
    pooling begins as the mean.
    """

    def __init__(self, width: int, queries: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.queries = nn.Parameter(torch.zeros(queries, width))
        self.dropout = nn.Dropout(dropout)
        self.out = nn.Linear(queries * width, width)

    def forward(self, x: Tensor, mask: Tensor, bias: Tensor | None = None) -> Tensor:
        """``bias`` (B, L) is added to every query's logits."""
        logits = self.norm(x) @ self.queries.T / math.sqrt(x.shape[-1])  # (B, L, queries)
        if bias is not None:
            logits = logits + bias.unsqueeze(-1)
        logits = logits.float().masked_fill(~never_empty(mask).unsqueeze(-1), -torch.inf)
        weights = logits.softmax(dim=1).to(x.dtype)
        pooled = (weights.transpose(1, 2) @ x).flatten(1)
        return zero_where(self.out(self.dropout(pooled)), mask.any(dim=1))
