"""Write clips with labels and features as a folder that Hugging Face ``datasets`` opens, a row per clip.

The folder holds one Parquet file per split and a card (``README.md``) that says which is which, so that
``datasets.load_dataset(folder)`` needs no argument; ``miar import table folder`` reads it as well. Nothing of
``datasets`` is needed to write it. Clips are joined with their features a bounded number of bytes at a time.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from miar.errors import UserError
from miar.interchange.view import View, labels_by_name, live_clips
from miar.replacing import replacing_folder
from storage import Snapshot, Store
from storage.arrow import pc

CHUNK_BYTES = 256 * 2**20
"""Features joined at once. Each chunk costs a scan of the feature tables."""

_OF_CLIP = [
    *("clip_id", "source_id", "corpus_id", "video_id", "segment", "speaker"),
    *("split", "start_ms", "end_ms", "text"),
]
_SPLITS = {"train": "train", "valid": "validation", "test": "test"}
"""Ours -> what ``datasets`` calls it."""


@dataclass
class DatasetsResult:
    """What was written."""

    out: str
    clips: dict[str, int] = field(default_factory=dict)
    """Split -> clips."""
    features: dict[str, str] = field(default_factory=dict)
    """Column -> feature table."""
    labels: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """The same, JSON-able."""
        return asdict(self)

    def __str__(self) -> str:
        splits = ", ".join(f"{count} {split}" for split, count in self.clips.items())
        return f"{sum(self.clips.values())} clips ({splits}): {self.out}"


def export_datasets(
    store: Store,
    out: str | Path,
    *,
    tables: Sequence[str] = (),
    corpus_id: str | None = None,
    snapshot: Snapshot | None = None,
) -> DatasetsResult:
    """Write live clips to the new folder ``out``.

    Args:
        tables: feature tables, by full name or ``features/<extractor>``; default: the newest of each modality.
        corpus_id: clips of this corpus only.
        snapshot: read this instead of the store's present state.

    Raises:
        UserError: no clips, no features, names that clash, or an ``out`` that is there already.
    """
    view = View(store, snapshot)
    clips = live_clips(view, corpus_id)
    labels = labels_by_name(view, clips["clip_id"].to_pylist())
    features = _by_extractor(view.chosen_features(tables))
    _check_names([*_OF_CLIP, *labels, *(name for each in features for name in _columns(each))])
    result = DatasetsResult(str(out), features=dict(features), labels=list(labels))
    clips = _with_labels(clips.select(_OF_CLIP), labels)
    with replacing_folder(Path(out)) as folder:
        (folder / "data").mkdir()
        for split, name in _SPLITS.items():
            chosen = clips.filter(pc.equal(clips["split"], split))
            if chosen.num_rows:
                _write_split(view, chosen, features, folder / "data" / f"{name}-00000-of-00001.parquet")
                result.clips[split] = chosen.num_rows
        descriptors = {column: _described(view, table) for column, table in features.items()}
        (folder / "feature_sets.json").write_text(json.dumps(descriptors, indent=1, default=str) + "\n", "utf-8")
        (folder / "README.md").write_text(_card(result), "utf-8")
    return result


def _by_extractor(chosen: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Column -> feature table."""
    names: dict[str, str] = {}
    for table, each in chosen.items():
        if each["extractor"] in names:
            raise UserError(f"{names[each['extractor']]} and {table} would both be {each['extractor']!r}; export one")
        names[each["extractor"]] = table
    return names


def _columns(feature: str) -> tuple[str, str, str]:
    return feature, f"{feature}_times", f"{feature}_reason"


def _check_names(names: Sequence[str]) -> None:
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UserError(f"two columns would be called {twice[0]!r}: a label, a feature or a clip's own; export fewer")


def _with_labels(clips: pa.Table, labels: Mapping[str, Sequence[float | str | None]]) -> pa.Table:
    for name, values in labels.items():
        is_class = any(isinstance(value, str) for value in values)
        column = [None if value is None else str(value) for value in values] if is_class else values
        clips = clips.append_column(name, pa.array(column, pa.string() if is_class else pa.float64()))
    return clips


def _described(view: View, table: str) -> dict[str, Any]:
    return {name: value for name, value in view.descriptor(table).items() if value not in (None, [], "")}


# --- Rows -------------------------------------------------------------------------------------------------


def _write_split(view: View, clips: pa.Table, features: Mapping[str, str], path: Path) -> None:
    kinds = (pa.list_(pa.list_(pa.float32())), pa.list_(pa.float32()), pa.string())
    fields = [field for each in features for field in zip(_columns(each), kinds, strict=True)]
    schema = pa.schema([*clips.schema, *fields])
    with pq.ParquetWriter(path, schema, compression="zstd", use_dictionary=False) as writer:
        for chunk in _chunks(view, clips, features):
            for feature, table in features.items():
                for name, column in zip(_columns(feature), _joined(view, table, chunk["clip_id"]), strict=True):
                    chunk = chunk.append_column(name, column)
            writer.write_table(chunk.cast(schema))


def _chunks(view: View, clips: pa.Table, features: Mapping[str, str]) -> Iterator[pa.Table]:
    """Consecutive clips whose features fit into :data:`CHUNK_BYTES`."""
    place = {clip: index for index, clip in enumerate(clips["clip_id"].to_pylist())}
    sizes = np.zeros(len(place), np.int64)
    for table in features.values():
        row_bytes = 4 * len(view.descriptor(table)["columns"])
        for batch in view.batches(table, ["clip_id", "n_frames"]):
            for clip, frames in zip(batch.column(0).to_pylist(), batch.column(1).to_pylist(), strict=True):
                if clip in place:
                    sizes[place[clip]] += (frames or 0) * row_bytes
    number = np.cumsum(sizes) // CHUNK_BYTES
    starts = np.flatnonzero(np.diff(number, prepend=-1))
    for start, stop in zip(starts, [*starts[1:], len(sizes)], strict=True):
        yield clips.slice(start, stop - start)


def _joined(view: View, table: str, clips: pa.ChunkedArray) -> tuple[pa.Array, pa.Array, pa.Array]:
    """Frames, times and the reason why there are none, in the order of ``clips``."""
    columns = ["clip_id", "values", "times", "status", "reason"]
    wanted = pc.field("clip_id").isin(clips.combine_chunks())
    schema = view.spec(table).schema
    batches = view.batches(table, columns, wanted)
    found = pa.Table.from_batches(batches, pa.schema([schema.field(name) for name in columns])).combine_chunks()
    rows = pc.index_in(clips, value_set=found["clip_id"].combine_chunks()).combine_chunks()
    ordered = found.take(rows).combine_chunks()
    reason = pc.if_else(
        pc.equal(ordered["status"], "ok"), pa.scalar(None, pa.string()), pc.fill_null(ordered["reason"], "unknown")
    )
    reason = pc.if_else(ordered["status"].is_null(), "not_extracted", reason)
    width = len(view.descriptor(table)["columns"])
    return _matrices(ordered["values"].combine_chunks(), width), ordered["times"].combine_chunks(), reason


def _matrices(lists: pa.ListArray, width: int) -> pa.Array:
    """``list<float>`` of frames one after the other -> ``list<list<float>>``, nulls kept."""
    flat = lists.flatten()
    frames = pa.ListArray.from_arrays(pa.array(np.arange(0, len(flat) + 1, width, dtype=np.int32)), flat)
    lengths = pc.fill_null(pc.list_value_length(lists), 0).to_numpy() // width
    ends = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(ends), frames, mask=lists.is_null() if lists.null_count else None)


# --- The card ---------------------------------------------------------------------------------------------


def _card(result: DatasetsResult) -> str:
    files = "\n".join(
        f"  - split: {_SPLITS[split]}\n    path: data/{_SPLITS[split]}-*.parquet" for split in result.clips
    )
    features = "\n".join(
        f"- `{name}`: frames x columns; `{name}_times`: seconds from the clip's start (characters, of a text encoder's "
        f"tokens); `{name}_reason`: why there is none (`{table}`)"
        for name, table in result.features.items()
    )
    return f"""---
configs:
- config_name: default
  data_files:
{files}
---

Clips exported by MIAR, a row per clip.

- labels: {", ".join(f"`{name}`" for name in result.labels) or "none"}
{features}

The columns of each feature are named in `feature_sets.json`.
"""
