"""How py-feat's faces are followed between two looks of the detector.

The real networks' weights are not to be had here, and made ones see nothing. So these networks stand in for them: they
see coloured squares, and like the real ones they give landmarks for any box, whatever is in it.
"""

import weakref

import numpy as np
import pytest
from numpy.typing import NDArray

from miar.features.action_units import ACTION_UNITS
from miar.features.configs import PyFeatConfig
from miar.features.contract import Extraction
from miar.features.face_pyfeat import PyFeatSession
from miar.features.pyfeat_networks import Reading
from miar.media.decode import VideoFrame

HEIGHT, WIDTH = 240, 360
COLOURS = ((250, 40, 40), (40, 40, 250))
FACE_OVER_LANDMARKS = 1.25
"""The detector's box is this much larger than the landmarks' extent."""
Place = tuple[float, float, float]
"""Left, top and side of a square."""
OUT_OF_VIEW = (-500.0, 0.0, 10.0)


def scene(*places: Place, height: int = HEIGHT) -> NDArray[np.uint8]:
    """A wall with a coloured, chequered square per place."""
    rows, columns = np.mgrid[:height, :WIDTH]
    picture = np.stack([(rows // 3) % 90, (columns // 4) % 90, (rows + columns) // 8 % 90], axis=2).astype(np.uint8)
    for (left, top, side), colour in zip(places, COLOURS, strict=False):
        inside = (columns >= left) & (columns < left + side) & (rows >= top) & (rows < top + side)
        dark = ((columns - left) // (side / 4) + (rows - top) // (side / 4)) % 2 == 1
        picture[inside] = colour
        picture[inside & dark] = np.array(colour) // 2
    return picture


class SquareNetworks:
    """AU01 of a face is where it is: its centre's column over the width; AU02 says its colour."""

    def __init__(self) -> None:
        self.looks: list[int] = []
        """Number of faces found, look by look."""
        self.reads = 0

    def find(self, rgb):
        boxes = [_around(extent, FACE_OVER_LANDMARKS) for i in range(2) if (extent := _extent(rgb, i)) is not None]
        self.looks.append(len(boxes))
        return np.array(boxes, dtype=np.float32).reshape(-1, 4), np.full(len(boxes), 0.9, dtype=np.float32)

    def read(self, rgb, boxes):
        self.reads += len(boxes)
        return [self._reading(rgb, box) for box in boxes]

    def _reading(self, rgb, box):
        left, top, right, bottom = (int(max(0, edge)) for edge in _around(box, 1.2))
        seen = [(_extent(rgb[top:bottom, left:right], i), i) for i in range(2)]
        seen = [(extent, i) for extent, i in seen if extent is not None]
        extent, colour = _around(box, 1 / FACE_OVER_LANDMARKS), -1
        if seen:
            extent, colour = max(seen, key=lambda one: one[0][2] - one[0][0])
            extent = extent + np.array([left, top, left, top])
        units = np.zeros(len(ACTION_UNITS), dtype=np.float32)
        units[:2] = (extent[0] + extent[2]) / 2 / WIDTH, colour
        corners = np.array([[extent[0], extent[1]], [extent[2], extent[3]]], dtype=np.float32)
        return Reading(units, np.zeros(3, dtype=np.float32), np.tile(corners, (34, 1)))


def _extent(rgb, index: int):
    """The box around what has the square's colour, or ``None``."""
    colour = np.array(COLOURS[index])
    rows, columns = np.nonzero((rgb == colour).all(axis=2) | (rgb == colour // 2).all(axis=2))
    if not len(rows):
        return None
    return np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1], dtype=np.float64)


def _around(box, factor: float):
    centre, half = np.tile((box[:2] + box[2:]) / 2, 2), np.tile((box[2:] - box[:2]) / 2, 2)
    return centre + half * factor * np.array([-1, -1, 1, 1])


class AstrayNetworks(SquareNetworks):
    """Their landmarks of a box that they read for the fourth time lie somewhere else."""

    def __init__(self, shrink: float, shift: float) -> None:
        super().__init__()
        self._shrink, self._shift = shrink, shift

    def _reading(self, rgb, box):
        reading = super()._reading(rgb, box)
        if self.reads != 4:
            return reading
        centre = reading.landmarks.mean(axis=0)
        astray = centre + (reading.landmarks - centre) * self._shrink + self._shift
        return Reading(reading.units + 1, reading.pose, astray.astype(np.float32))


class DriftingNetworks(SquareNetworks):
    """Whatever they read in the right half drifts to the left between two looks, a little each time."""

    def find(self, rgb):
        self._fresh = True
        return super().find(rgb)

    def read(self, rgb, boxes):
        readings = super().read(rgb, boxes)
        self._fresh = False
        return readings

    def _reading(self, rgb, box):
        reading = super()._reading(rgb, box)
        if box[0] < 50 or self._fresh:
            return reading
        extent = _around(box, 1 / FACE_OVER_LANDMARKS) - np.array([25, 0, 25, 0])
        units = reading.units.copy()
        units[0] = (extent[0] + extent[2]) / 2 / WIDTH
        corners = np.array([[extent[0], extent[1]], [extent[2], extent[3]]], dtype=np.float32)
        return Reading(units, reading.pose, np.tile(corners, (34, 1)))


def run(pictures, networks: SquareNetworks | None = None, **config) -> tuple[Extraction, SquareNetworks]:
    networks = networks or SquareNetworks()
    session = PyFeatSession(networks, PyFeatConfig(**config))
    for index, picture in enumerate(pictures):
        session.push(VideoFrame(picture, 0.2 * index))
    return session.close(), networks


def test_the_detector_looks_at_every_fifth_frame_and_the_face_is_followed_between():
    pictures = [scene((40 + 6 * i, 60 + 3 * i, 80 + i)) for i in range(20)]
    extraction, networks = run(pictures)
    assert len(networks.looks) == 4
    assert networks.reads == 20
    np.testing.assert_allclose(extraction.values[:, 0] * WIDTH, [80 + 6.5 * i for i in range(20)], atol=1.5)
    every, looked = run(pictures, detect_every=1)
    assert len(looked.looks) == 20
    np.testing.assert_allclose(extraction.values, every.values, atol=0.01)
    for name, value in every.quality.items():
        assert extraction.quality[name] == pytest.approx(value, rel=0.03), name


def test_the_box_keeps_the_detectors_margin():
    """A face that stands still has one size, whether it was just looked for or followed."""
    extraction, networks = run([scene((100, 60, 80))] * 9, detect_every=9)
    assert len(networks.looks) == 1
    assert extraction.quality["quality_face_size"] == pytest.approx(80 * FACE_OVER_LANDMARKS / HEIGHT)


def test_a_face_that_leaves_is_noticed_at_once_and_so_is_its_return():
    """The networks give landmarks for a bare wall too; what tells is that the picture is another one."""
    pictures = [scene((100, 60, 80))] * 7 + [scene(OUT_OF_VIEW)] * 6 + [scene((120, 70, 80))] * 5
    extraction, networks = run(pictures, detect_every=100)
    gone = set(range(7, 13))
    np.testing.assert_allclose(extraction.times, [0.2 * i for i in range(18) if i not in gone], atol=1e-5)
    assert networks.looks == [1] + [0] * 6 + [1]
    assert extraction.quality["quality_face_share"] == pytest.approx(12 / 18)
    assert (extraction.values[:, 1] == 0).all()  # no row was read off the wall


def test_a_face_that_jumps_is_looked_for_at_once():
    pictures = [scene((30, 60, 60))] * 3 + [scene((250, 60, 60))] * 3
    extraction, networks = run(pictures, detect_every=100)
    assert len(networks.looks) == 2
    np.testing.assert_allclose(extraction.values[:, 0] * WIDTH, [60] * 3 + [280] * 3, atol=1)


def test_a_face_that_comes_closer_at_once_is_looked_for_at_once():
    pictures = [scene((100, 80, 60))] * 3 + [scene((60, 40, 140))] * 3
    extraction, networks = run(pictures, detect_every=100)
    assert len(networks.looks) == 2
    assert extraction.quality["quality_face_size"] == pytest.approx(FACE_OVER_LANDMARKS * 100 / HEIGHT)


@pytest.mark.parametrize(("shrink", "shift"), [(0.0, 0.0), (1.0, 90.0), (3.0, 0.0), (np.nan, 0.0)])
def test_landmarks_that_make_no_sense_are_not_believed(shrink, shift):
    """The picture is the same throughout, so that only the landmarks can tell."""
    extraction, networks = run([scene((100, 60, 80))] * 8, AstrayNetworks(shrink, shift), detect_every=100)
    assert len(networks.looks) == 2
    assert len(extraction.values) == 8
    assert (extraction.values[:, 1] == 0).all()  # the astray reading left no row


def test_two_followed_faces_never_become_one():
    """One wanders off to the other, where the picture is a face too."""
    pictures = [scene((40, 60, 80), (240, 60, 80))] * 12
    extraction, networks = run(pictures, DriftingNetworks(), detect_every=100, all_faces=True)
    assert 2 <= len(networks.looks) <= 4
    for index in range(12):
        columns = extraction.values[np.isclose(extraction.times, 0.2 * index), 1] * WIDTH
        assert len(columns) == 2
        assert np.ptp(columns) > 30


def test_a_newcomer_is_seen_at_the_next_look():
    pictures = [scene((40, 60, 80), (250, 70, 60) if i >= 3 else OUT_OF_VIEW) for i in range(15)]
    extraction, networks = run(pictures)
    assert networks.looks == [1, 2, 2]
    assert extraction.quality["quality_faces"] == pytest.approx((5 + 10 + 10) / 15)


def test_of_more_faces_than_wanted_the_followed_one_stays():
    """The second is larger from frame 5 on; one is followed, and it is the one that was there."""
    pictures = [scene((40, 60, 80), (200, 60, 120) if i >= 5 else OUT_OF_VIEW) for i in range(20)]
    extraction, networks = run(pictures, num_faces=1)
    assert networks.looks[1:] == [2, 2, 2]
    assert networks.reads == 20
    assert (extraction.values[:, 1] == 0).all()
    larger, _ = run(pictures)
    assert (larger.values[:, 1] == 1).all()  # over the clip the second has more area


def test_a_frame_of_another_size_is_looked_at():
    pictures = [scene((100, 60, 80))] * 2 + [scene((100, 60, 80), height=HEIGHT + 40)] * 2
    extraction, networks = run(pictures, detect_every=100)
    assert len(networks.looks) == 2
    assert len(extraction.values) == 4


def test_a_face_half_out_of_view_is_followed_and_measured():
    pictures = [scene((100.0 - 15 * i, 60, 80)) for i in range(9)]  # to 20 pixels beyond the left edge
    extraction, _ = run(pictures)
    assert len(extraction.values) == 9
    assert extraction.quality["quality_visible_share"] < 1


def test_one_picture_is_held_at_most():
    networks = SquareNetworks()
    session = PyFeatSession(networks, PyFeatConfig())
    alive = []
    for index in range(30):
        picture = scene((100, 60, 80))
        alive.append(weakref.ref(picture))
        session.push(VideoFrame(picture, 0.2 * index))
        del picture
        assert sum(reference() is not None for reference in alive) == 0
