"""Action units by py-feat's regression, on weights made here in py-feat's own file format."""

from pathlib import Path

import numpy as np
import pytest
from made_regression import save_regression

from miar.errors import UnavailableError
from miar.features.action_units import ACTION_UNITS, BLENDSHAPES, action_units, read_regression
from miar.features.configs import MediaPipeConfig
from miar.features.face_mediapipe import MediaPipeExtractor, mediapipe_feature_set
from miar.features.registry import availability
from miar.media.decode import VideoFrame

SHAPES = np.random.default_rng(1).random((7, 52)).astype(np.float32)


@pytest.fixture
def nothing_else(monkeypatch, tmp_path) -> Path:
    """A model folder with the landmarker alone, and an empty hub cache."""
    from miar.features.weights import FACE_LANDMARKER, find_pinned

    if isinstance(unavailable := availability(MediaPipeConfig(action_units="table")), UnavailableError):
        pytest.skip(str(unavailable))
    folder = tmp_path / "models"
    folder.mkdir()
    (folder / FACE_LANDMARKER.file_name).symlink_to(find_pinned(FACE_LANDMARKER))
    monkeypatch.setenv("MIAR_MODEL_DIR", str(folder))
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_, **__: None)
    return folder


def test_columns_are_found_by_name(tmp_path):
    straight = read_regression(save_regression(tmp_path / "a"))
    with np.load(save_regression(tmp_path / "b")) as stored:
        turned = save_regression(
            tmp_path / "c",
            shapes=BLENDSHAPES[::-1],
            units=ACTION_UNITS[::-1],
            coef=stored["coef"][::-1, ::-1],
            intercept=stored["intercept"][::-1],
        )
    np.testing.assert_array_equal(read_regression(turned)(SHAPES), straight(SHAPES))


@pytest.mark.parametrize(
    "changes",
    [
        {"units": ["AU99", *ACTION_UNITS[1:]]},
        {"coef": np.zeros((52, 19))},
        {"intercept": np.full(20, np.nan)},
        {"coef": np.array([object()])},
    ],
)
def test_another_file_is_refused_in_one_line(tmp_path, changes):
    with pytest.raises(UnavailableError, match="miar fetch pyfeat-au") as caught:
        read_regression(save_regression(tmp_path, **changes))
    assert "\n" not in str(caught.value)


def test_auto_takes_the_regression_where_it_lies_and_the_table_elsewhere(nothing_else, monkeypatch):
    monkeypatch.setattr("miar.features.downloads.reachable", lambda *_: pytest.fail("auto asks no network"))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    by_table = mediapipe_feature_set(MediaPipeConfig())
    assert by_table.config["action_units"] == "table"
    assert by_table == mediapipe_feature_set(MediaPipeConfig(action_units="table"))
    save_regression(nothing_else)
    by_regression = mediapipe_feature_set(MediaPipeConfig())
    assert by_regression == mediapipe_feature_set(MediaPipeConfig(action_units="pyfeat"))
    assert by_regression.config["action_units"] == "pyfeat"
    assert "py-feat/bs_to_au/bs_to_au_pls_v2.npz" in by_regression.weights
    assert by_regression.config_hash != by_table.config_hash
    assert by_table == mediapipe_feature_set(MediaPipeConfig(action_units="table"))


def test_what_is_asked_for_by_name_or_folder_must_be_there(nothing_else, tmp_path):
    for config in (
        MediaPipeConfig(action_units="pyfeat", action_unit_weights=str(tmp_path / "none")),
        MediaPipeConfig(action_unit_weights=str(tmp_path / "none")),
        MediaPipeConfig(action_units="pyfeat"),
    ):
        found = availability(config, may_download=False)
        assert isinstance(found, UnavailableError)
        assert "py-feat/bs_to_au/bs_to_au_pls_v2.npz" in str(found)
        assert "miar fetch pyfeat-au" in str(found)
        assert "\n" not in str(found)


def test_rows_and_summaries_come_from_the_regression(nothing_else, tmp_path):
    from miar.synth.draw import Portrait
    from miar.synth.expression import rest
    from miar.synth.speakers import make_speaker

    (picture,) = Portrait(make_speaker(0, 0)).frames(rest().controls(), rest().shifts)
    path = save_regression(tmp_path / "own")
    found = {}
    for name, config in {
        "table": MediaPipeConfig(),
        "pyfeat": MediaPipeConfig(action_unit_weights=str(tmp_path / "own")),
    }.items():
        extractor = MediaPipeExtractor(config)
        session = extractor.open()
        session.push(VideoFrame(picture, 0.0))
        found[name] = session.close()
        assert extractor.feature_set == mediapipe_feature_set(config)
    shapes = found["table"].values[:, :52]
    np.testing.assert_array_equal(found["pyfeat"].values[:, :52], shapes)
    np.testing.assert_allclose(found["table"].values[:, 52:72], action_units(shapes), atol=1e-6)
    np.testing.assert_allclose(found["pyfeat"].values[:, 52:72], read_regression(path)(shapes), atol=1e-6)
    au12 = 52 + ACTION_UNITS.index("AU12")
    assert found["pyfeat"].summary["au12_max"] == pytest.approx(float(found["pyfeat"].values[0, au12]))
