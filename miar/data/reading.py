"""Reading a snapshot: the one way from the store to clips with features.

    reader = SnapshotReader(snapshot, label="sentiment")
    dataset = reader.load(Selection(splits=["train"]))       everything at once, by corpus, video and segment
    for part in reader.chunks(Selection(splits=["test"])):   in the order of the files, a bounded part at a time
    epochs = reader.epochs(batch_size=32, seed=1)            shuffled, resumable (miar.data.epochs)

Notable: where each clip's rows stand is known from one scan of keys, so every read touches the row groups that hold
its clips and no others, and a pass in the order of the files decodes each row group once. A clip without a row in a
feature table, with a row that was made from other words or another recording than the clip's (miar.data.current), or
with a row of status ``missing``, simply lacks that modality; nothing here decides whether that matters. With ``cache``,
features come from memory-mapped arrays and are the same bit for bit (miar.data.cache).
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from miar.data.batches import MODALITIES
from miar.data.cache import CachedRows, cached_rows
from miar.data.current import INPUTS
from miar.data.dataset import ClipDataset, Descriptor
from miar.data.epochs import Epochs
from miar.data.feature_rows import FeatureRows, quality_column
from miar.data.labels import read_label
from miar.data.rows import row_schema, to_rows
from miar.data.selection import Selection, among, label_mask, within
from miar.descriptors import newest_active, table_of
from miar.errors import UserError
from storage import Snapshot
from storage.arrow import pc

CLIP_COLUMNS = ("clip_id", "corpus_id", "video_id", "segment", "source_id", "speaker", "split")
CLIP_ORDER = ("corpus_id", "video_id", "segment", "clip_id")
CHUNK_CLIPS = 2_000
CHUNK_VALUES = 2**25
"""Of all modalities together in one part (128 MiB of float32); a single clip always goes through."""

Positions = NDArray[np.int64]
"""Numbers of clips in the reader: live clips by corpus, video and segment."""
EVERYTHING = Selection()


class SnapshotReader:
    """The live clips of a snapshot, with the features of one feature set per modality and one label."""

    def __init__(
        self,
        snapshot: Snapshot,
        *,
        label: str | None = None,
        feature_sets: Mapping[str, str] | None = None,
        cache: Path | str | None = None,
    ) -> None:
        """Read the clips, the label and the keys of the features, and no feature.

        Args:
            label: name of the label; ``None`` reads none, and every target is NaN.
            feature_sets: modality -> feature table (``features/<extractor>/<config_hash>``); a modality that is
                not named, or whose table the snapshot does not hold, is left out. ``None``: the newest active one
                of each modality.
            cache: folder for memory-mapped copies of features. The copy is made by the first reader that needs it,
                and takes as much room there as the features do before compression.

        Raises:
            UserError: the snapshot holds no features, or no label of that name; the text names those it holds. The
                cache cannot be written.
            StoreError: the snapshot cannot be read.
        """
        self.snapshot = snapshot
        self.label = label
        self.feature_sets = _descriptors(snapshot, feature_sets)
        clips = snapshot.read("clips", columns=(*CLIP_COLUMNS, *INPUTS), filter=pc.field("state") == "live")
        sorted_clips = clips.sort_by([(name, "ascending") for name in CLIP_ORDER])
        self._inputs = {name: sorted_clips[name] for name in INPUTS}
        ordered = sorted_clips.select(CLIP_COLUMNS).combine_chunks()
        self.clips = next(iter(ordered.to_batches()), pa.RecordBatch.from_pylist([], ordered.schema))
        """One row per position."""
        found = None if label is None else read_label(snapshot, label)
        self._label = found
        self.targets = np.full(len(self), np.nan) if found is None else found.of(self.clips["clip_id"])
        """(N,) a value, or an index into the classes; NaN where unlabelled."""
        self._rows: dict[str, FeatureRows] | dict[str, CachedRows]
        if cache is None:
            self._rows = {name: self._feature_rows(name) for name in self.feature_sets}
        else:
            self._rows = cached_rows(
                Path(cache), snapshot.id, self.feature_sets, self.clips["clip_id"], self._feature_rows
            )

    def __len__(self) -> int:
        return self.clips.num_rows

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the label's classes in order of their index; empty for a label that is a number."""
        return () if self._label is None else self._label.classes

    @property
    def widths(self) -> list[int]:
        """Columns of each modality of :attr:`feature_sets`."""
        return [len(one["columns"]) for one in self.feature_sets.values()]

    def frames(self, positions: Positions) -> NDArray[np.int64]:
        """(len(positions), K) frames in each modality of :attr:`feature_sets`; nothing is read for it."""
        return np.stack([rows.index.frames[positions] for rows in self._rows.values()], axis=1)

    def select(self, selection: Selection = EVERYTHING) -> Positions:
        """Positions of the clips that meet all conditions, ascending.

        Raises:
            UserError: a condition names a class or a quality column that is not there, or there is no label.
        """
        chosen = among(self.clips["split"], selection.splits)
        chosen &= among(self.clips["corpus_id"], selection.corpora)
        chosen &= among(self.clips["clip_id"], selection.clip_ids)
        chosen &= label_mask(selection, self._label, self.targets)
        indices = {name: rows.index for name, rows in self._rows.items()}
        for name, bounds in selection.quality.items():
            values = quality_column(self.snapshot, self.feature_sets, indices, name, self.clips["clip_id"])
            chosen &= within(values, bounds)
        return np.flatnonzero(chosen)

    def positions(self, clip_ids: Sequence[str]) -> Positions:
        """Where these clips stand, in their order.

        Raises:
            KeyError: one is no live clip of the snapshot.
        """
        known, order = self._sorted_ids
        wanted = _as_bytes(pa.array(clip_ids, pa.string()))
        places = np.searchsorted(known, wanted)
        found = places < len(known)
        found[found] = known[places[found]] == wanted[found]
        if not found.all():
            raise KeyError(f"{int((~found).sum())} of the clips are not in snapshot {self.snapshot.id}")
        return order[places]

    def load(self, selection: Selection = EVERYTHING) -> ClipDataset:
        """All selected clips in memory, ordered by corpus, video and segment."""
        return self.read(self.select(selection))

    def chunks(self, selection: Selection = EVERYTHING, *, clips: int = CHUNK_CLIPS) -> Iterator[ClipDataset]:
        """All selected clips in the order of the files, at most ``clips`` at a time and within a bounded memory."""
        for positions in self.parts(self.storage_order(self.select(selection)), clips):
            yield self.read(positions)

    def rows(self, selection: Selection = EVERYTHING, *, clips: int = CHUNK_CLIPS) -> pa.RecordBatchReader:
        """As :meth:`chunks`, as Arrow rows: one per clip, with its label, its frames and its per-clip values."""
        schema = row_schema(self.clips.schema, self.feature_sets, self.classes)
        parts = self.parts(self.storage_order(self.select(selection)), clips)
        batches = (to_rows(self.clips.take(pa.array(positions)), self.read(positions), schema) for positions in parts)
        return pa.RecordBatchReader.from_batches(schema, batches)

    def epochs(
        self,
        selection: Selection = EVERYTHING,
        *,
        batch_size: int,
        seed: int = 0,
        buffer_clips: int = CHUNK_CLIPS,
        rank: int = 0,
        ranks: int = 1,
    ) -> Epochs:
        """Shuffled epochs of batches over the selected clips; see :class:`miar.data.epochs.Epochs`."""
        return Epochs(
            self,
            self.select(selection),
            batch_size=batch_size,
            seed=seed,
            buffer_clips=buffer_clips,
            rank=rank,
            ranks=ranks,
        )

    def read(self, positions: Positions) -> ClipDataset:
        """The clips at ``positions``, in that order."""
        clips = self.clips.take(pa.array(positions)).to_pydict()
        return ClipDataset(
            clip_ids=clips["clip_id"],
            modalities={name: rows.read(positions) for name, rows in self._rows.items()},
            feature_sets=self.feature_sets,
            targets=self.targets[positions],
            source_ids=clips["source_id"],
            video_ids=clips["video_id"],
            segments=clips["segment"],
            speakers=clips["speaker"],
            splits=clips["split"],
            label=self.label,
            classes=self.classes,
            snapshot_id=self.snapshot.id,
        )

    def storage_order(self, positions: Positions) -> Positions:
        """``positions`` as the rows of the largest feature table follow each other; clips without a row there come
        last, as those of the next one do."""
        keys = [rows.index.row[positions] for rows in self._by_size()]
        last = np.iinfo(np.int64).max
        return positions[np.lexsort([np.where(key < 0, last, key) for key in reversed(keys)])]

    def blocks(self, positions: Positions) -> list[Positions]:
        """``positions`` in storage order, cut where a row group of the largest feature table ends."""
        ordered = self.storage_order(positions)
        group = self._by_size()[0].index.group[ordered]
        return [part for part in np.split(ordered, np.flatnonzero(np.diff(group)) + 1) if len(part)]

    def parts(self, positions: Positions, clips: int) -> Iterator[Positions]:
        """Consecutive ``positions``, at most ``clips`` and :data:`CHUNK_VALUES` values at a time."""
        so_far = np.cumsum(self.frames(positions) @ np.array(self.widths, np.int64))
        start = 0
        while start < len(positions):
            before = so_far[start - 1] if start else 0
            end = int(np.searchsorted(so_far, before + CHUNK_VALUES, side="right"))
            end = max(start + 1, min(end, start + clips))
            yield positions[start:end]
            start = end

    @cached_property
    def _sorted_ids(self) -> tuple[NDArray[np.bytes_], Positions]:
        """All ids in their order, and where each stands. Kept: whoever scores asks for a chunk of clips at a time."""
        ids = _as_bytes(self.clips["clip_id"])
        order = np.argsort(ids)
        return ids[order], order

    def timed_rows(self, modality: str) -> FeatureRows:
        """The rows of one modality with their frames' times, which models do not read and alignment does."""
        return self._feature_rows(modality, timed=True)

    def _feature_rows(self, modality: str, *, timed: bool = False) -> FeatureRows:
        descriptor = self.feature_sets[modality]
        return FeatureRows(self.snapshot, descriptor, self.clips["clip_id"], self._inputs, timed=timed)

    def _by_size(self) -> list[FeatureRows | CachedRows]:
        """Feature tables, the one with most values first."""
        sizes = self.frames(np.arange(len(self))).sum(axis=0) * self.widths
        rows = list(self._rows.values())
        return [rows[index] for index in np.argsort(-sizes, kind="stable")]


def _as_bytes(ids: pa.Array) -> NDArray[np.bytes_]:
    """(N,) of fixed width: a fraction of the memory of Python's strings."""
    return ids.cast(pa.binary()).to_numpy(zero_copy_only=False).astype(np.bytes_)


def _descriptors(snapshot: Snapshot, feature_sets: Mapping[str, str] | None) -> dict[str, Descriptor]:
    """Modality -> descriptor of the feature set to read, in the order of modalities."""
    held = set(snapshot.tables())
    if feature_sets is None:
        chosen = newest_active(snapshot.feature_sets, held)
    else:
        by_table = {table_of(row): row for row in snapshot.feature_sets if table_of(row) in held}
        chosen = {name: by_table[table] for name, table in feature_sets.items() if table in by_table}
    if not chosen:
        wanted = f"none of {', '.join(sorted(feature_sets.values()))}" if feature_sets else "no features"
        there = ", ".join(sorted(name for name in held if name.startswith("features/"))) or "none"
        raise UserError(f"snapshot {snapshot.id} holds {wanted}; feature sets in it: {there}")
    return {name: dict(chosen[name]) for name in MODALITIES if name in chosen}
