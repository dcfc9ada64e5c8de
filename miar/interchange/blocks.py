"""Features on their way into the store: ragged float32 frames of some consecutive clips, whatever file they come from.

Every reader (tables, MMSA pickles, csd files) ends here, so there is one rule for what a usable frame is and for what
a clip without one is called.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from miar.errors import UserError
from miar.features.contract import Modality
from miar.hashing import stable_key

Layout = Literal["vector", "sequence"]

BLOCK_BYTES = 64 * 2**20
"""What readers of long sequences aim at: features of so many bytes are held at once."""


@dataclass
class FeatureBlock:
    """The features of some consecutive clips. Missing clips have no frames and a reason."""

    columns: tuple[str, ...]
    layout: Layout
    values: NDArray[np.float32]
    """(sum of n_frames, n_columns), finite."""
    times: NDArray[np.float32]
    """(sum of n_frames,) seconds from the clip's start; where the file has no times, the frame's number in it."""
    n_frames: NDArray[np.int32]
    """(n_clips,)"""
    reasons: list[str | None]
    """Per clip: why it has no frame (``null``, ``empty``, ``not_finite``, ``all_zero``), else ``None``."""
    dropped_frames: int
    """Frames left out for a NaN or an infinity."""

    @property
    def ends(self) -> NDArray[np.int64]:
        """(n_clips + 1,) where each clip's frames begin and end."""
        return np.concatenate([[0], np.cumsum(self.n_frames, dtype=np.int64)])

    def input_hashes(self) -> list[str]:
        """What each row is made from: values and times themselves, or the reason why there are none."""
        return [
            stable_key(["missing", reason]) if reason is not None else self._hash(start, end)
            for reason, start, end in zip(self.reasons, self.ends[:-1], self.ends[1:], strict=True)
        ]

    def _hash(self, start: int, end: int) -> str:
        digest = hashlib.sha256(self.values[start:end].tobytes())
        times = self.times[start:end]
        # Frames that are merely numbered say nothing that their values do not.
        if not np.array_equal(times, np.arange(end - start)):
            digest.update(times.tobytes())
        return digest.hexdigest()[:32]


@dataclass(frozen=True)
class IncomingFeature:
    """One feature set that a file brings."""

    kind: Modality
    name: str
    """Name of the extractor in the store."""
    where: str
    """Where it stands in the file, for messages: ``column 'covarep'``."""
    blocks: Callable[[], Iterable[FeatureBlock]]
    """Reads the feature of all clips, in their order, a bounded part at a time. Called once to see what is new, and
    once more where there is something to write."""
    config: Mapping[str, object] = field(default_factory=lambda: {"origin": "table"})
    """What makes it another feature set than one of the same name and columns."""
    columns: tuple[str, ...] | None = None
    """Its columns, where the file tells them even if no clip has a value."""

    @property
    def label(self) -> str:
        return f"{self.kind}:{self.name}"


def usable_block(
    columns: tuple[str, ...],
    layout: Layout,
    values: NDArray[np.float32],
    n_frames: NDArray[np.int32],
    reasons: list[str | None],
    times: NDArray[np.float32] | None = None,
) -> FeatureBlock:
    """Leave out frames with a NaN or an infinity, and say of every clip without a frame why it has none.

    Args:
        values: (sum of n_frames, n_columns)
        reasons: what is known already of clips without a frame; ``None`` elsewhere.
        times: (sum of n_frames,); ``None``: frames are numbered 0, 1, 2 ... in each clip.
    """
    owners = np.repeat(np.arange(len(n_frames)), n_frames)
    if times is None:
        starts = np.cumsum(n_frames, dtype=np.int64) - n_frames
        times = (np.arange(len(owners)) - starts[owners]).astype(np.float32)
    usable = np.isfinite(values).all(axis=1) & np.isfinite(times)
    kept = np.bincount(owners[usable], minlength=len(n_frames)).astype(np.int32)
    is_null = np.array([reason == "null" for reason in reasons], np.bool_)
    dropped = int((~usable & ~is_null[owners]).sum()) if len(owners) else 0
    reasons = [
        None if count else reason or ("empty" if found == 0 else "not_finite")
        for count, found, reason in zip(kept.tolist(), n_frames.tolist(), reasons, strict=True)
    ]
    if not usable.all():
        values, times = values[usable], times[usable]
    return FeatureBlock(columns, layout, values, times, kept, reasons, dropped)


def check_width(label: str, where: str, one: tuple[int, str], other: tuple[int, str]) -> None:
    """Compare the widths of two clips, given as (width, clip).

    Raises:
        UserError: they differ.
    """
    if one[0] != other[0]:
        raise UserError(
            f"{label}: widths differ in {where}: {one[0]} values for clip {one[1]!r}, "
            f"{other[0]} for clip {other[1]!r}; give every clip the same width"
        )
