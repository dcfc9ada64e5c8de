"""A file's sound: mixed down, cut at its own rate, then resampled clip by clip."""

import numpy as np
import soxr
from av.audio.frame import AudioFrame
from numpy.typing import NDArray

Samples = NDArray[np.float32]

SILENCE_BLOCK = 65_536
"""Samples of silence made at once, so that a long gap costs no memory."""


def mono(frame: AudioFrame) -> Samples:
    """(n,) plain mean of all channels, as float32 in -1..1 (float formats may exceed it)."""
    values = frame.to_ndarray()
    if frame.format.is_planar:
        channels = values
    else:
        channels = values.reshape(-1, frame.layout.nb_channels).T
    if channels.dtype == np.uint8:
        scaled = (channels.astype(np.float32) - 128) / 128
    elif np.issubdtype(channels.dtype, np.integer):
        scaled = channels / float(2 ** (8 * channels.dtype.itemsize - 1))
    else:
        scaled = channels
    with np.errstate(invalid="ignore", over="ignore"):
        return np.ascontiguousarray(scaled.mean(axis=0), dtype=np.float32)


class ClipSound:
    """One clip's sound: samples ``first`` up to ``last`` at the file's rate, resampled as they come."""

    def __init__(self, first: int, last: int | None, file_rate: int, rate: int) -> None:
        self._first = first
        self._last = last
        self._next = first
        self._resampler = None if file_rate == rate else soxr.ResampleStream(file_rate, rate, 1, dtype="float32")
        self._blocks: list[Samples] = []
        self.bad_samples = 0

    def feed(self, position: int, samples: Samples, bad: NDArray[np.bool_] | None) -> None:
        """Take what belongs to this clip of ``samples``, the first of which stands at ``position``.

        A gap before them is silence; samples for times that were already heard are dropped.
        """
        begin = max(self._next, position)
        end = position + len(samples) if self._last is None else min(self._last, position + len(samples))
        if begin >= end:
            return
        while self._next < begin:
            self._push(np.zeros(min(begin - self._next, SILENCE_BLOCK), np.float32))
        self._push(samples[begin - position : end - position])
        if bad is not None:
            self.bad_samples += int(bad[begin - position : end - position].sum())

    def close(self) -> Samples:
        """(n,) the clip at the wanted rate."""
        if self._resampler is not None and self._blocks:
            self._blocks.append(self._resampler.resample_chunk(np.zeros(0, np.float32), last=True))
        return np.concatenate(self._blocks) if self._blocks else np.zeros(0, np.float32)

    def _push(self, samples: Samples) -> None:
        self._next += len(samples)
        if self._resampler is not None:
            samples = self._resampler.resample_chunk(samples)
        self._blocks.append(samples)
