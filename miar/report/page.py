"""The page: sections, the template, the charting library, one file."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from miar import __version__
from miar.replacing import replacing
from miar.report import demo, score_sections, sections
from miar.report.blocks import Section, is_number, shown
from miar.report.gather import gather
from miar.report.reproduce import reproduce
from storage import Store

_ASSETS = Path(__file__).parent / "assets"


def write_report(store: Store, out: str | Path, *, model_id: str | None = None, title: str | None = None) -> Path:
    """Write a self-contained HTML report of the store to the file ``out`` and return its path.

    It needs no network. Its tables and texts can be read without JavaScript; the charts need it. Charts of a large
    store show a sample, and say so.

    Args:
        model_id: whose scores to show; default: the model that scored last.
        title: the page's heading; default: the names of the corpora.

    Raises:
        UserError: no scores of ``model_id``, or ``out`` cannot be written.
    """
    path = Path(out)
    with replacing(path) as temporary:
        temporary.write_text(_render(store, model_id, title), encoding="utf-8", errors="replace")
    return path


def _render(store: Store, model_id: str | None, title: str | None) -> str:
    data = gather(store, model_id)
    truth = demo.read_truth(data.runs)
    chapters: list[Section] = [
        sections.what_went_in(data),
        sections.what_failed(data),
        score_sections.distribution(data),
        score_sections.accuracy(data),
        score_sections.fusion(data, demo.best_possible(data, truth)),
        score_sections.contributions(data, store),
        score_sections.timeline(data, store),
        *([demo.section(data, store, truth)] if truth else []),
        sections.runs(data),
        reproduce(data),
    ]
    names = ", ".join(corpus["corpus_id"] for corpus in data.corpora)
    return _template().render(
        title=title or (f"MIAR report: {names}" if names else "MIAR report"),
        made=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        version=__version__,
        store=store.uri,
        model=data.scores.model_id if data.scores else None,
        cards=sections.headline(data),
        sections=chapters,
        has_charts=any(block.kind in {"charts", "timeline"} for each in chapters for block in each.blocks),
    )


def _template() -> Any:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(_ASSETS),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"shown": shown, "number": is_number, "data": _data}
    environment.globals |= {"asset": _asset, "plotly": _plotly}
    return environment.get_template("report.html.j2")


def _data(value: Any) -> Any:
    """JSON that can stand inside a ``script`` element, whatever strings it holds."""
    from markupsafe import Markup

    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return Markup(text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e"))


def _asset(name: str) -> Any:
    from markupsafe import Markup

    return Markup((_ASSETS / name).read_text(encoding="utf-8"))


def _plotly() -> Any:
    from markupsafe import Markup
    from plotly.offline import get_plotlyjs

    return Markup(get_plotlyjs())
