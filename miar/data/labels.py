"""One label of a snapshot, and what it says about each clip."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from miar.errors import UserError
from storage import Snapshot
from storage.arrow import pc


@dataclass(frozen=True)
class Label:
    """A label's rows. Values win where a label has both values and classes."""

    clip_ids: pa.ChunkedArray
    targets: NDArray[np.float64]
    """A value, or an index into :attr:`classes`, for each of :attr:`clip_ids`."""
    classes: tuple[str, ...] = ()
    """In order of their index; empty for a label that is a number."""

    def of(self, clip_ids: pa.Array) -> NDArray[np.float64]:
        """(N,) the targets of ``clip_ids``, NaN where unlabelled."""
        places = pc.fill_null(pc.index_in(clip_ids, value_set=self.clip_ids), -1).to_numpy()
        return np.append(self.targets, np.nan)[places]


def read_label(snapshot: Snapshot, name: str) -> Label:
    """Read one label.

    Raises:
        UserError: the snapshot holds no label of that name; the text names those it holds.
    """
    has_labels = "labels" in snapshot.tables()
    rows = snapshot.read("labels", filter=pc.field("name") == name) if has_labels else pa.table({})
    if not rows.num_rows:
        names = pc.unique(snapshot.read("labels", columns=["name"])["name"]).to_pylist() if has_labels else []
        raise UserError(
            f"no label is named {name!r} in snapshot {snapshot.id}; there are: {', '.join(sorted(names)) or 'none'}"
        )
    if rows["value"].null_count < rows.num_rows:
        known = rows.filter(rows["value"].is_valid())
        return Label(known["clip_id"], known["value"].to_numpy())
    known = rows.filter(rows["category"].is_valid())
    classes = sorted(pc.unique(known["category"]).to_pylist())
    codes = pc.index_in(known["category"], value_set=pa.array(classes, pa.string()))
    return Label(known["clip_id"], codes.to_numpy().astype(np.float64), tuple(classes))
