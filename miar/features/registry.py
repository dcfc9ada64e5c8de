"""From a configuration to an extractor, and to what it would give without loading it."""

from contextlib import nullcontext
from typing import assert_never

from miar.errors import UnavailableError
from miar.features.configs import (
    ExtractorConfig,
    MediaPipeConfig,
    OpenSmileConfig,
    PyFeatConfig,
    SpeechConfig,
    TextConfig,
)
from miar.features.contract import AudioExtractor, FaceExtractor, FeatureSet, TextExtractor
from miar.features.downloads import only_looking

Extractor = TextExtractor | AudioExtractor | FaceExtractor


def build_extractor(config: ExtractorConfig) -> Extractor:
    """Load the extractor, models and all.

    Raises:
        UnavailableError: weights or a library are not to be had; the text says how to fetch them.
        ConfigError: the configuration asks for something the model or library does not have.
    """
    match config:
        case TextConfig():
            from miar.features.text import TextEncoderExtractor

            return TextEncoderExtractor(config)
        case SpeechConfig():
            from miar.features.speech import SpeechEncoderExtractor

            return SpeechEncoderExtractor(config)
        case OpenSmileConfig():
            from miar.features.audio import OpenSmileExtractor

            return OpenSmileExtractor(config)
        case MediaPipeConfig():
            from miar.features.face_mediapipe import MediaPipeExtractor

            return MediaPipeExtractor(config)
        case PyFeatConfig():
            from miar.features.face_pyfeat import PyFeatExtractor

            return PyFeatExtractor(config)
    assert_never(config)


def feature_set_of(config: ExtractorConfig) -> FeatureSet:
    """What the extractor of ``config`` gives, equal to its ``feature_set``, without importing a model library.

    Weights are found (and downloaded, where nothing else helps) and hashed; both are remembered.

    Raises:
        UnavailableError, ConfigError: as :func:`build_extractor`.
    """
    match config:
        case TextConfig():
            from miar.features.text import text_feature_set

            return text_feature_set(config)
        case SpeechConfig():
            from miar.features.speech import speech_feature_set

            return speech_feature_set(config)
        case OpenSmileConfig():
            from miar.features.audio import opensmile_feature_set

            return opensmile_feature_set(config)
        case MediaPipeConfig():
            from miar.features.face_mediapipe import mediapipe_feature_set

            return mediapipe_feature_set(config)
        case PyFeatConfig():
            from miar.features.face_pyfeat import pyfeat_feature_set

            return pyfeat_feature_set(config)
    assert_never(config)


def availability(config: ExtractorConfig, *, may_download: bool = True) -> FeatureSet | UnavailableError:
    """The feature set, or why it is not to be had: what a planner and ``miar doctor`` ask before the first clip.

    Args:
        may_download: without it, weights that are not on this machine are not to be had.

    Raises:
        ConfigError: the configuration is wrong, which no download mends.
    """
    try:
        with nullcontext() if may_download else only_looking():
            return feature_set_of(config)
    except UnavailableError as error:
        return error
