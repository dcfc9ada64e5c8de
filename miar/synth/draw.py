"""Draws a person, frame by frame, with Pillow.

What stands still (wall, shoulders, hair, neck) is drawn once per video. A frame redraws only the face: shaded
triangles, smoothed so that no facet shows, then eyes, brows and lips at twice the size, reduced.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from miar.synth import mesh
from miar.synth.mesh import FloatArray, mesh_model
from miar.synth.speakers import Colour, Speaker

SIDE = 320
"""Frame width and height in pixels."""
FACE_SCALE = 0.80
"""Pixels per unit of the mesh model."""
FACE_CENTRE = (160.0, 158.0)
PATCH = (64, 56, 256, 280)
"""Box (left, top, right, bottom) in the frame that the moving face stays within, head motion included."""
DETAIL = 2
"""Features are drawn this many times larger, then reduced: smooth edges."""
COARSE = 2
"""Skin, which has no edges, is drawn this many times smaller, then enlarged."""
SKIN_BLUR = 3.2 / COARSE
EYE_WHITE: Colour = (240, 238, 234)
MOUTH_DARK: Colour = (62, 22, 24)
TEETH: Colour = (236, 232, 222)

Points = list[tuple[float, float]]
Frame = NDArray[np.uint8]


@dataclass(frozen=True)
class _Layers:
    """What is drawn once: behind the face, and in front of it."""

    back: Image.Image
    head: Image.Image
    fringe: Image.Image


class Portrait:
    """One speaker in front of one wall, ready to be drawn with any expression."""

    def __init__(self, speaker: Speaker) -> None:
        self._speaker = speaker
        self._model = mesh_model()
        rest = self._model.vertices(np.zeros((1, len(self._model.inputs))))[0]
        self._middle = (rest.max(axis=0) + rest.min(axis=0)) / 2
        self._stretch = _stretch(speaker, rest - self._middle)
        self._light = np.asarray(speaker.light)
        neutral = self._place(rest[None], np.zeros((1, 2)))[0]
        self._layers = _layers(speaker, neutral)

    def empty_room(self) -> Frame:
        """(320, 320, 3): the wall alone."""
        return np.asarray(_wall(self._speaker))

    def back_of_head(self) -> Frame:
        """(320, 320, 3): the person, turned away."""
        frame = self._layers.back.copy()
        _paste(frame, _turned_away(self._speaker), np.zeros(2))
        return np.asarray(frame)

    def frames(self, controls: FloatArray, shifts: FloatArray) -> list[Frame]:
        """Draw one frame per row of ``controls`` (n, n_inputs), the head moved by ``shifts`` (n, 2) pixels.

        Returns:
            n arrays (320, 320, 3), RGB.
        """
        placed = self._place(self._model.vertices(controls), shifts)
        return [self._draw(vertices, shift) for vertices, shift in zip(placed, shifts, strict=True)]

    def _place(self, vertices: FloatArray, shifts: FloatArray) -> FloatArray:
        """Mesh units (n, 478, 3) to pixels, shaped like this speaker."""
        placed = (vertices - self._middle) * self._stretch * FACE_SCALE
        placed[:, :, :2] += np.asarray(FACE_CENTRE) + shifts[:, None, :]
        return placed

    def _draw(self, vertices: FloatArray, shift: FloatArray) -> Frame:
        frame = self._layers.back.copy()
        _paste(frame, self._layers.head, shift)
        left, top, right, bottom = PATCH
        local = vertices[:, :2] - (left, top)
        width, height = right - left, bottom - top
        skin = self._skin(vertices, local / COARSE, (width // COARSE, height // COARSE))
        large = skin.resize((width * DETAIL, height * DETAIL), Image.Resampling.BILINEAR)
        _features(large, local * DETAIL, self._speaker)
        mask = _polygon_mask(large.size, _points(local * DETAIL, mesh.FACE_OVAL))
        frame.paste(large.reduce(DETAIL), (left, top), mask.reduce(DETAIL))
        _paste(frame, self._layers.fringe, shift)
        return np.asarray(frame)

    def _skin(self, vertices: FloatArray, local: FloatArray, size: tuple[int, int]) -> Image.Image:
        """Every triangle in the shade of its own slope, smoothed."""
        corners = vertices[self._model.triangles]  # (898, 3, 3)
        normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        normals /= np.linalg.norm(normals, axis=1, keepdims=True) + 1e-9
        normals *= -np.sign(normals[:, 2:])  # towards the viewer, who is at negative z
        slope = normals @ self._light
        ambient = self._speaker.ambient
        shade = ambient + (1.14 - ambient) * np.clip(slope, 0, 1) + 0.10 * np.clip(slope, 0, 1) ** 12
        colours = np.clip(shade[:, None] * np.asarray(self._speaker.skin), 0, 255).astype(int)
        image = Image.new("RGB", size, _shade(self._speaker.skin, 0.9))
        polygon = ImageDraw.Draw(image).polygon
        for flat, colour in zip(
            local[self._model.triangles].reshape(-1, 6).tolist(), map(tuple, colours.tolist()), strict=True
        ):
            polygon(flat, fill=colour)
        return image.filter(ImageFilter.GaussianBlur(SKIN_BLUR))


def _stretch(speaker: Speaker, rest: FloatArray) -> FloatArray:
    """Factors (478, 3) that turn the common face, centred on 0, into this speaker's."""
    x, y = rest[:, 0], rest[:, 1] / np.abs(rest[:, 1]).max()
    widen = speaker.width + speaker.jaw * np.clip(y, -0.2, 1)
    middle = np.exp(-((x / 22) ** 2))
    widen *= 1 + (speaker.nose_width - 1) * middle * np.exp(-(((y - 0.1) / 0.18) ** 2))
    widen *= 1 + (speaker.mouth_width - 1) * np.exp(-(((y - 0.5) / 0.2) ** 2)) * np.exp(-((x / 40) ** 2))
    return np.stack([widen, np.ones_like(x), np.ones_like(x)], axis=1)


def _features(image: Image.Image, points: FloatArray, speaker: Speaker) -> None:
    """Eyes, brows, nostrils and mouth on the enlarged skin."""
    draw = ImageDraw.Draw(image)
    dark = _shade(speaker.skin, 0.62)
    for pair in mesh.NOSTRILS:
        x, y = points[list(pair)].mean(axis=0)
        draw.ellipse((x - 6, y - 4, x + 6, y + 2), fill=_shade(speaker.skin, 0.5))
    for side in (0, 1):
        _eye(image, draw, points, side, speaker, dark)
        _brow(draw, points, side, speaker)
    _mouth(image, draw, points, speaker)


def _eye(
    image: Image.Image, draw: ImageDraw.ImageDraw, points: FloatArray, side: int, speaker: Speaker, dark: Colour
) -> None:
    upper, lower = points[mesh.EYES_UPPER[side]], points[mesh.EYES_LOWER[side]]
    centre = (upper.mean(axis=0) + lower.mean(axis=0)) / 2
    stretch = np.array([1.0, speaker.eye_size])
    upper, lower = (upper - centre) * stretch + centre, (lower - centre) * stretch + centre
    lid = [tuple(p) for p in (upper - (0, 6)).tolist()]
    draw.line(lid, fill=_shade(speaker.skin, 0.78), width=3, joint="curve")
    outline = [tuple(p) for p in np.concatenate([upper, lower[::-1]]).tolist()]
    left, top = np.floor(np.min(outline, axis=0)).astype(int) - 2
    right, bottom = np.ceil(np.max(outline, axis=0)).astype(int) + 2
    ball = Image.new("RGB", (int(right - left), int(bottom - top)), EYE_WHITE)
    on_ball = ImageDraw.Draw(ball)
    x, y = points[mesh.IRIS_CENTRES[side]] - (left, top)
    for radius, colour in ((10.5, _shade(speaker.iris, 0.7)), (9, speaker.iris), (4.5, (18, 16, 18))):
        on_ball.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)
    on_ball.ellipse((x + 1, y - 6, x + 5, y - 2), fill=(250, 250, 250))
    on_ball.line([(px - left, py - top) for px, py in upper.tolist()], fill=(176, 170, 168), width=5)
    image.paste(ball, (int(left), int(top)), _polygon_mask(ball.size, [(px - left, py - top) for px, py in outline]))
    draw.line([tuple(p) for p in upper.tolist()], fill=_shade(speaker.hair, 0.55), width=4, joint="curve")
    draw.line([tuple(p) for p in lower.tolist()], fill=dark, width=1, joint="curve")


def _brow(draw: ImageDraw.ImageDraw, points: FloatArray, side: int, speaker: Speaker) -> None:
    upper, lower = points[mesh.BROWS_UPPER[side]], points[mesh.BROWS_LOWER[side]]
    middle = (upper + lower) / 2
    half = (upper - lower) / 2 * 0.8 * speaker.brow_weight
    outline = np.concatenate([middle + half, (middle - half)[::-1]])
    draw.polygon([tuple(p) for p in outline.tolist()], fill=_shade(speaker.hair, 0.85))


def _mouth(image: Image.Image, draw: ImageDraw.ImageDraw, points: FloatArray, speaker: Speaker) -> None:
    red = _blend(_shade(speaker.skin, 0.82), (178, 62, 72), 0.25 + 0.55 * speaker.lip_tint)
    inner = _points(points, mesh.LIPS_UPPER_INNER) + _points(points, mesh.LIPS_LOWER_INNER)[::-1]
    upper = _points(points, mesh.LIPS_UPPER_OUTER) + _points(points, mesh.LIPS_UPPER_INNER)[::-1]
    lower = _points(points, mesh.LIPS_LOWER_OUTER) + _points(points, mesh.LIPS_LOWER_INNER)[::-1]
    draw.polygon(upper, fill=_shade(red, 0.88))
    draw.polygon(lower, fill=red)
    inside = np.asarray(inner)
    left, top = np.floor(inside.min(axis=0)).astype(int) - 1
    right, bottom = np.ceil(inside.max(axis=0)).astype(int) + 1
    cavity = Image.new("RGB", (int(right - left), int(bottom - top)), MOUTH_DARK)
    shifted = [(x - left, y - top) for x, y in inner]
    row = [(x - left, y - top) for x, y in _points(points, mesh.LIPS_UPPER_INNER)]
    ImageDraw.Draw(cavity).polygon(row + [(x, y + 9) for x, y in row[::-1]], fill=TEETH)
    image.paste(cavity, (int(left), int(top)), _polygon_mask(cavity.size, shifted))
    draw.line(_points(points, mesh.LIPS_UPPER_INNER), fill=_shade(red, 0.55), width=2, joint="curve")


def _layers(speaker: Speaker, face: FloatArray) -> _Layers:
    """Wall and shoulders; hair, ears and neck; the hair over the forehead. ``face`` (478, 3) in pixels, at rest."""
    oval = face[mesh.FACE_OVAL, :2]
    left, top = oval.min(axis=0)
    right, bottom = oval.max(axis=0)
    back = _wall(speaker)
    _shoulders(back, speaker)
    head = _canvas()
    draw = ImageDraw.Draw(head)
    _neck(draw, speaker, (left + right) / 2, bottom)
    _hair_behind(draw, speaker, (left, top, right, bottom))
    _ears(draw, speaker, (left, top, right, bottom))
    fringe = _canvas()
    _fringe(ImageDraw.Draw(fringe), speaker, face)
    return _Layers(back, _reduced(head), _reduced(fringe))


Box = tuple[float, float, float, float]
LARGE = 4
"""Still layers are drawn this many times larger, then reduced."""


def _canvas() -> Image.Image:
    return Image.new("RGBA", (SIDE * LARGE, SIDE * LARGE), (0, 0, 0, 0))


def _reduced(image: Image.Image) -> Image.Image:
    # premultiplied, so that no transparent black bleeds into the edges
    return image.convert("RGBa").reduce(LARGE).convert("RGBA")


def _ellipse(draw: ImageDraw.ImageDraw, box: Box, fill: Colour) -> None:
    draw.ellipse(tuple(value * LARGE for value in box), fill=fill)


def _rounded(draw: ImageDraw.ImageDraw, box: Box, radius: float, fill: Colour) -> None:
    draw.rounded_rectangle(tuple(value * LARGE for value in box), radius * LARGE, fill=fill)


def _wall(speaker: Speaker) -> Image.Image:
    """A wall, lighter on the side that the light comes from."""
    y, x = np.mgrid[0:SIDE, 0:SIDE] / SIDE - 0.5
    shade = 0.92 + 0.16 * (x * speaker.light[0] + y * speaker.light[1]) - 0.25 * (x**2 + y**2)
    return Image.fromarray(np.clip(shade[:, :, None] * np.asarray(speaker.wall), 0, 255).astype(np.uint8))


def _shoulders(image: Image.Image, speaker: Speaker) -> None:
    layer = _canvas()
    draw = ImageDraw.Draw(layer)
    _rounded(draw, (58, 266, 262, 420), 58, _shade(speaker.shirt, 0.92))
    _ellipse(draw, (122, 250, 198, 292), _shade(speaker.shirt, 0.75))
    image.paste(reduced := _reduced(layer), (0, 0), reduced)


def _neck(draw: ImageDraw.ImageDraw, speaker: Speaker, x: float, chin: float) -> None:
    _rounded(draw, (x - 29, chin - 60, x + 29, chin + 48), 22, _shade(speaker.skin, 0.80))
    _ellipse(draw, (x - 29, chin - 30, x + 29, chin + 10), _shade(speaker.skin, 0.66))


def _hair_behind(draw: ImageDraw.ImageDraw, speaker: Speaker, face: Box) -> None:
    left, top, right, bottom = face
    height, hair = bottom - top, _shade(speaker.hair, 0.85)
    rise = {"cropped": 0.17, "short": 0.22, "long": 0.24, "curly": 0.30, "bob": 0.24}[speaker.hair_style]
    wide = {"cropped": 2, "short": 5, "long": 12, "curly": 18, "bob": 14}[speaker.hair_style]
    _ellipse(draw, (left - wide, top - rise * height, right + wide, top + 0.85 * height), hair)
    if speaker.hair_style == "long":
        _rounded(draw, (left - wide - 2, top + 0.3 * height, left + 30, bottom + 26), 22, hair)
        _rounded(draw, (right - 30, top + 0.3 * height, right + wide + 2, bottom + 26), 22, hair)
    if speaker.hair_style == "bob":
        _rounded(draw, (left - wide, top + 0.3 * height, right + wide, bottom - 0.06 * height), 26, hair)
        x = (left + right) / 2
        _rounded(draw, (x - 29, bottom - 60, x + 29, bottom + 48), 22, _shade(speaker.skin, 0.72))
    if speaker.hair_style == "curly":
        middle, radius = ((left + right) / 2, top + 0.32 * height), (right - left) / 2 + 12
        for angle in np.linspace(np.pi * 0.95, np.pi * 2.05, 15):
            x, y = middle[0] + radius * np.cos(angle), middle[1] + 0.98 * radius * np.sin(angle)
            _ellipse(draw, (x - 17, y - 17, x + 17, y + 17), hair)


def _ears(draw: ImageDraw.ImageDraw, speaker: Speaker, face: Box) -> None:
    if speaker.hair_style in ("long", "bob"):
        return
    left, top, right, bottom = face
    y = top + 0.47 * (bottom - top)
    for x in (left, right):
        _ellipse(draw, (x - 8, y - 17, x + 8, y + 17), _shade(speaker.skin, 0.82))
        _ellipse(draw, (x - 4, y - 11, x + 4, y + 11), _shade(speaker.skin, 0.70))


def _fringe(draw: ImageDraw.ImageDraw, speaker: Speaker, face: FloatArray) -> None:
    """Hair over the edge of the forehead, so that the mesh does not end in a line."""
    arc = face[[127, 162, 21, 54, 103, 67, 109, 10, 338, 297, 332, 284, 251, 389, 356], :2]
    depth = {"cropped": 3.0, "short": 7.0, "long": 9.0, "curly": 7.0, "bob": 16.0}[speaker.hair_style]
    centre = np.asarray(FACE_CENTRE)
    towards = centre - arc
    towards /= np.linalg.norm(towards, axis=1, keepdims=True)
    taper = np.sin(np.linspace(0.12, np.pi - 0.12, len(arc)))[:, None] ** 0.7
    inner, outer = arc + towards * depth * taper, arc - towards * 7 * taper
    outline = np.concatenate([outer, inner[::-1]]) * LARGE
    draw.polygon([tuple(p) for p in outline.tolist()], fill=_shade(speaker.hair, 0.88))


def _turned_away(speaker: Speaker) -> Image.Image:
    """The back of the head: hair where a face would be."""
    layer = _canvas()
    draw = ImageDraw.Draw(layer)
    face: Box = (94, 84, 226, 238)
    _neck(draw, speaker, 160, 236)
    _ears(draw, speaker, face)
    _hair_behind(draw, speaker, face)
    _rounded(draw, (94, 76, 226, 236), 60, _shade(speaker.hair, 0.85))
    for x in range(98, 224, 3):  # strands: a plain oval would pass for a face
        drop = 30 * abs(x - 160) / 66
        tone = 0.70 if x % 2 else 1.0
        ends = [(160 + (x - 160) * 0.35, 62 + drop), (x, 120), (160 + (x - 160) * 0.97, 226 - drop)]
        draw.line(
            [(px * LARGE, py * LARGE) for px, py in ends],
            fill=_shade(speaker.hair, tone),
            width=LARGE,
            joint="curve",
        )
    return _reduced(layer)


def _paste(frame: Image.Image, layer: Image.Image, shift: FloatArray) -> None:
    offset = (round(float(shift[0])), round(float(shift[1])))
    frame.paste(layer, offset, layer)


def _polygon_mask(size: tuple[int, int], outline: Points) -> Image.Image:
    mask = Image.new("L", size, 0)
    ImageDraw.Draw(mask).polygon(outline, fill=255)
    return mask


def _points(points: FloatArray, indices: list[int]) -> Points:
    return [(x, y) for x, y in points[indices].tolist()]


def _shade(colour: Colour, factor: float) -> Colour:
    red, green, blue = (max(0, min(255, round(value * factor))) for value in colour)
    return red, green, blue


def _blend(first: Colour, second: Colour, share: float) -> Colour:
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(first, second, strict=True))
    return red, green, blue
