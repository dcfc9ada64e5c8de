"""A regression of action units from blendshapes in py-feat's own file format, its numbers made up."""

from pathlib import Path

import numpy as np

from miar.features.action_units import ACTION_UNITS, BLENDSHAPES


def save_regression(folder: Path, shapes=BLENDSHAPES, units=ACTION_UNITS, **changes) -> Path:
    generator = np.random.default_rng(0)
    stored = {
        "coef": generator.normal(size=(52, 20)) * 0.2,
        "intercept": generator.normal(size=20) * 0.1,
        "bs_columns": np.array(shapes),
        "au_columns": np.array(units),
    }
    path = folder / "bs_to_au" / "bs_to_au_pls_v2.npz"
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, **{**stored, **changes})
    return path
