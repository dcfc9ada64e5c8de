"""(written by the media helper) one decode of a file serves audio and video."""
from dataclasses import dataclass
import numpy as np
from numpy.typing import NDArray

@dataclass(frozen=True, slots=True)
class VideoFrame:
    rgb: NDArray[np.uint8]
    """(height, width, 3)"""
    time_s: float
    """Centre of the frame, in seconds from the clip's start."""
