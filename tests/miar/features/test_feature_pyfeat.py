"""py-feat's own detectors through our extractor, on weights made here in py-feat's own file formats.

The weights are random where they may be, and set where py-feat's chain needs sense: RetinaFace finds faces in every
picture, MobileFaceNet's landmarks scatter around an average face.
"""

import dataclasses
import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from made_regression import save_regression
from safetensors.torch import save_file

from miar.errors import UnavailableError
from miar.features.action_units import ACTION_UNITS, read_regression
from miar.features.configs import PyFeatConfig
from miar.features.contract import Status
from miar.features.face_pyfeat import PyFeatExtractor, pyfeat_feature_set
from miar.features.weights import PYFEAT_FILES
from miar.media.decode import VideoFrame

HEIGHT, WIDTH = 96, 128


@pytest.fixture(scope="module", autouse=True)
def few_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def save_retinaface(folder: Path, face_bias: float) -> None:
    """A random body under heads that see faces of 103 pixels in any picture, at the cells of the coarsest level."""
    from feat.face_detectors.Retinaface.Retinaface_model import RETINAFACE_R34_CFG, RetinaFace

    torch.manual_seed(0)
    net = RetinaFace(RETINAFACE_R34_CFG)
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if "Head" in name:
                parameter.zero_()
            if name.startswith("ClassHead") and name.endswith("bias"):
                coarsest = name == "ClassHead._convs.2.bias"
                parameter.copy_(torch.tensor([0.0, -8.0, 0.0, face_bias if coarsest else -8.0]))
            if name.startswith("BboxHead") and name.endswith("bias"):
                parameter.copy_(torch.tensor([0.0, 0.0, -8.0, -8.0] * 2))  # 512 x exp(-8 x 0.2)
    folder.mkdir(parents=True, exist_ok=True)
    save_file({k: v.contiguous() for k, v in net.state_dict().items()}, folder / "model.safetensors")


def average_face() -> np.ndarray:
    """(68, 2) points of a plain face in 0..1, in dlib's order."""
    angles = np.linspace(np.pi, 0, 17)
    jaw = np.stack([0.5 + 0.42 * np.cos(angles), 0.45 + 0.48 * np.sin(angles)], axis=1)
    brows = [
        (x, 0.28 - 0.03 * np.sin(np.pi * i / 4))
        for x0 in (0.18, 0.58)
        for i, x in enumerate(np.linspace(x0, x0 + 0.24, 5))
    ]
    nose = [(0.5, y) for y in np.linspace(0.38, 0.58, 4)] + [(x, 0.63) for x in np.linspace(0.42, 0.58, 5)]
    eyes = [
        (cx + 0.07 * np.cos(a), 0.38 + 0.025 * np.sin(a))
        for cx in (0.32, 0.68)
        for a in np.radians([180, 240, 300, 0, 60, 120])
    ]
    mouth = [(0.5 + 0.15 * np.cos(a), 0.76 + 0.06 * np.sin(a)) for a in np.radians(180 + 30 * np.arange(12))]
    inner = [(0.5 + 0.1 * np.cos(a), 0.76 + 0.02 * np.sin(a)) for a in np.radians(180 + 45 * np.arange(8))]
    return np.array([*jaw, *brows, *nose, *eyes, *mouth, *inner])


def save_mobilefacenet(folder: Path) -> None:
    from feat.landmark_detectors.mobilefacenet_test import MobileFaceNet

    torch.manual_seed(1)
    net = MobileFaceNet([112, 112], 136)
    for module in net.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.momentum = None
    with torch.no_grad():
        net.train()(torch.rand(16, 3, 112, 112))  # gives the normalisation statistics, so that pictures matter
    net.output_layer.bn.bias.data = torch.tensor(average_face().reshape(-1), dtype=torch.float32)
    net.output_layer.bn.weight.data.fill_(0.02)
    folder.mkdir(parents=True, exist_ok=True)
    torch.save({"state_dict": net.state_dict()}, folder / "mobilefacenet_model_best.pth.tar")


def action_unit_model(n_hog: int = 5408, n_components: int = 6):
    from feat.au_detectors.StatLearning.SL_test import XGBClassifier as ActionUnitModel
    from sklearn.decomposition import PCA
    from sklearn.preprocessing import StandardScaler
    from xgboost import XGBClassifier

    generator = np.random.default_rng(0)
    hogs = generator.random((24, n_hog))
    scalers = [StandardScaler().fit(hogs) for _ in range(3)]
    pcas = [PCA(n_components, random_state=i).fit(hogs) for i in range(3)]
    inputs = np.concatenate([generator.normal(size=(80, n_components)) * 5, generator.random((80, 136)) * 112], axis=1)
    model = ActionUnitModel()
    classifiers = {
        key: XGBClassifier(n_estimators=3, max_depth=2, random_state=i).fit(inputs, generator.integers(0, 2, 80))
        for i, key in enumerate(model.au_keys)
    }
    model.load_weights(scalers[0], pcas[0], scalers[1], pcas[1], scalers[2], pcas[2], classifiers)
    return model


def save_pose_network(folder: Path) -> None:
    from feat.utils.face_pose_mlp import PoseMLP

    torch.manual_seed(2)
    hidden = [16, 8]
    folder.mkdir(parents=True, exist_ok=True)
    save_file(PoseMLP(hidden=tuple(hidden)).state_dict(), folder / "pose_mlp_v2.safetensors")
    scale = {"mean": [0.1, 0, 0, 0, 0, 1], "std": [0.3, 0.3, 0.3, 1, 1, 1]}
    described = {"architecture": {"hidden": hidden, "dropout": 0.15, "output_normalization": scale}}
    (folder / "pose_mlp_v2.json").write_text(json.dumps(described))


def save_multitask(folder: Path) -> None:
    from feat.multitask.model_v2 import MEGraphAUv2, ModelV2Config

    torch.manual_seed(3)
    config = ModelV2Config(
        backbone="convnextv2_atto", pretrained=False, n_au=20, n_emotion=7, n_blendshape=52,
        afg_channels=32, mefl_channels=32, use_head_v3=True, drop_mefl=True, mesh_normalized=True,
    )  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    state = {k: v.contiguous() for k, v in MEGraphAUv2(config).state_dict().items()}
    metadata = {"config": json.dumps(dataclasses.asdict(config))}
    save_file(state, folder / "face_multitask_v28.safetensors", metadata=metadata)


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    import skops.io

    root = tmp_path_factory.mktemp("pyfeat")
    gradients, threads = torch.is_grad_enabled(), os.environ.get("OMP_NUM_THREADS")
    save_retinaface(root / "retinaface_r34", face_bias=4.0)
    save_mobilefacenet(root / "mobilefacenet")
    save_pose_network(root / "pose_mlp_v2")
    save_multitask(root / "face_multitask_v2")
    (root / "xgb_au").mkdir()
    skops.io.dump(action_unit_model(), root / "xgb_au" / "xgb_au_classifier_v2.skops")
    torch.set_grad_enabled(gradients)
    if threads is None:
        os.environ.pop("OMP_NUM_THREADS", None)
    return root


def moving_pictures(count: int, height: int = HEIGHT) -> list[VideoFrame]:
    generator = np.random.default_rng(0)
    blocks = generator.integers(0, 255, (count, height // 8, WIDTH // 8, 3)).astype(np.uint8)
    pictures = blocks.repeat(8, axis=1).repeat(8, axis=2)
    return [VideoFrame(picture, 0.1 + 0.2 * i) for i, picture in enumerate(pictures)]


def run(extractor: PyFeatExtractor, frames: list[VideoFrame]):
    session = extractor.open()
    for frame in frames:
        session.push(frame)
    return session.close()


@pytest.fixture(scope="module", params=["v1", "v2"])
def extractor(request, weights) -> PyFeatExtractor:
    return PyFeatExtractor(PyFeatConfig(detector=request.param, weights=str(weights), device="cpu"))


def test_equals_the_bare_detector_on_the_same_frames(extractor):
    """py-feat's own ``detect`` over a tensor, with its data loader: every face of every frame."""
    frames = moving_pictures(3)
    images = torch.from_numpy(np.stack([frame.rgb.transpose(2, 0, 1) for frame in frames]))
    everyone = {"num_faces": 16, "all_faces": True, "detect_every": 1}
    config = extractor._config.model_copy(update=everyone)
    bare = extractor._networks._detector.detect(
        images, data_type="tensor", batch_size=3, face_detection_threshold=0.5, progress_bar=False
    )
    extraction = run(PyFeatExtractor(config), frames)
    assert extraction.status is Status.OK
    assert len(extraction.values) == len(bare) >= 6
    pose = np.degrees(bare[["Pitch", "Yaw", "Roll"]].to_numpy())
    assert np.abs(pose).max() > 1
    expected = np.concatenate([bare[list(ACTION_UNITS)].to_numpy(), pose], axis=1)
    for index, frame in enumerate(frames):
        ours = extraction.values[np.isclose(extraction.times, frame.time_s), 1:]
        theirs = expected[bare["frame"].to_numpy() == index]
        assert len(ours) == len(theirs)
        apart = np.abs(ours[:, None] - theirs[None]).max(axis=2)
        assert apart.min(axis=0).max() < 1e-3
        np.testing.assert_allclose(ours[apart.argmin(axis=0), :20], theirs[:, :20], atol=1e-5)
    assert np.ptp(extraction.values, axis=0).max() > 0.01  # the frames differ, so the agreement says something


def test_faces_are_looked_for_at_reduced_size_and_read_at_full_size(extractor):
    """The weights see faces of 103 pixels in any picture that they are shown."""
    small, large = moving_pictures(1)[0].rgb, moving_pictures(1)[0].rgb.repeat(2, axis=0).repeat(2, axis=1)
    boxes, scores = extractor._networks.find(small)
    sizes = (boxes[:, 2:] - boxes[:, :2]).mean()
    assert 90 < sizes < 115
    assert (scores > 0.9).all()
    config = extractor._config.model_copy(update={"detect_side": WIDTH})
    halved, _ = PyFeatExtractor(config)._networks.find(large)
    np.testing.assert_allclose(halved, 2 * boxes, atol=0.01)
    assert extractor._config.detect_side == 320  # so that the larger picture is not reduced by it
    (reading,) = extractor._networks.read(large, halved[:1])
    (before,) = extractor._networks.read(small, boxes[:1])
    assert reading.landmarks.shape == (68, 2)
    np.testing.assert_allclose(np.ptp(reading.landmarks, axis=0), 2 * np.ptp(before.landmarks, axis=0), rtol=0.15)


def test_what_py_feat_gives_as_nan_leaves_no_row(extractor, monkeypatch):
    networks, frames = extractor._networks, moving_pictures(3)
    forward, calls = networks._detector.forward, []

    def half_blind(*arguments):
        table = forward(*arguments)
        calls.append(len(table))
        if len(calls) == 2:
            table.loc[:, ACTION_UNITS[3]] = np.nan
        return table

    monkeypatch.setattr(networks._detector, "forward", half_blind)
    extraction = run(extractor, frames)
    np.testing.assert_allclose(extraction.times, [frames[0].time_s, frames[2].time_s], atol=1e-6)
    assert extraction.quality["quality_face_share"] == pytest.approx(2 / 3)


def test_the_regression_equals_py_feats_own(tmp_path, monkeypatch):
    """What :mod:`face_mediapipe` may read action units by; here since it takes py-feat to compare with."""
    from feat.utils import blendshape_to_au

    path, shapes = save_regression(tmp_path), np.random.default_rng(1).random((7, 52)).astype(np.float32)
    monkeypatch.setattr(blendshape_to_au, "_PLS_WEIGHTS", None)
    monkeypatch.setattr(blendshape_to_au, "hf_hub_download", lambda **_: str(path))
    expected = blendshape_to_au.pls_predict_batch(shapes)
    assert 0 < expected.mean() < 1
    np.testing.assert_allclose(read_regression(path)(shapes), expected, atol=1e-6)


def test_shapes_names_and_quality(extractor):
    frames = moving_pictures(2)
    features, extraction = extractor.feature_set, run(extractor, frames)
    assert features.columns == (*ACTION_UNITS, "pitch", "yaw", "roll")
    assert extraction.values.shape == (2, 23)
    assert extraction.values.dtype == np.float32
    assert np.isfinite(extraction.values).all()
    np.testing.assert_allclose(extraction.times, [0.1, 0.3], atol=1e-6)
    assert tuple(extraction.summary) == features.summary_columns
    assert set(extraction.quality) == set(features.quality_columns)
    assert features == pyfeat_feature_set(extractor._config)


def test_a_change_of_size_loses_no_frame(extractor):
    single = PyFeatExtractor(extractor._config.model_copy(update={"num_faces": 1}))
    frames = moving_pictures(3) + moving_pictures(1, height=HEIGHT + 32)
    frames = [VideoFrame(frame.rgb, 0.1 * i) for i, frame in enumerate(frames)]
    extraction = run(single, frames)
    assert extraction.quality["quality_frames"] == len(frames)
    np.testing.assert_allclose(extraction.times, [frame.time_s for frame in frames], atol=1e-6)
    alone = run(single, frames[:1])
    np.testing.assert_allclose(extraction.values[0], alone.values[0], atol=1e-4)


def test_without_frames_and_without_faces(extractor, weights, tmp_path):
    assert run(extractor, []).reason == "no_video_stream"
    for name in ("mobilefacenet", "pose_mlp_v2", "face_multitask_v2", "xgb_au"):
        (tmp_path / name).symlink_to(weights / name)
    save_retinaface(tmp_path / "retinaface_r34", face_bias=-8.0)
    blind = PyFeatExtractor(extractor._config.model_copy(update={"weights": str(tmp_path)}))
    extraction = run(blind, moving_pictures(2))
    assert (extraction.status, extraction.reason) == (Status.MISSING, "no_face")
    assert extraction.quality == {"quality_frames": 2.0, "quality_face_share": 0.0, "quality_faces": 0.0}
    assert blind.feature_set.config_hash != extractor.feature_set.config_hash


def test_process_settings_are_put_back(weights, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    with torch.enable_grad():
        built = PyFeatExtractor(PyFeatConfig(detector="v2", weights=str(weights), device="cpu"))
        assert torch.is_grad_enabled()
        run(built, moving_pictures(1))
        assert torch.is_grad_enabled()
    assert "OMP_NUM_THREADS" not in os.environ


@pytest.mark.parametrize("detector", ["v1", "v2"])
def test_without_weights_every_file_is_named(detector, monkeypatch, tmp_path):
    monkeypatch.setenv("MIAR_MODEL_DIR", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_, **__: None)
    with pytest.raises(UnavailableError) as caught:
        pyfeat_feature_set(PyFeatConfig(detector=detector))
    text = str(caught.value)
    assert "\n" not in text
    assert f"miar fetch pyfeat-{detector}" in text
    for file in PYFEAT_FILES[f"pyfeat-{detector}"]:
        assert str(file) in text


def test_weights_are_found_under_the_model_dir_too(weights, monkeypatch):
    monkeypatch.setenv("MIAR_MODEL_DIR", str(weights))
    found = pyfeat_feature_set(PyFeatConfig(detector="v1"))
    assert found == pyfeat_feature_set(PyFeatConfig(detector="v1", weights=str(weights)))
    assert len(found.weights) == 5


def test_a_damaged_file_is_one_clear_line(weights, tmp_path):
    for name in ("retinaface_r34", "mobilefacenet", "pose_mlp_v2", "xgb_au"):
        (tmp_path / name).symlink_to(weights / name)
    (tmp_path / "face_multitask_v2").mkdir()
    (tmp_path / "face_multitask_v2" / "face_multitask_v28.safetensors").write_bytes(b"not weights")
    with pytest.raises(UnavailableError, match="cannot read its weights"):
        PyFeatExtractor(PyFeatConfig(detector="v2", weights=str(tmp_path), device="cpu"))


class Payload:
    """Stands for a class that an attacker would like to have built."""


def test_a_skops_file_with_strange_types_is_refused(weights, tmp_path):
    import skops.io

    for name in ("retinaface_r34", "mobilefacenet", "pose_mlp_v2"):
        (tmp_path / name).symlink_to(weights / name)
    (tmp_path / "xgb_au").mkdir()
    Payload.__module__ = "strange_module"
    sys.modules["strange_module"] = sys.modules[__name__] if __name__ in sys.modules else type(sys)("strange_module")
    sys.modules["strange_module"].Payload = Payload
    try:
        skops.io.dump({"model": Payload()}, tmp_path / "xgb_au" / "xgb_au_classifier_v2.skops")
        with pytest.raises(UnavailableError, match=r"strange_module\.Payload"):
            PyFeatExtractor(PyFeatConfig(detector="v1", weights=str(tmp_path), device="cpu"))
    finally:
        del sys.modules["strange_module"]
