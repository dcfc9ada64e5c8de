"""Shuffled epochs over a snapshot, within a bounded memory, that go on exactly where they were left.

The order of an epoch is drawn from the seed, the epoch's number and lengths alone, before anything is read:

    1. the row groups of the largest feature table are shuffled;
    2. each rank takes a stretch of them, equal to a clip;
    3. a stretch is cut into buffers of at most ``buffer_clips``, and each is shuffled when its turn comes;
    4. a buffer is cut into batches of like lengths, which are shuffled too.

So a position is a count of batches, and a worker that goes on skips buffers without reading them. With W workers,
worker w reads every W-th buffer, and batches come from the workers in turn.
"""

import hashlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from miar.data.batches import Batch
from miar.data.batching import plan_batches
from miar.descriptors import table_of
from miar.errors import UserError
from miar.hashing import stable_key

if TYPE_CHECKING:
    from miar.data.reading import SnapshotReader

Positions = NDArray[np.int64]


class Epochs(IterableDataset[Batch]):
    """Batches of one epoch after the other. Made by :meth:`SnapshotReader.epochs`.

    ``for batch in epochs.batches(workers=2)`` is one epoch, and keeps count. Iterating over the object itself gives
    what is left of the epoch and counts nothing: a :class:`~torch.utils.data.DataLoader` does that in its workers.
    """

    def __init__(
        self,
        reader: "SnapshotReader",
        selected: Positions,
        *,
        batch_size: int,
        seed: int,
        buffer_clips: int,
        rank: int,
        ranks: int,
    ) -> None:
        """
        Args:
            selected: positions of the clips in ``reader``.
            batch_size: most clips in a batch; very long clips make it smaller.
            buffer_clips: clips that are in memory at once, and shuffled among each other.
            rank, ranks: this process's share of every epoch; shares are disjoint, and differ by one clip at most.

        Raises:
            UserError: a size is below 1, or there is no such rank.
        """
        if min(batch_size, buffer_clips) < 1 or not 0 <= rank < ranks:
            raise UserError("batch_size and buffer_clips must be at least 1, and rank one of 0 .. ranks - 1")
        self._reader = reader
        self._selected = selected
        self._batch_size = batch_size
        self._seed = seed
        self._buffer_clips = buffer_clips
        self._share = (rank, ranks)
        self._order_key = self._what_the_order_hangs_on()
        self._epoch = 0
        self._delivered = 0
        self._workers = 1

    @property
    def epoch(self) -> int:
        """Number of the epoch that the next batch is of."""
        return self._epoch

    def batches(self, workers: int = 0) -> Iterator[Batch]:
        """What is left of this epoch, read by ``workers`` processes (0: by this one); then the next epoch's turn has
        come."""
        # Not forked from this process: Arrow and object stores' clients have threads, which a fork breaks.
        context = "forkserver" if workers else None
        return self.counted(DataLoader(self, batch_size=None, num_workers=workers, multiprocessing_context=context))

    def counted(self, loader: DataLoader[Batch]) -> Iterator[Batch]:
        """As :meth:`batches`, through your own ``DataLoader(epochs, batch_size=None, ...)``.

        Raises:
            UserError: the epoch was begun with another number of workers, or the loader keeps its workers, which would
                not hear of the next epoch.
        """
        if loader.persistent_workers:
            raise UserError("a loader with persistent_workers repeats its first epoch: leave persistent_workers out")
        workers = max(1, loader.num_workers)
        if self._delivered and workers != self._workers:
            raise UserError(
                f"this epoch was begun with {self._workers} readers: go on with as many, not with {workers}"
            )
        self._workers = workers
        for batch in loader:
            self._delivered += 1
            yield batch
        self._epoch += 1
        self._delivered = 0

    def state_dict(self) -> dict[str, Any]:
        """Where :meth:`batches` stands: a batch counts as soon as it is handed out. Numbers and text, for JSON."""
        return {
            "epoch": self._epoch,
            "delivered": self._delivered,
            "workers": self._workers,
            "order": self._order_key,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where ``state`` was taken.

        Raises:
            UserError: it was taken of other clips, or of another order of them.
        """
        if state["order"] != self._order_key:
            raise UserError(
                "this position is of other epochs: go on with the same snapshot, feature sets, selection, batch_size, "
                "seed, buffer_clips, rank and ranks"
            )
        self._epoch, self._delivered, self._workers = state["epoch"], state["delivered"], state["workers"]

    def __iter__(self) -> Iterator[Batch]:
        info = get_worker_info()
        worker, workers = (0, 1) if info is None else (info.id, info.num_workers)
        buffers = self._buffers()
        plans = [[self._plan(number, buffer) for number, buffer in buffers[w::workers]] for w in range(workers)]
        taken, turn = _taken([sum(map(len, stream)) for stream in plans], self._delivered)
        # The loader asks worker 0 first: it goes on with the stream whose turn it is.
        stream = (worker + turn) % workers
        skipped = taken[stream]
        for (_, buffer), batches in zip(buffers[stream::workers], plans[stream], strict=True):
            left = batches[skipped:]
            skipped = max(0, skipped - len(batches))
            if left:
                dataset = self._reader.read(buffer)
                yield from (dataset.batch(indices) for indices in left)

    def _buffers(self) -> list[tuple[int, Positions]]:
        """This rank's stretch of the epoch: numbered buffers, in order, each shuffled."""
        draw = np.random.default_rng([self._seed, self._epoch])
        blocks = self._reader.blocks(self._selected)
        order = draw.permutation(len(blocks))
        clips = np.concatenate([self._selected[:0], *(blocks[index] for index in order)])
        rank, ranks = self._share
        stretch = clips[len(clips) * rank // ranks : len(clips) * (rank + 1) // ranks]
        return [
            (number, np.random.default_rng([self._seed, self._epoch, rank, number]).permutation(part))
            for number, part in enumerate(self._reader.parts(stretch, self._buffer_clips))
        ]

    def _plan(self, number: int, buffer: Positions) -> list[Positions]:
        """The batches of one buffer, as indices into it."""
        draw = np.random.default_rng([self._seed, self._epoch, self._share[0], number, 1])
        generator = torch.Generator().manual_seed(int(draw.integers(2**62)))
        frames, widths = self._reader.frames(buffer), self._reader.widths
        planned = plan_batches(frames, widths, self._batch_size, shuffle=True, sort_by_length=True, generator=generator)
        return list(planned)

    def _what_the_order_hangs_on(self) -> str:
        reader = self._reader
        tables = {name: table_of(one) for name, one in reader.feature_sets.items()}
        chosen = hashlib.sha256(self._selected.tobytes()).hexdigest()
        settings = [self._batch_size, self._seed, self._buffer_clips, *self._share]
        return stable_key([reader.snapshot.id, tables, chosen, settings])


def _taken(sizes: list[int], delivered: int) -> tuple[list[int], int]:
    """How many of each stream are among the first ``delivered`` when streams take turns, and whose turn is next."""
    taken, turn = [0] * len(sizes), 0
    for _ in range(min(delivered, sum(sizes))):
        while taken[turn] == sizes[turn]:
            turn = (turn + 1) % len(sizes)
        taken[turn] += 1
        turn = (turn + 1) % len(sizes)
    return taken, turn
