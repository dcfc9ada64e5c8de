"""Which clips share a batch. Needs lengths alone, so that a plan can be made before anything is read."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

MAX_BATCH_VALUES = 2**26
"""Most padded values of one modality in one batch (256 MiB of float32): one very long clip cannot blow up a batch."""
BUCKET_BATCHES = 8
"""Shuffled batches are sorted by length within pools of this many batches: random enough, and little padding."""

Indices = NDArray[np.int64]


def plan_batches(
    frames: Indices,
    widths: Sequence[int],
    batch_size: int,
    *,
    shuffle: bool = False,
    sort_by_length: bool = False,
    generator: torch.Generator | None = None,
    max_values: int = MAX_BATCH_VALUES,
) -> Iterator[Indices]:
    """Indices of the clips of each batch; every clip once. See :meth:`ClipDataset.batches`.

    Args:
        frames: (N, K) frames of each clip in each modality.
        widths: columns of each of the K modalities.
    """
    for indices in _cut(frames.sum(axis=1), batch_size, shuffle, sort_by_length, generator):
        yield from _fitting(indices, frames, np.asarray(widths, np.int64), max_values)


def _cut(
    lengths: Indices, batch_size: int, shuffle: bool, sort_by_length: bool, generator: torch.Generator | None
) -> list[Indices]:
    order = np.arange(len(lengths), dtype=np.int64)
    pool = len(lengths)
    if shuffle:
        order = torch.randperm(len(lengths), generator=generator).numpy()
        pool = batch_size * BUCKET_BATCHES
    if sort_by_length and len(order):
        pools = [order[start : start + pool] for start in range(0, len(order), pool)]
        order = np.concatenate([part[np.argsort(-lengths[part], kind="stable")] for part in pools])
    batches = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    if shuffle and sort_by_length:
        batches = [batches[index] for index in torch.randperm(len(batches), generator=generator).tolist()]
    return batches


def _fitting(indices: Indices, frames: Indices, widths: Indices, max_values: int) -> Iterator[Indices]:
    """Halve a batch until its padded values fit; a single clip always goes through."""
    largest = len(indices) * int((frames[indices].max(axis=0) * widths).max(initial=0))
    if largest <= max_values or len(indices) == 1:
        yield indices
        return
    middle = len(indices) // 2
    yield from _fitting(indices[:middle], frames, widths, max_values)
    yield from _fitting(indices[middle:], frames, widths, max_values)
