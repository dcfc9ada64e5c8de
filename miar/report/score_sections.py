"""The chapters about one model's scores: how they are spread, how true they are, and what each modality gave."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from miar.evaluation.metrics import classification_metrics, regression_metrics
from miar.report import figures
from miar.report.blocks import Charts, Note, Section, Table, Timeline
from miar.report.gather import MODALITIES, Frame, ReportData, Scores, disagreement, read_texts, sample
from miar.report.sections import counted, reason
from storage import Store

TIMELINE_VIDEOS = 60
TIMELINE_CLIPS = 4000
SAMPLED_CLIPS = 15
"""Clips in each of the two per-clip views."""

ALL_MODALITIES = "all a clip has"

NOT_SCORED = "No model has scored this store yet: run miar score."

_EXPLAINED = {
    True: "Exact Shapley values in label units: what each modality adds, on average over the order in which modalities "
    "come in. Together they sum to the prediction minus the mean of the training labels.",
    False: "Exact Shapley values in probability: what each modality adds to the probability of the class that is "
    "predicted for the clip, on average over the order in which modalities come in. Together they sum to that "
    "probability minus the share of that class among the training clips.",
}
"""By whether the label is a number."""


def distribution(data: ReportData) -> Section:
    section = Section("distribution", "Scores")
    scores = data.scores
    if scores is None or scores.scored.empty:
        section.blocks.append(Note(NOT_SCORED))
        return section
    n_left = sum(scores.not_scored.values())
    text = f"Model {scores.model_id} predicted “{scores.label}” for {counted(len(scores.scored), 'clip')}."
    if n_left:
        reasons = ", ".join(f"{reason(name)}: {n}" for name, n in scores.not_scored.items())
        text += f" Not scored: {counted(n_left, 'clip')} ({reasons})."
    section.blocks.append(Note(text))
    if scores.is_numeric:
        section.blocks.append(Charts([figures.distribution(scores)]))
        section.blocks.append(_distribution_table(scores))
    else:
        section.blocks.append(Charts([figures.category_counts(scores)]))
    return section


def _distribution_table(scores: Scores) -> Table:
    rows = []
    for name, values in (("predicted", scores.scored["prediction"]), ("true", scores.scored["truth"])):
        known = values.dropna().to_numpy(float)
        if len(known):
            low, middle, high = np.quantile(known, [0.05, 0.5, 0.95])
            rows.append([name, len(known), *(float(v) for v in (known.mean(), known.std(), low, middle, high))])
    return Table(["", "Clips", "Mean", "Deviation", "5 %", "Median", "95 %"], rows)


# --- Predicted against true -------------------------------------------------------------------------------


def accuracy(data: ReportData) -> Section:
    section = Section("accuracy", "Predicted against true")
    scores = data.scores
    if scores is None:
        section.blocks.append(Note(NOT_SCORED))
    elif scores.is_numeric and scores.scored["truth"].notna().any():
        figure, n = figures.predicted_against_true(scores)
        total = int(scores.scored[["prediction", "truth"]].notna().all(axis=1).sum())
        caption = "" if n == total else f"A random sample of {n} of the {total} clips; the figures below use all."
        section.blocks += [Charts([figure], caption), _regression_table(scores), *_by_availability(scores)]
    elif not scores.is_numeric and scores.scored["true_category"].notna().any():
        section.blocks += [Charts([figures.confusion(scores)]), _classification_table(scores)]
    else:
        section.blocks.append(Note(f"No scored clip has a true “{scores.label}” to compare with."))
    return section


def _regression_table(scores: Scores) -> Table:
    rows = [["all splits", *_regression(scores.scored)]] if scores.scored["split"].nunique() > 1 else []
    for split, part in scores.scored.groupby(scores.scored["split"].fillna("no split"), sort=True):
        rows.append([split, *_regression(part)])
    return Table(["Split", "Clips", "r", "MAE", "CCC"], rows, "Only test clips say how good the model is.")


def _regression(part: Frame) -> list[Any]:
    metrics = regression_metrics(part["truth"].to_numpy(float), part["prediction"].to_numpy(float))
    return [metrics.n, metrics["corr"], metrics["mae"], metrics["ccc"]]


def _by_availability(scores: Scores) -> list[Table]:
    """The same by which modalities a clip has, over test clips where there are any."""
    test = scores.scored[scores.scored["split"] == "test"]
    over, name = (test, "test clips") if len(test) else (scores.scored, "all clips")
    rows = [[what, *_regression(part)] for what, part in over.groupby("available", sort=False)]
    if len(rows) < 2:
        return []
    rows.sort(key=lambda row: -row[1])
    return [Table(["Modalities of the clip", "Clips", "r", "MAE", "CCC"], rows, f"Over {name}.")]


def _classification_table(scores: Scores) -> Table:
    frame = scores.scored
    names = sorted({*frame["category"].dropna(), *frame["true_category"].dropna()})
    index = {name: place for place, name in enumerate(names)}
    rows = []
    for split, part in frame.groupby(frame["split"].fillna("no split"), sort=True):
        metrics = classification_metrics(
            part["true_category"].map(index).to_numpy(float),
            part["category"].map(index).to_numpy(float),
            n_classes=len(names),
        )
        rows.append([split, metrics.n, metrics["wa"], metrics["ua"], metrics["f1"]])
    return Table(["Split", "Clips", "WA", "UA", "Weighted F1"], rows)


# --- Per video --------------------------------------------------------------------------------------------


def timeline(data: ReportData, store: Store) -> Section:
    section = Section("timeline", "Through each video")
    scores = data.scores
    if scores is None or not scores.is_numeric:
        section.blocks.append(Note(NOT_SCORED if scores is None else "Classes have no course to draw."))
        return section
    shown, videos, total = _sampled_videos(scores.scored)
    caption = "Point at a clip to read its words."
    if videos < total:
        caption += f" {videos} of {total} videos: those with most clips, {TIMELINE_CLIPS} clips in all at most."
    payload = figures.timeline(shown, read_texts(store, shown["clip_id"].tolist()), scores.label)
    section.blocks.append(Timeline(payload, caption))
    return section


def _sampled_videos(frame: Frame) -> tuple[Frame, int, int]:
    """The clips of the videos with most clips, how many videos that are, and of how many."""
    video = frame["corpus_id"] + "\n" + frame["video_id"]
    sizes = video.value_counts(sort=False).sort_index().sort_values(ascending=False, kind="stable")
    chosen = sizes.index[(sizes.cumsum() <= TIMELINE_CLIPS)][:TIMELINE_VIDEOS]
    chosen = chosen if len(chosen) else sizes.index[:1]
    return frame[video.isin(chosen)].groupby(video).head(TIMELINE_CLIPS), len(chosen), len(sizes)


# --- Modalities -------------------------------------------------------------------------------------------


def contributions(data: ReportData, store: Store) -> Section:
    section = Section("contributions", "What each modality contributed")
    scores = data.scores
    names = [] if scores is None else [m for m in MODALITIES if scores.scored[f"contribution_{m}"].notna().any()]
    if scores is None or not names:
        section.blocks.append(Note(NOT_SCORED if scores is None else "These scores carry no contributions."))
        return section
    frame, unit = scores.scored, "label units" if scores.is_numeric else "probability"
    parts = {name: frame[f"contribution_{name}"].dropna().astype(float) for name in names}
    means = {name: float(values.abs().mean()) for name, values in parts.items()}
    rows = [[name, len(values), means[name], float(values.mean())] for name, values in parts.items()]
    section.blocks += [
        Note(_EXPLAINED[scores.is_numeric]),
        Charts([figures.mean_contributions(means, unit)]),
        Table(["Modality", "Clips that have it", "Mean |contribution|", "Mean contribution"], rows),
        *_clip_views(frame, store, unit),
    ]
    return section


def _clip_views(frame: Frame, store: Store, unit: str) -> list[Charts]:
    """The clips whose modalities disagree most, and a random sample of the others."""
    apart = disagreement(frame)
    order = apart[apart > 0].sort_values(ascending=False, kind="stable").index[:SAMPLED_CLIPS]
    most = frame.loc[order]
    others = sample(frame.drop(order), SAMPLED_CLIPS)
    texts = read_texts(store, [*most["clip_id"], *others["clip_id"]])
    captions = (
        f"The {counted(len(most), 'clip')} whose modalities disagree most.",
        f"{counted(len(others), 'clip')} of the other {len(frame) - len(most)}, drawn at random.",
    )
    return [
        Charts([figures.clip_contributions(rows, texts, unit)], caption)
        for rows, caption in zip((most, others), captions, strict=True)
        if len(rows)
    ]


def fusion(data: ReportData, best: Mapping[str, float]) -> Section:
    """Fusion against each single modality and the baselines.

    Args:
        best: metric -> what the best possible reader of the corpus reaches, where that is known.
    """
    section = Section("fusion", "Fusion against each single modality")
    if data.evaluation is None:
        section.blocks.append(Note("This model has not been evaluated yet: run miar evaluate."))
        return section
    result = data.evaluation["result"]
    rows = evaluated_rows(result)
    split = result.get("split", "?")
    names = [
        name for name in ("corr", "mae", "ccc", "acc2_non0", "wa", "ua", "f1") if any(name in row[2] for row in rows)
    ]
    for metric, title in (("corr", "r (higher is better)"), ("wa", "weighted accuracy (higher is better)")):
        bars = [(name, kind, float(values[metric])) for name, kind, values in rows if values.get(metric) is not None]
        if bars:
            caption = f"Split {split}. Each subset is the same model, shown these modalities alone."
            section.blocks.append(Charts([figures.fusion(bars, title, best.get(metric))], caption))
    cells = [[name, *(values.get(metric) for metric in names)] for name, _, values in rows]
    heads = {"corr": "r", "mae": "MAE", "ccc": "CCC", "acc2_non0": "Acc-2", "wa": "WA", "ua": "UA", "f1": "F1"}
    section.blocks.append(Table(["", *(heads[name] for name in names)], cells, _intervals(result)))
    return section


def _intervals(result: Mapping[str, Any]) -> str:
    """How sure the figures of the first row are."""
    heads = {"corr": "r", "mae": "MAE"}
    known = [
        f"{head} {each['low']:.3f} to {each['high']:.3f}"
        for name, head in heads.items()
        if (each := result.get("intervals", {}).get(name))
    ]
    if not known:
        return ""
    return (
        f"95 % intervals of “{ALL_MODALITIES}”, over samples of whole speakers (videos where there is one "
        f"speaker, clips where there is one video): {', '.join(known)}."
    )


def evaluated_rows(result: Mapping[str, Any]) -> list[tuple[str, str, Mapping[str, Any]]]:
    """(name, kind, metrics) of an evaluation's result: all modalities first, then subsets, then baselines."""
    rows = [(ALL_MODALITIES, "fusion", result.get("overall", {}))]
    subsets: Mapping[str, Any] = result.get("subsets", {})
    order = sorted(subsets, key=lambda each: (each.count("+"), _place(each)))
    rows += [(name, "subset", subsets[name]) for name in order]
    rows += [(name, "baseline", each) for name, each in result.get("baselines", {}).items()]
    return [row for row in rows if row[2]]


def _place(subset: str) -> Sequence[int]:
    return [MODALITIES.index(part) if part in MODALITIES else len(MODALITIES) for part in subset.split("+")]
