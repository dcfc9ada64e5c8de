"""Parts of equal length: for files in which nobody need speak."""

from miar.config import MediaLimits
from miar.media.decode import MediaFile
from miar.media.length import media_length_s
from miar.segmentation.segments import Segment, Segments

METHOD = 1
"""Raised whenever a change in this file changes what comes out."""
SHORTEST_SHARE = 0.5
"""What is left at the end is a window of its own if it is at least this much of one, else part of the last."""


class Windows:
    """Cuts a file into windows of ``window_s``, the first from its beginning."""

    def __init__(self, window_s: float) -> None:
        self._window_ms = round(window_s * 1000)

    def made_of(self) -> list[object]:
        """Everything that changes what comes out."""
        return ["windows", METHOD, self._window_ms]

    def segment(self, file: MediaFile, limits: MediaLimits) -> Segments:
        """
        Raises:
            MediaError: the file cannot be read.
        """
        return Segments([Segment(*span) for span in window_spans(media_length_s(file, limits), self._window_ms)])


def window_spans(length_s: float, window_ms: int) -> list[tuple[int, int]]:
    """Start and end of each window in ms; the last ends where the file does.

    A file that grows keeps the windows that it had, but for the last.
    """
    length_ms = int(length_s * 1000)
    if length_ms <= 0:
        return []
    count = max(1, int(length_ms / window_ms + 1 - SHORTEST_SHARE))
    return [(i * window_ms, (i + 1) * window_ms if i + 1 < count else length_ms) for i in range(count)]
