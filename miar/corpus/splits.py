"""Train, valid and test: read from tables, else assigned by group, seeded, and never changed afterwards."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from miar.config import SplitConfig
from miar.corpus.columns import NOWHERE, mask, taken, whole
from miar.corpus.model import Clip
from miar.errors import CorpusError
from miar.hashing import stable_key
from storage.arrow import pc

SPLITS = ("train", "valid", "test")
_NAMES = {
    "train": "train",
    "training": "train",
    "valid": "valid",
    "validation": "valid",
    "val": "valid",
    "dev": "valid",
    "development": "valid",
    "test": "test",
    "testing": "test",
}


def split_name(name: str, table: str) -> str:
    """``train``, ``valid`` or ``test`` for any usual name of theirs.

    Raises:
        CorpusError: it is none of them. To guess would risk training on what was held out.
    """
    known = _NAMES.get(name.strip().lower())
    if known is None:
        raise CorpusError(f"{table}: split {name!r} is none of train, valid (val, dev, validation), test")
    return known


def assign_splits(
    clips: Sequence[Clip], config: SplitConfig, known_splits: Mapping[str, str] | None = None
) -> list[Clip]:
    """The same clips, each with a split: :func:`splits_of`."""
    columns = ("clip_id", "video_id", "path", "speaker", "split")
    table = pa.table({name: pa.array([getattr(clip, name) for clip in clips], pa.string()) for name in columns})
    splits = splits_of(table, config, known_splits).to_pylist()
    return [clip if clip.split else replace(clip, split=split) for clip, split in zip(clips, splits, strict=True)]


def splits_of(clips: pa.Table, config: SplitConfig, known_splits: Mapping[str, str] | None = None) -> pa.Array:
    """(n_clips,) the split of each clip.

    A clip that has one keeps it. The others are assigned by group: a group with a split among its own clips follows
    it; one that ``known_splits`` names, by its own name or by a member's clip, video or speaker, keeps that; the rest
    go, in an order that depends on the seed and the group alone, each to the split that lacks most clips.

    Args:
        clips: Of one corpus: ``clip_id``, ``video_id``, ``path``, ``speaker`` and ``split``.
        config: Shares, seed, and what a group is.
        known_splits: Earlier assignments: group, ``video_id``, ``speaker`` or ``clip_id`` -> split.

    Raises:
        CorpusError: the shares are all zero, or groups are to be speakers and a clip has none.
    """
    groups = _groups(clips, config)
    given = whole(clips["split"])
    waiting = mask(pc.is_null(given))
    if not waiting.any():
        return given
    counts = np.bincount(_codes(given)[~waiting], minlength=len(SPLITS))
    waiting_in = np.bincount(groups.at[waiting], minlength=len(groups.names))
    chosen = _own_splits(groups, given, waiting)
    chosen[waiting_in == 0] = NOWHERE
    _follow_known(chosen, groups, waiting_in, clips, known_splits or {})
    settled = chosen >= 0
    counts += np.bincount(chosen[settled], weights=waiting_in[settled], minlength=len(SPLITS)).astype(np.int64)
    undecided = np.flatnonzero(~settled & (waiting_in > 0)).tolist()
    shares = _shares(config) if undecided else {}
    for group in sorted(undecided, key=lambda at: stable_key([config.seed, groups.names[at]])):
        split = max(shares, key=lambda at: shares[at] * clips.num_rows - counts[at])
        chosen[group] = split
        counts[split] += waiting_in[group]
    return pc.coalesce(given, taken(pa.array(SPLITS), chosen[groups.at]))


@dataclass(frozen=True)
class _Groups:
    """Clips that must not fall into two splits."""

    names: list[str]
    at: np.ndarray
    """(n_clips,) the group of each clip."""


def _groups(clips: pa.Table, config: SplitConfig) -> _Groups:
    speaker = whole(clips["speaker"])
    if config.by == "speaker" and speaker.null_count:
        nameless = clips["path"][int(np.argmax(mask(pc.is_null(speaker))))]
        raise CorpusError(f"splits are to be by speaker, and {nameless} has none; name it, or split by video")
    by_speaker = config.by == "speaker" or (config.by == "auto" and not speaker.null_count)
    coded = (speaker if by_speaker else whole(clips["video_id"])).dictionary_encode()
    return _Groups(coded.dictionary.to_pylist(), np.asarray(coded.indices).astype(np.int64))


def _codes(splits: pa.Array) -> np.ndarray:
    """(n,) positions in :data:`SPLITS`; :data:`NOWHERE` for null."""
    return np.asarray(pc.fill_null(pc.index_in(splits, value_set=pa.array(SPLITS)), NOWHERE)).astype(np.int64)


def _own_splits(groups: _Groups, given: pa.Array, waiting: np.ndarray) -> np.ndarray:
    """(n_groups,) the split that most of a group's own clips have, the first by name of several."""
    by_name = np.argsort(SPLITS)
    counts = np.zeros((len(groups.names), len(SPLITS)), np.int64)
    np.add.at(counts, (groups.at[~waiting], _codes(given)[~waiting]), 1)
    own = by_name[np.argmax(counts[:, by_name], axis=1)]
    return np.where(counts.any(axis=1), own, NOWHERE)


def _follow_known(
    chosen: np.ndarray, groups: _Groups, waiting_in: np.ndarray, clips: pa.Table, known: Mapping[str, str]
) -> None:
    """Groups that stood in a split before stay there."""
    if not known:
        return
    open_groups = np.flatnonzero((chosen < 0) & (waiting_in > 0)).tolist()
    unknown = []
    for group in open_groups:
        split = known.get(groups.names[group])
        if split is None:
            unknown.append(group)
        else:
            chosen[group] = SPLITS.index(split)
    for clip in _members(groups, unknown, clips):
        names = (clip["clip_id"], clip["video_id"], clip["speaker"] or "")
        split = next((known[name] for name in names if name in known), None)
        if split is not None and chosen[clip["group"]] < 0:
            chosen[clip["group"]] = SPLITS.index(split)


def _members(groups: _Groups, chosen: Sequence[int], clips: pa.Table) -> list[dict[str, str]]:
    """The clips of some groups, in order."""
    at = np.flatnonzero(np.isin(groups.at, chosen))
    rows = clips.select(["clip_id", "video_id", "speaker"]).take(pa.array(at))
    return rows.append_column("group", pa.array(groups.at[at])).to_pylist()


def _shares(config: SplitConfig) -> dict[int, float]:
    shares = {at: getattr(config, name) for at, name in enumerate(SPLITS) if getattr(config, name) > 0}
    total = sum(shares.values())
    if not total:
        raise CorpusError("the shares of train, valid and test are all zero; give at least one")
    return {at: share / total for at, share in shares.items()}
