"""Train, valid and test: read from tables, else assigned by group, seeded, and never changed afterwards."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

from miar.config import SplitConfig
from miar.corpus.model import Clip
from miar.errors import CorpusError
from miar.hashing import stable_key

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
    """The same clips, each with a split.

    A clip that has one keeps it. The others are assigned by group: a group with a split among its own clips
    follows
    it; one that ``known_splits`` names, by its own name or by a member's clip, video or speaker, keeps that;
    the rest
    go, in an order that depends on the seed and the group alone, each to the split that lacks most clips.

    Args:
        clips: Of one corpus.
        config: Shares, seed, and what a group is.
        known_splits: Earlier assignments: group, ``video_id``, ``speaker`` or ``clip_id`` -> split.

    Raises:
        CorpusError: the shares are all zero, or groups are to be speakers and a clip has none.
    """
    groups = _groups(clips, config)
    counts = Counter(clip.split for clip in clips if clip.split)
    chosen: dict[str, str] = {}
    undecided: dict[str, int] = {}
    for group, members in groups.items():
        waiting = sum(clip.split is None for clip in members)
        split = _own_split(members) or _known_split(group, members, known_splits or {})
        if split and waiting:
            chosen[group] = split
            counts[split] += waiting
        elif waiting:
            undecided[group] = waiting
    shares = _shares(config) if undecided else {}
    for group in sorted(undecided, key=lambda name: stable_key([config.seed, name])):
        split = max(shares, key=lambda name: shares[name] * len(clips) - counts[name])
        chosen[group] = split
        counts[split] += undecided[group]
    of_clip = {clip.clip_id: chosen[group] for group, members in groups.items() if group in chosen for clip in members}
    return [clip if clip.split else replace(clip, split=of_clip[clip.clip_id]) for clip in clips]


def _groups(clips: Sequence[Clip], config: SplitConfig) -> dict[str, list[Clip]]:
    nameless = next((clip for clip in clips if clip.speaker is None), None)
    if config.by == "speaker" and nameless is not None:
        raise CorpusError(f"splits are to be by speaker, and {nameless.path} has none; name it, or split by video")
    by_speaker = config.by == "speaker" or (config.by == "auto" and nameless is None)
    groups: dict[str, list[Clip]] = {}
    for clip in clips:
        groups.setdefault((clip.speaker or "") if by_speaker else clip.video_id, []).append(clip)
    return groups


def _own_split(members: Sequence[Clip]) -> str | None:
    counts = Counter(clip.split for clip in members if clip.split)
    return max(sorted(counts), key=lambda split: counts[split], default=None)


def _known_split(group: str, members: Sequence[Clip], known: Mapping[str, str]) -> str | None:
    if not known:
        return None
    names = [group]
    for clip in members:
        names += [clip.clip_id, clip.video_id, clip.speaker or ""]
    return next((known[name] for name in names if name in known), None)


def _shares(config: SplitConfig) -> dict[str, float]:
    shares = {name: getattr(config, name) for name in SPLITS if getattr(config, name) > 0}
    total = sum(shares.values())
    if not total:
        raise CorpusError("the shares of train, valid and test are all zero; give at least one")
    return {name: share / total for name, share in shares.items()}
