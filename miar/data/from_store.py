"""From a snapshot of the store to a data set.

The one module between the store and the models. A clip without a row in a feature table, or with a row of
status ``missing``, simply lacks that modality; nothing here decides whether that matters.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from miar.data.batches import MODALITIES
from miar.data.dataset import ClipDataset, Descriptor, ModalityData, Ragged
from miar.errors import UserError
from storage import Snapshot
from storage.arrow import pc

CLIP_COLUMNS = ("clip_id", "corpus_id", "video_id", "segment", "source_id", "speaker", "split")


def load_dataset(
    snapshot: Snapshot,
    *,
    label: str | None,
    feature_sets: Mapping[str, str] | None = None,
    splits: Sequence[str] | None = None,
    clip_ids: Sequence[str] | None = None,
    labelled_only: bool = False,
) -> ClipDataset:
    """Read live clips with their features and one label, ordered by corpus, video and segment.

    Args:
        label: name of the label; ``None`` reads none, and every target is NaN.
        feature_sets: modality -> feature table (``features/<extractor>/<config_hash>``); a modality that is
            not named, or whose table the snapshot does not hold, is left out. ``None``: the newest active one
            of each modality.
        splits: keep the clips of these splits.
        clip_ids: keep these clips.
        labelled_only: keep the clips that have a finite value or a class.

    Raises:
        UserError: the snapshot holds no features, or no label of that name; the text names those it holds.
        StoreError: the snapshot cannot be read.
    """
    return _Reader(snapshot, label, feature_sets).read(_clips(snapshot, splits, clip_ids), labelled_only)


def iter_datasets(
    snapshot: Snapshot,
    *,
    label: str | None,
    clips_per_chunk: int,
    feature_sets: Mapping[str, str] | None = None,
    splits: Sequence[str] | None = None,
    clip_ids: Sequence[str] | None = None,
    labelled_only: bool = False,
) -> Iterator[ClipDataset]:
    """As :func:`load_dataset`, at most ``clips_per_chunk`` clips at a time: features of one chunk are in memory.

    Classes are those of the whole label, so a class has one index in every chunk.
    """
    reader = _Reader(snapshot, label, feature_sets)
    clips = _clips(snapshot, splits, clip_ids)
    for start in range(0, clips.num_rows, clips_per_chunk):
        chunk = reader.read(clips.slice(start, clips_per_chunk), labelled_only)
        if len(chunk):
            yield chunk


class _Reader:
    """What is the same for every chunk of a snapshot: which tables to read, and the label."""

    def __init__(self, snapshot: Snapshot, label: str | None, feature_sets: Mapping[str, str] | None) -> None:
        self.snapshot = snapshot
        self.label = label
        self.descriptors = _descriptors(snapshot, feature_sets)
        self.targets: dict[str, float] = {}
        self.classes: tuple[str, ...] = ()
        if label is not None:
            self.targets, self.classes = read_label(snapshot, label)

    def read(self, clips: pa.Table, labelled_only: bool) -> ClipDataset:
        ids = clips["clip_id"].to_pylist()
        targets = np.array([self.targets.get(clip_id, np.nan) for clip_id in ids], np.float64)
        if labelled_only:
            kept = np.isfinite(targets)
            clips, targets = clips.filter(pa.array(kept)), targets[kept]
            ids = clips["clip_id"].to_pylist()
        return ClipDataset(
            clip_ids=ids,
            modalities={name: _features(self.snapshot, one, ids) for name, one in self.descriptors.items()},
            feature_sets=self.descriptors,
            targets=targets,
            source_ids=clips["source_id"].to_pylist(),
            video_ids=clips["video_id"].to_pylist(),
            segments=clips["segment"].to_pylist(),
            speakers=clips["speaker"].to_pylist(),
            splits=clips["split"].to_pylist(),
            label=self.label,
            classes=self.classes,
            snapshot_id=self.snapshot.id,
        )


def _clips(snapshot: Snapshot, splits: Sequence[str] | None, clip_ids: Sequence[str] | None) -> pa.Table:
    wanted = pc.field("state") == "live"
    if splits is not None:
        wanted &= pc.field("split").isin(list(splits))
    if clip_ids is not None:
        wanted &= pc.field("clip_id").isin(list(clip_ids))
    rows = snapshot.read("clips", columns=CLIP_COLUMNS, filter=wanted)
    return rows.sort_by([(name, "ascending") for name in ("corpus_id", "video_id", "segment", "clip_id")])


def read_label(snapshot: Snapshot, label: str) -> tuple[dict[str, float], tuple[str, ...]]:
    """clip_id -> value or class index, and the classes; values win where a label has both.

    Raises:
        UserError: the snapshot holds no label of that name; the text names those it holds.
    """
    has_labels = "labels" in snapshot.tables()
    rows = snapshot.read("labels", filter=pc.field("name") == label) if has_labels else pa.table({})
    if not rows.num_rows:
        names = pc.unique(snapshot.read("labels", columns=["name"])["name"]).to_pylist() if has_labels else []
        raise UserError(
            f"no label is named {label!r} in snapshot {snapshot.id}; there are: {', '.join(sorted(names)) or 'none'}"
        )
    ids, values = rows["clip_id"].to_pylist(), rows["value"].to_pylist()
    if any(value is not None for value in values):
        return {clip: value for clip, value in zip(ids, values, strict=True) if value is not None}, ()
    categories = rows["category"].to_pylist()
    classes = tuple(sorted({name for name in categories if name is not None}))
    index = {name: float(position) for position, name in enumerate(classes)}
    return {clip: index[name] for clip, name in zip(ids, categories, strict=True) if name is not None}, classes


def _descriptors(snapshot: Snapshot, feature_sets: Mapping[str, str] | None) -> dict[str, Descriptor]:
    """Modality -> descriptor of the feature set to read, in the order of modalities."""
    held = set(snapshot.tables())
    rows = [row for row in snapshot.feature_sets if _table(row) in held]
    if feature_sets is None:
        rows = sorted((row for row in rows if row["state"] == "active"), key=lambda row: row["created_at"])
        chosen = {row["modality"]: row for row in rows}
    else:
        by_table = {_table(row): row for row in rows}
        chosen = {name: by_table[table] for name, table in feature_sets.items() if table in by_table}
    if not chosen:
        wanted = f"none of {', '.join(sorted(feature_sets.values()))}" if feature_sets else "no features"
        there = ", ".join(sorted(name for name in held if name.startswith("features/"))) or "none"
        raise UserError(f"snapshot {snapshot.id} holds {wanted}; feature sets in it: {there}")
    return {name: dict(chosen[name]) for name in MODALITIES if name in chosen}


def _table(descriptor: Mapping[str, Any]) -> str:
    return f"features/{descriptor['extractor']}/{descriptor['config_hash']}"


def _features(snapshot: Snapshot, descriptor: Descriptor, clip_ids: list[str]) -> ModalityData:
    """One modality of the clips, in their order."""
    width, names = len(descriptor["columns"]), list(descriptor.get("summary_columns") or ())
    wanted = (pc.field("status") == "ok") & pc.field("clip_id").isin(clip_ids)
    rows = snapshot.read(_table(descriptor), columns=["clip_id", "values", *names], filter=wanted)
    position = {clip_id: index for index, clip_id in enumerate(clip_ids)}
    places = np.array([position[clip_id] for clip_id in rows["clip_id"].to_pylist()], np.int64)
    sequences = _ragged(rows["values"], width, places, len(clip_ids))
    summary = None
    if names:
        summary = np.full((len(clip_ids), len(names)), np.nan, np.float32)
        for column, name in enumerate(names):
            summary[places, column] = rows[name].to_numpy()
    return ModalityData.from_values(sequences, summary)


def _ragged(column: pa.ChunkedArray, width: int, places: NDArray[np.int64], count: int) -> Ragged:
    """A ``list<float32>`` column as ragged rows; the values are not copied where they stand in one chunk."""
    parts = [chunk.flatten().to_numpy(zero_copy_only=False) for chunk in column.chunks if len(chunk)]
    flat = parts[0] if len(parts) == 1 else np.concatenate([np.empty(0, np.float32), *parts])
    frames = pc.fill_null(pc.list_value_length(column), 0).to_numpy().astype(np.int64) // width
    starts, lengths = np.zeros(count, np.int64), np.zeros(count, np.int64)
    starts[places], lengths[places] = np.cumsum(frames) - frames, frames
    return Ragged(flat.reshape(-1, width), starts, lengths)
