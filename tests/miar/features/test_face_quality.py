"""Every quality column moves with what it names: faces that are turned, blurred, cut off, small, gone, or two."""

import weakref
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from miar.errors import UnavailableError
from miar.features.configs import MediaPipeConfig
from miar.features.contract import Extraction
from miar.features.face_mediapipe import MediaPipeExtractor
from miar.features.face_quality import blur, face_quality, turned_away, visible_share
from miar.features.registry import availability
from miar.features.weights import package_folder
from miar.media.decode import VideoFrame
from miar.synth.draw import Portrait
from miar.synth.expression import rest
from miar.synth.mesh import mesh_model
from miar.synth.speakers import make_speaker

Picture = NDArray[np.uint8]
SIDE = 320
COUNT = 5


@pytest.fixture(scope="module", autouse=True)
def weights_at_hand() -> None:
    if isinstance(unavailable := availability(MediaPipeConfig()), UnavailableError):
        pytest.skip(str(unavailable))


def drawn(count: int = COUNT, **inputs: float) -> list[Picture]:
    """A face at rest, but for these inputs of the mesh model (pose in radians)."""
    controls = rest().controls().repeat(count, axis=0)
    for name, value in inputs.items():
        controls[:, mesh_model().inputs.index(name)] += value
    return Portrait(make_speaker(0, 0)).frames(controls, np.zeros((count, 2)))


@pytest.fixture(scope="module")
def frontal() -> list[Picture]:
    return drawn()


def extract(pictures: list[Picture], **config) -> Extraction:
    session = MediaPipeExtractor(MediaPipeConfig(**config)).open()
    for index, picture in enumerate(pictures):
        session.push(VideoFrame(np.ascontiguousarray(picture), 0.1 * index))
    return session.close()


def moved_left(pictures: list[Picture], pixels: int) -> list[Picture]:
    """The picture's left part goes out of view, grey comes in on the right."""
    return [np.pad(picture[:, pixels:], ((0, 0), (0, pixels), (0, 0)), constant_values=128) for picture in pictures]


def test_a_frontal_face_in_the_middle(frontal):
    quality = extract(frontal).quality
    assert quality["quality_frames"] == COUNT
    assert quality["quality_face_share"] == quality["quality_visible_share"] == 1
    assert 0.4 < quality["quality_face_size"] < 0.6
    assert quality["quality_blur"] < 0.01
    assert quality["quality_pose"] < 4


def test_pose_grows_as_the_head_turns(frontal):
    turned = [extract(drawn(Yaw=angle)).quality["quality_pose"] for angle in (0.4, 0.8)]
    assert extract(frontal).quality["quality_pose"] + 5 < turned[0] < turned[1] - 5


def test_pose_is_the_angle_to_the_camera():
    assert turned_away(0, 0) == turned_away(-0.0, 0) == 0
    assert turned_away(-30, 0) == pytest.approx(30)
    assert turned_away(0, 90) == pytest.approx(90)
    assert turned_away(20, 20) == pytest.approx(28, abs=0.1)  # of two right turns, less than their sum


def test_pose_of_real_heads_follows_their_yaw():
    """The columns and the quality are of the same frames: the mean angle is at least the mean yaw."""
    extraction = extract([np.asarray(Image.open(_footage("single_face.jpg")).convert("RGB"))] * 2)
    pitch, yaw = extraction.values[0, -3:-1]
    assert extraction.quality["quality_pose"] == pytest.approx(turned_away(pitch, yaw), abs=0.5)


def test_blur_grows_with_every_smoothing(frontal):
    found = [
        extract([_smoothed(picture, radius) for picture in frontal]).quality["quality_blur"] for radius in (0, 1, 2, 4)
    ]
    assert all(more > 3 * less for less, more in pairwise(found))


def test_a_face_at_the_edge_is_partly_visible(frontal):
    shares = [extract(moved_left(frontal, pixels)).quality["quality_visible_share"] for pixels in (0, 100, 130)]
    assert shares[0] == 1
    assert shares[2] < 0.75 < shares[1]
    gone = extract(moved_left(frontal, 200))
    assert gone.reason == "no_face"


def test_visible_share_of_boxes():
    frame = np.zeros((100, 200, 3), np.uint8)
    assert visible_share(frame, np.array([10, 10, 50, 50])) == 1
    assert visible_share(frame, np.array([-20, 10, 20, 50])) == 0.5
    assert visible_share(frame, np.array([180, 80, 220, 120])) == 0.25
    assert visible_share(frame, np.array([300, 10, 340, 50])) == visible_share(frame, np.array([9, 9, 9, 9])) == 0
    size, detail, visible, angle = face_quality(frame, np.array([-40.0, -10.0, 0.0, 40.0]), pitch=0, yaw=10)
    assert (size, detail, visible) == (0.5, 1, 0)  # half the frame high, out of view: no pixel to look at
    assert angle == pytest.approx(10)


def test_a_smaller_face_is_smaller(frontal):
    far = [np.asarray(Image.fromarray(p).resize((SIDE // 2, SIDE // 2))) for p in frontal]
    far = [np.pad(p, ((80, 80), (80, 80), (0, 0)), mode="edge") for p in far]
    near, away = extract(frontal).quality["quality_face_size"], extract(far).quality["quality_face_size"]
    assert away == pytest.approx(near / 2, rel=0.1)


def test_two_faces_are_counted_and_one_is_taken(frontal):
    """The left one is larger; the right one comes late."""
    small = [np.asarray(Image.fromarray(p).resize((240, 240))) for p in frontal]
    small = [np.pad(p, ((40, 40), (40, 40), (0, 0)), mode="edge") for p in small]
    room = [np.full_like(p, 128) for p in frontal]
    pictures = [np.hstack([left, right]) for left, right in zip(frontal * 2, room + small, strict=True)]
    two = extract(pictures, num_faces=2)
    assert 1 < two.quality["quality_faces"] < 2
    assert two.quality["quality_face_share"] == 1
    assert two.quality["quality_face_size"] == pytest.approx(extract(frontal).quality["quality_face_size"], rel=0.05)
    everyone = extract(pictures, num_faces=2, all_faces=True)
    assert set(everyone.values[:, 0]) == {0, 1}
    np.testing.assert_array_equal(everyone.values[everyone.values[:, 0] == 0, 1:], two.values)
    assert len(everyone.values) == round(two.quality["quality_faces"] * len(pictures))


def test_the_one_who_speaks_is_taken_where_asked(frontal):
    """The right one moves the mouth and is smaller."""
    open_mouth = drawn(COUNT, AU25=0.9, AU26=0.9, AU24=-0.7)
    speaking = [frontal[i] if i % 4 < 2 else open_mouth[i] for i in range(COUNT)] * 2
    small = [np.asarray(Image.fromarray(p).resize((260, 260))) for p in speaking]
    small = [np.pad(p, ((30, 30), (30, 30), (0, 0)), mode="edge") for p in small]
    pictures = [np.hstack([left, right]) for left, right in zip(frontal * 2, small, strict=True)]
    largest = extract(pictures, num_faces=2)
    speaker = extract(pictures, num_faces=2, face="speaking")
    jaw = 25  # jawOpen among the blendshapes
    assert speaker.values[:, jaw].std() > 3 * largest.values[:, jaw].std()
    assert speaker.quality["quality_face_size"] < largest.quality["quality_face_size"]


def test_a_grey_picture_has_a_face_too(frontal):
    grey = [np.asarray(Image.fromarray(p).convert("L").convert("RGB")) for p in frontal]
    assert extract(grey).quality["quality_face_share"] == 1


def test_a_face_that_leaves_and_returns_is_one(frontal):
    room = [np.full_like(picture, 128) for picture in frontal]
    extraction = extract([*frontal, *room, *moved_left(frontal, 90)], num_faces=2)
    assert extraction.quality["quality_face_share"] == pytest.approx(2 / 3, abs=0.14)
    assert extraction.times.min() < 0.1
    assert extraction.times.max() > 1.1


def test_pictures_are_let_go(frontal):
    """Whatever a clip's length, no picture outlives its frame."""
    session = MediaPipeExtractor(MediaPipeConfig(num_faces=2)).open()
    alive = []
    for index in range(20):
        picture = frontal[index % COUNT].copy()
        alive.append(weakref.ref(picture))
        session.push(VideoFrame(picture, 0.1 * index))
        del picture
        assert sum(reference() is not None for reference in alive) <= 1
    assert session.close().quality["quality_frames"] == 20


def test_blur_rises_when_detail_goes():
    picture = np.random.default_rng(0).integers(0, 255, (64, 64, 3)).astype(np.uint8)
    smooth = picture.reshape(16, 4, 16, 4, 3).mean(axis=(1, 3)).repeat(4, 0).repeat(4, 1).astype(np.uint8)
    assert blur(picture) < blur(smooth) < blur(np.full((64, 64, 3), 90, np.uint8)) == 1.0
    assert blur(picture[:2]) == 1.0


def _smoothed(picture: Picture, radius: int) -> Picture:
    return np.asarray(Image.fromarray(picture).filter(ImageFilter.GaussianBlur(radius)))


def _footage(name: str) -> Path:
    return Path(str(package_folder("feat"))) / "tests" / "data" / name
