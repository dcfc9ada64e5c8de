"""Faces through py-feat's own detectors: 20 action units and head pose.

- ``v1``: RetinaFace, MobileFaceNet landmarks, gradient-boosted action units, pose from the landmarks. Emotion, identity
  and gaze are not built. ``v2``: RetinaFace and one multi-task network, in float32 on every device.
- Faces are looked for at ``detect_side`` in every ``detect_every``-th frame, and wherever none is followed. Between,
  the box of a face is that around its landmarks of the frame before, enlarged at each side by as much of the landmarks'
  extent as the detector's box exceeded them. A face is lost, and the frame is looked through at once, where

  - the picture in the box is another one: its grey levels at 16 x 16 correlate by less than :data:`SAME_PICTURE` with
    those that were in the box one frame before (a cut, or a face that left);
  - the box of the new landmarks overlaps the one they were read from by less than :data:`SAME_PLACE` (a jump in place
    or size, or no sensible landmarks at all), or two followed faces have run into each other.
- Of more than ``num_faces`` faces those that are followed already come first, then the largest. Which is which over the
  clip, and which one it is about: :mod:`miar.features.face_tracks`. Frames without a face leave no row and are counted.
- Pose in degrees (py-feat gives radians): pitch > 0 up, yaw > 0 to the person's right, roll > 0 tilted to their right.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version

import numpy as np
from numpy.typing import NDArray

from miar.features.action_units import ACTION_UNITS, unit_summary_columns
from miar.features.checksums import sha256_of
from miar.features.configs import PyFeatConfig
from miar.features.contract import Extraction, FeatureSet, FloatArray, Modality
from miar.features.face_quality import Box, area, crop, face_quality
from miar.features.face_tracks import POSE, ClipFaces, Face, overlap, quality_columns, sequence_columns
from miar.features.pyfeat_networks import PyFeatNetworks, Reading
from miar.features.weights import find_pyfeat
from miar.media.decode import VideoFrame

METHOD = 2
"""Raised whenever a change here, in ``pyfeat_networks``, ``face_quality`` or ``face_tracks`` changes what comes out."""
SCORE = ("quality_face_score",)
SAME_PICTURE = 0.6
"""In real footage at 5 frames a second 99 % of the pairs of frames of one face are above (18 of 19 in the quickest)."""
SAME_PLACE = 0.5
"""In the same footage no pair is below .73."""
ONE_FACE = 0.4
"""Two boxes that overlap by more are of one face, as for py-feat's own suppression of double finds."""
PATCH = 16


class PyFeatExtractor:
    """See the module's docstring."""

    def __init__(self, config: PyFeatConfig) -> None:
        """
        Raises:
            UnavailableError: a weights file is nowhere to be had, is not what py-feat reads, or is not to be trusted.
        """
        self._config = config
        self._feature_set = pyfeat_feature_set(config)
        self._networks = PyFeatNetworks(config)

    @property
    def feature_set(self) -> FeatureSet:
        return self._feature_set

    @property
    def fps(self) -> float:
        return self._config.fps

    @property
    def max_side(self) -> int:
        return self._config.max_side

    def open(self) -> "PyFeatSession":
        return PyFeatSession(self._networks, self._config)


@dataclass(frozen=True, slots=True)
class _Followed:
    """A face in the last frame."""

    box: Box
    """Where its next landmarks are read."""
    margins: Box
    """(4,) by how much of the landmarks' width and height its box exceeds them, left, top, right and bottom."""
    patch: FloatArray
    """(PATCH * PATCH,) grey levels in the box, in the frame that the box is of."""
    score: float
    """The detector's, when it saw the face last."""


class PyFeatSession:
    """One clip. Holds numbers and a few pictures of 16 x 16, and the one frame it is given."""

    def __init__(self, networks: PyFeatNetworks, config: PyFeatConfig) -> None:
        self._networks = networks
        self._config = config
        self._faces = ClipFaces(config, _values_of, SCORE)
        self._followed: list[_Followed] = []
        self._since_look = 0
        self._shape: tuple[int, ...] | None = None

    def push(self, frame: VideoFrame) -> None:
        rgb = frame.rgb
        self._since_look += 1
        due = self._since_look >= self._config.detect_every or rgb.shape != self._shape
        self._shape = rgb.shape
        seen = None if due or not self._followed else self._follow(rgb)
        if seen is None:
            seen = self._look(rgb)
        self._followed = [followed for _, followed in seen]
        self._faces.add(frame.time_s, [_face(rgb, reading, followed) for reading, followed in seen])

    def close(self) -> Extraction:
        return self._faces.extraction()

    def _look(self, rgb: NDArray[np.uint8]) -> list[tuple[Reading, _Followed]]:
        """The faces that the detector finds."""
        self._since_look = 0
        boxes, scores = self._networks.find(rgb)
        kept = self._kept(boxes)
        if not kept:
            return []
        boxes, scores = boxes[kept], scores[kept]
        readings = self._networks.read(rgb, boxes)
        return [
            (reading, _Followed(box, _margins(box, _extent(reading)), _patch(rgb, box), float(score)))
            for reading, box, score in zip(readings, boxes, scores, strict=True)
        ]

    def _kept(self, boxes: FloatArray) -> list[int]:
        """Which of the boxes are followed on."""

        def weight(index: int) -> tuple[bool, float]:
            known = any(overlap(boxes[index], followed.box) > ONE_FACE for followed in self._followed)
            return known, area(boxes[index])

        return sorted(range(len(boxes)), key=weight, reverse=True)[: self._config.num_faces]

    def _follow(self, rgb: NDArray[np.uint8]) -> list[tuple[Reading, _Followed]] | None:
        """The faces of the frame before, where they are now; ``None`` if one is lost."""
        if any(_likeness(_patch(rgb, face.box), face.patch) < SAME_PICTURE for face in self._followed):
            return None
        readings = self._networks.read(rgb, np.stack([face.box for face in self._followed]).astype(np.float32))
        boxes = [
            _enlarged(_extent(reading), face.margins) for reading, face in zip(readings, self._followed, strict=True)
        ]
        kept_place = all(overlap(box, face.box) >= SAME_PLACE for box, face in zip(boxes, self._followed, strict=True))
        if not kept_place or _run_together(boxes):
            return None
        return [
            (reading, _Followed(box, face.margins, _patch(rgb, box), face.score))
            for reading, face, box in zip(readings, self._followed, boxes, strict=True)
        ]


def pyfeat_feature_set(config: PyFeatConfig) -> FeatureSet:
    """What a :class:`PyFeatExtractor` of ``config`` gives.

    The device is left out of the hash: the same weights in float32 differ by rounding only.

    Raises:
        UnavailableError: a weights file is nowhere to be had.
    """
    files = find_pyfeat(config.detector, config.weights)
    return FeatureSet(
        extractor="pyfeat",
        modality=Modality.FACE,
        columns=sequence_columns(config, (*ACTION_UNITS, *POSE)),
        rate_hz=config.fps,
        summary_columns=unit_summary_columns(),
        quality_columns=quality_columns(config, SCORE),
        config={
            "detector": config.detector,
            "fps": config.fps,
            "max_side": config.max_side,
            "detect_side": config.detect_side,
            "detect_every": config.detect_every,
            "min_face_score": config.min_face_score,
            "num_faces": config.num_faces,
            "face": config.face,
            "method": METHOD,
        },
        library_versions={"py-feat": version("py-feat")},
        weights={str(file): sha256_of(path) for file, path in files.items()},
    )


def _values_of(numbers: FloatArray) -> tuple[FloatArray, FloatArray]:
    """(n, 20 + 3) action units and pose -> the same, and the (n, 20) action units."""
    return numbers, numbers[:, : len(ACTION_UNITS)]


def _face(rgb: NDArray[np.uint8], reading: Reading, followed: _Followed) -> Face:
    quality = face_quality(rgb, followed.box, pitch=float(reading.pose[0]), yaw=float(reading.pose[1]))
    numbers = np.concatenate([reading.units, reading.pose])
    return Face(followed.box, numbers, np.append(quality, np.float32(followed.score)))


def _extent(reading: Reading) -> Box:
    """The box around the landmarks."""
    return np.concatenate([reading.landmarks.min(axis=0), reading.landmarks.max(axis=0)])


def _sides(box: Box) -> Box:
    """(4,) width, height, width, height; a pixel at least."""
    return np.maximum(np.tile(box[2:] - box[:2], 2), 1.0)


def _margins(box: Box, extent: Box) -> Box:
    return (extent - box) * np.array([1, 1, -1, -1]) / _sides(extent)


def _enlarged(extent: Box, margins: Box) -> Box:
    """What :func:`_margins` was made of: the box that exceeds the landmarks by these shares of their extent."""
    return extent - margins * _sides(extent) * np.array([1, 1, -1, -1])


def _patch(rgb: NDArray[np.uint8], box: Box) -> FloatArray:
    """(PATCH * PATCH,) mean grey levels of what the frame shows of the box; zeros where that is nothing."""
    from PIL import Image

    shown = crop(rgb, box)
    if 0 in shown.shape:
        return np.zeros(PATCH * PATCH, dtype=np.float32)
    small = Image.fromarray(np.ascontiguousarray(shown)).convert("L").resize((PATCH, PATCH), Image.Resampling.BOX)
    return np.asarray(small, dtype=np.float32).reshape(-1)


def _likeness(one: FloatArray, other: FloatArray) -> float:
    """Correlation of two patches; 0 where one of them has no detail."""
    one, other = one - one.mean(), other - other.mean()
    size = float(np.linalg.norm(one) * np.linalg.norm(other))
    return float(one @ other) / size if size > 0 else 0.0


def _run_together(boxes: Sequence[Box]) -> bool:
    return any(overlap(one, other) > ONE_FACE for i, one in enumerate(boxes) for other in boxes[:i])
