"""Modality dropout that reaches every subset of what a clip has.

Exact Shapley values ask the model about every non-empty subset, so every one must be in its experience.
"""

import torch
from torch import Tensor

from miar.data.batches import modality_subsets


def drop_modalities(available: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Show a share of the clips under a random non-empty subset of their modalities, each subset equally likely.

    Args:
        available: (B, M) bool, on the processor.
        share: of the clips, in expectation; the others keep everything.

    Returns:
        (B, M) bool; a clip with no modality stays empty.
    """
    subsets = modality_subsets(available.shape[1])  # (S, M)
    possible = ~(subsets[None] & ~available[:, None]).any(-1)  # (B, S)
    some = possible.any(1)
    weights = torch.where(some[:, None], possible, True).float()
    drawn = subsets[torch.multinomial(weights, 1, generator=generator).squeeze(1)]
    chosen = torch.rand(len(available), generator=generator) < share
    return torch.where((chosen & some)[:, None], drawn, available)
