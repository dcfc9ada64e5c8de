"""The presentation clock that all streams of a file share."""

JUMP_BACK_S = 0.5
"""A time this far before the stream's end so far is a new beginning, not a frame out of order."""
JUMP_AHEAD_S = 10.0
"""A time this far after it is one as well, unless the header says that the file is that long."""
SAME_JUMP_S = 0.5
"""Audio and video that jump at the same place do so by about the same time."""


class FileClock:
    """What the streams of one file agree on: where zero is, and which jumps in time were taken out."""

    def __init__(self, zero_s: float, claimed_end_s: float | None) -> None:
        self.zero_s = zero_s
        self.claimed_end_s = claimed_end_s
        self.jumps: list[float] = []


class StreamClock:
    """Places one stream's time stamps on the presentation clock, in s, never far before its own end."""

    def __init__(self, file: FileClock) -> None:
        self._file = file
        self._offset_s = -file.zero_s
        self._jumps = 0
        self.end_s: float | None = None
        """End of what this stream has shown so far; ``None`` before its first frame."""

    def place(self, stamp_s: float | None) -> float:
        """Presentation time of a frame stamped ``stamp_s``; one without a stamp follows the last."""
        if stamp_s is None:
            return self.end_s or 0.0
        time_s = stamp_s + self._offset_s
        if self.end_s is not None and self._is_jump(time_s, self.end_s):
            self._offset_s += self._joint(self.end_s - time_s)
            time_s = stamp_s + self._offset_s
        return time_s

    def advance(self, end_s: float) -> None:
        """The frame just placed is shown until ``end_s``."""
        self.end_s = end_s if self.end_s is None else max(self.end_s, end_s)

    def _is_jump(self, time_s: float, end_s: float) -> bool:
        if time_s < end_s - JUMP_BACK_S:
            return True
        claimed_s = self._file.claimed_end_s
        return time_s > end_s + JUMP_AHEAD_S and (claimed_s is None or time_s > claimed_s + JUMP_AHEAD_S)

    def _joint(self, wanted_s: float) -> float:
        """The shift at this jump: what the other stream took at the same place, so that both stay
        together."""
        jumps, at = self._file.jumps, self._jumps
        self._jumps += 1
        if at >= len(jumps):
            jumps.append(wanted_s)
        return jumps[at] if abs(jumps[at] - wanted_s) < SAME_JUMP_S else wanted_s
