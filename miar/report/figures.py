"""The report's charts, as plotly specifications made of plain values.

Colours are names such as ``@text``: the page replaces them by its palette, so that charts follow light and
dark. Every string that comes from a user is escaped here, since plotly reads a part of HTML in labels.
"""

import html
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from miar.report.gather import MODALITIES, Frame, Scores, sample

Figure = dict[str, Any]

SCATTER_POINTS = 4000
SPLIT_COLOURS = {"train": "@muted", "valid": "@second", "test": "@accent"}
_WORDS = 280


def escape(value: object, most: int = _WORDS) -> str:
    """Text for a plotly label: shortened, then escaped."""
    text = " ".join(str(value).split())
    return html.escape(text if len(text) <= most else text[: most - 1] + "…")


def words(text: str | None) -> str:
    """A transcript for a hover text: shortened, escaped, in lines of about 60 characters."""
    if not text:
        return "<i>no words</i>"
    flat = " ".join(text.split())
    shown = flat if len(flat) <= _WORDS else flat[: _WORDS - 1] + "…"
    return "<br>".join(html.escape(line) for line in textwrap.wrap(shown, 60))


def clip_name(row: Mapping[str, Any]) -> str:
    """What a person calls a clip: their own id, or its place in its video."""
    source = row["source_id"]
    return source if isinstance(source, str) else f"{row['video_id']} · {row['segment']}"


def _axis(title: str, **more: Any) -> dict[str, Any]:
    return {"title": {"text": title, "standoff": 10}, **more}


# --- Scores -----------------------------------------------------------------------------------------------


def distribution(scores: Scores) -> Figure:
    """How often each value was predicted, over all scored clips, with the true values behind."""
    predicted = scores.scored["prediction"].dropna().to_numpy(float)
    truth = scores.scored["truth"].dropna().to_numpy(float)
    everything = np.concatenate([predicted, truth])
    edges = np.histogram_bin_edges(everything, bins=min(40, max(8, int(np.sqrt(len(everything))))))
    data = []
    for name, values, colour in (("true", truth, "@muted"), ("predicted", predicted, "@accent")):
        if len(values):
            counts, _ = np.histogram(values, edges)
            data.append(
                {
                    "type": "bar",
                    "name": name,
                    "x": ((edges[:-1] + edges[1:]) / 2).tolist(),
                    "y": (counts / len(values)).tolist(),
                    "customdata": counts.tolist(),
                    "marker": {"color": colour, "opacity": 0.65},
                    "hovertemplate": "%{x:.2f}: %{customdata} clips<extra>" + name + "</extra>",
                }
            )
    layout = {
        "barmode": "overlay",
        "bargap": 0.04,
        "xaxis": _axis(escape(scores.label)),
        "yaxis": _axis("share of clips", tickformat=".0%"),
    }
    return {"data": data, "layout": layout}


def category_counts(scores: Scores) -> Figure:
    """How often each class was predicted, beside how often it is true."""
    frame = scores.scored
    names = sorted({*frame["category"].dropna(), *frame["true_category"].dropna()})
    data = [
        {
            "type": "bar",
            "name": name,
            "x": [escape(each, 40) for each in names],
            "y": [int((frame[column] == each).sum()) for each in names],
            "marker": {"color": colour},
        }
        for name, column, colour in (
            ("true", "true_category", "@muted"),
            ("predicted", "category", "@accent"),
        )
    ]
    layout = {"barmode": "group", "xaxis": {"type": "category"}, "yaxis": _axis("clips")}
    return {"data": data, "layout": layout}


def predicted_against_true(scores: Scores) -> tuple[Figure, int]:
    """A scatter by split, and how many clips it shows."""
    paired = scores.scored.dropna(subset=["prediction", "truth"])
    shown = sample(paired, SCATTER_POINTS)
    data: list[dict[str, Any]] = []
    for split, rows in shown.groupby(shown["split"].fillna("no split"), sort=True):
        data.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": escape(split, 30),
                "x": _rounded(rows["truth"]),
                "y": _rounded(rows["prediction"]),
                "text": [escape(clip_name(row), 60) for row in rows.to_dict("records")],
                "marker": {"color": SPLIT_COLOURS.get(str(split), "@second"), "size": 7, "opacity": 0.7},
                "hovertemplate": "%{text}<br>true %{x:.2f}, predicted %{y:.2f}<extra></extra>",
            }
        )
    low = float(min(paired["truth"].min(), paired["prediction"].min()))
    high = float(max(paired["truth"].max(), paired["prediction"].max()))
    data.append(
        {
            "type": "scatter",
            "mode": "lines",
            "name": "perfect",
            "x": [low, high],
            "y": [low, high],
            "line": {"color": "@line", "dash": "dot", "width": 1.5},
            "hoverinfo": "skip",
        }
    )
    layout = {
        "xaxis": _axis(f"true {escape(scores.label)}"),
        "yaxis": _axis("predicted"),
        "hovermode": "closest",
    }
    return {"data": data, "layout": layout}, len(shown)


def confusion(scores: Scores) -> Figure:
    """Share of each true class that was predicted as each class."""
    paired = scores.scored.dropna(subset=["category", "true_category"])
    names = sorted({*paired["category"], *paired["true_category"]})
    counts = np.array(
        [
            [int(((paired["true_category"] == true) & (paired["category"] == guess)).sum()) for guess in names]
            for true in names
        ]
    )
    share = counts / np.maximum(1, counts.sum(axis=1, keepdims=True))
    labels = [escape(name, 40) for name in names]
    heat = {
        "type": "heatmap",
        "x": labels,
        "y": labels,
        "z": share.tolist(),
        "text": counts.tolist(),
        "texttemplate": "%{text}",
        "colorscale": [[0, "@surface"], [1, "@accent"]],
        "zmin": 0,
        "zmax": 1,
        "showscale": False,
        "hovertemplate": "true %{y}, predicted %{x}: %{text} clips<extra></extra>",
    }
    layout = {
        "xaxis": _axis("predicted", type="category"),
        "yaxis": _axis("true", type="category", autorange="reversed"),
    }
    return {"data": [heat], "layout": layout}


def timeline(frame: Frame, texts: Mapping[str, str], label: str) -> dict[str, Any]:
    """What the page's own script draws for the video that is chosen.

    Returns:
        ``label`` and ``videos``: per video its name, the meaning of x, and per clip x, predicted, true ...
    """
    videos = []
    for (corpus, video), rows in frame.groupby(["corpus_id", "video_id"], sort=True):
        # An imported table has no times: its clips all start at 0, and their order is what is known.
        timed = rows["start_ms"].nunique() == len(rows)
        videos.append(
            {
                "name": f"{video} ({corpus})",
                "axis": "seconds from the start of the video" if timed else "clip in the video",
                "x": (rows["start_ms"] / 1000 if timed else rows["segment"]).tolist(),
                "predicted": _rounded(rows["prediction"]),
                "true": _rounded(rows["truth"]),
                "words": [words(texts.get(clip)) for clip in rows["clip_id"]],
                "available": [escape(each) for each in rows["available"].fillna("nothing")],
            }
        )
    return {"label": escape(label), "videos": videos}


# --- Modalities -------------------------------------------------------------------------------------------


def mean_contributions(values: Mapping[str, float], unit: str) -> Figure:
    """Mean absolute contribution of each modality."""
    names = list(values)
    bar = {
        "type": "bar",
        "orientation": "h",
        "x": [values[name] for name in names],
        "y": names,
        "marker": {"color": [f"@{name}" for name in names]},
        "hovertemplate": "%{y}: %{x:.3f}<extra></extra>",
    }
    layout = {
        "height": 90 + 40 * len(names),
        "xaxis": _axis(f"mean |contribution|, {unit}", rangemode="tozero"),
        "yaxis": {"autorange": "reversed", "type": "category"},
        "showlegend": False,
    }
    return {"data": [bar], "layout": layout}


def clip_contributions(rows: Frame, texts: Mapping[str, str], unit: str) -> Figure:
    """One bar per clip: what each modality added to what the training clips say, and where the prediction ends."""
    names = [f"{index + 1}. {_bar_name(row)}" for index, row in enumerate(rows.to_dict("records"))]
    base = "mean" if rows["category"].isna().all() else "share"
    said = [words(texts.get(clip)) for clip in rows["clip_id"]]
    data: list[dict[str, Any]] = [
        {
            "type": "bar",
            "orientation": "h",
            "name": modality,
            "y": names,
            "x": _rounded(rows[f"contribution_{modality}"]),
            "customdata": said,
            "marker": {"color": f"@{modality}"},
            "hovertemplate": modality + " %{x:+.2f}<br>%{customdata}<extra></extra>",
        }
        for modality in MODALITIES
        if rows[f"contribution_{modality}"].notna().any()
    ]
    for name, values, symbol in (
        (f"predicted − {base}", rows["prediction"] - rows["base"], "diamond"),
        (f"true − {base}", rows["truth"] - rows["base"], "line-ns-open"),
    ):
        if values.notna().any():
            marker = {"symbol": symbol, "size": 9, "color": "@ink", "line": {"width": 2, "color": "@ink"}}
            data.append(
                {
                    "type": "scatter",
                    "mode": "markers",
                    "name": name,
                    "y": names,
                    "x": _rounded(values),
                    "marker": marker,
                    "hovertemplate": name + " %{x:+.2f}<extra></extra>",
                }
            )
    layout = {
        "barmode": "relative",
        "height": 130 + 24 * len(names),
        "xaxis": _axis(f"contribution, {unit}"),
        "yaxis": {"autorange": "reversed", "type": "category", "tickfont": {"size": 11}},
    }
    return {"data": data, "layout": layout}


def _bar_name(row: Mapping[str, Any]) -> str:
    """The clip; for a class also which one, since the bar is about its probability."""
    clip = escape(clip_name(row), 34)
    return f"{clip} · {escape(row['category'], 16)}" if isinstance(row["category"], str) else clip


def fusion(bars: Sequence[tuple[str, str, float]], metric: str, best: float | None) -> Figure:
    """Bars of one metric; ``bars`` are (name, kind, value) with kind ``fusion``, ``subset`` or ``baseline``.

    Args:
        best: the best that any system can reach on this corpus, where that is known.
    """
    colours = {"fusion": "@accent", "subset": "@second", "baseline": "@muted"}
    titles = {"fusion": "fusion", "subset": "the same model, shown a part", "baseline": "baseline"}
    data = []
    for kind in colours:
        chosen = [bar for bar in bars if bar[1] == kind]
        if chosen:
            data.append(
                {
                    "type": "bar",
                    "name": titles[kind],
                    "x": [escape(name, 40) for name, _, _ in chosen],
                    "y": [value for _, _, value in chosen],
                    "text": [f"{value:.3f}" for _, _, value in chosen],
                    "textposition": "outside",
                    "cliponaxis": False,
                    "marker": {"color": colours[kind]},
                    "hovertemplate": "%{x}: %{y:.3f}<extra></extra>",
                }
            )
    layout: dict[str, Any] = {"yaxis": _axis(metric, rangemode="tozero"), "xaxis": {"type": "category"}}
    if best is not None:
        line = {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": best, "y1": best}
        layout["shapes"] = [line | {"line": {"color": "@ink", "width": 1.5, "dash": "dash"}}]
        layout["annotations"] = [
            {
                # Above all bars: beside the line it would cover the figures of those that come near it.
                "xref": "paper",
                "yref": "paper",
                "x": 1,
                "y": 1,
                "xanchor": "right",
                "yanchor": "top",
                "showarrow": False,
                "text": f"dashed: best possible, {best:.3f}",
            }
        ]
        layout["yaxis"]["range"] = [
            min(0.0, *(bar[2] for bar in bars)),
            max(best, *(bar[2] for bar in bars)) * 1.25,
        ]
    return {"data": data, "layout": layout}


# --- Demo corpus ------------------------------------------------------------------------------------------


def action_unit(name: str, put_in: Sequence[float], measured: Sequence[float]) -> Figure:
    """One action unit as it was drawn against as it was measured, clip by clip."""
    points = {
        "type": "scatter",
        "mode": "markers",
        "x": [round(value, 4) for value in put_in],
        "y": [round(value, 4) for value in measured],
        "marker": {"color": "@face", "size": 6, "opacity": 0.65},
        "hovertemplate": "put in %{x:.2f}, measured %{y:.2f}<extra></extra>",
    }
    layout = {
        "height": 260,
        "title": {"text": escape(name), "font": {"size": 13}},
        "margin": {"t": 34},
        "xaxis": _axis("put in"),
        "yaxis": _axis("measured"),
        "showlegend": False,
        "hovermode": "closest",
    }
    return {"data": [points], "layout": layout}


def correlations(put_in: Sequence[str], measured: Sequence[str], r: Sequence[Sequence[float | None]]) -> Figure:
    """Every action unit put in against every one measured."""
    heat = {
        "type": "heatmap",
        "x": list(measured),
        "y": list(put_in),
        "z": [list(row) for row in r],
        "text": [["" if value is None else f"{value:.2f}" for value in row] for row in r],
        "texttemplate": "%{text}",
        "zmin": -1,
        "zmax": 1,
        "colorscale": [[0, "@audio"], [0.5, "@surface"], [1, "@text"]],
        "showscale": False,
        "hovertemplate": "%{y} put in, %{x} measured: r = %{text}<extra></extra>",
    }
    layout = {
        "height": 320,
        "xaxis": _axis("measured", type="category"),
        "yaxis": _axis("put in", type="category", autorange="reversed"),
    }
    return {"data": [heat], "layout": layout}


def _rounded(values: Frame) -> list[float | None]:
    """Numbers as JSON has them: four decimals, ``None`` for NaN."""
    return [None if value != value else round(float(value), 4) for value in values.astype(float)]
