"""Which face is which over a clip, and which one is chosen: boxes and action units given by hand."""

import numpy as np
import pytest

from miar.errors import ConfigError
from miar.features.action_units import ACTION_UNITS
from miar.features.configs import MediaPipeConfig, PyFeatConfig
from miar.features.contract import Status
from miar.features.face_quality import FACE_QUALITY
from miar.features.face_tracks import ClipFaces, Face, overlap, quality_columns
from miar.validation import validated

N_UNITS = len(ACTION_UNITS)
SEVERAL = PyFeatConfig(num_faces=3)


def face(left: float, side: float = 40.0, mouth: float = 0.0, mark: float = 0.0, top: float = 20.0) -> Face:
    """A square face; ``mark`` stands in its AU01, so that rows tell whose they are."""
    numbers = np.zeros(N_UNITS, dtype=np.float32)
    numbers[ACTION_UNITS.index("AU26")] = mouth
    numbers[0] = mark
    return Face(np.array([left, top, left + side, top + side]), numbers, np.full(len(FACE_QUALITY), mark, np.float32))


def collected(config, frames):
    faces = ClipFaces(config, lambda numbers: (numbers, numbers))
    for index, seen in enumerate(frames):
        faces.add(0.1 * index, seen)
    return faces.extraction()


def marks(extraction) -> list[float]:
    return [round(float(value), 3) for value in extraction.values[:, 0]]


def test_two_faces_that_drift_keep_their_tracks_whatever_order_they_come_in():
    frames = [[face(10 + 4 * i, mark=1), face(200 - 4 * i, side=30, mark=2)] for i in range(12)]
    frames = [seen if i % 2 else seen[::-1] for i, seen in enumerate(frames)]
    extraction = collected(SEVERAL, frames)
    assert marks(extraction) == [1.0] * 12
    assert extraction.quality["quality_faces"] == 2
    assert extraction.quality["quality_face_size"] == 1  # the chosen face's own measures
    np.testing.assert_allclose(extraction.times, 0.1 * np.arange(12), atol=1e-6)


def test_the_largest_is_by_area_summed_over_the_clip_not_by_frame():
    """The second comes closer for a moment; the first is larger over the clip, and every row is of one person."""
    frames = [[face(10, mark=1), face(150, side=90 if i == 3 else 25, mark=2)] for i in range(10)]
    assert marks(collected(SEVERAL, frames)) == [1.0] * 10


def test_the_speaking_face_is_the_one_whose_mouth_moves():
    config = PyFeatConfig(num_faces=3, face="speaking")
    talking = [[face(10, side=60, mark=1, mouth=0.9), face(150, mark=2, mouth=0.4 * (i % 2))] for i in range(10)]
    assert marks(collected(config, talking)) == [2.0] * 10
    assert marks(collected(SEVERAL, talking)) == [1.0] * 10
    silent = [[face(150, mark=2), face(10, side=60, mark=1)] for _ in range(10)]
    assert marks(collected(config, silent)) == [1.0] * 10  # of equals the largest


def test_a_face_seen_for_a_moment_is_not_the_speaker():
    config = PyFeatConfig(num_faces=3, face="speaking")
    frames = [[face(10, mark=1, mouth=0.5 * (i % 2))] for i in range(20)]
    for i in (4, 5):
        frames[i].append(face(200, mark=2, mouth=1.0 * (i % 2)))
    assert set(marks(collected(config, frames))) == {1.0}


def test_a_face_that_leaves_and_returns_elsewhere_is_the_same_one():
    frames = [[face(10, mark=1)]] * 3 + [[]] * 2 + [[face(400, mark=1)]] * 3
    extraction = collected(SEVERAL, frames)
    assert len(extraction.values) == 6
    assert extraction.quality["quality_face_share"] == pytest.approx(6 / 8)


def test_a_face_that_jumps_between_frames_is_followed_and_a_newcomer_is_not_taken_for_it():
    near = [[face(10, mark=1), face(300, mark=2)], [face(45, mark=1), face(300, mark=2)]]
    assert marks(collected(SEVERAL, [*near, [face(45, mark=1)]])) == [1.0, 1.0, 1.0]
    far = [[face(10, side=60, mark=1), face(300, mark=2)], [face(160, side=90, mark=3), face(300, mark=2)]]
    extraction = collected(SEVERAL, [*far, far[1]])
    assert marks(extraction) == [3.0, 3.0]
    assert extraction.quality["quality_face_share"] == pytest.approx(2 / 3)


def test_rows_of_all_faces_name_them_in_order():
    config = MediaPipeConfig(num_faces=2, all_faces=True)
    frames = [[face(200, side=20, mark=2), face(10, mark=1)], [face(10, mark=1)], [face(200, side=20, mark=2)]]
    extraction = collected(config, frames)
    np.testing.assert_array_equal(extraction.values[:, :2], [[0, 1], [1, 2], [0, 1], [1, 2]])
    np.testing.assert_allclose(extraction.times, [0, 0, 0.1, 0.2], atol=1e-6)
    assert extraction.summary["au01_max"] == 1  # of the chosen face alone
    assert extraction.quality["quality_face_share"] == pytest.approx(2 / 3)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_the_reference_gives_as_nan_is_no_face(value):
    extraction = collected(SEVERAL, [[face(10, mark=value)], [face(10, mark=1)], []])
    assert marks(extraction) == [1.0]
    assert extraction.quality["quality_face_share"] == pytest.approx(1 / 3)
    assert collected(SEVERAL, [[face(10, mark=value)]]).reason == "no_face"


def test_without_frames_and_without_faces():
    nothing = collected(SEVERAL, [])
    assert (nothing.status, nothing.reason) == (Status.MISSING, "no_video_stream")
    empty = collected(SEVERAL, [[], []])
    assert (empty.status, empty.reason) == (Status.MISSING, "no_face")
    assert empty.quality == {"quality_frames": 2.0, "quality_face_share": 0.0, "quality_faces": 0.0}
    assert "quality_faces" not in quality_columns(PyFeatConfig(num_faces=1))


@pytest.mark.parametrize("extractor", ["mediapipe", "pyfeat"])
@pytest.mark.parametrize("choice", [{"face": "speaking"}, {"all_faces": True}])
def test_a_choice_needs_several_faces(extractor, choice):
    from miar.config import PipelineConfig

    with pytest.raises(ConfigError, match="need num_faces of at least 2") as caught:
        validated(PipelineConfig, {"extractors": [{"extractor": extractor, "num_faces": 1, **choice}]}, "config")
    assert "\n" not in str(caught.value)


def test_overlap():
    one = np.array([0.0, 0.0, 10.0, 10.0])
    assert overlap(one, one) == 1
    assert overlap(one, np.array([5.0, 0.0, 15.0, 10.0])) == pytest.approx(1 / 3)
    assert overlap(one, one + 20) == 0
    assert overlap(np.zeros(4), np.zeros(4)) == 0
