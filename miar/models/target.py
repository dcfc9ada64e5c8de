"""What a model predicts, in label units."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from miar.errors import UserError


@dataclass(frozen=True)
class TargetSpec:
    """A label, and what the training clips say about it."""

    label: str
    """Name of the label in the store."""
    base: float
    """Mean of the training clips; what a model that saw nothing would say. NaN for classes."""
    deviation: float
    """Standard deviation of the training clips; the model works in units of it. NaN for classes."""
    classes: tuple[str, ...] = ()
    """Class names in order of their index; empty for a label that is a number."""
    class_shares: tuple[float, ...] = ()
    """Share of each class among the training clips: the base of class probabilities."""

    @property
    def outputs(self) -> int:
        """Numbers that the head gives: 1, or one per class."""
        return len(self.classes) or 1

    @classmethod
    def of(cls, label: str, targets: NDArray[np.float64], classes: tuple[str, ...] = ()) -> "TargetSpec":
        """Describe labelled training clips; ``targets`` (N,) finite.

        Raises:
            UserError: every clip has the same label.
        """
        if len(np.unique(targets)) < 2:
            raise UserError(
                f"every training clip has the same {label} label ({_shown(targets, classes)}): "
                "there is nothing to learn, check the label table or the split"
            )
        if classes:
            counts = np.bincount(targets.astype(np.int64), minlength=len(classes))
            return cls(label, float("nan"), float("nan"), classes, tuple((counts / counts.sum()).tolist()))
        return cls(label, float(targets.mean()), float(targets.std()))


def _shown(targets: NDArray[np.float64], classes: tuple[str, ...]) -> str:
    if not len(targets):
        return "none"
    return classes[int(targets[0])] if classes else f"{targets[0]:g}"
