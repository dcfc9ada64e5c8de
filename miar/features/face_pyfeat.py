"""Faces through py-feat's own detectors: 20 action units and head pose.

- ``v1``: RetinaFace, MobileFaceNet landmarks, gradient-boosted action units, pose from the landmarks. Emotion, identity
  and gaze are not built. ``v2``: RetinaFace and one multi-task network, in float32 on every device.
- Frames go in as tensors, a bounded batch at a time. Where a frame shows several faces the largest is taken; frames
  without a face leave no row and are counted.
- Pose in degrees (py-feat gives radians): pitch > 0 up, yaw > 0 to the person's right, roll > 0 tilted to their right.
- py-feat turns gradients off for the whole process when a detector is built, and sets ``OMP_NUM_THREADS`` when it is
  imported; both are put back.
- Its weights hold a ``skops`` file, whose loader py-feat tells to trust every type in it. So the types are looked at
  first, and a file with any but classes of xgboost, scikit-learn and py-feat is refused.
"""

import os
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from miar.errors import UnavailableError
from miar.features.action_units import ACTION_UNITS, summarise_units, unit_summary_columns
from miar.features.checksums import sha256_of
from miar.features.configs import PyFeatConfig
from miar.features.contract import Extraction, FeatureSet, FloatArray, Modality, Status
from miar.features.weights import HubFile, find_pyfeat
from miar.media.decode import VideoFrame

METHOD = 1
"""Raised whenever a change in this file changes what comes out."""
BATCH_FRAMES = 8
POSE = ("pitch", "yaw", "roll")
QUALITY = ("quality_frames", "quality_face_share", "quality_face_size", "quality_face_score")
TRUSTED_TYPES = re.compile(
    r"((xgboost|sklearn|feat\.au_detectors)(\.\w+)*\.|__main__\.)[A-Z]\w*|builtins\.bytearray|collections\.OrderedDict"
)
"""Classes of the three libraries (never functions), and two containers that xgboost's own state is made of."""


class PyFeatExtractor:
    """See the module's docstring."""

    def __init__(self, config: PyFeatConfig) -> None:
        """
        Raises:
            UnavailableError: a weights file is nowhere to be had, is not what py-feat reads, or is not to be trusted.
        """
        self._config = config
        self._feature_set = pyfeat_feature_set(config)
        files = find_pyfeat(config.detector, config.weights)
        build = _build_v1 if config.detector == "v1" else _build_v2
        with _process_state_kept(), _answered_locally(files):
            try:
                self._detector = build(files, config)
            except UnavailableError:
                raise
            except Exception as error:
                text = " ".join(str(error).split())[:200]
                raise UnavailableError(f"py-feat cannot read its weights ({text}): fetch them again") from error

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
        return PyFeatSession(self._detect)

    def _detect(self, frames: list[VideoFrame]) -> list[FloatArray | None]:
        """Per frame: action units (20), pose (3), height of the face over the frame's and score; or ``None``."""
        import torch

        with _process_state_kept(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            images = torch.stack([torch.from_numpy(f.rgb.transpose(2, 0, 1).copy()) for f in frames])
            faces = self._detector.detect_faces(images, face_detection_threshold=self._config.min_face_score)
            seen = [i for i, face in enumerate(faces) if not bool(torch.isnan(face["boxes"]).any())]
            if not seen:
                return [None] * len(frames)
            table = self._detector.forward([faces[i] for i in seen], _batch(images[seen]))
        rows: list[FloatArray | None] = [None] * len(frames)
        first = 0
        for i in seen:
            count = len(faces[i]["scores"])
            rows[i] = _largest_face(table.iloc[first : first + count])
            first += count
        return rows


class PyFeatSession:
    """One clip. Holds at most :data:`BATCH_FRAMES` pictures."""

    def __init__(self, detect: Callable[[list[VideoFrame]], list[FloatArray | None]]) -> None:
        self._detect = detect
        self._waiting: list[VideoFrame] = []
        self._frames = 0
        self._rows: list[FloatArray] = []
        self._times: list[float] = []

    def push(self, frame: VideoFrame) -> None:
        self._frames += 1
        if self._waiting and self._waiting[0].rgb.shape != frame.rgb.shape:
            self._flush()
        self._waiting.append(frame)
        if len(self._waiting) == BATCH_FRAMES:
            self._flush()

    def close(self) -> Extraction:
        if not self._frames:
            return Extraction.missing("no_video_stream", {"quality_frames": 0.0})
        self._flush()
        quality = {
            "quality_frames": float(self._frames),
            "quality_face_share": len(self._rows) / self._frames,
        }
        if not self._rows:
            return Extraction.missing("no_face", quality)
        rows = np.stack(self._rows)
        width = len(ACTION_UNITS) + len(POSE)
        quality["quality_face_size"], quality["quality_face_score"] = map(float, rows[:, width:].mean(axis=0))
        return Extraction(
            Status.OK,
            values=np.ascontiguousarray(rows[:, :width], dtype=np.float32),
            times=np.asarray(self._times, dtype=np.float32),
            summary=summarise_units(rows[:, : len(ACTION_UNITS)]),
            quality=quality,
        )

    def _flush(self) -> None:
        frames, self._waiting = self._waiting, []
        for frame, row in zip(frames, self._detect(frames) if frames else [], strict=True):
            if row is not None:
                self._rows.append(row)
                self._times.append(frame.time_s)


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
        columns=(*ACTION_UNITS, *POSE),
        rate_hz=config.fps,
        summary_columns=unit_summary_columns(),
        quality_columns=QUALITY,
        config={
            "detector": config.detector,
            "fps": config.fps,
            "max_side": config.max_side,
            "min_face_score": config.min_face_score,
            "method": METHOD,
        },
        library_versions={"py-feat": version("py-feat")},
        weights={str(file): sha256_of(path) for file, path in files.items()},
    )


def _build_v1(files: dict[HubFile, Path], config: PyFeatConfig) -> Any:
    from feat.detector import Detectorv1
    from feat.utils import face_pose_mlp

    by_name = {file.file_name: path for file, path in files.items()}
    _refuse_untrusted(by_name["xgb_au_classifier_v2.skops"])
    without: dict[str, Any] = {"emotion_model": None, "identity_model": None, "gaze_model": None}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns that RetinaFace leaves the pose to the landmarks, which is meant
        detector: Any = Detectorv1(
            face_model="retinaface", landmark_model="mobilefacenet", au_model="xgb", device=_device(config), **without
        )
    detector.facepose_detector.detection_threshold = config.min_face_score
    # The pose network is read at the first face and kept for the process; read it now, from our file.
    face_pose_mlp._CACHE.clear()
    if face_pose_mlp._load_pose_mlp(device=str(detector.device)) is None:
        raise ValueError("pose_mlp_v2.safetensors needs pose_mlp_v2.json beside it")
    return detector


def _build_v2(files: dict[HubFile, Path], config: PyFeatConfig) -> Any:
    from feat.detector_v2 import Detectorv2

    weights = next(path for file, path in files.items() if "multitask" in file.repo)
    without: dict[str, Any] = {"identity_model": None}
    detector: Any = Detectorv2(device=_device(config), multitask_weights=str(weights), amp=False, **without)
    detector.face_detector.detection_threshold = config.min_face_score
    return detector


def _device(config: PyFeatConfig) -> str:
    import torch

    if config.device != "auto":
        return config.device
    return "cuda" if torch.cuda.is_available() else "cpu"


def _refuse_untrusted(path: Path) -> None:
    from skops.io import get_untrusted_types

    strange = [name for name in get_untrusted_types(file=path) if not TRUSTED_TYPES.fullmatch(name)]
    if strange:
        raise UnavailableError(
            f"{path} holds {', '.join(strange)}, which py-feat's weights do not: fetch it again from py-feat/xgb_au"
        )


def _batch(images: Any) -> dict[str, Any]:
    """What py-feat's data loader would hand over for pictures that were neither scaled nor padded."""
    import torch

    count = len(images)
    nothing = torch.zeros(count)
    return {
        "Image": images,
        "Frame": torch.arange(count),
        "FileName": ["tensor"] * count,
        "Scale": torch.ones(count),
        "Padding": dict.fromkeys(("Left", "Top", "Right", "Bottom"), nothing),
    }


def _largest_face(table: Any) -> FloatArray:
    """(25,) of the largest face of one frame: action units, pose in degrees, relative height, score."""
    area = (table["FaceRectWidth"] * table["FaceRectHeight"]).to_numpy()
    face = table.iloc[int(area.argmax())]
    units = face[list(ACTION_UNITS)].to_numpy(dtype=np.float32)
    pose = np.degrees(face[["Pitch", "Yaw", "Roll"]].to_numpy(dtype=np.float32))
    size = face["FaceRectHeight"] / face["FrameHeight"]
    return np.concatenate([units, pose, np.array([size, face["FaceScore"]])]).astype(np.float32)


@contextmanager
def _process_state_kept() -> Iterator[None]:
    """Put back what py-feat changes for the whole process: gradients, and the number of OpenMP threads."""
    import torch  # before py-feat, so that its thread count is the machine's and not py-feat's

    gradients, threads = torch.is_grad_enabled(), os.environ.get("OMP_NUM_THREADS")
    try:
        yield
    finally:
        torch.set_grad_enabled(gradients)
        if threads is None:
            os.environ.pop("OMP_NUM_THREADS", None)
        else:
            os.environ["OMP_NUM_THREADS"] = threads


@contextmanager
def _answered_locally(files: dict[HubFile, Path]) -> Iterator[None]:
    """Let py-feat's requests to the hub be answered from ``files`` while a detector is built.

    Its constructors take no paths. They ask ``huggingface_hub`` for a file of a repository, under names imported into
    several modules; those names are replaced for the time being, and a file that we did not foresee is an error.
    """
    import huggingface_hub
    from feat import detector, utils
    from feat.utils import face_pose_mlp

    def local(repo_id: str, filename: str, **_: Any) -> str:
        path = files.get(HubFile(repo_id, filename))
        if path is None:
            raise ValueError(f"this version of py-feat also wants {repo_id}/{filename}")
        return str(path)

    replacements = (
        (huggingface_hub, "hf_hub_download", local),
        (detector, "hf_hub_download", local),
        (detector, "hf_hub_download_with_fallback", local),
        (utils, "hf_hub_download_with_fallback", local),
        (face_pose_mlp, "_resolve_weights_path", lambda: None),  # else an environment variable would win
    )
    originals = [(module, name, getattr(module, name)) for module, name, _ in replacements]
    try:
        for module, name, replacement in replacements:
            setattr(module, name, replacement)
        yield
    finally:
        for module, name, original in originals:
            setattr(module, name, original)
