"""What a model reads: a padded batch of clips, with masks.

Values behind a mask may hold anything, NaN and infinity included: a model never lets them change an output.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

MODALITIES = ("text", "audio", "face")
"""The order of modalities everywhere: in :attr:`Batch.available`, in token weights, in score tables."""


@dataclass
class ModalityBatch:
    """One modality of B clips."""

    values: Tensor
    """(B, T, D) float32, as extracted: not standardised."""
    mask: Tensor
    """(B, T) bool, True where a frame is real."""
    summary: Tensor | None = None
    """(B, S) float32 named per-clip values, NaN where one is unknown; ``None`` where the feature set has none."""

    def to(self, device: torch.device | str) -> "ModalityBatch":
        summary = None if self.summary is None else self.summary.to(device, non_blocking=True)
        return ModalityBatch(
            self.values.to(device, non_blocking=True), self.mask.to(device, non_blocking=True), summary
        )


@dataclass
class Batch:
    """B clips over the modalities that their feature sets cover."""

    clip_ids: list[str]
    modalities: dict[str, ModalityBatch]
    available: Tensor
    """(B, M) bool over :data:`MODALITIES`; a column without an entry in ``modalities`` is False throughout."""
    target: Tensor | None = None
    """(B,) float32, a value or a class index, NaN where unlabelled; ``None`` where no label was asked for."""

    def __len__(self) -> int:
        return len(self.clip_ids)

    def to(self, device: torch.device | str) -> "Batch":
        """The same batch on ``device``."""
        return Batch(
            self.clip_ids,
            {name: modality.to(device) for name, modality in self.modalities.items()},
            self.available.to(device, non_blocking=True),
            None if self.target is None else self.target.to(device, non_blocking=True),
        )

    def with_available(self, available: Tensor) -> "Batch":
        """The same clips with fewer modalities: what is not there stays away, whatever ``available`` (B, M) says."""
        return replace(self, available=self.available & available.to(self.available))


def modality_subsets(count: int = len(MODALITIES)) -> Tensor:
    """Every non-empty subset of ``count`` modalities: (2**count - 1, count) bool; row i holds the bits of i + 1."""
    codes = torch.arange(1, 2**count)
    return (codes[:, None] >> torch.arange(count)) % 2 == 1
