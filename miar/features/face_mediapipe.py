"""Faces through MediaPipe's FaceLandmarker: 52 blendshapes, 20 action units derived from them, head pose.

- Video mode has memory, so every clip gets a landmarker of its own (15 to 60 ms).
- One face: the one the landmarker finds first and then follows. Frames without a face leave no row and are counted.
- Pose in degrees from the facial transformation matrix, in py-feat's convention: pitch > 0 up, yaw > 0 to the
  person's right, roll > 0 tilted towards the person's right shoulder.
- ``quality_blur`` is 1 / (1 + variance of the Laplacian of the face's grey levels, 0..255): near 0 sharp, 1 without any
  detail. ``quality_face_size`` is the face's height over the frame's.
"""

from importlib.metadata import version
from typing import Any

import numpy as np
from numpy.typing import NDArray

from miar.features.action_units import (
    ACTION_UNITS,
    BLENDSHAPES,
    action_units,
    summarise_units,
    unit_summary_columns,
)
from miar.features.checksums import sha256_of
from miar.features.configs import MediaPipeConfig
from miar.features.contract import Extraction, FeatureSet, Modality, Status
from miar.features.weights import FACE_LANDMARKER, find_pinned
from miar.media.decode import VideoFrame

METHOD = 1
"""Raised whenever a change here or in ``action_units`` changes what comes out."""
POSE = ("pitch", "yaw", "roll")
QUALITY = ("quality_frames", "quality_face_share", "quality_face_size", "quality_blur")


class MediaPipeExtractor:
    """See the module's docstring."""

    def __init__(self, config: MediaPipeConfig) -> None:
        """
        Raises:
            UnavailableError: ``face_landmarker.task`` is nowhere to be had.
        """
        self._config = config
        self._model = find_pinned(FACE_LANDMARKER, config.weights).read_bytes()
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
        return MediaPipeSession(self._landmarker)

    def _landmarker(self) -> Any:
        from mediapipe.tasks.python import BaseOptions, vision

        return vision.FaceLandmarker.create_from_options(
            vision.FaceLandmarkerOptions(
                base_options=BaseOptions(model_asset_buffer=self._model),
                running_mode=vision.RunningMode.VIDEO,
                num_faces=1,
                min_face_detection_confidence=self._config.min_detection_confidence,
                output_face_blendshapes=True,
                output_facial_transformation_matrixes=True,
            )
        )


class MediaPipeSession:
    """One clip. Keeps numbers per frame, never pictures."""

    def __init__(self, make_landmarker: Any) -> None:
        self._make_landmarker = make_landmarker
        self._landmarker: Any = None
        self._last_ms = -1
        self._frames = 0
        self._shapes: list[list[float]] = []
        self._poses: list[tuple[float, float, float]] = []
        self._times: list[float] = []
        self._sizes: list[float] = []
        self._blurs: list[float] = []

    def push(self, frame: VideoFrame) -> None:
        import mediapipe as mp

        if self._landmarker is None:
            self._landmarker = self._make_landmarker()
        self._frames += 1
        self._last_ms = max(self._last_ms + 1, round(frame.time_s * 1000))
        image = mp.Image(image_format=mp.ImageFormat.SRGB, data=np.ascontiguousarray(frame.rgb))
        result = self._landmarker.detect_for_video(image, self._last_ms)
        if not (result.face_blendshapes and result.face_landmarks and result.facial_transformation_matrixes):
            return
        self._shapes.append([category.score for category in result.face_blendshapes[0]])
        self._poses.append(head_pose(np.asarray(result.facial_transformation_matrixes[0])))
        self._times.append(frame.time_s)
        top, bottom, left, right = _face_box(result.face_landmarks[0])
        self._sizes.append(bottom - top)
        self._blurs.append(blur(_crop(frame.rgb, top, bottom, left, right)))

    def close(self) -> Extraction:
        if self._landmarker is not None:
            self._landmarker.close()
            self._landmarker = None
        if not self._frames:
            return Extraction.missing("no_video_stream", {"quality_frames": 0.0})
        quality = {
            "quality_frames": float(self._frames),
            "quality_face_share": len(self._shapes) / self._frames,
        }
        if not self._shapes:
            return Extraction.missing("no_face", quality)
        shapes = np.asarray(self._shapes, dtype=np.float32)
        units = action_units(shapes)
        values = np.concatenate([shapes, units, np.asarray(self._poses, dtype=np.float32)], axis=1)
        quality["quality_face_size"] = float(np.mean(self._sizes))
        quality["quality_blur"] = float(np.mean(self._blurs))
        return Extraction(
            Status.OK,
            values=np.ascontiguousarray(values, dtype=np.float32),
            times=np.asarray(self._times, dtype=np.float32),
            summary=summarise_units(units),
            quality=quality,
        )


def mediapipe_feature_set(config: MediaPipeConfig) -> FeatureSet:
    """What a :class:`MediaPipeExtractor` of ``config`` gives.

    Raises:
        UnavailableError: ``face_landmarker.task`` is nowhere to be had.
    """
    model = find_pinned(FACE_LANDMARKER, config.weights)
    return FeatureSet(
        extractor="mediapipe",
        modality=Modality.FACE,
        columns=(*BLENDSHAPES, *ACTION_UNITS, *POSE),
        rate_hz=config.fps,
        summary_columns=unit_summary_columns(),
        quality_columns=QUALITY,
        config={
            "mode": "video",
            "fps": config.fps,
            "max_side": config.max_side,
            "min_detection_confidence": config.min_detection_confidence,
            "method": METHOD,
        },
        library_versions={"mediapipe": version("mediapipe")},
        weights={FACE_LANDMARKER.file_name: sha256_of(model)},
    )


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


def blur(rgb: NDArray[np.uint8]) -> float:
    """1 / (1 + variance of the Laplacian) of a picture's grey levels; 1 for one of less than 3 x 3 pixels."""
    if min(rgb.shape[:2]) < 3:
        return 1.0
    grey = rgb.astype(np.float32) @ np.array([0.299, 0.587, 0.114], dtype=np.float32)
    laplacian = grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:] - 4 * grey[1:-1, 1:-1]
    return 1.0 / (1.0 + float(laplacian.var()))


def _face_box(landmarks: Any) -> tuple[float, float, float, float]:
    """Top, bottom, left and right of the face as shares of the frame."""
    xs, ys = [point.x for point in landmarks], [point.y for point in landmarks]
    return min(ys), max(ys), min(xs), max(xs)


def _crop(rgb: NDArray[np.uint8], top: float, bottom: float, left: float, right: float) -> NDArray[np.uint8]:
    height, width = rgb.shape[:2]
    rows = slice(max(0, int(top * height)), max(0, int(bottom * height)))
    columns = slice(max(0, int(left * width)), max(0, int(right * width)))
    return rgb[rows, columns]
