"""Pictures that no span shows are not decoded: a video whose first span is late is begun shortly before it.

What comes out is the same bit for bit. Packets are passed over up to the last keyframe but one before the span, since
some files mark as keyframes what still leans on what came before. Where a file's time stamps do not say where that is,
or its decoder does not begin there, :class:`CannotSkipError` has it decoded from its beginning.

Sound is always decoded from its beginning, which is cheap: many of its decoders never forget what they decoded, and its
position is counted in samples.
"""

from collections.abc import Sequence
from typing import Any

from av.packet import Packet

from miar.media.clock import JUMP_AHEAD_S, JUMP_BACK_S
from miar.media.decode import Span

WORTH_SKIPPING_S = 10.0
"""A span that starts sooner is reached as fast by decoding."""
LEAD_IN_S = 1.0
"""Decoded before the span at least: the frame that is shown as it starts has begun before it."""
MOST_HELD_BYTES = 64 * 2**20
"""Of packets that may have to be decoded yet; a file with fewer keyframes is decoded from there on."""
GROUPS_HELD = 2


class CannotSkipError(Exception):
    """Whether the rest of the file decodes the same without its beginning is not known."""


class LateStart:
    """Holds back a video's packets until its first span is near."""

    def __init__(self, spans: Sequence[Span], zero_s: float) -> None:
        """``zero_s``: the time stamp at which the file's presentation starts."""
        self._zero_s = zero_s
        self.until_s = min(span.start_ms for span in spans) / 1000 - LEAD_IN_S
        """What is decoded begins here or before."""
        self._groups: list[list[Packet[Any]]] = [[]]
        """Packets from a keyframe to the next."""
        self._bytes = 0
        self._latest_s: float | None = None

    @staticmethod
    def is_worth_it(spans: Sequence[Span], longest_s: float) -> bool:
        """Whether no span starts early; ``longest_s`` is how much of a file is looked at."""
        return WORTH_SKIPPING_S <= min((span.start_ms for span in spans), default=0) / 1000 < longest_s

    def take(self, packet: "Packet[Any]") -> bool:
        """Hold one packet back, and forget those that nothing depends on; whether it is time to decode those held.

        Raises:
            CannotSkipError: the time stamps do not go on steadily.
        """
        time_s = self._time_s(packet)
        if packet.is_keyframe and time_s <= self.until_s:
            self._groups.append([])
            while len(self._groups) > GROUPS_HELD:
                self._bytes -= sum(one.size for one in self._groups.pop(0))
        self._groups[-1].append(packet)
        self._bytes += packet.size
        return time_s >= self.until_s or self._bytes > MOST_HELD_BYTES

    def held(self) -> "list[Packet[Any]]":
        """The packets to decode, in order."""
        return [packet for group in self._groups for packet in group]

    def _time_s(self, packet: "Packet[Any]") -> float:
        if packet.pts is None or packet.time_base is None:
            raise CannotSkipError
        time_s = float(packet.pts * packet.time_base) - self._zero_s
        latest_s = time_s if self._latest_s is None else self._latest_s
        if not latest_s - JUMP_BACK_S <= time_s <= latest_s + JUMP_AHEAD_S:
            raise CannotSkipError
        self._latest_s = max(latest_s, time_s)
        return time_s
