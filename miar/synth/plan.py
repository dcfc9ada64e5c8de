"""Which clips a corpus has: who speaks in which video, what each clip carries, which split it is in."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

CLIPS_PER_VIDEO = (4, 5, 6, 5)
"""Repeated: 20 clips in every 4 videos."""
VIDEOS_PER_SPEAKER = 2
SPLIT_SHARES = {"test": 0.25, "valid": 0.15}
"""Of the speakers; the rest train."""

EMOTIONS = ((-1.5, "anger"), (-0.5, "sadness"), (0.5, "neutral"), (1.5, "contentment"), (float("inf"), "joy"))
"""Upper bound of the sentiment, class."""


@dataclass(frozen=True)
class VideoPlan:
    """One video to be made. Picklable and tiny: a worker draws all the rest from the seed."""

    seed: int
    number: int
    speaker: int
    first_clip: int
    """Number of its first clip within the corpus, from 0."""
    clips: int

    @property
    def name(self) -> str:
        """File name without extension."""
        return f"v{self.number:05d}"

    @property
    def video_id(self) -> str:
        """Path without extension, relative to the corpus."""
        return f"videos/{self.name}"


def plan_videos(clips: int, seed: int) -> Iterator[VideoPlan]:
    """The videos that together hold ``clips`` clips; the last may hold fewer than its share."""
    first, number = 0, 0
    while first < clips:
        count = min(CLIPS_PER_VIDEO[number % len(CLIPS_PER_VIDEO)], clips - first)
        yield VideoPlan(seed, number, number // VIDEOS_PER_SPEAKER, first, count)
        first, number = first + count, number + 1


def assign_splits(speakers: int, seed: int) -> list[str]:
    """The split of each speaker, by the shares of :data:`SPLIT_SHARES`; at least one trains."""
    order = np.random.default_rng([seed, speakers, 0x59]).permutation(speakers)
    splits = ["train"] * speakers
    start = 0
    for split, share in SPLIT_SHARES.items():
        count = round(speakers * share)
        for speaker in order[start : start + count]:
            splits[int(speaker)] = split
        start += count
    return splits


def emotion(sentiment: float) -> str:
    """The class of a sentiment (-3..3)."""
    return next(name for bound, name in EMOTIONS if sentiment < bound)
