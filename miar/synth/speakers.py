"""Who speaks: a voice, a face, a room. Everything that differs between people and says nothing about the label."""

from dataclasses import dataclass

import numpy as np

Colour = tuple[int, int, int]

VOICES = (
    *("m1", "m2", "m3", "m4", "m7", "m8", "max", "edward", "Mario", "Michael"),
    *("f1", "f2", "f3", "f4", "f5", "Annie", "linda", "steph", "belinda"),
)
"""eSpeak NG voice variants: those that sound like a person."""
FIRST_HIGH_VOICE = VOICES.index("f1")

SKINS: tuple[Colour, ...] = (
    *((244, 208, 182), (233, 190, 160), (222, 174, 140), (206, 154, 118)),
    *((184, 130, 96), (156, 106, 76), (126, 84, 60), (104, 70, 52)),
)
DARK_SKIN = 4
"""From this one on, hair is one of the first :data:`DARK_HAIRS`."""
HAIRS: tuple[Colour, ...] = (
    *((34, 28, 26), (52, 46, 50), (60, 42, 32), (92, 62, 40)),
    *((132, 92, 54), (186, 148, 92), (146, 70, 42), (150, 146, 142)),
)
DARK_HAIRS = 3
IRISES: tuple[Colour, ...] = ((74, 52, 36), (96, 72, 42), (72, 98, 70), (84, 116, 142), (60, 66, 74))
SHIRTS: tuple[Colour, ...] = (
    *((58, 84, 122), (132, 62, 66), (74, 108, 88), (96, 86, 118), (176, 150, 104)),
    *((64, 68, 76), (188, 192, 196), (42, 98, 110)),
)
WALLS: tuple[Colour, ...] = (
    *((196, 204, 210), (206, 198, 184), (176, 190, 182), (188, 182, 200), (150, 162, 176)),
    *((214, 206, 200), (160, 150, 142)),
)
HAIR_STYLES = ("short", "long", "cropped", "curly", "bob")


@dataclass(frozen=True)
class Speaker:
    """One person. Lengths are relative to the mesh's own size."""

    name: str
    voice: str
    """eSpeak NG variant."""
    pitch: float
    """Base of eSpeak's pitch parameter (0..100)."""
    gain_db: float
    """How loud this person is recorded, relative to the others."""
    rate: float
    """How fast this person speaks, relative to the others."""
    skin: Colour
    hair: Colour
    hair_style: str
    iris: Colour
    shirt: Colour
    wall: Colour
    lip_tint: float
    """0 (skin) .. 1 (lipstick)."""
    width: float
    jaw: float
    """Widening (+) or narrowing (-) of the lower face."""
    eye_size: float
    nose_width: float
    mouth_width: float
    brow_weight: float
    light: tuple[float, float, float]
    """Unit vector towards the light: x right, y down, z away from the viewer."""
    ambient: float


def make_speaker(seed: int, number: int) -> Speaker:
    """Speaker ``number`` (from 0) of the corpus with this ``seed``: the same whoever asks."""
    rng = np.random.default_rng([seed, number, 0x5BEA])
    high = number % 2 == 1  # as many high voices as low ones, whatever the size of the corpus
    low_bound, high_bound = (FIRST_HIGH_VOICE, len(VOICES)) if high else (0, FIRST_HIGH_VOICE)
    style = "long" if high and rng.random() < 0.5 else HAIR_STYLES[rng.integers(len(HAIR_STYLES))]
    tone = int(rng.integers(len(SKINS)))
    azimuth, elevation = rng.uniform(-0.9, 0.9), rng.uniform(0.15, 0.65)
    light = (
        np.sin(azimuth) * np.cos(elevation),
        -np.sin(elevation),
        -np.cos(azimuth) * np.cos(elevation),
    )
    return Speaker(
        name=f"s{number:04d}",
        voice=VOICES[rng.integers(low_bound, high_bound)],
        pitch=float(rng.uniform(44, 58) if high else rng.uniform(46, 60)),
        gain_db=float(rng.uniform(-0.8, 0.8)),
        rate=float(rng.uniform(0.96, 1.04)),
        skin=_vary(SKINS[tone], rng, 6),
        hair=_vary(HAIRS[rng.integers(len(HAIRS) if tone < DARK_SKIN else DARK_HAIRS)], rng, 8),
        hair_style=style,
        iris=IRISES[rng.integers(len(IRISES))],
        shirt=_vary(SHIRTS[rng.integers(len(SHIRTS))], rng, 16),
        wall=_vary(WALLS[rng.integers(len(WALLS))], rng, 12),
        lip_tint=float(rng.uniform(0.45, 0.95) if high else rng.uniform(0.15, 0.4)),
        width=float(rng.uniform(0.93, 1.05)),
        jaw=float(rng.uniform(-0.07, 0.08)),
        eye_size=float(rng.uniform(0.95, 1.15)),
        nose_width=float(rng.uniform(0.9, 1.15)),
        mouth_width=float(rng.uniform(0.94, 1.08)),
        brow_weight=float(rng.uniform(0.8, 1.25)),
        light=(float(light[0]), float(light[1]), float(light[2])),
        ambient=float(rng.uniform(0.5, 0.66)),
    )


def _vary(colour: Colour, rng: np.random.Generator, spread: int) -> Colour:
    shifted = np.clip(np.asarray(colour) + rng.integers(-spread, spread + 1, 3), 0, 255)
    return (int(shifted[0]), int(shifted[1]), int(shifted[2]))
