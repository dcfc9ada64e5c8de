"""Import ``.csd`` files of the CMU-MultimodalSDK, joined by video and segment times.

The label file says which clips there are: each of its intervals is a clip, called ``video[number]`` as the SDK calls
it. A file whose keys are videos gives a clip the frames whose centre lies in the clip's interval (start included, end
not), so that a frame belongs to one of two clips that touch; a file whose keys are ``video[number]`` gives what stands
there. Frame times are the centres of the intervals, in seconds from the clip's start.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from miar.errors import UserError
from miar.interchange.blocks import BLOCK_BYTES, FeatureBlock, IncomingFeature, check_width, usable_block
from miar.interchange.bring_in import ImportResult, Incoming, bring_in, described_files
from miar.interchange.csd_clips import ClipFrames, CsdClip, clips_of_features, clips_of_labels
from miar.interchange.csd_file import CsdFile, words_of
from miar.interchange.import_columns import FeatureColumn
from storage import Store

_ID = "id"


def import_csd(
    store: Store,
    files: Sequence[str | Path],
    *,
    corpus_id: str | None = None,
    labels: Mapping[str, str],
    features: Sequence[FeatureColumn] = (),
    words: str | None = None,
) -> ImportResult:
    """Import computational sequences that belong together.

    Args:
        corpus_id: the corpus that the clips belong to; default: the first file's name without its ending.
        labels: name of the label in the store -> ``ROOT`` or ``ROOT:COLUMN``, where ROOT is a file's root name and
            COLUMN a number or one of its dimension names. All of one file.
        features: the column of each is a root name.
        words: the root name of the file with the words.

    Raises:
        UserError: the files cannot be used; the text names the file and the key and says what to do.
    """
    paths = [Path(file) for file in files]
    with ExitStack() as stack:
        opened = _by_root([stack.enter_context(CsdFile(path)) for path in paths])
        chosen = {feature: _named(opened, feature.column) for feature in features}
        wanted = {name: _label_column(opened, target) for name, target in labels.items()}
        clips, targets = _clips(wanted, list(chosen.values()))
        table = _table(clips, targets)
        if words is not None:
            table = table.append_column("text", pa.array(_texts(clips, _named(opened, words)), pa.string()))
        incoming = Incoming(
            corpus_id=corpus_id or paths[0].stem,
            table=table,
            id_column=_ID,
            labels={name: f"label {name}" for name in targets},
            features=[_feature(clips, feature, file) for feature, file in chosen.items()],
            config={
                **described_files(Path(", ".join(map(str, paths))), paths),
                "labels": dict(labels),
                "features": [f"{feature.label}={feature.column}" for feature in features],
                "words": words,
            },
        )
        return bring_in(store, incoming)


# --- Which file, which column -----------------------------------------------------------------------------


def _by_root(files: Sequence[CsdFile]) -> dict[str, CsdFile]:
    if not files:
        raise UserError("no file to import; give the .csd files of one corpus")
    roots: dict[str, CsdFile] = {}
    for file in files:
        if file.root in roots:
            raise UserError(f"{roots[file.root].path} and {file.path} have one root name, {file.root!r}; import one")
        roots[file.root] = file
    return roots


def _named(files: Mapping[str, CsdFile], root: str) -> CsdFile:
    if root not in files:
        raise UserError(f"no file has the root name {root!r}; there are {', '.join(map(repr, files))}")
    return files[root]


@dataclass(frozen=True)
class _LabelColumn:
    file: CsdFile
    index: int


def _label_column(files: Mapping[str, CsdFile], target: str) -> _LabelColumn:
    root, colon, column = (target, "", "0") if target in files else target.rpartition(":")
    file = _named(files, root if colon or target in files else target)
    if not file.keys:
        raise UserError(f"{file.path} has no entry; nothing to import")
    width = file.entry(file.keys[0]).features.shape[1]
    names = list(file.column_names(width) or ())
    if column in names:
        return _LabelColumn(file, names.index(column))
    if column.isdecimal() and int(column) < width:
        return _LabelColumn(file, int(column))
    there = ", ".join([f"0 to {width - 1}", *names])
    raise UserError(f"{file.path} has no column {column!r} for a label; it has {there}")


# --- Clips, labels, words ---------------------------------------------------------------------------------


def _clips(
    labels: Mapping[str, _LabelColumn], features: Sequence[CsdFile]
) -> tuple[list[CsdClip], dict[str, list[float | None]]]:
    """The clips, and each label's value per clip."""
    homes = {column.file.root: column.file for column in labels.values()}
    if len(homes) > 1:
        raise UserError(f"labels stand in {', '.join(map(repr, homes))}; take all of them from one file")
    if not homes:
        return clips_of_features(features), {}
    (file,) = homes.values()
    clips, rows = clips_of_labels(file)
    width = max(column.index for column in labels.values()) + 1
    for clip, row in zip(clips, rows, strict=True):
        if len(row) < width:
            raise UserError(f"{file.path}: {clip.name!r} has {len(row)} label columns, {width} are asked for")
    return clips, {name: [_finite(row[column.index]) for row in rows] for name, column in labels.items()}


def _finite(number: Any) -> float | None:
    return float(number) if np.isfinite(number) else None


def _table(clips: Sequence[CsdClip], targets: Mapping[str, Sequence[float | None]]) -> pa.Table:
    return pa.table(
        {
            _ID: pa.array([clip.name for clip in clips], pa.string()),
            "video_id": pa.array([clip.video for clip in clips], pa.string()),
            "segment": pa.array([clip.number for clip in clips], pa.int32()),
            "start_ms": pa.array([clip.start_ms for clip in clips], pa.int64()),
            "end_ms": pa.array([clip.end_ms for clip in clips], pa.int64()),
            **{f"label {name}": pa.array(values, pa.float64()) for name, values in targets.items()},
        }
    )


def _texts(clips: Sequence[CsdClip], file: CsdFile) -> list[str | None]:
    frames = ClipFrames(file)
    texts = []
    for clip in clips:
        found = frames.of(clip)
        texts.append(None if found is None else " ".join(words_of(found.features, file.path)) or None)
    return texts


# --- Features ---------------------------------------------------------------------------------------------


def _feature(clips: Sequence[CsdClip], feature: FeatureColumn, file: CsdFile) -> IncomingFeature:
    width = file.entry(file.keys[0]).features.shape[1] if file.keys else 0
    if width == 0:
        raise UserError(f"{file.path} has no features; leave it out")
    columns = file.column_names(width) or tuple(f"{feature.name}_{index}" for index in range(width))
    where = f"{file.root!r}"
    return IncomingFeature(
        feature.kind,
        feature.name,
        where,
        blocks=lambda: _blocks(clips, file, columns, (feature.label, where)),
        config={"origin": "csd"},
        columns=columns,
    )


def _blocks(
    clips: Sequence[CsdClip], file: CsdFile, columns: tuple[str, ...], label: tuple[str, str]
) -> Iterator[FeatureBlock]:
    frames = ClipFrames(file)
    held: list[tuple[NDArray[np.float32], NDArray[np.float32], str | None]] = []
    size = 0
    for clip in clips:
        found = frames.of(clip)
        if found is None:
            held.append((np.empty((0, len(columns)), np.float32), np.empty(0, np.float32), "null"))
        else:
            values = _numbers(found.features, file, clip)
            check_width(*label, (len(columns), file.keys[0]), (values.shape[1], clip.name))
            times = found.centres - (clip.start_s or 0.0)
            held.append((values, times.astype(np.float32), None))
        size += held[-1][0].nbytes
        if size >= BLOCK_BYTES:
            yield _block(held, columns)
            held, size = [], 0
    if held:
        yield _block(held, columns)


def _numbers(features: NDArray[Any], file: CsdFile, clip: CsdClip) -> NDArray[np.float32]:
    if features.dtype.kind not in "biuf":
        raise UserError(f"{file.path} holds words, not numbers, for {clip.name!r}; name it as the words instead")
    with np.errstate(over="ignore"):
        return features.astype(np.float32)


def _block(
    held: Sequence[tuple[NDArray[np.float32], NDArray[np.float32], str | None]], columns: tuple[str, ...]
) -> FeatureBlock:
    values, times, reasons = zip(*held, strict=True)
    n_frames = np.array([len(one) for one in values], np.int32)
    return usable_block(columns, "sequence", np.concatenate(values), n_frames, list(reasons), np.concatenate(times))
