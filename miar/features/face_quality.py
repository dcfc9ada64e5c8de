"""How well a face is to be seen: the same measures for every face extractor, each a mean over the face's frames.

- ``quality_face_size``: the height of the face's box over the frame's.
- ``quality_blur``: 1 / (1 + variance of the Laplacian of the face's grey levels, 0..255), near 0 sharp, 1 without any
  detail.
- ``quality_visible_share``: the share of the face's box that lies within the frame, 1 for a face wholly in view.
- ``quality_pose``: the angle in degrees between where the face looks and the camera, 0 for a frontal face:
  arccos(cos(yaw) x cos(pitch)). Tilting the head does not change it.
"""

import numpy as np
from numpy.typing import NDArray

from miar.features.contract import FloatArray

FACE_QUALITY = ("quality_face_size", "quality_blur", "quality_visible_share", "quality_pose")

Box = NDArray[np.floating]
"""(4,) left, top, right and bottom of a face in pixels; parts of it may lie outside the frame."""


def face_quality(rgb: NDArray[np.uint8], box: Box, pitch: float, yaw: float) -> FloatArray:
    """(4,) values of :data:`FACE_QUALITY` for one face in one frame; the pose in degrees."""
    size = (box[3] - box[1]) / rgb.shape[0]
    return np.array([size, blur(crop(rgb, box)), visible_share(rgb, box), turned_away(pitch, yaw)], dtype=np.float32)


def blur(rgb: NDArray[np.uint8]) -> float:
    """1 / (1 + variance of the Laplacian) of a picture's grey levels; 1 for one of less than 3 x 3 pixels."""
    if min(rgb.shape[:2]) < 3:
        return 1.0
    grey = rgb.astype(np.float32) @ np.array([0.299, 0.587, 0.114], dtype=np.float32)
    laplacian = grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:] - 4 * grey[1:-1, 1:-1]
    return 1.0 / (1.0 + float(laplacian.var()))


def visible_share(rgb: NDArray[np.uint8], box: Box) -> float:
    """Area of the box within the frame over its whole area; 0 for a box without one."""
    height, width = rgb.shape[:2]
    inside = np.clip(box, 0, [width, height, width, height])
    whole = area(box)
    return area(inside) / whole if whole > 0 else 0.0


def turned_away(pitch: float, yaw: float) -> float:
    """Degrees between the face's direction and the camera's, for a pose in degrees."""
    cosine = np.cos(np.radians(pitch)) * np.cos(np.radians(yaw))
    return float(np.degrees(np.arccos(np.clip(cosine, -1.0, 1.0))))


def area(box: Box) -> float:
    return max(0.0, float(box[2] - box[0])) * max(0.0, float(box[3] - box[1]))


def crop(rgb: NDArray[np.uint8], box: Box) -> NDArray[np.uint8]:
    """What the frame shows of the box; without pixels where nothing is."""
    left, top, right, bottom = (max(0, int(edge)) for edge in box)
    return rgb[top:bottom, left:right]
