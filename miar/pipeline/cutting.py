"""Cut what has to be extracted into shards: whole source files, each shard about as long as the others."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from miar.config import ExecutionConfig
from miar.corpus.columns import whole
from miar.features.contract import FeatureSet, Modality
from miar.features.requests import ClipRequest
from miar.pipeline.shards import Shard, make_shard
from storage.arrow import pc

SECONDS_PER_CLIP = 0.05
SECONDS_PER_MEDIA_SECOND = {Modality.TEXT: 0.0, Modality.AUDIO: 0.03, Modality.FACE: 0.12}
DECODE_SECONDS_PER_MEDIA_SECOND = 0.03
ASSUMED_BYTES_PER_SECOND = 125_000
"""A guess at the length of a file that nobody has opened yet: 1 Mbit/s."""
SHARDS_PER_WORKER = 4
"""Enough shards that no worker is idle for long at the end."""


@dataclass(frozen=True)
class Work:
    """Clips of which features are wanted, in order of file and clip."""

    clips: pa.Table
    """Rows of ``clips``."""
    wants: np.ndarray
    """(n_clips, n_feature_sets) booleans."""
    tables: tuple[str, ...]
    """The feature sets' tables."""
    cost: np.ndarray
    """(n_clips,) a rough guess at seconds of one worker."""
    length_s: np.ndarray
    """(n_clips,) how long each clip is; a guess where it goes to the end of its file."""

    @property
    def seconds(self) -> float:
        return float(self.cost.sum())

    @classmethod
    def of(cls, live: pa.Table, stale: Mapping[str, np.ndarray], feature_sets: Sequence[FeatureSet]) -> "Work":
        """``stale``: feature table -> positions in ``live`` of the clips that want a row in it."""
        wants = np.zeros((live.num_rows, len(feature_sets)), bool)
        for number, feature_set in enumerate(feature_sets):
            wants[stale[feature_set.table], number] = True
        at = np.flatnonzero(wants.any(axis=1))
        clips = live.take(pa.array(at))
        order = pc.sort_indices(clips, sort_keys=[("path", "ascending"), ("clip_id", "ascending")])
        clips, wants = clips.take(order), wants[at][np.asarray(order)]
        length_s = _lengths(clips, live)
        tables = tuple(feature_set.table for feature_set in feature_sets)
        return cls(clips, wants, tables, _cost(length_s, wants, feature_sets), length_s)


def _lengths(clips: pa.Table, live: pa.Table) -> np.ndarray:
    """(n_clips,) seconds; a clip to the end of its file has an equal part of it."""
    ms = pc.subtract(clips["end_ms"], clips["start_ms"])
    length = np.maximum(whole(ms).to_numpy(zero_copy_only=False).astype(float), 0) / 1000
    to_the_end = np.isnan(length)
    if to_the_end.any():
        files = whole(clips["path"]).filter(pa.array(to_the_end)).dictionary_encode()
        inside = pc.value_counts(whole(live["path"]).filter(pc.is_in(live["path"], value_set=files.dictionary)))
        count = inside.field("counts").take(pc.index_in(files.dictionary, value_set=inside.field("values")))
        size = np.asarray(pc.fill_null(whole(clips["media_size"]), 0))[to_the_end]
        length[to_the_end] = size / ASSUMED_BYTES_PER_SECOND / np.asarray(count)[np.asarray(files.indices)]
    return length


def _cost(length_s: np.ndarray, wants: np.ndarray, feature_sets: Sequence[FeatureSet]) -> np.ndarray:
    """(n_clips,) seconds: so much a clip, and so much a second of media for each modality that is looked at."""
    rate = np.zeros(len(wants))
    for modality in Modality:
        chosen = [number for number, one in enumerate(feature_sets) if one.modality is modality]
        rate += SECONDS_PER_MEDIA_SECOND[modality] * wants[:, chosen].any(axis=1)
    return SECONDS_PER_CLIP + length_s * (rate + DECODE_SECONDS_PER_MEDIA_SECOND * (rate > 0))


def cut_shards(work: Work, execution: ExecutionConfig) -> list[Shard]:
    """Shards of whole files: about ``shard_seconds`` each, fewer where there is little to do.

    The cut, and so each shard's name, depends on the work alone, not on the order it was found in.
    """
    limit = min(execution.shard_seconds, max(work.seconds / (execution.workers * SHARDS_PER_WORKER), 1.0))
    return [_shard(work, first, last) for first, last in _packed(work, limit, execution.shard_clips)]


def _packed(work: Work, limit: float, most_clips: int) -> Iterator[tuple[int, int]]:
    """First and last clip (exclusive) of each shard."""
    path = np.asarray(whole(work.clips["path"]).dictionary_encode().indices)
    begins = np.flatnonzero(np.concatenate([[True], path[1:] != path[:-1]])) if len(path) else np.zeros(0, np.int64)
    first, seconds = 0, 0.0
    ends = [*begins[1:].tolist(), len(path)]
    costs = np.add.reduceat(work.cost, begins).tolist() if len(begins) else []
    for begin, end, cost in zip(begins.tolist(), ends, costs, strict=False):
        if begin > first and (seconds + cost > limit or end - first > most_clips):
            yield first, begin
            first, seconds = begin, 0.0
        seconds += cost
    if len(path):
        yield first, len(path)


def _shard(work: Work, first: int, last: int) -> Shard:
    rows = work.clips.slice(first, last - first).to_pylist()
    clips = [
        ClipRequest(
            clip_id=row["clip_id"],
            path=row["path"],
            start_ms=row["start_ms"],
            end_ms=row["end_ms"],
            text=row["text"],
            wants=frozenset(table for table, wanted in zip(work.tables, wants, strict=True) if wanted),
        )
        for row, wants in zip(rows, work.wants[first:last].tolist(), strict=True)
    ]
    return make_shard(clips, {row["clip_id"]: row for row in rows})
