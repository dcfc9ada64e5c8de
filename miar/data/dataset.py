"""Labelled clips in memory, as ragged arrays.

All frames of a feature set stand in one flat array; a clip is a start and a length in it. Subsets share the
array, so a split, a fold or a bootstrap sample costs a few bytes per clip.
"""

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from miar.data.batches import MODALITIES, Batch, ModalityBatch
from miar.data.batching import MAX_BATCH_VALUES, plan_batches

Descriptor = dict[str, Any]
"""A feature set's descriptor: ``extractor``, ``config_hash``, ``columns``, ``layers``, ``voiced_columns``,
``summary_columns`` ..."""


@dataclass(frozen=True)
class Ragged:
    """N sequences over one flat array."""

    values: NDArray[np.float32]
    """(frames, D), C order."""
    starts: NDArray[np.int64]
    """(N,) first frame of each sequence."""
    lengths: NDArray[np.int64]
    """(N,) frames of each; 0 for a clip without this modality."""

    @classmethod
    def from_list(cls, sequences: Sequence[NDArray[np.float32] | None], columns: int) -> "Ragged":
        """Join arrays (T_i, columns); ``None`` is an empty one."""
        empty = np.zeros((0, columns), np.float32)
        parts = [empty if part is None else np.asarray(part, np.float32) for part in sequences]
        lengths = np.array([len(part) for part in parts], np.int64)
        flat = np.concatenate([empty, *parts])
        return cls(flat, np.cumsum(lengths) - lengths, lengths)

    @property
    def columns(self) -> int:
        return self.values.shape[1]

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, index: int) -> NDArray[np.float32]:
        """(T, D), a view."""
        start = self.starts[index]
        return self.values[start : start + self.lengths[index]]

    def subset(self, indices: NDArray[np.int64]) -> "Ragged":
        return Ragged(self.values, self.starts[indices], self.lengths[indices])

    def joined(self) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """All sequences one after the other, (frames, D), and where each starts and the last ends, (N + 1,).

        A view where they follow each other in the flat array, else one copy.
        """
        offsets = np.concatenate([[0], np.cumsum(self.lengths)])
        if len(self) and np.array_equal(self.starts - self.starts[0], offsets[:-1]):
            return self.values[self.starts[0] : self.starts[0] + offsets[-1]], offsets
        within = np.arange(offsets[-1]) - np.repeat(offsets[:-1], self.lengths)
        return self.values[np.repeat(self.starts, self.lengths) + within], offsets

    def padded(self, indices: NDArray[np.int64]) -> tuple[torch.Tensor, torch.Tensor]:
        """Values (B, T, D) with zeros behind each sequence and the mask (B, T); T is at least 1."""
        lengths = self.lengths[indices]
        longest = max(1, int(lengths.max(initial=0)))
        values = np.zeros((len(indices), longest, self.columns), np.float32)
        for row, index in enumerate(indices.tolist()):
            values[row, : lengths[row]] = self[index]
        mask = np.arange(longest) < lengths[:, None]
        return torch.from_numpy(values), torch.from_numpy(mask)


@dataclass(frozen=True)
class ModalityData:
    """One modality of N clips."""

    sequences: Ragged
    available: NDArray[np.bool_]
    """(N,) whether the clip has this modality."""
    summary: NDArray[np.float32] | None = None
    """(N, S) named per-clip values, NaN where one is unknown."""

    @classmethod
    def from_values(cls, sequences: Ragged, summary: NDArray[np.float32] | None = None) -> "ModalityData":
        """Available is a clip with at least one finite value; frames that are all NaN are no modality."""
        available = np.zeros(len(sequences), np.bool_)
        filled = np.flatnonzero(sequences.lengths)
        available[filled] = np.isfinite(sequences.values[sequences.starts[filled]]).any(axis=1)
        for index in filled[~available[filled]].tolist():  # few: mostly the first frame tells
            available[index] = np.isfinite(sequences[index]).any()
        if summary is not None:
            available |= np.isfinite(summary).any(axis=1)
        return cls(sequences, available, summary)

    def subset(self, indices: NDArray[np.int64]) -> "ModalityData":
        summary = None if self.summary is None else self.summary[indices]
        return ModalityData(self.sequences.subset(indices), self.available[indices], summary)

    def batch(self, indices: NDArray[np.int64]) -> ModalityBatch:
        values, mask = self.sequences.padded(indices)
        summary = None if self.summary is None else torch.from_numpy(self.summary[indices])
        return ModalityBatch(values, mask, summary)


@dataclass(frozen=True)
class ClipDataset:
    """N clips: who they are, their label, and their features by modality."""

    clip_ids: list[str]
    modalities: dict[str, ModalityData]
    feature_sets: dict[str, Descriptor]
    """Modality -> descriptor of the feature set its values come from."""
    targets: NDArray[np.float64]
    """(N,) a value, or an index into :attr:`classes`; NaN where unlabelled."""
    source_ids: list[str | None] = field(default_factory=list)
    video_ids: list[str] = field(default_factory=list)
    segments: list[int] = field(default_factory=list)
    speakers: list[str | None] = field(default_factory=list)
    splits: list[str | None] = field(default_factory=list)
    label: str | None = None
    """Name of the label that :attr:`targets` holds."""
    classes: tuple[str, ...] = ()
    """Names of the classes in order of their index; empty for a label that is a number."""
    snapshot_id: str | None = None
    """The snapshot it was read from."""

    def __post_init__(self) -> None:
        count = len(self.clip_ids)
        blank: dict[str, list[Any]] = {
            "source_ids": [None] * count,
            "video_ids": list(self.clip_ids),
            "segments": [0] * count,
            "speakers": [None] * count,
            "splits": [None] * count,
        }
        for name, default in blank.items():
            if not getattr(self, name):
                object.__setattr__(self, name, default)
        lengths = {name: len(getattr(self, name)) for name in ("targets", *blank)}
        lengths |= {name: len(data.sequences) for name, data in self.modalities.items()}
        if wrong := {name: length for name, length in lengths.items() if length != count}:
            raise ValueError(f"{count} clips, but {wrong}")
        if unknown := (set(self.modalities) ^ set(self.feature_sets)) | (set(self.modalities) - {*MODALITIES}):
            raise ValueError(f"modalities and feature sets do not match: {sorted(unknown)}")

    def __len__(self) -> int:
        return len(self.clip_ids)

    @property
    def labelled(self) -> NDArray[np.bool_]:
        """(N,) clips whose target is a finite number."""
        return np.isfinite(self.targets)

    @property
    def available(self) -> NDArray[np.bool_]:
        """(N, M) over :data:`MODALITIES`."""
        absent = np.zeros(len(self), np.bool_)
        columns = [self.modalities[name].available if name in self.modalities else absent for name in MODALITIES]
        return np.stack(columns, axis=1)

    @property
    def scorable(self) -> NDArray[np.bool_]:
        """(N,) clips that have any modality at all."""
        return np.logical_or.reduce(self.available, axis=1)

    def groups(self) -> list[Hashable]:
        """(N,) what folds and samples keep whole: speakers, or videos where there are no two speakers, or else clips.

        Clips of one speaker or video resemble each other, so a model could know one by another.
        """
        for candidates in (self.speakers, self.video_ids):
            if None not in candidates and len(set(candidates)) > 1:
                return list(candidates)
        return list(self.clip_ids)

    def subset(self, indices: Sequence[int] | NDArray[Any]) -> "ClipDataset":
        """The clips at ``indices`` (integers, or a boolean mask over all clips), in that order."""
        chosen = np.asarray(indices)
        chosen = np.flatnonzero(chosen) if chosen.dtype == np.bool_ else chosen.astype(np.int64)

        def pick(values: list[Any]) -> list[Any]:
            return [values[index] for index in chosen]

        return replace(
            self,
            clip_ids=pick(self.clip_ids),
            modalities={name: data.subset(chosen) for name, data in self.modalities.items()},
            targets=self.targets[chosen],
            source_ids=pick(self.source_ids),
            video_ids=pick(self.video_ids),
            segments=pick(self.segments),
            speakers=pick(self.speakers),
            splits=pick(self.splits),
        )

    def where_split(self, name: str) -> "ClipDataset":
        """The clips of one split (``train``, ``valid`` or ``test``)."""
        return self.subset(np.array([split == name for split in self.splits], np.bool_))

    def with_modalities(self, names: Sequence[str]) -> "ClipDataset":
        """The same clips with the features of ``names`` alone."""
        kept = [name for name in MODALITIES if name in names and name in self.modalities]
        return replace(
            self,
            modalities={name: self.modalities[name] for name in kept},
            feature_sets={name: self.feature_sets[name] for name in kept},
        )

    def with_classes(self, classes: Sequence[str]) -> "ClipDataset":
        """Targets as indices into ``classes`` (a model's); clips of any other class become unlabelled."""
        if tuple(classes) == self.classes:
            return self
        index = {name: float(position) for position, name in enumerate(classes)}
        codes = np.array([index.get(name, np.nan) for name in self.classes] + [np.nan])
        named = self.labelled & bool(self.classes)
        positions = np.where(named, self.targets, len(self.classes)).astype(np.int64)
        return replace(self, targets=codes[positions], classes=tuple(classes))

    def frames(self) -> NDArray[np.int64]:
        """(N, K) frames of each clip in each of :attr:`modalities`."""
        lengths = [data.sequences.lengths for data in self.modalities.values()]
        return np.stack(lengths, axis=1) if lengths else np.zeros((len(self), 0), np.int64)

    @property
    def widths(self) -> list[int]:
        """Columns of each of :attr:`modalities`."""
        return [data.sequences.columns for data in self.modalities.values()]

    def batches(
        self,
        batch_size: int,
        *,
        shuffle: bool = False,
        sort_by_length: bool = False,
        generator: torch.Generator | None = None,
        max_values: int = MAX_BATCH_VALUES,
    ) -> Iterator[Batch]:
        """Every clip once, in batches of at most ``batch_size`` and of at most ``max_values`` padded values.

        Args:
            shuffle: in a random order, drawn from ``generator``.
            sort_by_length: clips of similar length together, longest first; with ``shuffle``, only within
                random pools of :data:`~miar.data.batching.BUCKET_BATCHES` batches, and the batches are shuffled too.
        """
        planned = plan_batches(
            self.frames(),
            self.widths,
            batch_size,
            shuffle=shuffle,
            sort_by_length=sort_by_length,
            generator=generator,
            max_values=max_values,
        )
        for indices in planned:
            yield self.batch(indices)

    def batch(self, indices: NDArray[np.int64]) -> Batch:
        """The clips at ``indices`` as one padded batch."""
        return Batch(
            clip_ids=[self.clip_ids[index] for index in indices],
            modalities={name: data.batch(indices) for name, data in self.modalities.items()},
            available=torch.from_numpy(self.available[indices]),
            target=torch.from_numpy(self.targets[indices].astype(np.float32)),
        )
