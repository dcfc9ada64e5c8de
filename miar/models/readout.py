"""The pooled readout: what each modality says by itself, read linearly, and how another one changes its meaning.

Our reading, not the paper's: on a few hundred clips a trunk of attention layers, trained from noise, learns less from
a modality than ridge regression on its pooled features does. So the prediction starts from closed-form fits to the
training clips (:mod:`miar.models.readout_fit`), and everything that is trained by gradient is a correction to it that
starts at 0:

    p_m        mean over frames (also the deviation, unless m is layers of a text encoder) and per-clip values   (B, P)
    r_m        p_m W_m + b_m, ridge regression of the label on modality m alone                                  (B, O)
    c_{m<-n}   p_n v_{m<-n}, v sparse: how n changes what m says (a flat voice turns the words round)            (B,)
    readout    offset_S + sum_{m in S} k_{S,m} r_m (1 + sum_{n in S, n != m} c_{m<-n}), S the modalities there   (B, O)

Weights k differ by S, so that each of the seven subsets that a contribution asks about has a calibrated answer. In
training, a clip's r_m comes from a regression that did not see its speaker (:attr:`PooledReadout.held_out`): what a
modality says of the clips it was fitted to is better than what it will say of others, and a correction learned beside
that would be a correction to something else.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from miar.data.batches import ModalityBatch
from miar.models.blocks import zero_where

if TYPE_CHECKING:
    from miar.models.encoder import FeatureAdapter

GATE_LIMIT = 2.0
"""A modality's readout is multiplied by at least 1 - 2 and at most 1 + 2: another can turn it round, not blow it up."""


@dataclass
class Reading:
    """One modality's pooled features, and what they say."""

    pooled: Tensor
    """(B, P) standardised; 0 where the modality is absent."""
    value: Tensor
    """(B, O) r_m; 0 where the modality is absent."""


@dataclass
class HeldOut:
    """r_m of the training clips, from regressions that did not see the clip's speaker (or video)."""

    row: dict[str, int] = field(default_factory=dict)
    """clip_id -> row of :attr:`values`."""
    values: Tensor = field(default_factory=lambda: torch.zeros(0, 0, 0))
    """(N, M, O)"""

    def replace(self, values: Tensor, modality: int, clip_ids: Sequence[str]) -> Tensor:
        """``values`` (B, O) with those of the clips that are known here."""
        rows = torch.tensor([self.row.get(clip_id, -1) for clip_id in clip_ids], device=values.device)
        if not self.row:
            return values
        known = self.values.to(values.device)[rows.clamp_min(0), modality]
        return torch.where((rows >= 0)[:, None], known, values)


class PooledReadout(nn.Module):
    """Fitted in closed form, then kept: its numbers are buffers, as the standardiser's moments are."""

    mix: Tensor
    offset: Tensor

    def __init__(self, adapters: Mapping[str, "FeatureAdapter"], outputs: int) -> None:
        super().__init__()
        self.names = tuple(adapters)
        self.held_out = HeldOut()
        for name, adapter in adapters.items():
            width = adapter.pooled_width
            self.register_buffer(f"mean_{name}", torch.zeros(width))
            self.register_buffer(f"scale_{name}", torch.ones(width))
            self.register_buffer(f"weight_{name}", torch.zeros(width, outputs))
            self.register_buffer(f"bias_{name}", torch.zeros(outputs))
            for to in self.names:
                if to != name:
                    self.register_buffer(f"gate_{to}_from_{name}", torch.zeros(width))
        subsets = 2 ** len(self.names)
        self.register_buffer("mix", torch.zeros(subsets, len(self.names)))
        self.register_buffer("offset", torch.zeros(subsets, outputs))

    def read(
        self,
        name: str,
        adapter: "FeatureAdapter",
        modality: ModalityBatch,
        available: Tensor,
        standard: Tensor,
        clip_ids: Sequence[str],
    ) -> Reading:
        """What modality ``name`` says of B clips, from that modality alone."""
        pooled = self.standardise(name, adapter.pooled(modality, available, standard), available)
        value = pooled @ self.get_buffer(f"weight_{name}") + self.get_buffer(f"bias_{name}")
        if self.training:
            value = self.held_out.replace(value, self.names.index(name), clip_ids)
        return Reading(pooled, zero_where(value, available))

    def standardise(self, name: str, pooled: Tensor, available: Tensor) -> Tensor:
        """(B, P) pooled features in deviations, clipped; 0, the mean, where a value is not known."""
        from miar.models.encoder import CLIP

        mean, scale = self.get_buffer(f"mean_{name}"), self.get_buffer(f"scale_{name}")
        centred = torch.where(pooled.isfinite(), pooled, mean) - mean
        return zero_where((centred * scale).clamp(-CLIP, CLIP), available)

    def forward(self, readings: Mapping[str, Reading], present: Mapping[str, Tensor]) -> Tensor:
        """(B, O) logits from the modalities that are ``present`` (B,)."""
        bits = [present[name].long() << index for index, name in enumerate(self.names)]
        subset = torch.stack(bits).sum(0)
        logits = self.offset[subset]
        for index, name in enumerate(self.names):
            if name not in readings:
                continue
            gate = self.gate(name, readings, present).clamp(-GATE_LIMIT, GATE_LIMIT)
            share = self.mix[subset, index]
            logits = logits + zero_where((share * (1 + gate))[:, None] * readings[name].value, present[name])
        return logits

    def gate(self, to: str, readings: Mapping[str, Reading], present: Mapping[str, Tensor]) -> Tensor:
        """(B,) sum over n of c_{m<-n}: how the others that are there change what ``to`` says."""
        total = torch.zeros_like(readings[to].value[:, 0])
        for origin in self.names:
            if origin != to and origin in readings:
                change = readings[origin].pooled @ self.get_buffer(f"gate_{to}_from_{origin}")
                total = total + torch.where(present[origin], change, 0.0)
        return total
