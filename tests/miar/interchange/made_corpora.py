"""Small corpora of any shape, stores that hold them, and what such a store says of its clips."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import strategies as st

from miar.features.contract import Modality
from miar.interchange.import_columns import FeatureColumn
from miar.interchange.import_table import import_table
from miar.interchange.view import View, labels_by_name, live_clips
from storage import Store

WIDTH = 2
number = st.floats(width=32, allow_nan=False, allow_infinity=False)
word = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=12)


@dataclass
class Frames:
    """One sequence (n_frames, n_columns) and its times."""

    values: np.ndarray
    times: np.ndarray

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Frames)
            and np.array_equal(self.values, other.values)
            and np.array_equal(self.times, other.times)
        )


@st.composite
def sequences(draw: st.DrawFn, *, with_times: bool) -> Frames:
    frames = draw(st.lists(st.lists(number, min_size=WIDTH, max_size=WIDTH), min_size=1, max_size=5))
    times = sorted(draw(st.lists(number, min_size=len(frames), max_size=len(frames))))
    numbered = np.arange(len(frames), dtype=np.float32)
    return Frames(np.float32(frames), np.float32(times) if with_times else numbered)


@st.composite
def corpora(draw: st.DrawFn, *, with_times: bool, all_labelled: bool) -> list[dict[str, Any]]:
    """Rows of 1 to 6 clips; the first has every modality and every label."""
    n = draw(st.integers(1, 6))
    rows = []
    for index in range(n):
        row: dict[str, Any] = {
            "clip_id": f"v {index // 2}$_${index}",
            "video_id": f"v {index // 2}",
            "segment": index,
            "split": draw(st.sampled_from(["train", "valid", "test"])),
            "text": draw(word),
            "sentiment": draw(number if all_labelled or not index else st.none() | number),
            "annotation": draw(st.sampled_from(["Negative", "Positive"] + [None] * bool(index))),
        }
        for kind in Modality:
            made = sequences(with_times=with_times)
            row[f"{kind}_frames"] = draw(st.none() | made if index else made)
        rows.append(row)
    return rows


def stored(folder: Path, rows: Sequence[dict[str, Any]]) -> Store:
    """A store that holds the rows as the corpus ``made``."""
    columns: dict[str, Any] = {name: [row[name] for row in rows] for name in rows[0] if not name.endswith("_frames")}
    for kind in Modality:
        found = [row[f"{kind}_frames"] for row in rows]
        columns[f"{kind}_frames"] = pa.array(
            [None if one is None else one.values.tolist() for one in found], pa.list_(pa.list_(pa.float32()))
        )
        columns[f"{kind}_times"] = pa.array(
            [None if one is None else one.times.tolist() for one in found], pa.list_(pa.float32())
        )
    pq.write_table(pa.table(columns), folder / "made.parquet")
    store = Store.create(str(folder / "store"))
    features = [FeatureColumn(kind, f"my_{kind}", f"{kind}_frames", f"{kind}_times") for kind in Modality]
    labels = {"sentiment": "sentiment", "annotation": "annotation"}
    import_table(store, folder / "made.parquet", labels=labels, features=features)
    return store


def contents(store: Store) -> dict[str, dict[str, Any]]:
    """By the user's own clip id: what the clip is, its labels, and its sequence of each modality."""
    view = View(store)
    clips = live_clips(view, None)
    ids = clips["clip_id"].to_pylist()
    kept = ["source_id", "corpus_id", "video_id", "segment", "split", "text", "speaker", "start_ms", "end_ms"]
    found = dict(zip(ids, clips.select(kept).to_pylist(), strict=True))
    for name, values in labels_by_name(view, ids).items():
        for clip, value in zip(ids, values, strict=True):
            found[clip][name] = value
    for table, each in view.chosen_features(()).items():
        for row in view.read(table).to_pylist():
            is_ok = row["status"] == "ok"
            frames = np.float32(row["values"]).reshape(row["n_frames"], -1) if is_ok else None
            found[row["clip_id"]][f"{each['modality']}_frames"] = (
                None if frames is None else Frames(frames, np.float32(row["times"]))
            )
    return {row["source_id"]: row for row in found.values()}
