"""The sound of a file, a bounded piece at a time, for those who look for speech in it."""

from collections.abc import Callable, Iterator
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from miar.config import MediaLimits
from miar.media.decode import MediaFile, Span, SpanEnd, decode_spans
from miar.media.errors import MediaError, MediaProblem

SAMPLE_RATE = 16_000
"""Hz; what both the detector of voice and Whisper listen to."""
PIECE_S = 600
"""Sound of ten minutes takes 38 MB, and a recogniser that reads it several times that."""
GUARD_S = 1.0
"""Speech that ends nearer than this to the end of a piece may go on in the next."""
MOST_HELD_S = 120
"""What goes on for longer is cut where a piece ends."""

Part = TypeVar("Part")


def pieces(file: MediaFile, limits: MediaLimits) -> Iterator[NDArray[np.float32]]:
    """(n,) mono samples at :data:`SAMPLE_RATE`, one piece after the other; nothing where there is no sound.

    Raises:
        MediaError: the file cannot be read, or not to its end.
    """
    count = int(limits.max_duration_s // PIECE_S) + 1
    spans = [Span(i * PIECE_S * 1000, (i + 1) * PIECE_S * 1000) for i in range(count)]
    for event in decode_spans(file, spans, audio_rate=SAMPLE_RATE, video=None, limits=limits):
        assert isinstance(event, SpanEnd)
        if event.problem is MediaProblem.BEYOND_END or event.audio is None:
            return
        if event.problem is not None:
            raise MediaError(event.problem, event.message or event.problem.value)
        yield event.audio


def carried_over(
    sound: Iterator[NDArray[np.float32]],
    find: Callable[[NDArray[np.float32], float], list[Part]],
    extent: Callable[[Part], tuple[float, float]],
) -> Iterator[Part]:
    """What ``find`` finds in a sound of any length, as if it had been given whole.

    What it finds last in a piece and may go on is left to be found in the next, which then begins there.

    Args:
        find: given (n,) samples and when they begin, in s: what is in them, in order of time.
        extent: from when to when one of those is, in s.
    """
    held, begin_s = np.zeros(0, np.float32), 0.0
    upcoming = next(sound, None)
    while upcoming is not None:
        samples, upcoming = np.concatenate([held, upcoming]), next(sound, None)
        end_s = begin_s + len(samples) / SAMPLE_RATE
        found = find(samples, begin_s)
        held, next_begin_s = np.zeros(0, np.float32), end_s
        if upcoming is not None and found:
            last_begin_s, last_end_s = extent(found[-1])
            if last_end_s > end_s - GUARD_S and end_s - last_begin_s <= MOST_HELD_S:
                found.pop()
                first = max(0, round((last_begin_s - begin_s) * SAMPLE_RATE))
                held, next_begin_s = samples[first:], begin_s + first / SAMPLE_RATE
        yield from found
        begin_s = next_begin_s
