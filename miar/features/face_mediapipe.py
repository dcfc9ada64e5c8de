"""Faces through MediaPipe's FaceLandmarker: 52 blendshapes, 20 action units derived from them, head pose.

- Video mode has memory, so every clip gets a landmarker of its own (15 to 60 ms). It looks for faces by a network of
  its own, while it follows fewer than it was asked for; between, it follows their landmarks.
- One face by default: the one the landmarker finds first and then follows. Frames without a face leave no row and are
  counted. Several: see :mod:`miar.features.face_tracks`.
- Pose in degrees from the facial transformation matrix, in py-feat's convention: pitch > 0 up, yaw > 0 to the
  person's right, roll > 0 tilted towards the person's right shoulder.
"""

from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from miar.errors import UnavailableError
from miar.features.action_units import (
    ACTION_UNITS,
    BLENDSHAPES,
    action_units,
    read_regression,
    unit_summary_columns,
)
from miar.features.checksums import sha256_of
from miar.features.configs import MediaPipeConfig
from miar.features.contract import Extraction, FeatureSet, FloatArray, Modality
from miar.features.downloads import only_looking
from miar.features.face_quality import Box, face_quality
from miar.features.face_tracks import POSE, ClipFaces, Face, quality_columns, sequence_columns
from miar.features.weights import FACE_LANDMARKER, HubFile, find_pinned, find_pyfeat
from miar.media.decode import VideoFrame

METHOD = 2
"""Raised whenever a change here, in ``action_units``, ``face_quality`` or ``face_tracks`` changes what comes out."""


class MediaPipeExtractor:
    """See the module's docstring."""

    def __init__(self, config: MediaPipeConfig) -> None:
        """
        Raises:
            UnavailableError: ``face_landmarker.task``, or the regression that is asked for, is nowhere to be had.
        """
        self._config = config
        self._model = find_pinned(FACE_LANDMARKER, config.weights).read_bytes()
        self._units_of = _units_of(config)
        self._feature_set = mediapipe_feature_set(config)

    @property
    def feature_set(self) -> FeatureSet:
        return self._feature_set

    @property
    def fps(self) -> float:
        return self._config.fps

    @property
    def max_side(self) -> int:
        return self._config.max_side

    def open(self) -> "MediaPipeSession":
        return MediaPipeSession(self._landmarker, ClipFaces(self._config, self._values_of))

    def _values_of(self, numbers: FloatArray) -> tuple[FloatArray, FloatArray]:
        """(n, 52 + 3) shapes and pose -> (n, 52 + 20 + 3) rows and (n, 20) action units."""
        shapes, pose = np.split(numbers, [len(BLENDSHAPES)], axis=1)
        units = self._units_of(shapes)
        return np.concatenate([shapes, units, pose], axis=1), units

    def _landmarker(self) -> Any:
        from mediapipe.tasks.python import BaseOptions, vision

        return vision.FaceLandmarker.create_from_options(
            vision.FaceLandmarkerOptions(
                base_options=BaseOptions(model_asset_buffer=self._model),
                running_mode=vision.RunningMode.VIDEO,
                num_faces=self._config.num_faces,
                min_face_detection_confidence=self._config.min_detection_confidence,
                output_face_blendshapes=True,
                output_facial_transformation_matrixes=True,
            )
        )


class MediaPipeSession:
    """One clip. Keeps numbers per frame, never pictures."""

    def __init__(self, make_landmarker: Callable[[], Any], faces: ClipFaces) -> None:
        self._make_landmarker = make_landmarker
        self._landmarker: Any = None
        self._last_ms = -1
        self._faces = faces

    def push(self, frame: VideoFrame) -> None:
        import mediapipe as mp

        if self._landmarker is None:
            self._landmarker = self._make_landmarker()
        self._last_ms = max(self._last_ms + 1, round(frame.time_s * 1000))
        image = mp.Image(image_format=mp.ImageFormat.SRGB, data=np.ascontiguousarray(frame.rgb))
        found = self._landmarker.detect_for_video(image, self._last_ms)
        # Each of the three has an entry per face, or none at all.
        seen = zip(found.face_blendshapes, found.face_landmarks, found.facial_transformation_matrixes, strict=False)
        self._faces.add(frame.time_s, [_face(frame.rgb, *one) for one in seen])

    def close(self) -> Extraction:
        if self._landmarker is not None:
            self._landmarker.close()
            self._landmarker = None
        return self._faces.extraction()


def mediapipe_feature_set(config: MediaPipeConfig) -> FeatureSet:
    """What a :class:`MediaPipeExtractor` of ``config`` gives.

    Raises:
        UnavailableError: ``face_landmarker.task``, or the regression that is asked for, is nowhere to be had.
    """
    weights = {FACE_LANDMARKER.file_name: find_pinned(FACE_LANDMARKER, config.weights)}
    regression = _regression_file(config)
    weights |= {str(file): path for file, path in regression.items()}
    return FeatureSet(
        extractor="mediapipe",
        modality=Modality.FACE,
        columns=sequence_columns(config, (*BLENDSHAPES, *ACTION_UNITS, *POSE)),
        rate_hz=config.fps,
        summary_columns=unit_summary_columns(),
        quality_columns=quality_columns(config),
        config={
            "mode": "video",
            "fps": config.fps,
            "max_side": config.max_side,
            "min_detection_confidence": config.min_detection_confidence,
            "action_units": "pyfeat" if regression else "table",
            "num_faces": config.num_faces,
            "face": config.face,
            "method": METHOD,
        },
        library_versions={"mediapipe": version("mediapipe")},
        weights={name: sha256_of(path) for name, path in weights.items()},
    )


def _regression_file(config: MediaPipeConfig) -> dict[HubFile, Path]:
    """The regression of action units and where it lies; empty where the table is to be used.

    Raises:
        UnavailableError: it is asked for, by name or by its folder, and nowhere to be had.
    """
    if config.action_units == "table":
        return {}
    if config.action_units == "pyfeat" or config.action_unit_weights is not None:
        return find_pyfeat("au", config.action_unit_weights)
    try:
        with only_looking():
            return find_pyfeat("au")
    except UnavailableError:
        return {}


def _units_of(config: MediaPipeConfig) -> Callable[[FloatArray], FloatArray]:
    """(n, 52) blendshapes -> (n, 20) action units."""
    return next(map(read_regression, _regression_file(config).values()), action_units)


def _face(rgb: NDArray[np.uint8], shapes: Any, landmarks: Any, matrix: Any) -> Face:
    pose = head_pose(np.asarray(matrix))
    box = _face_box(landmarks, rgb)
    numbers = np.array([*(category.score for category in shapes), *pose], dtype=np.float32)
    return Face(box, numbers, face_quality(rgb, box, pitch=pose[0], yaw=pose[1]))


def head_pose(matrix: NDArray[Any]) -> tuple[float, float, float]:
    """Pitch, yaw and roll in degrees from a (4, 4) facial transformation matrix.

    The matrix turns the canonical face (x to the picture's right, y up, z towards the camera) into the seen one. It is
    taken apart as R = Ry Rx Rz: first the roll, then the pitch, then the yaw.
    """
    rotation = matrix[:3, :3] / np.linalg.norm(matrix[:3, :3], axis=0)
    about_x = np.arcsin(np.clip(-rotation[1, 2], -1.0, 1.0))
    about_y = np.arctan2(rotation[0, 2], rotation[2, 2])
    about_z = np.arctan2(rotation[1, 0], rotation[1, 1])
    return float(np.degrees(-about_x)), float(np.degrees(-about_y)), float(np.degrees(about_z))


def _face_box(landmarks: Any, rgb: NDArray[np.uint8]) -> Box:
    """The box around the landmarks, which are given as shares of the frame."""
    height, width = rgb.shape[:2]
    xs, ys = [point.x for point in landmarks], [point.y for point in landmarks]
    return np.array([min(xs) * width, min(ys) * height, max(xs) * width, max(ys) * height])
