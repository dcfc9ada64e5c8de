"""From extracted features to a modality's sequence H_m: adapter, strided stem, transformer layers.

The adapter belongs to one feature set; everything behind it only sees width d, so one trunk can serve several
text encoders. A per-clip vector (the 88 functionals) is split into named groups, and each group is one more
step.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from miar.data.batches import ModalityBatch
from miar.data.dataset import ModalityData
from miar.data.standardise import Moments, sequence_moments, vector_moments
from miar.models.blocks import FeatureDropout, TransformerLayer, sinusoids, zero_where
from miar.models.features import FeatureShape, summary_groups
from miar.models.readout import Reading

CLIP = 5.0
"""Standardised values are clipped to +-5 deviations."""
INITIAL_POSITION_SCALE = 0.1


@dataclass
class Encoded:
    """H_m of B clips."""

    steps: Tensor
    """(B, L, d), zero behind the mask."""
    mask: Tensor
    """(B, L) bool."""
    reading: Reading | None = None
    """What the pooled readout makes of the same modality."""

    def only(self, available: Tensor) -> "Encoded":
        """The clips where ``available`` (B,) is False emptied."""
        mask = self.mask & available[:, None]
        return Encoded(zero_where(self.steps, mask), mask)


class Standardise(nn.Module):
    """``(x - mean) * scale``, clipped; what is not known (not finite, unvoiced) becomes 0, the mean."""

    mean: Tensor
    scale: Tensor
    voiced: Tensor

    def __init__(self, voiced: tuple[bool, ...], pitch: int | None = None) -> None:
        """``pitch``: the column that is above 0 in voiced frames alone; needed where ``voiced`` has any."""
        super().__init__()
        self.pitch = pitch
        self.register_buffer("mean", torch.zeros(len(voiced)))
        self.register_buffer("scale", torch.ones(len(voiced)))
        self.register_buffer("voiced", torch.tensor(voiced, dtype=torch.bool), persistent=False)
        self.flags = pitch is not None

    @property
    def width(self) -> int:
        """Columns out: one more than in where there are voiced columns, the share of them that is voiced."""
        return len(self.voiced) + self.flags

    def load(self, moments: Moments) -> None:
        self.mean.copy_(torch.from_numpy(moments.mean))
        self.scale.copy_(torch.from_numpy(moments.scale))

    def forward(self, values: Tensor, mask: Tensor | None = None) -> Tensor:
        """(..., D) -> (..., width) float32; where ``mask`` (...) is False, nothing is known."""
        known = values.abs() < torch.inf  # neither NaN nor infinite, in half the passes of isfinite
        if mask is not None:
            known &= mask.unsqueeze(-1)
        if self.pitch is not None:
            known &= ~self.voiced | (values[..., self.pitch, None] > 0)
        standard = torch.where(known, (values - self.mean).mul_(self.scale).clamp_(-CLIP, CLIP), 0.0)
        if not self.flags:
            return standard
        share = (known & self.voiced).float().sum(-1, keepdim=True) / self.voiced.sum()
        return torch.cat([standard, 2 * share - 1], dim=-1)


class LayerMix(nn.Module):
    """A learned convex mix of encoder layers: (B, T, layers * D) -> (B, T, D)."""

    def __init__(self, layers: int, learned: bool) -> None:
        super().__init__()
        self.layers = layers
        self.logits = nn.Parameter(torch.zeros(layers), requires_grad=learned)

    def forward(self, x: Tensor) -> Tensor:
        return (x.unflatten(-1, (self.layers, -1)) * self.logits.softmax(0)[:, None]).sum(-2)


class FeatureAdapter(nn.Module):
    """The part of the model that belongs to one feature set: standardise, mix layers, project to width d."""

    def __init__(self, shape: FeatureShape, width: int, dropout: float, *, layer_mix: bool, summaries: bool) -> None:
        super().__init__()
        self.shape = shape
        self.standardise = Standardise(shape.voiced, shape.pitch)
        self.mix = LayerMix(shape.layers, layer_mix) if shape.layers > 1 else nn.Identity()
        self.project = nn.Linear(self.standardise.width // shape.layers, width)
        self.dropout = FeatureDropout(dropout)
        self.summary_dropout = nn.Dropout(dropout)
        self.groups = summary_groups(shape.summary_columns) if summaries else {}
        self.standardise_summary = Standardise((False,) * len(shape.summary_columns))
        self.project_groups = nn.ModuleList([nn.Linear(len(group), width) for group in self.groups.values()])

    @torch.no_grad()
    def fit(self, data: ModalityData) -> None:
        """Take the moments of the training clips."""
        self.standardise.load(sequence_moments(data.sequences, np.array(self.shape.voiced), self.shape.pitch))
        if data.summary is not None:
            self.standardise_summary.load(vector_moments(data.summary))

    def standard(self, modality: ModalityBatch, available: Tensor) -> Tensor:
        """Standardised frames of the clips that have the modality: (B, T, D), zero behind the mask."""
        mask = modality.mask & available[:, None]
        standard = self.standardise(modality.values, mask)
        return zero_where(standard, mask) if self.standardise.flags else standard

    @property
    def pooled_width(self) -> int:
        """Columns of :meth:`pooled`."""
        frame = self.standardise.width // self.shape.layers
        return frame * (1 if self.shape.layers > 1 else 2) + (len(self.shape.summary_columns) if self.groups else 0)

    @torch.no_grad()
    def pooled(self, modality: ModalityBatch, available: Tensor, standard: Tensor) -> Tensor:
        """One vector per clip, (B, pooled_width): mean over frames, deviation over frames, per-clip values.

        Layers of a text encoder are averaged, and how far its tokens lie apart, which says little, is left out. NaN
        where a value is not known. ``standard`` is what :meth:`standard` makes of the same clips.
        """
        mask = modality.mask & available[:, None]
        standard = standard.float()
        count = mask.sum(1, keepdim=True)
        mean = standard.sum(1) / count
        parts = [mean.unflatten(-1, (self.shape.layers, -1)).mean(1)]
        if self.shape.layers == 1:
            squares = zero_where((standard - mean[:, None]).square(), mask).sum(1)
            parts.append((squares / count).sqrt())
        if self.groups:
            assert modality.summary is not None
            parts.append(torch.where(available[:, None], modality.summary, torch.nan))
        return torch.cat(parts, dim=1)

    def embed(self, frames: Tensor) -> Tensor:
        """(B, T, D') -> (B, T, d)"""
        return self.project(self.dropout(frames))

    def summary(self, modality: ModalityBatch, available: Tensor) -> tuple[Tensor, Tensor] | None:
        """One step per group (B, G, d) and which of them a clip has (B, G); ``None`` where there are none."""
        if not self.groups or modality.summary is None:
            return None
        vector = modality.summary
        known = torch.isfinite(vector) & available[:, None]
        standard = self.summary_dropout(self.standardise_summary(torch.where(known, vector, torch.nan)))
        parts = zip(self.groups.values(), self.project_groups, strict=True)
        steps = torch.stack([project(standard[:, list(group)]) for group, project in parts], dim=1)
        mask = torch.stack([known[:, list(group)].any(1) for group in self.groups.values()], dim=1)
        return zero_where(steps, mask), mask


class Stem(nn.Module):
    """A strided depth-wise convolution, then positions: (B, T, d) -> (B, ceil(T / stride), d).

    Step j looks at frames around j * stride, so a clip's steps do not depend on how far its batch is padded.
    """

    def __init__(self, width: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        kernel = 2 * stride + 1
        self.convolution = nn.Conv1d(width, width, kernel, stride, padding=stride, groups=width)
        with torch.no_grad():  # starts as the average of the `stride` frames around each step
            first = (kernel - stride + 1) // 2
            self.convolution.weight.zero_()
            self.convolution.weight[:, :, first : first + stride] = 1.0 / stride
        self.position_scale = nn.Parameter(torch.tensor(INITIAL_POSITION_SCALE))

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        mask = mask[:, :: self.stride]
        steps = self.convolution(x.transpose(1, 2)).transpose(1, 2)
        positions = self.position_scale * sinusoids(steps.shape[1], steps.shape[2], x.device)
        return zero_where(steps + positions.to(steps.dtype), mask), mask


class ModalityEncoder(nn.Module):
    """The trunk's part of one modality: stem, summary steps, transformer layers."""

    def __init__(self, width: int, heads: int, layers: int, dropout: float, stride: int, max_steps: int) -> None:
        super().__init__()
        self.max_frames = max_steps * stride
        self.stem = Stem(width, stride)
        self.summary_mark = nn.Parameter(torch.zeros(width))
        self.layers = nn.ModuleList([TransformerLayer(width, heads, dropout) for _ in range(layers)])
        self.dropout = FeatureDropout(dropout)

    def forward(self, adapter: FeatureAdapter, modality: ModalityBatch, available: Tensor, standard: Tensor) -> Encoded:
        mask = modality.mask & available[:, None]
        frames, mask = shorten(adapter.mix(standard), mask, self.max_frames)
        steps, mask = self.stem(zero_where(adapter.embed(frames), mask), mask)
        if (summary := adapter.summary(modality, available)) is not None:
            steps = torch.cat([summary[0] + self.summary_mark, steps], dim=1)
            mask = torch.cat([summary[1], mask], dim=1)
        steps = zero_where(self.dropout(steps), mask)
        for layer in self.layers:
            steps = layer(steps, mask)
        return Encoded(steps, mask)


def shorten(frames: Tensor, mask: Tensor, limit: int) -> tuple[Tensor, Tensor]:
    """Bring clips longer than ``limit`` frames to at most that many by averaging r neighbours, r the clip's own.

    Clips within the limit pass unchanged. r depends on the clip's length alone, never on its batch.

    Args:
        frames: (B, T, D), zero behind ``mask`` (B, T), which is True from the start to the clip's end.
    """
    longest = frames.shape[1]
    if longest <= limit:
        return frames, mask
    lengths = mask.sum(1)  # (B,)
    ratio = ((lengths + limit - 1) // limit).clamp_min(1)[:, None]
    edges = torch.arange(limit + 1, device=frames.device) * ratio  # (B, limit + 1), in frames
    edges = torch.minimum(edges, lengths[:, None])
    running = nn.functional.pad(frames.double().cumsum(1), (0, 0, 1, 0))  # float32 would lose digits over hours
    sums = running.gather(1, edges[..., None].expand(-1, -1, frames.shape[2])).diff(dim=1)
    counts = edges.diff(dim=1)
    return (sums / counts.clamp_min(1)[..., None]).to(frames.dtype), counts > 0
