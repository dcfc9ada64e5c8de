"""Whether a feature row was made from what its clip is now.

A row stays in its table until its clip is extracted again. Where that fails, is not asked for, or cannot be done here,
the row is of other words or of another recording than the clip, and must not be read as the clip's.
"""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from storage.arrow import pc

INPUTS = ("text_hash", "media_hash")
"""Columns of ``clips``: what rows of words, and rows of sound and pictures, are made from."""


def input_column(descriptor: Mapping[str, Any]) -> str | None:
    """Which of :data:`INPUTS` the rows of a feature set carry as ``input_hash``.

    ``None`` for one that was imported: its rows were made elsewhere, from whatever it was.
    """
    if "origin" in json.loads(descriptor.get("config") or "{}"):
        return None
    return "text_hash" if descriptor["modality"] == "text" else "media_hash"


def stale(found: pa.ChunkedArray, inputs: pa.ChunkedArray, positions: NDArray[np.int64]) -> NDArray[np.bool_]:
    """(n_rows,) rows that were made from something else than what their clip is now.

    Args:
        found: (n_rows,) their ``input_hash``.
        inputs: (n_clips,) what each clip is; null where that is not known, as of a file that cannot be read: what was
            made of it is kept then.
        positions: (n_rows,) each row's clip; negative: none.
    """
    wanted = inputs.take(pa.array(positions, mask=positions < 0))
    return np.asarray(pc.fill_null(pc.not_equal(found, wanted), False))
