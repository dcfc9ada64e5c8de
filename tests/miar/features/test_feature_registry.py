"""What a planner asks: the feature set without the models, cheaply, and exactly the extractor's own."""

import subprocess
import sys
import time

import pytest
from made_encoders import save_speech_encoder

from miar.config import PipelineConfig
from miar.errors import ConfigError, UnavailableError
from miar.features.configs import MediaPipeConfig, OpenSmileConfig, PyFeatConfig, TextConfig
from miar.features.contract import FeatureSet
from miar.features.registry import availability, build_extractor, feature_set_of

CONFIGS = [
    TextConfig(),
    TextConfig(layers=(-1,), window_tokens=64, lower_case="never"),
    OpenSmileConfig(),
    OpenSmileConfig(feature_set="GeMAPSv01b", sample_rate=22_050),
    MediaPipeConfig(fps=5, max_side=320),
]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.extractor)
def test_the_cheap_answer_is_exactly_the_loaded_extractor_s(config):
    cheap = availability(config)
    if isinstance(cheap, UnavailableError):
        pytest.skip(str(cheap))
    assert feature_set_of(config) == build_extractor(config).feature_set == cheap
    assert cheap.modality is config.modality
    assert cheap.table == f"features/{config.extractor}/{cheap.config_hash}"
    assert len(cheap.columns) % cheap.layers == 0
    assert len(set(cheap.columns)) == len(cheap.columns)
    assert all(name.startswith("quality_") for name in cheap.quality_columns)


PLAN = """
import sys, time
from miar.config import PipelineConfig
started = time.perf_counter()
from miar.features.configs import SpeechConfig
from miar.features.registry import availability
configs = (*PipelineConfig().extractors, SpeechConfig(model=sys.argv[1], layers=(1,)))
found = [availability(config) for config in configs]
seconds = time.perf_counter() - started
heavy = {"torch", "transformers", "mediapipe", "opensmile", "feat", "av", "pandas"} & set(sys.modules)
print(seconds, sorted(heavy), len(found))
"""


def test_planning_imports_no_model_library(tmp_path):
    speech = save_speech_encoder(tmp_path / "speech", "wavlm layer")
    for config in PipelineConfig().extractors:
        availability(config)  # the first time hashes the weights and asks openSMILE for its names
    started = time.monotonic()
    answer = subprocess.run(
        [sys.executable, "-c", PLAN, str(speech)], capture_output=True, text=True, timeout=60, check=True
    )
    assert answer.stdout.split(" ", 1)[1].strip() == "[] 4", answer.stdout
    assert time.monotonic() - started < 30


def test_what_is_not_to_be_had_comes_back_as_the_reason(tmp_path):
    reason = availability(MediaPipeConfig(weights=str(tmp_path / "none.task")))
    assert isinstance(reason, UnavailableError)
    assert "miar fetch face_landmarker" in str(reason)
    assert isinstance(availability(PyFeatConfig(weights=str(tmp_path))), UnavailableError)


def test_a_wrong_configuration_is_not_called_unavailable():
    with pytest.raises(ConfigError):
        availability(OpenSmileConfig(feature_set="none"))


def test_what_does_not_change_the_output_does_not_change_the_hash(tmp_path):
    found = availability(MediaPipeConfig())
    if isinstance(found, UnavailableError):
        pytest.skip(str(found))
    from miar.features.weights import FACE_LANDMARKER, find_pinned

    copy = tmp_path / "copy.task"
    copy.write_bytes(find_pinned(FACE_LANDMARKER).read_bytes())
    assert feature_set_of(MediaPipeConfig(weights=str(copy))) == found
    copy.write_bytes(b"another model")
    other = feature_set_of(MediaPipeConfig(weights=str(copy)))
    assert isinstance(other, FeatureSet)
    assert other.config_hash != found.config_hash
