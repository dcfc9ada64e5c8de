"""What a face does over a clip: action-unit trajectories that carry the face signal, speech, blinks, head motion."""

from dataclasses import dataclass

import numpy as np

from miar.synth.mesh import FloatArray, mesh_model

FRAMES_PER_SECOND = 10
CLOSED_LIPS = 0.72
"""AU24 that closes the lips of the mesh, which at rest are parted."""
RESTING_BROW = 0.25
"""AU04 that brings the brows of the mesh, which at rest are raised, to where MediaPipe sees neither a raise nor a
frown."""
REPORTED_UNITS = ("AU01", "AU02", "AU04", "AU06", "AU12", "AU15", "AU17", "AU25", "AU26")
"""What ``truth.csv`` states, as mean and peak over the clip."""


@dataclass(frozen=True)
class Performance:
    """One clip of acting, at :data:`FRAMES_PER_SECOND`."""

    units: dict[str, FloatArray]
    """Action unit -> (n,) intensity, 0..1."""
    shifts: FloatArray
    """(n, 2) head motion in pixels."""

    def controls(self) -> FloatArray:
        """(n, n_inputs) for :meth:`miar.synth.mesh.MeshModel.vertices`."""
        inputs = mesh_model().inputs
        table = np.zeros((len(self.shifts), len(inputs)))
        for unit, values in self.units.items():
            table[:, inputs.index(unit)] = values
        speaking, smiling = self.units["AU26"], self.units["AU12"]
        table[:, inputs.index("AU04")] += RESTING_BROW
        table[:, inputs.index("AU24")] = CLOSED_LIPS * (1 - 0.3 * smiling) * np.clip(1 - 1.6 * speaking, 0, 1)
        return table


def perform(signal: float, envelope: FloatArray, rng: np.random.Generator) -> Performance:
    """Act ``signal`` (-3..3) while the mouth follows ``envelope`` (n,), the loudness of the speech, 0..1.

    Smile (AU6, AU12) and frown (AU4, AU15, AU17) carry the signal; raised brows (AU1, AU2) come and go and
    say nothing about it; the jaw (AU25, AU26) speaks.
    """
    count = len(envelope)
    wave = 1 + 0.07 * np.sin(np.arange(count) * rng.uniform(0.3, 0.7) + rng.uniform(0, 2 * np.pi))
    shape = wave * _fade(count)
    smile = np.clip(0.30 + 0.24 * signal, 0, 1) * shape
    frown = np.clip(0.33 - 0.20 * signal, 0, 1) * shape
    brows = _stresses(count, rng)
    opening = 0.9 * np.clip(envelope, 0, 1) ** 0.7 * rng.uniform(0.4, 1.0)
    units = {
        "AU01": brows,
        "AU02": 0.8 * brows,
        "AU04": frown + rng.uniform(-0.25, 0.3) * shape,  # people also knit their brows in thought
        "AU06": 0.7 * smile,
        "AU07": 0.3 * frown,
        "AU12": smile,
        "AU15": 0.9 * frown,
        "AU17": 0.3 * frown,
        "AU25": opening,
        "AU26": opening,
        "AU43": _blinks(count, rng),
    }
    return Performance({name: np.clip(values, 0, 1) for name, values in units.items()}, _sway(count, rng))


def rest() -> Performance:
    """One frame of a face at rest."""
    return Performance(dict.fromkeys(("AU12", "AU26"), np.zeros(1)), np.zeros((1, 2)))


def _fade(count: int) -> FloatArray:
    """In and out of the pose within 0.3 s, so that clips join without a jump."""
    frames = np.arange(count)
    return np.clip((np.minimum(frames, count - 1 - frames) + 1) / 3, 0, 1)


def _stresses(count: int, rng: np.random.Generator) -> FloatArray:
    """Raised brows: in every second clip, held at a height of its own and higher on single words."""
    height = rng.uniform(0.3, 1.0) if rng.random() < 0.5 else 0.0
    brows, frames = np.full(count, 0.7), np.arange(count)
    for centre in rng.uniform(0, count, 3):
        brows = np.maximum(brows, np.exp(-(((frames - centre) / 3) ** 2)))
    return height * brows * _fade(count)


def _blinks(count: int, rng: np.random.Generator) -> FloatArray:
    closed, frame = np.zeros(count), rng.uniform(3, 25)
    while frame < count:
        closed[int(frame)] = 1.0
        frame += rng.uniform(18, 45)
    return closed


def _sway(count: int, rng: np.random.Generator) -> FloatArray:
    """A slow drift of a few pixels."""
    phase, speed = rng.uniform(0, 2 * np.pi, 2), rng.uniform(0.08, 0.2, 2)
    return np.sin(np.arange(count)[:, None] * speed + phase) * (3.0, 1.6) * _fade(count)[:, None]
