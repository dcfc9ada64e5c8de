"""The chapter that only a made corpus can have: what was put into its clips, against what was measured in them."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc

from miar.evaluation.metrics import regression_metrics
from miar.pipeline.rows import described_spec
from miar.report import figures
from miar.report.blocks import Charts, Note, Section, Table
from miar.report.gather import Frame, ReportData, sample
from storage import CLIPS, FEATURE_SETS, Store

ACTION_UNITS = {"AU01": "inner brows up", "AU04": "brows down", "AU12": "smile", "AU26": "jaw open"}
SCATTER_CLIPS = 1500
_COLUMNS = {"clip_id", "video_id", "segment", "absent", "disagreement", *(f"{name}_mean" for name in ACTION_UNITS)}
READERS = {
    "text": "words alone",
    "audio": "voice alone",
    "face": "face alone",
    "linear": "best linear combination",
    "optimum": "best possible combination",
}
_PARTS = {
    "all": "all clips",
    "test": "test",
    "test_scorable": "test, has anything",
    "disagreeing": "modalities disagree",
    "test_disagreeing": "test, disagree",
}


@dataclass(frozen=True)
class Truth:
    """What the maker of a demo corpus wrote down."""

    corpus_id: str
    document: Mapping[str, Any]
    """``corpus.json``."""
    frame: Frame
    """``truth.csv``, a row per clip."""

    def optimum(self, split: str | None) -> dict[str, float]:
        """Metric -> what the best possible reader reaches on the clips of a split that can be scored.

        Empty where the corpus does not say; corpora that were made before it did say it of the whole split.
        """
        figures_ = self.document["oracle_correlations"]
        known = figures_.get(f"{split}_scorable", figures_.get(split, {})).get("optimum")
        return {} if known is None else {"corr": float(known)}


def read_truth(runs: Sequence[Mapping[str, Any]]) -> Truth | None:
    """The truth of the corpus that was refreshed last; ``None`` unless it is a demo corpus and still there."""
    run = next((run for run in runs if run["kind"] == "refresh"), None)
    root = run["config"].get("root") if run and isinstance(run["config"], dict) else None
    if run is None or not root or "://" in root:
        return None
    sealed, table = Path(root) / "corpus.json", Path(root) / "truth.csv"
    if not (sealed.is_file() and table.is_file()):
        return None
    import pandas as pd

    try:
        document = json.loads(sealed.read_text("utf-8"))
        frame = pd.read_csv(table, dtype={"clip_id": str, "video_id": str, "absent": str}, keep_default_na=False)
    except (OSError, ValueError):
        return None
    # Files of these names may be a user's own and mean something else.
    is_demo = isinstance(document, dict) and "oracle_correlations" in document and set(frame) >= _COLUMNS
    return Truth(run["corpus_id"], document, frame) if is_demo else None


def best_possible(data: ReportData, truth: Truth | None) -> dict[str, float]:
    """Metric -> the best that any system can reach on the evaluated clips; empty where that is not known."""
    if truth is None or data.evaluation is None or len(data.corpora) != 1:
        return {}
    return truth.optimum(data.evaluation["result"].get("split"))


def section(data: ReportData, store: Store, truth: Truth) -> Section:
    chapter = Section("demo", "Demo corpus: what was put in, what came out")
    chapter.blocks += [*_oracles(data, truth), *_action_units(store, truth)]
    return chapter


# --- Oracles ----------------------------------------------------------------------------------------------


def _oracles(data: ReportData, truth: Truth) -> list[Note | Table]:
    figures_ = truth.document["oracle_correlations"]
    parts = [part for part in _PARTS if part in figures_]
    rows: list[list[Any]] = [
        [title, *(figures_[part].get(reader) for part in parts)] for reader, title in READERS.items()
    ]
    if data.scores is not None and data.scores.is_numeric and data.scores.label == "sentiment":
        reached = _reached(data, truth)
        rows.append([f"this model ({data.scores.model_id})", *(reached[part] for part in parts)])
    threshold = truth.document.get("disagreeing_from")
    return [
        Note(
            "The corpus is made, so its true signals are known. An oracle reads one of them, or all, without error: "
            "the figures are correlations with the true sentiment. A model works from pixels, sound and words."
        ),
        Table(
            ["Reader", *(_PARTS[part] for part in parts)], rows, f"Modalities disagree from a gap of {threshold} on."
        ),
    ]


def _reached(data: ReportData, truth: Truth) -> dict[str, float | None]:
    assert data.scores is not None
    mine = data.scores.scored[data.scores.scored["corpus_id"] == truth.corpus_id]
    keys = truth.frame[["clip_id", "video_id", "segment", "disagreement"]].rename(columns={"clip_id": "source_id"})
    joined = _joined(mine, keys)
    apart = joined["disagreement"].astype(float) >= float(truth.document.get("disagreeing_from", np.inf))
    test = joined["split"] == "test"
    parts = {
        "all": np.ones(len(joined), dtype=bool),
        "test": test,
        "test_scorable": test,
        "disagreeing": apart,
        "test_disagreeing": test & apart,
    }
    return {name: _r(joined[chosen]["truth"], joined[chosen]["prediction"]) for name, chosen in parts.items()}


def _joined(rows: Frame, keys: Frame) -> Frame:
    """By the clips' own ids where the store has them, else by video and place in it."""
    by_id = rows["source_id"].notna().all() and rows["source_id"].isin(keys["source_id"]).any()
    names = ["source_id"] if by_id else ["video_id", "segment"]
    other = [name for name in ("source_id", "video_id", "segment") if name not in names]
    return rows.merge(keys.drop(columns=other), on=names, how="inner")


def _r(one: Frame, other: Frame) -> float | None:
    return regression_metrics(one.to_numpy(float), other.to_numpy(float))["corr"]


# --- Action units -----------------------------------------------------------------------------------------


def _action_units(store: Store, truth: Truth) -> list[Note | Charts | Table]:
    measured = _measured(store, truth)
    if measured is None or len(measured) < 3:
        return [Note("Action units were not measured, so that they cannot be compared with those put in.")]
    names = list(ACTION_UNITS)
    put_in = {name: measured[f"{name}_mean"].astype(float) for name in names}
    found = {name: measured[f"{name.lower()}_mean"].astype(float) for name in names}
    matrix = [[_r(put_in[row], found[column]) for column in names] for row in names]
    shown = sample(measured, SCATTER_CLIPS).index
    charts = [
        figures.action_unit(f"{name}, {ACTION_UNITS[name]}", put_in[name][shown].tolist(), found[name][shown].tolist())
        for name in names
    ]
    heads = [f"{name} measured" for name in names]
    rows = [[f"{name} put in", *matrix[index]] for index, name in enumerate(names)]
    return [
        Note(
            f"Action units that the faces were drawn with, against those that the extractor measured in the video: "
            f"means over each of the {len(measured)} clips with a face."
        ),
        Charts(charts, "" if len(shown) == len(measured) else f"A random sample of {len(shown)} clips."),
        Charts(
            [figures.correlations(names, names, matrix)], "Correlation of every unit put in with every one measured."
        ),
        Table(["r", *heads], rows),
    ]


def _measured(store: Store, truth: Truth) -> Frame | None:
    """Clips with a face: the columns of ``truth.csv`` beside the ``auNN_mean`` of the extractor."""
    columns = [f"{name.lower()}_mean" for name in ACTION_UNITS]
    descriptors = store.table(FEATURE_SETS).read(filter=pc.field("state") == "active").to_pylist()
    suited = [each for each in descriptors if set(columns) <= set(each["summary_columns"])]
    if not suited:
        return None
    newest = max(suited, key=lambda each: (each["extractor"] == "mediapipe", each["created_at"]))
    chosen = (pc.field("corpus_id") == truth.corpus_id) & (pc.field("status") == "ok")
    rows = store.table(described_spec(newest)).read(columns=["clip_id", *columns], filter=chosen).to_pandas()
    clips = store.table(CLIPS).read(
        columns=["clip_id", "source_id", "video_id", "segment"], filter=pc.field("state") == "live"
    )
    put_in = [f"{name}_mean" for name in ACTION_UNITS]
    keys = truth.frame[["clip_id", "video_id", "segment", "absent", *put_in]].rename(columns={"clip_id": "source_id"})
    joined = _joined(rows.merge(clips.to_pandas(), on="clip_id"), keys)
    has_face = ~joined["absent"].str.split(",").map(lambda names: "face" in names)
    # Cells are empty where nothing was drawn.
    drawn = joined[put_in].astype(str).ne("").all(axis=1)
    return joined[has_face & drawn].dropna(subset=columns)
