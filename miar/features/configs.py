"""How each extractor is set up. Everything here that changes an extractor's output is part of its ``config_hash``."""

from typing import Annotated, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from miar.features.contract import Modality
from miar.features.encoders import Device, Precision


class _ExtractorConfig(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class TextConfig(_ExtractorConfig):
    """A transformers encoder of words, token by token."""

    modality: ClassVar[Modality] = Modality.TEXT
    extractor: Literal["text"] = "text"
    model: str = "sentence-transformers/all-MiniLM-L6-v2"
    """Hub id or local folder of any transformers encoder: BERT and its kin, T5's encoder, an embedding LLM."""
    revision: str | None = None
    """Hub revision (branch, tag or commit); pin a commit to keep results reproducible."""
    layers: tuple[int, ...] = (3, 4, 5, 6)
    """Hidden states to keep, 0 being the embeddings; models learn a mix of them. Negative ones count from the last."""
    prefix: str | None = None
    """Put before every text, and left out of the rows: ``"query: "`` for E5, an instruction for an embedding LLM.
    Default: the prompt that the model declares as its default, if any; ``""`` for none."""
    window_tokens: int = Field(default=256, ge=8)
    """Longest piece of text read at once; longer text is read in overlapping windows, never cut."""
    lower_case: Literal["auto", "never", "always"] = "auto"
    """``auto``: transcripts that are all upper case are lower-cased, since a cased encoder would spell them out."""
    device: Device = "auto"
    precision: Precision = "auto"
    """``auto``: bfloat16 with ``device: cuda``, else float32, on a GPU that was found by itself too."""


class SpeechConfig(_ExtractorConfig):
    """A transformers encoder of sound (wav2vec 2.0, HuBERT, WavLM), frame by frame."""

    modality: ClassVar[Modality] = Modality.AUDIO
    extractor: Literal["speech"] = "speech"
    model: str = "facebook/wav2vec2-base-960h"
    """Hub id or local folder of any transformers encoder that reads samples."""
    revision: str | None = None
    """Hub revision (branch, tag or commit); pin a commit to keep results reproducible."""
    layers: tuple[int, ...] = (8,)
    """Hidden states to keep, 0 being what enters the first layer; negative ones count from the last. Middle layers
    tell emotions apart best; the last ones of a recogniser keep the words and little else."""
    window_seconds: float = Field(default=20.0, ge=5, le=120)
    """Longest sound read at once; longer sound is read in overlapping windows."""
    silence_db: float = Field(default=-70.0, ge=-120, le=0)
    """Below this level (dBFS, over the whole clip) a clip counts as ``missing: silence``."""
    device: Device = "auto"
    precision: Precision = "auto"
    """``auto``: bfloat16 with ``device: cuda``, else float32, on a GPU that was found by itself too."""


class OpenSmileConfig(_ExtractorConfig):
    """openSMILE descriptors: low-level descriptors as the sequence, functionals as named columns."""

    modality: ClassVar[Modality] = Modality.AUDIO
    extractor: Literal["opensmile"] = "opensmile"
    feature_set: str = "eGeMAPSv02"
    """Name of an ``opensmile.FeatureSet``."""
    deltas: bool = False
    """Also the descriptors' deltas (``LowLevelDescriptors_Deltas``), where the set has them."""
    sample_rate: int = Field(default=16_000, ge=8_000, le=192_000)
    """Hz. Sound is mixed down and resampled to this rate first (soxr, high quality)."""
    min_voiced_share: float = Field(default=0.02, ge=0, le=1)
    """Below this share of voiced frames a clip counts as ``missing: no_voice``."""


class _FaceConfig(_ExtractorConfig):
    """What both face extractors can be asked for. Each has its own defaults, see there."""

    modality: ClassVar[Modality] = Modality.FACE
    fps: float
    num_faces: int
    max_side: int = Field(default=640, ge=64)
    """Longest side in pixels of the frames that faces are read from."""
    face: Literal["largest", "speaking"] = "largest"
    """Which of several faces the clip is about, decided over the whole clip: the one with the largest area summed over
    frames, or the one whose mouth moves most."""
    all_faces: bool = False
    """Rows of every face instead of the chosen one's, with a leading column ``face``: 0 is the chosen one."""

    @model_validator(mode="after")
    def _choice_needs_several(self) -> Self:
        if self.num_faces == 1 and (self.face != "largest" or self.all_faces):
            raise ValueError("face: speaking and all_faces need num_faces of at least 2")
        return self


class MediaPipeConfig(_FaceConfig):
    """MediaPipe FaceLandmarker: 52 blendshapes, 20 action units derived from them, head pose."""

    extractor: Literal["mediapipe"] = "mediapipe"
    fps: float = Field(default=10.0, gt=0, le=120)
    """Frames per second that are looked at."""
    num_faces: int = Field(default=1, ge=1, le=16)
    """How many faces are followed at once. MediaPipe smooths its landmarks over time for a single face only, so that
    one face gives other values with 2 than with 1."""
    min_detection_confidence: float = Field(default=0.5, ge=0, le=1)
    action_units: Literal["auto", "table", "pyfeat"] = "auto"
    """How the action units are made of the blendshapes: by our table, or by py-feat's regression. ``auto``: by the
    regression where its weights are on this machine (nothing is downloaded for it), else by the table."""
    weights: str | None = None
    """Path of ``face_landmarker.task``; default: ``MIAR_MODEL_DIR``, then the cache, then a download."""
    action_unit_weights: str | None = None
    """Folder that holds ``bs_to_au/bs_to_au_pls_v2.npz``; default: ``MIAR_MODEL_DIR``, then the hub cache."""


class PyFeatConfig(_FaceConfig):
    """py-feat action units."""

    extractor: Literal["pyfeat"] = "pyfeat"
    detector: Literal["v1", "v2"] = "v1"
    """``v1``: RetinaFace + MobileFaceNet + XGB action units (MIT weights). ``v2``: one multi-task network, for a GPU
    (non-commercial weights)."""
    fps: float = Field(default=5.0, gt=0, le=120)
    """Frames per second that are looked at."""
    num_faces: int = Field(default=3, ge=1, le=16)
    """How many faces are followed at once. Each costs a run of the networks; a single face has the same values
    whatever stands here."""
    detect_side: int = Field(default=320, ge=64)
    """Longest side in pixels at which faces are looked for."""
    detect_every: int = Field(default=5, ge=1)
    """Faces are looked for in every n-th frame, and followed by their landmarks between."""
    min_face_score: float = Field(default=0.5, ge=0, le=1)
    weights: str | None = None
    """Folder that holds py-feat's weight files; default: ``MIAR_MODEL_DIR``, then the hub cache, then a download."""
    device: Literal["cpu", "cuda", "auto"] = "auto"


ExtractorConfig = Annotated[
    TextConfig | SpeechConfig | OpenSmileConfig | MediaPipeConfig | PyFeatConfig, Field(discriminator="extractor")
]
