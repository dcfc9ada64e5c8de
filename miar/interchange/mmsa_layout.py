"""What is called how in an MMSA feature file, for reading and for writing."""

import re

from miar.features.contract import Modality

SEPARATOR = "$_$"
"""Between a video's name and the clip's own in ``id``."""

IDS = "id"
TEXTS = "raw_text"
TOKENS = "text_bert"
"""(n_clips, 3, steps): ids, mask and segments of a BERT tokenizer."""

FEATURES = {"text": Modality.TEXT, "audio": Modality.AUDIO, "vision": Modality.FACE}

REGRESSION = "regression_labels"
MODALITY_LABELS = {"regression_labels_T": "text", "regression_labels_A": "audio", "regression_labels_V": "face"}
CLASSES = "classification_labels"
ANNOTATIONS = "annotations"

LABELS = {
    REGRESSION: "sentiment",
    **{key: f"sentiment_{kind}" for key, kind in MODALITY_LABELS.items()},
    CLASSES: "sentiment_class",
    ANNOTATIONS: "annotation",
}
"""Key in the file -> name of the label in the store."""

_NUMBER = re.compile(r"\d{1,9}(\.0)?")


def video_of(clip: str) -> str:
    """``video$_$segment`` -> ``video``; an id without the separator names a video of its own."""
    return clip.rpartition(SEPARATOR)[0] or clip


def segment_of(clip: str) -> int | None:
    """``video$_$segment`` -> the segment, where it is a whole number."""
    video, _, segment = clip.rpartition(SEPARATOR)
    return int(segment.partition(".")[0]) if video and _NUMBER.fullmatch(segment) else None
