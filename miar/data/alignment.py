"""Sequences of different rates brought to common steps: the words of a clip, or equal parts of it.

    aligned = align(reader, reader.select(Selection(splits=["train"])), WordSteps())
    aligned = align(reader, positions, EqualSteps(50))

The rows of the store are not touched: what a step holds is worked out when it is read. Of timed frames (sound, faces)
a step takes the mean of those within it; of tokens the mean of those that make up its word, which are found by where
they begin in the text, never by tokenising again. A step in which a modality has nothing is marked so, and holds 0.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from miar.data.batches import MODALITIES
from miar.data.dataset import Ragged
from miar.data.feature_rows import FeatureRows
from miar.data.reading import Positions, SnapshotReader
from miar.data.word_times import TimedWords, read_words

_BEHIND_S = 1e-6
"""A clip of unknown length ends this much behind its last frame, so that the frame is in it."""

Floats = NDArray[np.float32]
Seconds = NDArray[np.float64]


@dataclass(frozen=True)
class WordSteps:
    """A step for each word whose times are known; a clip without such words has no steps."""


@dataclass(frozen=True)
class EqualSteps:
    """``count`` steps of equal length for every clip. Tokens of words without times are spread evenly."""

    count: int = 50

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ValueError(f"{self.count} steps hold nothing: ask for 1 or more")


@dataclass(frozen=True)
class AlignedClips:
    """N clips with S steps in all, one clip after the other."""

    clip_ids: list[str]
    lengths: NDArray[np.int64]
    """(N,) steps of each clip."""
    spans: Seconds
    """(S, 2) start and end of each step, in s from the clip's start."""
    words: list[str] | None
    """(S,) of :class:`WordSteps`."""
    values: dict[str, Floats]
    """Modality -> (S, D)."""
    present: dict[str, NDArray[np.bool_]]
    """Modality -> (S,) whether it has anything in the step."""

    def padded(self, steps: int, *, at_end: bool = True) -> tuple[dict[str, Floats], dict[str, NDArray[np.bool_]]]:
        """(N, steps, D) and (N, steps) of each modality: the first ``steps`` steps, and zeros where there are fewer.

        Args:
            at_end: whether zeros stand after the steps, or before them.
        """
        kept = np.minimum(self.lengths, steps)
        clip = np.repeat(np.arange(len(kept)), kept)
        within = np.arange(kept.sum()) - np.repeat(np.cumsum(kept) - kept, kept)
        source = np.repeat(np.cumsum(self.lengths) - self.lengths, kept) + within
        place = within if at_end else within + np.repeat(steps - kept, kept)
        values, present = {}, {}
        for name, flat in self.values.items():
            values[name] = np.zeros((len(kept), steps, flat.shape[1]), np.float32)
            values[name][clip, place] = flat[source]
            present[name] = np.zeros((len(kept), steps), np.bool_)
            present[name][clip, place] = self.present[name][source]
        return values, present


@dataclass(frozen=True)
class Steps:
    """S steps of N clips."""

    clip: NDArray[np.int64]
    """(S,) ascending."""
    spans: Seconds
    """(S, 2)"""


def align(reader: SnapshotReader, positions: Positions, view: WordSteps | EqualSteps) -> AlignedClips:
    """The clips at ``positions`` of the reader, every modality at the same steps.

    Raises:
        StoreError: the snapshot cannot be read.
    """
    words = read_words(reader.snapshot, reader.clips["clip_id"].take(pa.array(positions)))
    rows = {name: reader.timed_rows(name) for name in reader.feature_sets}
    frames = {name: Frames.read(rows[name], positions) for name in rows}
    if isinstance(view, WordSteps):
        steps = Steps(words.clip, words.spans)
    else:
        steps = _equal_steps(_durations(words, frames), view.count)
    values, present = {}, {}
    for name in MODALITIES:
        if name not in frames:
            continue
        if name != "text":
            gap_s = 1 / (reader.feature_sets[name].get("rate_hz") or np.inf)
            values[name], present[name] = mean_within(frames[name], steps, gap_s)
        elif isinstance(view, WordSteps):
            step = _word_of_each_token(frames[name], words)
            values[name], present[name] = mean_of_tokens(frames[name].values, step, len(steps.clip))
        else:
            step = _step_of_each_token(frames[name], words, steps, view.count)
            values[name], present[name] = mean_of_tokens(frames[name].values, step, len(steps.clip))
    return AlignedClips(
        clip_ids=reader.clips["clip_id"].take(pa.array(positions)).to_pylist(),
        lengths=np.bincount(steps.clip, minlength=len(positions)),
        spans=steps.spans,
        words=words.texts if isinstance(view, WordSteps) else None,
        values=values,
        present=present,
    )


@dataclass(frozen=True)
class Frames:
    """Frames of N clips, one clip after the other."""

    values: Floats
    """(F, D)"""
    times: Seconds
    """(F,) s from the clip's start; of text, where each token begins in the words that were read."""
    offsets: NDArray[np.int64]
    """(N + 1,)"""

    @classmethod
    def read(cls, rows: FeatureRows, positions: Positions) -> "Frames":
        data, times = rows.read_timed(positions)
        values, offsets = data.sequences.joined()
        starts, lengths = data.sequences.starts, data.sequences.lengths
        flat, _ = Ragged(times[:, None], starts, lengths).joined()
        return cls(values, flat[:, 0].astype(np.float64), offsets)

    @property
    def clip(self) -> NDArray[np.int64]:
        """(F,)"""
        return np.repeat(np.arange(len(self.offsets) - 1), np.diff(self.offsets))


def mean_within(frames: Frames, steps: Steps, gap_s: float) -> tuple[Floats, NDArray[np.bool_]]:
    """(S, D) mean of the frames whose centre lies within each step, and (S,) whether there are any.

    A step between two frames takes the one nearest to its middle, unless that is farther from it than ``gap_s``.
    """
    if not len(frames.times) or not len(steps.clip):
        return np.zeros((len(steps.clip), frames.values.shape[1]), np.float32), np.zeros(len(steps.clip), np.bool_)
    first, last = (_position(frames, steps.clip, steps.spans[:, side]) for side in (0, 1))
    nearest, distance = _nearest(frames, steps)
    between = first >= last
    first, last = np.where(between, nearest, first), np.where(between, nearest + 1, last)
    present = ~between | (distance <= gap_s)
    # One frame more, so that a step may end behind the last; every other sum is of what lies between two steps.
    values = np.concatenate([frames.values, np.zeros((1, frames.values.shape[1]), np.float32)])
    sums = np.add.reduceat(values, np.stack([first, last], axis=1).ravel(), axis=0, dtype=np.float64)[::2]
    means = sums / np.maximum(last - first, 1)[:, None]
    return np.where(present[:, None], means, 0.0).astype(np.float32), present


def mean_of_tokens(values: Floats, step: NDArray[np.int64], count: int) -> tuple[Floats, NDArray[np.bool_]]:
    """(count, D) mean of the tokens of each step, and (count,) whether there are any.

    Args:
        values: (F, D)
        step: (F,) of each token; negative: of none.
    """
    used = np.flatnonzero(step >= 0)
    used = used[np.argsort(step[used], kind="stable")]
    owners, begins, counts = np.unique(step[used], return_index=True, return_counts=True)
    means = np.zeros((count, values.shape[1]), np.float32)
    if len(used):
        means[owners] = np.add.reduceat(values[used], begins, axis=0, dtype=np.float64) / counts[:, None]
    present = np.zeros(count, np.bool_)
    present[owners] = True
    return means, present


def _position(frames: Frames, clip: NDArray[np.int64], time_s: Seconds) -> NDArray[np.int64]:
    """(S,) the first frame of the clip at or after a time; behind the clip's last where there is none."""
    # Times of one clip never reach the next clip's: one search serves all.
    reach = float(max(frames.times.max(initial=0.0), time_s.max(initial=0.0))) + 1.0
    return np.searchsorted(frames.clip * reach + frames.times, clip * reach + np.maximum(time_s, 0.0))


def _nearest(frames: Frames, steps: Steps) -> tuple[NDArray[np.int64], Seconds]:
    """(S,) the clip's frame nearest to the middle of each step, and how far it is from the step, in s."""
    middle = steps.spans.mean(axis=1)
    after = _position(frames, steps.clip, middle)
    begin, end = frames.offsets[steps.clip], frames.offsets[steps.clip + 1]
    last = len(frames.times) - 1
    candidates = np.stack([after - 1, after])
    inside = (candidates >= begin) & (candidates < end)
    times = frames.times[np.clip(candidates, 0, last)]
    best = np.argmin(np.where(inside, np.abs(times - middle), np.inf), axis=0)
    columns = np.arange(len(middle))
    outside = np.maximum(steps.spans[:, 0] - times, times - steps.spans[:, 1])[best, columns]
    distance = np.where(inside[best, columns], np.maximum(outside, 0.0), np.inf)
    return np.clip(candidates[best, columns], 0, last), distance


def _word_of_each_token(tokens: Frames, words: TimedWords) -> NDArray[np.int64]:
    """(F,) the word that each token is part of; -1 in a clip whose words are not found in its text."""
    found = np.flatnonzero(words.at >= 0)
    if not len(found) or not len(tokens.times):
        return np.full(len(tokens.times), -1)
    order = found[np.lexsort((words.at[found], words.clip[found]))]
    reach = float(max(tokens.times.max(initial=0.0), words.at.max(initial=0))) + 1.0
    keys = words.clip[order] * reach + words.at[order]
    clip = tokens.clip
    # A token belongs to the last word that begins at it or before it; one before the first word, to that.
    place = np.searchsorted(keys, clip * reach + tokens.times, side="right") - 1
    first = np.searchsorted(keys, clip * reach)
    place = np.maximum(place, first)
    inside = place < np.searchsorted(keys, (clip + 1) * reach)
    return np.where(inside, order[np.minimum(place, len(order) - 1)], -1)


def _step_of_each_token(tokens: Frames, words: TimedWords, steps: Steps, count: int) -> NDArray[np.int64]:
    """(F,) the equal part that each token falls into: by its word's middle, or by its place among the tokens."""
    clip, lengths = tokens.clip, np.diff(tokens.offsets)
    place = (np.arange(len(clip)) - np.repeat(tokens.offsets[:-1], lengths) + 0.5) / np.repeat(lengths, lengths)
    word = _word_of_each_token(tokens, words)
    if len(words.clip):
        whole_s = steps.spans[clip * count + count - 1, 1]
        middle = words.spans.mean(axis=1)[word] / np.maximum(whole_s, 1e-9)
        place = np.where(word >= 0, middle, place)
    return clip * count + np.clip((place * count).astype(np.int64), 0, count - 1)


def _durations(words: TimedWords, frames: dict[str, Frames]) -> Seconds:
    """(N,) how long each clip is, in s: by its cut, or up to its last frame or word where it goes to the end of its
    file."""
    seen = np.zeros(len(words.durations))
    for name, timed in frames.items():
        if name != "text" and len(timed.times):
            np.maximum.at(seen, timed.clip, timed.times)
    np.maximum.at(seen, words.clip, words.spans[:, 1])
    seen += _BEHIND_S
    return np.where(np.isnan(words.durations), seen, words.durations)


def _equal_steps(durations: Seconds, count: int) -> Steps:
    edges = np.linspace(0.0, 1.0, count + 1) * durations[:, None]  # (N, count + 1)
    spans = np.stack([edges[:, :-1], edges[:, 1:]], axis=2).reshape(-1, 2)
    return Steps(np.repeat(np.arange(len(durations)), count), spans)
