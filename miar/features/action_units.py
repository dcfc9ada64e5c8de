"""The 20 facial action units, and how they are read off ARKit blendshapes: by a table, or by py-feat's regression.

The table: ARKit's shapes are FACS movements under other names. The correspondence follows Melinda Ozel's "ARKit to FACS
cheat sheet" (https://melindaozel.com/arkit-to-facs-cheat-sheet) and the movements' definitions in the FACS manual
(Ekman, Friesen and Hager, 2002); the rows marked ``ours`` in :data:`NOTES` are approximations where ARKit has no such
shape, or where MediaPipe's network never moves it. Left and right are averaged.

The regression: 52 blendshapes to py-feat's own action units (those of its ``v1``) by partial least squares, as in
``feat.utils.blendshape_to_au``; its authors give a variance-weighted R2 of .24 over videos not fitted on.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from miar.errors import UnavailableError
from miar.features.contract import FloatArray

ACTION_UNITS = (
    "AU01", "AU02", "AU04", "AU05", "AU06", "AU07", "AU09", "AU10", "AU11", "AU12",
    "AU14", "AU15", "AU17", "AU20", "AU23", "AU24", "AU25", "AU26", "AU28", "AU43",
)  # fmt: skip
"""In py-feat's order, for both face extractors."""

BLENDSHAPES = (
    "_neutral", "browDownLeft", "browDownRight", "browInnerUp", "browOuterUpLeft", "browOuterUpRight",
    "cheekPuff", "cheekSquintLeft", "cheekSquintRight", "eyeBlinkLeft", "eyeBlinkRight",
    "eyeLookDownLeft", "eyeLookDownRight", "eyeLookInLeft", "eyeLookInRight", "eyeLookOutLeft",
    "eyeLookOutRight", "eyeLookUpLeft", "eyeLookUpRight", "eyeSquintLeft", "eyeSquintRight",
    "eyeWideLeft", "eyeWideRight", "jawForward", "jawLeft", "jawOpen", "jawRight", "mouthClose",
    "mouthDimpleLeft", "mouthDimpleRight", "mouthFrownLeft", "mouthFrownRight", "mouthFunnel", "mouthLeft",
    "mouthLowerDownLeft", "mouthLowerDownRight", "mouthPressLeft", "mouthPressRight", "mouthPucker",
    "mouthRight", "mouthRollLower", "mouthRollUpper", "mouthShrugLower", "mouthShrugUpper",
    "mouthSmileLeft", "mouthSmileRight", "mouthStretchLeft", "mouthStretchRight", "mouthUpperUpLeft",
    "mouthUpperUpRight", "noseSneerLeft", "noseSneerRight",
)  # fmt: skip
"""The 52 outputs of FaceLandmarker, in its order."""

DEAD_BLENDSHAPES = (
    "_neutral", "cheekPuff", "cheekSquintLeft", "cheekSquintRight", "noseSneerLeft", "noseSneerRight",
)  # fmt: skip
"""Stay below .002 on all real footage tried: kept as columns, since their position is the model's, but of no use."""

LINEAR: dict[str, dict[str, float]] = {
    "AU01": {"browInnerUp": 1.0},
    "AU02": {"browOuterUp": 1.0},
    "AU04": {"browDown": 1.0},
    "AU05": {"eyeWide": 1.0},
    "AU06": {"cheekSquint": 1.0},
    "AU07": {"eyeSquint": 1.0},
    "AU09": {"noseSneer": 1.0},
    "AU10": {"mouthUpperUp": 1.0},
    "AU11": {},
    "AU12": {"mouthSmile": 1.0},
    "AU14": {"mouthDimple": 1.0},
    "AU15": {"mouthFrown": 1.0},
    "AU17": {"mouthShrugLower": 1.0},
    "AU20": {"mouthStretch": 1.0},
    "AU23": {"mouthRollLower": 0.25, "mouthRollUpper": 0.25, "mouthPress": 0.5},
    "AU24": {"mouthPress": 1.0},
    "AU25": {"jawOpen": 1.0, "mouthLowerDown": 0.5, "mouthUpperUp": 0.5, "mouthClose": -1.0},
    "AU26": {"jawOpen": 1.0},
    "AU28": {"mouthRollLower": 0.5, "mouthRollUpper": 0.5},
    "AU43": {"eyeBlink": 1.0},
}
"""Action unit -> weights of shapes; a name without its side stands for the mean of left and right. Clipped to 0..1."""

NOTES = {
    "AU06": "ours: cheekSquint is dead in MediaPipe, so the cheek raiser is at least "
    "sqrt(eyeSquint x mouthSmile), the squint that comes with a smile",
    "AU09": "noseSneer is dead in MediaPipe: stays near 0",
    "AU11": "no ARKit shape: always 0",
    "AU23": "ours: tightened lips are both rolled in and pressed",
    "AU25": "ours: lips part by the jaw or by either lip, unless mouthClose holds them together",
    "AU43": "the same shape as a blink (AU45)",
}


def action_units(blendshapes: FloatArray) -> FloatArray:
    """(n, 52) FaceLandmarker blendshapes -> (n, 20) action units in 0..1."""
    units = np.clip(blendshapes @ _WEIGHTS, 0.0, 1.0)
    smile = blendshapes @ _shape("mouthSmile")
    squint = blendshapes @ _shape("eyeSquint")
    duchenne = np.sqrt(np.clip(smile * squint, 0.0, 1.0))
    cheek_raiser = ACTION_UNITS.index("AU06")
    units[:, cheek_raiser] = np.maximum(units[:, cheek_raiser], duchenne)
    return units.astype(np.float32)


@dataclass(frozen=True)
class UnitRegression:
    """py-feat's regression; call it as :func:`action_units`."""

    coef: FloatArray
    """(52, 20)"""
    intercept: FloatArray
    """(20,)"""

    def __call__(self, blendshapes: FloatArray) -> FloatArray:
        """(n, 52) FaceLandmarker blendshapes -> (n, 20) action units in 0..1."""
        return np.clip(blendshapes @ self.coef + self.intercept, 0.0, 1.0).astype(np.float32)


def read_regression(path: Path) -> UnitRegression:
    """py-feat's ``bs_to_au_pls_v2.npz``: ``coef``, ``intercept``, and the names of rows and columns.

    Raises:
        UnavailableError: it cannot be read, or is not of these blendshapes and action units.
    """
    try:
        with np.load(path, allow_pickle=False) as stored:
            shapes, units = ([str(name) for name in stored[key]] for key in ("bs_columns", "au_columns"))
            coef = np.asarray(stored["coef"], dtype=np.float32)
            intercept = np.asarray(stored["intercept"], dtype=np.float32)
        rows, columns = [shapes.index(name) for name in BLENDSHAPES], [units.index(name) for name in ACTION_UNITS]
        found = UnitRegression(coef[np.ix_(rows, columns)], intercept[columns])
        if coef.shape != (len(shapes), len(units)) or not (np.isfinite(coef).all() and np.isfinite(intercept).all()):
            raise ValueError(f"coefficients of shape {coef.shape}, or not finite")
    except Exception as error:
        text = " ".join(str(error).split())[:200]
        raise UnavailableError(
            f"{path} is no regression of action units from blendshapes ({text}): run: miar fetch pyfeat-au"
        ) from error
    return found


def unit_summary_columns() -> tuple[str, ...]:
    """``au12_mean``, ``au12_std``, ``au12_max`` ... for every action unit."""
    return tuple(f"{unit.lower()}_{name}" for unit in ACTION_UNITS for name in ("mean", "std", "max"))


def summarise_units(units: FloatArray) -> dict[str, float]:
    """Mean, deviation (population) and maximum over a clip's frames with a face; ``units``: (n >= 1, 20)."""
    statistics = np.stack([units.mean(axis=0), units.std(axis=0), units.max(axis=0)], axis=1)  # (20, 3)
    return dict(zip(unit_summary_columns(), map(float, statistics.reshape(-1)), strict=True))


def _shape(name: str) -> FloatArray:
    """(52,) weights that pick one shape, or the mean of its two sides."""
    sides = [f"{name}Left", f"{name}Right"] if f"{name}Left" in BLENDSHAPES else [name]
    weights = np.zeros(len(BLENDSHAPES), dtype=np.float32)
    for side in sides:
        weights[BLENDSHAPES.index(side)] = 1 / len(sides)
    return weights


def _weight_matrix() -> FloatArray:
    matrix = np.zeros((len(BLENDSHAPES), len(ACTION_UNITS)), dtype=np.float32)
    for column, unit in enumerate(ACTION_UNITS):
        for name, weight in LINEAR[unit].items():
            matrix[:, column] += weight * _shape(name)
    return matrix


_WEIGHTS = _weight_matrix()
