"""Write clips as one MMSA feature file, which MMSA's own loader reads.

Everything is put together in memory, since a pickle is one object. The file names nothing but ``numpy.ndarray`` and
plain containers, so that any numpy reads it, old or new.
"""

import pickle
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from miar.errors import UserError
from miar.interchange.mmsa_layout import (
    ANNOTATIONS,
    CLASSES,
    FEATURES,
    IDS,
    LABELS,
    MODALITY_LABELS,
    REGRESSION,
    SEPARATOR,
    TEXTS,
    TOKENS,
)
from miar.interchange.view import View, labels_by_name, live_clips
from miar.replacing import replacing
from storage import Snapshot, Store
from storage.arrow import pc

LAYOUTS = ("unaligned", "aligned")
ALIGNED_STEPS = 50
SPLITS = ("train", "valid", "test")


@dataclass
class MmsaResult:
    """What was written, and what could not be."""

    out: str
    clips: dict[str, int]
    """Split -> clips."""
    features: dict[str, str]
    """Key in the file -> feature table."""
    without_label: int = 0
    """Clips left out since they have no number to predict."""
    shortened: dict[str, int] = field(default_factory=dict)
    """Key -> clips that had more frames than fit: cut in the unaligned layout, averaged in the aligned one."""

    def as_dict(self) -> dict[str, Any]:
        """The same, JSON-able."""
        return asdict(self)

    def __str__(self) -> str:
        splits = ", ".join(f"{count} {split}" for split, count in self.clips.items())
        lines = [f"{sum(self.clips.values())} clips ({splits}): {self.out}"]
        if self.without_label:
            lines.append(f"warning: {self.without_label} clips have no such label and were left out")
        lines += [f"warning: {key}: {n} clips had more frames than fit" for key, n in self.shortened.items() if n]
        return "\n".join(lines)


def export_mmsa(
    store: Store,
    out: str | Path,
    *,
    label: str = LABELS[REGRESSION],
    layout: str = "unaligned",
    steps: int | None = None,
    tokenizer: str | None = None,
    tables: Sequence[str] = (),
    corpus_id: str | None = None,
    snapshot: Snapshot | None = None,
) -> MmsaResult:
    """Write the live, labelled clips of one corpus.

    Args:
        label: the label of numbers that becomes ``regression_labels``; the other labels of MMSA are taken from the
            names that an import gives them, where the store has them.
        layout: ``unaligned``: sequences as they are, padded with zeros to the longest, their lengths beside them.
            ``aligned``: every clip has as many steps as its text, ``steps`` at most, padded to ``steps``; longer
            sequences are averaged in equal parts, shorter ones repeated.
        steps: longest sequence; default: 50 for ``aligned``, no limit for ``unaligned``.
        tokenizer: folder of a BERT tokenizer; with it, ``text_bert`` is written, which most models of MMSA ask for.
        tables: feature tables, one per modality; default: the newest of each.
        corpus_id: needed where the store has several corpora.
        snapshot: read this instead of the store's present state.

    Raises:
        UserError: no such layout or label, several corpora, two feature sets of one modality, ids that clash.
    """
    if layout not in LAYOUTS:
        raise UserError(f"{layout!r} is no layout of an MMSA file; choose one of {', '.join(LAYOUTS)}")
    if layout == "aligned":
        steps = steps or ALIGNED_STEPS
    view = View(store, snapshot)
    clips = live_clips(view, corpus_id)
    _check_one_corpus(clips)
    labels = labels_by_name(view, clips["clip_id"].to_pylist())
    is_labelled = _labelled(labels, label)
    rows = np.flatnonzero(is_labelled)
    labels = {name: [values[row] for row in rows] for name, values in labels.items()}
    result = MmsaResult(str(out), {}, _by_key(view.chosen_features(tables)), int((~is_labelled).sum()))
    content = _clip_columns(clips.take(rows), labels, label)
    if tokenizer is not None:
        content[TOKENS] = _tokens(content[TEXTS], tokenizer, steps or ALIGNED_STEPS)
    content |= _sequences(view, clips.take(rows)["clip_id"].to_pylist(), layout, steps, result)
    splits = np.array(clips.take(rows)["split"].to_pylist())
    parts = {}
    for split in SPLITS:
        chosen = np.flatnonzero(splits == split)
        parts[split] = {key: _chosen(values, chosen) for key, values in content.items()}
        result.clips[split] = len(chosen)
    with replacing(Path(out)) as temporary, temporary.open("wb") as file:
        _PortablePickler(file, protocol=5).dump(parts)
    return result


def _check_one_corpus(clips: pa.Table) -> None:
    corpora = pc.unique(clips["corpus_id"]).to_pylist()
    if len(corpora) > 1:
        raise UserError(f"the store has the corpora {', '.join(corpora)}; an MMSA file holds one: give --corpus-id")


def _labelled(labels: Mapping[str, Sequence[Any]], label: str) -> NDArray[np.bool_]:
    numbers = {
        name: np.array([isinstance(value, float) and np.isfinite(value) for value in values], np.bool_)
        for name, values in labels.items()
    }
    usable = [name for name, found in numbers.items() if found.any()]
    if label not in usable:
        raise UserError(f"no label of numbers is named {label!r}; there are: {', '.join(usable) or 'none'}")
    return numbers[label]


def _by_key(chosen: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Key in the file -> feature table."""
    keys = {kind.value: key for key, kind in FEATURES.items()}
    found: dict[str, str] = {}
    for table, each in chosen.items():
        key = keys[each["modality"]]
        if key in found:
            raise UserError(f"{found[key]} and {table} are both {each['modality']}; name one of each kind")
        found[key] = table
    return found


def _clip_columns(clips: pa.Table, labels: Mapping[str, list[Any]], label: str) -> dict[str, Any]:
    ids = [_name(row) for row in clips.select(["source_id", "video_id", "segment"]).to_pylist()]
    if len(set(ids)) < len(ids):
        twice = next(clip for clip in ids if ids.count(clip) > 1)
        raise UserError(f"two clips would be called {twice!r}; give each its own segment")
    columns: dict[str, Any] = {
        IDS: ids,
        TEXTS: [text or "" for text in clips["text"].to_pylist()],
        REGRESSION: np.array(labels[label], np.float64),
    }
    for key in (*MODALITY_LABELS, CLASSES):
        if LABELS[key] in labels:
            columns[key] = np.array([_number(value) for value in labels[LABELS[key]]], np.float64)
    if LABELS[ANNOTATIONS] in labels:
        columns[ANNOTATIONS] = ["" if value is None else str(value) for value in labels[LABELS[ANNOTATIONS]]]
    return columns


def _name(clip: Mapping[str, Any]) -> str:
    """The user's own id where it has MMSA's form; a clip whose labels were found by video and segment has none."""
    own = clip["source_id"] or ""
    return own if SEPARATOR in own else f"{clip['video_id']}{SEPARATOR}{clip['segment']}"


def _number(value: Any) -> float:
    return value if isinstance(value, float) else np.nan


def _tokens(texts: list[str], tokenizer: str, steps: int) -> NDArray[np.int64]:
    """(n_clips, 3, steps): token ids, mask and segments, cut and padded to ``steps``."""
    from transformers import AutoTokenizer

    try:
        encode = AutoTokenizer.from_pretrained(tokenizer, local_files_only=True)
    except (OSError, ValueError) as error:
        raise UserError(f"no tokenizer in {tokenizer}; give the folder of a BERT tokenizer") from error
    found = encode(texts, padding="max_length", truncation=True, max_length=steps, return_token_type_ids=True)
    return np.stack([np.array(found[name]) for name in ("input_ids", "attention_mask", "token_type_ids")], axis=1)


def _chosen(values: Any, rows: NDArray[np.int64]) -> Any:
    return values[rows] if isinstance(values, np.ndarray) else [values[row] for row in rows]


# --- Sequences --------------------------------------------------------------------------------------------


def _sequences(
    view: View, clips: Sequence[str], layout: str, steps: int | None, result: MmsaResult
) -> dict[str, NDArray[Any]]:
    """The padded arrays (n_clips, steps, n_columns) and their lengths, by key."""
    place = {clip: row for row, clip in enumerate(clips)}
    counts = {key: _frame_counts(view, table, place) for key, table in result.features.items()}
    limits = {key: np.minimum(count, steps or count.max(initial=1)) for key, count in counts.items()}
    if layout == "aligned":
        longest = np.max(list(limits.values()), axis=0)
        shared = np.where(limits["text"] > 0, limits["text"], longest) if "text" in limits else longest
        limits = {key: np.where(counts[key] > 0, shared, 0) for key in limits}
    arrays: dict[str, NDArray[Any]] = {}
    for key, table in result.features.items():
        padded = steps if layout == "aligned" and steps else max(1, int(limits[key].max(initial=1)))
        arrays[key] = _padded(view, table, place, limits[key], padded, layout)
        # Where there is nothing MMSA writes a length of 1: its models cannot take 0.
        arrays[f"{key}_lengths"] = np.maximum(limits[key], 1).astype(np.int64)
        result.shortened[key] = int((counts[key] > limits[key]).sum())
    return arrays


def _frame_counts(view: View, table: str, place: Mapping[str, int]) -> NDArray[np.int64]:
    counts = np.zeros(len(place), np.int64)
    for batch in view.batches(table, ["clip_id", "n_frames"], pc.field("status") == "ok"):
        for clip, frames in zip(batch.column(0).to_pylist(), batch.column(1).to_pylist(), strict=True):
            if clip in place:
                counts[place[clip]] = frames
    return counts


def _padded(
    view: View, table: str, place: Mapping[str, int], limits: NDArray[np.int64], steps: int, layout: str
) -> NDArray[np.float32]:
    width = len(view.descriptor(table)["columns"])
    array = np.zeros((len(place), steps, width), np.float32)
    for batch in view.batches(table, ["clip_id", "values"], pc.field("status") == "ok"):
        for clip, values in zip(batch.column(0).to_pylist(), batch.column(1), strict=True):
            if clip in place:
                row = place[clip]
                frames = values.values.to_numpy().reshape(-1, width)
                limit = int(limits[row])
                array[row, :limit] = frames[:limit] if layout == "unaligned" else in_steps(frames, limit)
    return array


def in_steps(frames: NDArray[np.float32], steps: int) -> NDArray[np.float32]:
    """(n_frames, n_columns) as (steps, n_columns): means over equal parts, or repeats where there are fewer frames."""
    n_frames = len(frames)
    edges = np.arange(steps + 1) * n_frames // steps
    if n_frames <= steps:
        return frames[edges[:-1]]
    sums = np.add.reduceat(frames.astype(np.float64), edges[:-1], axis=0)
    return (sums / np.diff(edges)[:, None]).astype(np.float32)


class _PortablePickler(pickle.Pickler):
    """Writes arrays by ``numpy.ndarray`` alone: the functions numpy itself would name moved between its versions."""

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, np.ndarray):
            return np.ndarray, (obj.shape, obj.dtype.str, bytearray(obj.tobytes()))
        return NotImplemented
