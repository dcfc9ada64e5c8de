"""How each extractor is set up. Everything here that changes an extractor's output is part of its ``config_hash``."""

from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from miar.features.contract import Modality


class _ExtractorConfig(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class TextConfig(_ExtractorConfig):
    """A transformers encoder, token by token."""

    modality: ClassVar[Modality] = Modality.TEXT
    extractor: Literal["text"] = "text"
    model: str = "sentence-transformers/all-MiniLM-L6-v2"
    """Hub id or local folder of any transformers encoder."""
    revision: str | None = None
    """Hub revision (branch, tag or commit); pin a commit to keep results reproducible."""
    layers: tuple[int, ...] = (3, 4, 5, 6)
    """Hidden states to keep, 0 being the embeddings; models learn a mix of them. Negative ones count from the last."""
    window_tokens: int = Field(default=256, ge=8)
    """Longest piece of text read at once; longer text is read in overlapping windows, never cut."""
    lower_case: Literal["auto", "never", "always"] = "auto"
    """``auto``: transcripts that are all upper case are lower-cased, since a cased encoder would spell them out."""


class OpenSmileConfig(_ExtractorConfig):
    """openSMILE descriptors: low-level descriptors as the sequence, functionals as named columns."""

    modality: ClassVar[Modality] = Modality.AUDIO
    extractor: Literal["opensmile"] = "opensmile"
    feature_set: str = "eGeMAPSv02"
    """Name of an ``opensmile.FeatureSet``."""
    sample_rate: int = Field(default=16_000, ge=8_000, le=192_000)
    """Hz. Sound is mixed down and resampled to this rate first (soxr, high quality)."""
    min_voiced_share: float = Field(default=0.02, ge=0, le=1)
    """Below this share of voiced frames a clip counts as ``missing: no_voice``."""


class MediaPipeConfig(_ExtractorConfig):
    """MediaPipe FaceLandmarker: 52 blendshapes, 20 action units derived from them, head pose."""

    modality: ClassVar[Modality] = Modality.FACE
    extractor: Literal["mediapipe"] = "mediapipe"
    fps: float = Field(default=10.0, gt=0, le=120)
    """Frames per second that are looked at."""
    max_side: int = Field(default=640, ge=64)
    """Longest side in pixels given to the landmarker."""
    min_detection_confidence: float = Field(default=0.5, ge=0, le=1)
    weights: str | None = None
    """Path of ``face_landmarker.task``; default: ``MIAR_MODEL_DIR``, then the cache, then a download."""


class PyFeatConfig(_ExtractorConfig):
    """py-feat action units."""

    modality: ClassVar[Modality] = Modality.FACE
    extractor: Literal["pyfeat"] = "pyfeat"
    detector: Literal["v1", "v2"] = "v1"
    """``v1``: RetinaFace + MobileFaceNet + XGB action units (MIT weights). ``v2``: one multi-task network, for a GPU
    (non-commercial weights)."""
    fps: float = Field(default=5.0, gt=0, le=120)
    max_side: int = Field(default=640, ge=64)
    min_face_score: float = Field(default=0.5, ge=0, le=1)
    weights: str | None = None
    """Folder that holds py-feat's weight files; default: ``MIAR_MODEL_DIR``, then the hub cache, then a download."""
    device: Literal["cpu", "cuda", "auto"] = "auto"


ExtractorConfig = Annotated[
    TextConfig | OpenSmileConfig | MediaPipeConfig | PyFeatConfig, Field(discriminator="extractor")
]
