"""The page as a file: whole, safe, self-contained, and holding the store's figures."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from made_clips import as_classes, made_dataset

from miar.errors import UserError
from miar.models.config import MIARConfig
from miar.models.miar import MIAR
from miar.report import write_report
from miar.report.blocks import shown
from miar.scoring.scorer import score_dataset
from storage import LABELS, SCORES, Store

VOID = {"meta", "br", "img", "input", "hr", "link"}


class Page(HTMLParser):
    """A strict reading: every element closes, in order; texts, tables, links and embedded data are kept."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.cells: list[str] = []
        self.text: list[str] = []
        self.data: list[object] = []
        self.scripts: list[str] = []
        self._kind: str | None = None
        self.feed(html)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag in {"td", "th"}:
            self.cells.append("")
        if tag == "script":
            self._kind = dict(attrs).get("type") or "code"

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "script":
            if self._kind == "application/json":
                self.data.append(json.loads(data))
            else:
                self.scripts.append(data)
            return
        if self.open and self.open[-1] in {"td", "th"}:
            self.cells[-1] += data
        self.text.append(data)

    @property
    def words(self) -> str:
        return " ".join(" ".join(self.text).split())

    def rows(self, first: str) -> list[str]:
        """The three cells after each cell that says ``first``."""
        return [" ".join(self.cells[i + 1 : i + 4]) for i, cell in enumerate(self.cells) if cell == first]


@pytest.fixture(scope="module")
def html(made, tmp_path_factory: pytest.TempPathFactory) -> str:
    out = tmp_path_factory.mktemp("out") / "new folder" / "report.html"
    assert write_report(made.store, out) == out
    assert [path.name for path in out.parent.iterdir()] == ["report.html"]
    return out.read_text("utf-8")


@pytest.fixture(scope="module")
def page(html: str) -> Page:
    return Page(html)


def test_every_chapter_is_there(page: Page) -> None:
    anchors = [attrs.get("id") for tag, attrs in page.elements if tag == "section"]
    assert anchors == [
        *("input", "failures", "distribution", "accuracy", "fusion"),
        *("contributions", "timeline", "demo", "runs", "reproduce"),
    ]


def test_nothing_is_loaded_from_elsewhere(page: Page) -> None:
    fetching = {"src", "srcset", "data", "poster", "action", "background"}
    for tag, attrs in page.elements:
        assert tag not in {"link", "iframe", "img", "object", "embed", "base"}
        assert not fetching & attrs.keys()
        assert (attrs.get("href") or "#").startswith("#")
    policy = next(attrs["content"] for tag, attrs in page.elements if "http-equiv" in attrs)
    assert policy is not None
    assert "default-src 'none'" in policy
    assert "http" not in policy


def test_plotly_is_there_once_and_the_file_is_small(html: str, page: Page) -> None:
    assert sum("plotly.js v" in script for script in page.scripts) == 1
    assert len(html) - sum(map(len, page.scripts)) < 500_000


def test_words_of_users_stay_words(html: str, page: Page) -> None:
    assert "alert('words')" in page.words
    assert not any("alert('words')" in script for script in page.scripts)
    assert "videos/a <b>video</b>.mp4" in page.words
    assert "<b>video" not in html
    assert len([tag for tag, _ in page.elements if tag == "script"]) == len(page.scripts) + len(page.data)
    # Plotly reads HTML in its labels, so there the words are escaped once more.
    timeline = next(each for each in page.data if isinstance(each, dict) and "videos" in each)
    first = next(words for video in timeline["videos"] for words in video["words"] if "alert" in words)
    assert "&lt;img src=x onerror=alert(1)&gt;" in first.replace("<br>", " ")


def test_counts(made, page: Page) -> None:
    n = len(made.clips)
    assert ["demo", str(n)] == page.cells[page.cells.index("demo") :][:2]
    face = next(i for i, cell in enumerate(page.cells) if cell.startswith("mediapipe · "))
    assert page.cells[face + 1 : face + 6] == [str(n), str(n - 2), "no face in view: 1", "DecodeError: 1", "0"]
    assert "Not scored: 1 clip (no modality at all: 1)." in page.words
    assert "3 files were odd" in page.words
    assert "empty_file: the file is empty" in page.words


def test_accuracy_by_split(made, page: Page) -> None:
    split = np.array([clip["split"] for clip in made.clips])
    for name in ("train", "valid", "test"):
        chosen = (split == name) & made.scored
        truth, prediction = made.truth[chosen], made.prediction[chosen]
        r, mae = np.corrcoef(truth, prediction)[0, 1], np.abs(truth - prediction).mean()
        assert f"{chosen.sum()} {r:.3f} {mae:.3f}" in page.rows(name)


def test_contributions(made, page: Page) -> None:
    rows = made.store.table(SCORES).read().to_pandas()
    for name in ("text", "audio", "face"):
        values = rows[f"contribution_{name}"].dropna().to_numpy()
        assert f"{len(values)} {np.abs(values).mean():.3f} {values.mean():.3f}" in [
            row.replace("\u202f", "") for row in page.rows(name)
        ]
    stacked = [
        each for each in page.data if isinstance(each, dict) and each.get("layout", {}).get("barmode") == "relative"
    ]
    assert len(stacked) == 2
    most = {trace["name"]: trace["x"] for trace in stacked[0]["data"]}
    assert all(text * audio < 0 for text, audio in zip(most["text"], most["audio"], strict=True))
    total = np.nansum(np.array([most[name] for name in ("text", "audio", "face")], float), axis=0)
    assert np.allclose(total, most["predicted − mean"], atol=5e-4)


def test_fusion_names_the_best_possible(made, page: Page) -> None:
    document = json.loads((made.root / "corpus.json").read_text("utf-8"))
    best = document["oracle_correlations"]["test_scorable"]["optimum"]
    assert best != document["oracle_correlations"]["test"]["optimum"], "one test clip has nothing to score"
    fusion = next(each for each in page.data if isinstance(each, dict) and "shapes" in each.get("layout", {}))
    assert fusion["layout"]["shapes"][0]["y0"] == best
    assert page.rows("all a clip has") == ["0.750 0.800 0.700"]
    assert "r 0.610 to 0.840." in page.words
    assert page.rows("ridge text") == ["0.550 1.100 0.500"]


def test_action_units_put_in_against_measured(made, page: Page) -> None:
    # Those that the maker left a face in, and whose face was measured.
    chosen = made.faces
    for unit in ("AU01", "AU04", "AU12", "AU26"):
        r = np.corrcoef(made.units_put_in[unit][chosen], made.units_measured[unit][chosen])[0, 1]
        at = page.cells.index(f"{unit} put in")
        own = ("AU01", "AU04", "AU12", "AU26").index(unit) + 1
        assert float(page.cells[at + own]) == pytest.approx(r, abs=1e-3)


def test_oracles_and_this_model(made, page: Page) -> None:
    document = json.loads((made.root / "corpus.json").read_text("utf-8"))
    at = page.cells.index("best possible combination")
    assert page.cells[at + 1] == shown(document["oracle_correlations"]["all"]["optimum"])
    at = page.cells.index("this model (miar-made)")
    r = np.corrcoef(made.truth[made.scored], made.prediction[made.scored])[0, 1]
    assert page.cells[at + 1] == f"{r:.3f}"


def test_an_empty_store(empty_store: Store, tmp_path: Path) -> None:
    html = write_report(empty_store, tmp_path / "r.html").read_text("utf-8")
    page = Page(html)
    assert "The store holds no clips yet" in page.words
    assert "No model has scored this store yet" in page.words
    assert "No run is recorded" in page.words
    assert not page.data
    assert len(html) < 50_000, "a page without charts needs no charting library"


def test_a_store_that_was_not_scored_or_labelled(fill_store: Callable, tmp_path: Path) -> None:
    made = fill_store(tmp_path)
    _delete_all(made.store, SCORES)
    page = Page(write_report(made.store, tmp_path / "r.html").read_text("utf-8"))
    assert "No model has scored this store yet" in page.words
    assert page.rows("best possible combination")
    assert "this model" not in page.words
    scored = fill_store(tmp_path / "second")
    _delete_all(scored.store, LABELS)
    page = Page(write_report(scored.store, tmp_path / "r.html").read_text("utf-8"))
    assert "No scored clip has a true “sentiment” to compare with." in page.words
    assert page.rows("predicted")


def _delete_all(store: Store, spec) -> None:
    table = store.table(spec)
    keys = table.read(columns=list(spec.key))
    table.merge(spec.schema.empty_table(), delete_keys=keys)
    assert table.count() == 0


def test_classes(fill_store: Callable, tmp_path: Path) -> None:
    """Scores of classes are counted, crossed and measured; nothing numeric is claimed. The rows are a model's own."""
    made = fill_store(tmp_path)
    rows, truth = score_as_classes(made.store)
    page = Page(write_report(made.store, tmp_path / "r.html").read_text("utf-8"))
    figures = [each for each in page.data if isinstance(each, dict)]
    heat = next(each for each in figures if each.get("data", [{}])[0].get("type") == "heatmap")
    right = [row["category"] == truth[row["clip_id"]] for row in rows]
    assert np.trace(heat["data"][0]["text"]) == sum(right)
    assert heat["data"][0]["x"] == ["negative", "neutral", "positive"]
    counts = next(each for each in figures if each.get("layout", {}).get("barmode") == "group")
    names, guesses = counts["data"][1]["x"], [row["category"] for row in rows]
    assert counts["data"][1]["y"] == [guesses.count(name) for name in names]
    test = [one for one, row in zip(right, rows, strict=True) if row["split"] == "test"]
    assert any(row.startswith(f"{len(test)} {np.mean(test):.3f} ") for row in page.rows("test"))
    assert "Weighted F1" in page.cells
    for claim in ("No scored clip has a true", "the mean of the training labels"):
        assert claim not in page.words
    assert "to the probability of the class that is predicted" in page.words
    drawn = json.dumps(figures, ensure_ascii=False)
    assert "label units" not in drawn
    assert "contribution, probability" in drawn
    assert "predicted − share" in drawn


def score_as_classes(store: Store) -> tuple[list[dict], dict[str, str]]:
    """Label the store's clips with classes and score them with a model of these; the rows, and the true classes."""
    scores, labels = (store.table(spec).read().to_pylist() for spec in (SCORES, LABELS))
    clips = [row["clip_id"] for row in scores]
    dataset = replace(as_classes(made_dataset(len(clips), noise=0.4)), clip_ids=clips)
    model = MIAR.for_dataset(MIARConfig(width=16, heads=2, shared_width=8), dataset)
    scored = score_dataset(model, dataset).to_pylist()
    truth = {clip: dataset.classes[int(target)] for clip, target in zip(clips, dataset.targets, strict=True)}
    rows = [before | after for before, after in zip(scores, scored, strict=True)]
    named = [row | {"value": None, "category": truth[row["clip_id"]]} for row in labels]
    for spec, changed in ((SCORES, rows), (LABELS, named)):
        store.table(spec).merge(pa.Table.from_pylist(changed, schema=spec.schema))
    return rows, truth


def test_an_unknown_model_is_one_clear_line(made, empty_store: Store, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no scores of model 'x'; it has miar-made"):
        write_report(made.store, tmp_path / "r.html", model_id="x")
    with pytest.raises(UserError, match=r"run `miar score` first"):
        write_report(empty_store, tmp_path / "r.html", model_id="x")
    assert not list(tmp_path.glob("*.html"))


def test_a_folder_is_not_overwritten(made, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is a folder"):
        write_report(made.store, tmp_path)


def test_title_is_escaped(made, tmp_path: Path) -> None:
    html = write_report(made.store, tmp_path / "r.html", title="<i>mine</i>").read_text("utf-8")
    assert "<h1>&lt;i&gt;mine&lt;/i&gt;</h1>" in html
    assert not re.search(r"<i>mine", html)


def test_a_large_store_is_sampled(fill_store: Callable, tmp_path: Path) -> None:
    made = fill_store(tmp_path, 4500)
    html = write_report(made.store, tmp_path / "r.html").read_text("utf-8")
    page = Page(html)
    assert "A random sample of 4000 of the 4499 clips; the figures below use all." in page.words
    assert "60 of 900 videos" in page.words
    assert len(html) - sum(map(len, page.scripts)) < 2_000_000
    r = np.corrcoef(made.truth[made.scored], made.prediction[made.scored])[0, 1]
    assert f"4\u202f499 {r:.3f}" in page.rows("all splits")[0]
