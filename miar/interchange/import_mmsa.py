"""Import the pickles of MMSA (``aligned_50.pkl``, ``unaligned_50.pkl``; CMU-MOSI, CMU-MOSEI, CH-SIMS).

A file is a dict of splits; a split is a dict of arrays with a clip per row. Sequences are padded with zeros to one
length. The lengths that such files give are not always right: they were counted up to the first frame whose sum is 0,
and are 1 where that is the first frame. So a length is believed where only zeros follow it; elsewhere the zeros at
both ends are dropped, and the clip is counted in a warning.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from miar.corpus.splits import split_name
from miar.errors import UserError
from miar.features.contract import Modality
from miar.interchange.blocks import BLOCK_BYTES, FeatureBlock, IncomingFeature, check_width, usable_block
from miar.interchange.bring_in import ImportResult, Incoming, bring_in, described_files
from miar.interchange.mmsa_layout import FEATURES, IDS, LABELS, TEXTS, TOKENS, segment_of, video_of
from miar.interchange.mmsa_values import array_of, count_of, labels_of, sequences_of, texts_of
from miar.interchange.safe_pickle import load_plain_pickle
from storage import Store

_ID = "id"


@dataclass(frozen=True)
class _Part:
    """One split of the file."""

    split: str
    content: Mapping[str, Any]
    ids: list[str]

    def where(self, key: str) -> str:
        return f"{self.split}/{key}"


def import_mmsa(store: Store, file: str | Path, *, corpus_id: str | None = None, prefix: str = "mmsa") -> ImportResult:
    """Import an MMSA feature file. The file is read into memory as a whole: a pickle is one object.

    Args:
        corpus_id: the corpus that the clips belong to; default: the file's name without its ending.
        prefix: feature sets are called ``<prefix>_text``, ``<prefix>_audio`` and ``<prefix>_vision``.

    Raises:
        UserError: the file cannot be used, or asks for anything but arrays and plain containers.
    """
    path = Path(file)
    parts = _parts(path, load_plain_pickle(path))
    warnings: list[str] = []
    table, labels = _table(parts, warnings)
    incoming = Incoming(
        corpus_id=corpus_id or path.stem,
        table=table,
        id_column=_ID,
        labels=labels,
        features=_features(parts, prefix, warnings),
        config=described_files(path, [path]),
        warnings=warnings,
    )
    return bring_in(store, incoming)


def _parts(path: Path, content: Any) -> list[_Part]:
    if not isinstance(content, dict) or not content:
        raise UserError(f"{path} holds no dict of splits; an MMSA file has train, valid and test")
    parts, homes = [], {}
    for name, split in content.items():
        where = split_name(str(name), path.name)
        if not isinstance(split, dict) or IDS not in split:
            raise UserError(f"{path}: the split {name!r} has no {IDS!r}; an MMSA file has one row per clip and its id")
        part = _Part(where, split, texts_of(split[IDS], f"{where}/{IDS}"))
        for clip in part.ids:
            if clip in homes:
                raise UserError(_twice(clip, homes[clip], where))
            homes[clip] = where
        parts.append(part)
    if not homes:
        raise UserError(f"{path} has no clips; nothing to import")
    return parts


def _twice(clip: str, first: str, second: str) -> str:
    if first == second:
        return f"clip {clip!r} stands twice in {first}; keep one of the rows"
    return (
        f"clip {clip!r} stands in {first} and in {second}: what is tested on must not be trained on; keep one of them"
    )


def _table(parts: Sequence[_Part], warnings: list[str]) -> tuple[pa.Table, dict[str, str]]:
    """What the file says of clips, and label name -> column of it."""
    ids = [clip for part in parts for clip in part.ids]
    columns: dict[str, Any] = {
        _ID: pa.array(ids, pa.string()),
        "video_id": pa.array([video_of(clip) for clip in ids], pa.string()),
        "segment": pa.array([segment_of(clip) for clip in ids], pa.int32()),
        "split": pa.array([part.split for part in parts for _ in part.ids], pa.string()),
    }
    if any(TEXTS in part.content for part in parts):
        columns["text"] = pa.array(_joined(parts, TEXTS, texts_of), pa.string())
    labels = {}
    for key, name in LABELS.items():
        if not any(key in part.content for part in parts):
            continue
        values = _joined(parts, key, labels_of)
        if any(value is not None for value in values):
            is_mixed = any(isinstance(value, str) for value in values)
            columns[key] = pa.array([None if each is None else str(each) for each in values] if is_mixed else values)
            labels[name] = key
        else:
            warnings.append(f"{key} holds no usable label and was left out")
    if not labels:
        warnings.append(f"the file has no labels ({', '.join(LABELS)})")
    return pa.table(columns), labels


def _joined(parts: Sequence[_Part], key: str, read: Any) -> list[Any]:
    """One value per clip over all splits; ``None`` for the clips of a split without the key."""
    values: list[Any] = []
    for part in parts:
        if key in part.content:
            _check_count(part, key)
            values += read(part.content[key], part.where(key))
        else:
            values += [None] * len(part.ids)
    return values


def _check_count(part: _Part, key: str) -> None:
    """Before the rows are looked at: a small pickle can name very many."""
    count = count_of(part.content[key])
    if count is not None and count != len(part.ids):
        raise UserError(f"{part.where(key)} holds {count} clips, {part.where(IDS)} {len(part.ids)}; mend the file")


# --- Sequences --------------------------------------------------------------------------------------------


@dataclass
class _Sequences:
    """One modality over all splits."""

    frames: list[NDArray[Any]]
    """Per clip (padded n_frames, n_columns)."""
    lengths: list[int | None]
    """Per clip, what the file says; ``None``: nothing."""
    are_sure: bool = False
    """Whether the lengths are those of the tokens: a text encoder fills what stands behind them as well."""

    @property
    def width(self) -> int:
        return self.frames[0].shape[1]

    @property
    def steps(self) -> set[int]:
        return {len(frames) for frames in self.frames}


def _features(parts: Sequence[_Part], prefix: str, warnings: list[str]) -> list[IncomingFeature]:
    found = {key: _sequences(parts, key, f"{prefix}_{key}", kind) for key, kind in FEATURES.items() if _has(parts, key)}
    steps = [one.steps for one in found.values()]
    is_aligned = len(steps) > 1 and all(one == steps[0] and len(one) == 1 for one in steps)
    if is_aligned:
        _take_lengths_of_text(found)
    features = []
    for key, one in found.items():
        name = f"{prefix}_{key}"
        find = _sure_extent if one.are_sure else _extent
        extents = [find(frames, length) for frames, length in zip(one.frames, one.lengths, strict=True)]
        if understated := sum(extent.is_beyond for extent in extents):
            warnings.append(
                f"{key}: {understated} clips hold values beyond their length in the file; they were kept, and zeros "
                "before the first and after the last value dropped"
            )
        columns = tuple(f"{name}_{index}" for index in range(one.width))
        features.append(
            IncomingFeature(
                FEATURES[key],
                name,
                f"{key!r}",
                blocks=lambda one=one, extents=extents, columns=columns: _blocks(one, extents, columns),
                config={"origin": "mmsa", "aligned": is_aligned},
                columns=columns,
            )
        )
    return features


def _has(parts: Sequence[_Part], key: str) -> bool:
    return any(key in part.content and part.ids for part in parts)


def _sequences(parts: Sequence[_Part], key: str, name: str, kind: Modality) -> _Sequences:
    read = _Sequences([], [])
    first = ""
    for part in parts:
        if not part.ids:
            continue
        if key not in part.content:
            raise UserError(f"{part.split} has no {key!r}, other splits do; give every split the same arrays")
        _check_count(part, key)
        frames = sequences_of(part.content[key], part.where(key))
        first = first or part.ids[0]
        for clip, one in zip(part.ids, frames, strict=True):
            wanted = read.frames[0] if read.frames else one
            check_width(f"{kind}:{name}", f"{key!r}", (wanted.shape[1], first), (one.shape[1], clip))
            read.frames.append(one)
        read.lengths += _lengths(part, key)
    read.are_sure = key == "text" and not _has(parts, "text_lengths") and None not in read.lengths
    return read


def _lengths(part: _Part, key: str) -> list[int | None]:
    """Of a split's sequences, as the file says them; for text as its tokens' mask says."""
    named = f"{key}_lengths"
    if named in part.content:
        _check_count(part, named)
        given = array_of(part.content[named], part.where(named))
        if given.dtype.kind not in "iuf" or given.ndim != 1 or not np.isfinite(given).all():
            raise UserError(f"{part.where(named)} should hold one whole number per clip; mend the file")
        return [int(length) for length in given]
    if key == "text" and TOKENS in part.content:
        tokens = array_of(part.content[TOKENS], part.where(TOKENS))
        if tokens.ndim == 3 and tokens.shape[1] == 3 and tokens.dtype.kind in "iuf":
            _check_count(part, TOKENS)
            return [int(length) for length in tokens[:, 1, :].sum(axis=1)]
    return [None] * len(part.ids)


def _take_lengths_of_text(found: Mapping[str, _Sequences]) -> None:
    """Aligned sequences have the steps of the words, so what is known of one holds for all that hold anything."""
    if "text" in found:
        for one in found.values():
            clips = zip(one.frames, one.lengths, found["text"].lengths, strict=True)
            one.lengths = [words if own is None and frames.any() else own for frames, own, words in clips]


@dataclass(frozen=True)
class _Extent:
    """Which of a padded sequence's frames are the clip's."""

    start: int
    stop: int
    is_beyond: bool = False
    """Whether the file's own length says less."""


def _extent(frames: NDArray[Any], length: int | None) -> _Extent:
    filled = np.flatnonzero(frames.any(axis=1))
    if not len(filled):
        # A length of 1 is what MMSA writes where there is nothing.
        return _Extent(0, 0 if length is None or length <= 1 else min(length, len(frames)))
    last = int(filled[-1]) + 1
    if length is None or last <= length:
        return _Extent(0, last if length is None else min(length, len(frames)))
    return _Extent(int(filled[0]), last, is_beyond=True)


def _sure_extent(frames: NDArray[Any], length: int | None) -> _Extent:
    return _Extent(0, min(length or 0, len(frames)))


def _blocks(one: _Sequences, extents: Sequence[_Extent], columns: tuple[str, ...]) -> Iterator[FeatureBlock]:
    start = 0
    while start < len(extents):
        stop, size = start, 0
        while stop < len(extents) and (stop == start or size < BLOCK_BYTES):
            size += (extents[stop].stop - extents[stop].start) * len(columns) * 4
            stop += 1
        yield _block(one.frames[start:stop], extents[start:stop], columns)
        start = stop


def _block(frames: Sequence[NDArray[Any]], extents: Sequence[_Extent], columns: tuple[str, ...]) -> FeatureBlock:
    n_frames = np.array([extent.stop - extent.start for extent in extents], np.int32)
    with np.errstate(over="ignore"):
        values = [
            each[extent.start : extent.stop].astype(np.float32) for each, extent in zip(frames, extents, strict=True)
        ]
    times = [np.arange(extent.start, extent.stop, dtype=np.float32) for extent in extents]
    reasons: list[str | None] = ["all_zero" if count == 0 else None for count in n_frames]
    return usable_block(columns, "sequence", np.concatenate(values), n_frames, reasons, np.concatenate(times))
