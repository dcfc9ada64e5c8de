"""Which clips of a snapshot to read."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from miar.data.labels import Label
from miar.errors import UserError
from storage.arrow import pc

Bounds = tuple[float | None, float | None]
"""Least and most, both included; ``None`` is no bound."""


@dataclass(frozen=True)
class Selection:
    """Conditions that a clip meets all of; ``None`` or empty is no condition."""

    splits: Sequence[str] | None = None
    corpora: Sequence[str] | None = None
    """Ids of corpora."""
    clip_ids: Sequence[str] | None = None
    labelled: bool = False
    """It has a finite value or a class."""
    label_range: Bounds | None = None
    """Its value lies within; for a label that is a number."""
    classes: Sequence[str] | None = None
    """It has one of these classes."""
    quality: Mapping[str, Bounds] = field(default_factory=dict)
    """Quality column -> bounds, as ``{"quality_voiced_share": (0.3, None)}``. A clip without that value does not meet
    it. A column that several modalities have is named with its modality: ``face.quality_frames``."""

    @property
    def needs_label(self) -> bool:
        return self.labelled or self.label_range is not None or self.classes is not None


def among(column: pa.Array, wanted: Sequence[str] | None) -> NDArray[np.bool_]:
    """(N,) whether each value is one of ``wanted``; all are where there is no such condition."""
    if wanted is None:
        return np.ones(len(column), np.bool_)
    return pc.is_in(column, value_set=pa.array(list(wanted), column.type)).to_numpy(zero_copy_only=False)


def within(values: NDArray[np.floating], bounds: Bounds) -> NDArray[np.bool_]:
    """(N,) whether each value is known and within."""
    low, high = bounds
    return (values >= (-np.inf if low is None else low)) & (values <= (np.inf if high is None else high))


def label_mask(selection: Selection, label: Label | None, targets: NDArray[np.float64]) -> NDArray[np.bool_]:
    """(N,) the clips whose target meets the conditions on the label.

    Raises:
        UserError: no label is read, or the conditions are for the other kind of label, or there is no such class.
    """
    if not selection.needs_label:
        return np.ones(len(targets), np.bool_)
    if label is None:
        raise UserError("clips are chosen by their label, but no label is read: name one")
    chosen = np.isfinite(targets)
    if selection.label_range is not None:
        if label.classes:
            raise UserError(f"a range was asked of a label with classes; choose among {', '.join(label.classes)}")
        chosen &= within(targets, selection.label_range)
    if selection.classes is not None:
        if unknown := sorted(set(selection.classes) - set(label.classes)):
            known = ", ".join(label.classes) or "none, the label is a number"
            raise UserError(f"the label has no class {', '.join(unknown)}; there are: {known}")
        chosen &= np.isin(targets, [label.classes.index(name) for name in selection.classes])
    return chosen
