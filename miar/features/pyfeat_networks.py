"""py-feat's detectors, built from files that were found, and asked in two steps: where faces are, and what they show.

- The faces are looked for at reduced size; what they show is read at full size, in py-feat's own crops of any boxes.
- py-feat turns gradients off for the whole process when a detector is built, and sets ``OMP_NUM_THREADS`` when it is
  imported; both are put back.
- Its weights hold a ``skops`` file, whose loader py-feat tells to trust every type in it. So the types are looked at
  first, and a file with any but classes of xgboost, scikit-learn and py-feat is refused.
"""

import os
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from miar.errors import UnavailableError
from miar.features.action_units import ACTION_UNITS
from miar.features.configs import PyFeatConfig
from miar.features.contract import FloatArray
from miar.features.weights import HubFile, find_pyfeat

LANDMARKS = 68
TRUSTED_TYPES = re.compile(
    r"((xgboost|sklearn|feat\.au_detectors)(\.\w+)*\.|__main__\.)[A-Z]\w*|builtins\.bytearray|collections\.OrderedDict"
)
"""Classes of the three libraries (never functions), and two containers that xgboost's own state is made of."""


@dataclass(frozen=True)
class Reading:
    """What the networks read off one box; any of it NaN where py-feat gives NaN."""

    units: FloatArray
    """(20,) probabilities."""
    pose: FloatArray
    """(3,) pitch, yaw and roll in degrees."""
    landmarks: FloatArray
    """(68, 2) pixels of the frame, in dlib's order."""


class PyFeatNetworks:
    """One of py-feat's detectors."""

    def __init__(self, config: PyFeatConfig) -> None:
        """
        Raises:
            UnavailableError: a weights file is nowhere to be had, is not what py-feat reads, or is not to be trusted.
        """
        self._config = config
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

    def find(self, rgb: NDArray[np.uint8]) -> tuple[FloatArray, FloatArray]:
        """Boxes (n, 4) in pixels of the frame, and scores (n,), of the faces in one frame (height, width, 3)."""
        import torch

        height, width = rgb.shape[:2]
        scale = min(1.0, self._config.detect_side / max(height, width))
        size = (max(1, round(height * scale)), max(1, round(width * scale)))
        with _process_state_kept(), torch.inference_mode():
            image = _image(rgb)[None].float()
            if size != (height, width):
                image = torch.nn.functional.interpolate(image, size, mode="bilinear", antialias=True)
            find = self._detector.facepose_detector if self._config.detector == "v1" else self._detector.face_detector
            found = np.array(find(image)[0], dtype=np.float32).reshape(-1, 5)
        found = found[np.isfinite(found).all(axis=1) & (found[:, 4] >= self._config.min_face_score)]
        to_frame = np.array([width / size[1], height / size[0]] * 2, dtype=np.float32)
        return found[:, :4] * to_frame, found[:, 4]

    def read(self, rgb: NDArray[np.uint8], boxes: FloatArray) -> list[Reading]:
        """What each of the boxes (n >= 1, 4) of one frame shows."""
        import torch

        with _process_state_kept(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            images = _image(rgb)[None]
            table = self._detector.forward(self._crops(images, torch.from_numpy(boxes)), _batch(images))
        units = table[list(ACTION_UNITS)].to_numpy(dtype=np.float32)
        pose = np.degrees(table[["Pitch", "Yaw", "Roll"]].to_numpy(dtype=np.float32))
        xs, ys = (table[[f"{axis}_{i}" for i in range(LANDMARKS)]].to_numpy(dtype=np.float32) for axis in "xy")
        return [Reading(*one) for one in zip(units, pose, np.stack([xs, ys], axis=2), strict=True)]

    def _crops(self, images: Any, boxes: Any) -> list[dict[str, Any]]:
        """As the detector's ``detect_faces`` would hand them over, had it found these boxes in the one picture."""
        if self._config.detector == "v2":
            return self._detector.crop_faces_from_boxes(images, boxes)
        import torch
        from feat.utils.image_operations import extract_face_from_bbox_torch

        device, count = self._detector.device, len(boxes)
        pictures = images.to(device).float() / 255.0
        faces, enlarged = extract_face_from_bbox_torch(pictures, boxes.to(device), self._detector.face_size)
        crops: dict[str, Any] = {
            "face_id": 0,
            "faces": faces,
            "boxes": boxes.to(device),
            "new_boxes": enlarged,
            "poses": torch.full((count, 6), float("nan"), device=device),  # read off the landmarks
            "scores": torch.ones(count, device=device),
            "image_size": tuple(images.shape[-2:]),
        }
        return [crops]


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


def _image(rgb: NDArray[np.uint8]) -> Any:
    """(3, height, width) uint8 tensor."""
    import torch

    return torch.from_numpy(rgb.transpose(2, 0, 1).copy())


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
