"""Files are cut before a refresh, once each, and what comes of it is read like any transcript."""

import os
from pathlib import Path

import av
import numpy as np
import pytest
from made_jobs import plan
from made_whisper import made_whisper

from miar.config import PipelineConfig, parse_config
from miar.pipeline import catalogue
from miar.pipeline.plan import RefreshPlan
from miar.pipeline.segmentation import Segmentation, segment_corpus
from storage import CLIPS, TRANSCRIPTS, WORDS, Store

SAYS = " Good day"


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """Two sound files without a transcript, one with, and one that is no sound."""
    root = tmp_path / "corpus"
    root.mkdir()
    for name, seconds in {"a.wav": 5.0, "b.wav": 3.0, "said.wav": 4.0}.items():
        _tone(root / name, seconds)
    (root / "said.srt").write_text("1\n00:00:00,500 --> 00:00:01,500\nhello\n\n2\n00:00:02,100 --> 00:00:03,500\nyou\n")
    (root / "broken.wav").write_text("words")
    return root


def _tone(path: Path, seconds: float) -> None:
    samples = (3000 * np.sin(2 * np.pi * 220 * np.arange(round(seconds * 16_000)) / 16_000)).astype(np.int16)
    with av.open(str(path), "w") as output:
        stream = output.add_stream("pcm_s16le", rate=16_000, layout="mono")
        frame = av.AudioFrame.from_ndarray(samples[None], format="s16", layout="mono")
        frame.sample_rate = 16_000
        output.mux(stream.encode(frame))
        output.mux(stream.encode(None))


def cut(store: Store, root: Path, config: PipelineConfig, **options: bool) -> Segmentation:
    return segment_corpus(store, config, str(root), **options)


def planned(store: Store, root: Path, config: PipelineConfig) -> RefreshPlan:
    """Nothing is extracted here; the catalogue is brought into line."""
    found = plan(store, root, ["opensmile"], config=config)
    catalogue.apply(store, found.changes, found.run_id)
    return found


def clips_of(store: Store) -> dict[str, list[tuple[int, int | None, str | None]]]:
    found: dict[str, list[tuple[int, int | None, str | None]]] = {}
    rows = store.table(CLIPS).read().to_pylist()
    for row in sorted(rows, key=lambda one: (one["path"], one["start_ms"])):
        if row["state"] == "live":
            found.setdefault(row["path"], []).append((row["start_ms"], row["end_ms"], row["text"]))
    return found


def test_windows_are_cut_once_and_only_where_something_changed(tmp_path: Path, corpus: Path) -> None:
    store = Store.create(tmp_path / "store")
    config = parse_config({"corpus": {"segment_by": "windows", "window_s": 2}, "execution": {"workers": 1}})
    assert planned(store, corpus, config).unsegmented == 4
    assert cut(store, corpus, config) == Segmentation(files=4, segments=7, failed=1)
    now = planned(store, corpus, config)
    assert now.unsegmented == 0
    assert clips_of(store) == {
        "a.wav": [(0, 2000, None), (2000, 4000, None), (4000, 5000, None)],
        "b.wav": [(0, 2000, None), (2000, 3000, None)],
        "said.wav": [(0, 2000, "hello"), (2000, 4000, "you")],
    }
    (problem,) = [row for row in now.changes.failures if row["path"] == "broken.wav"]
    assert problem["error"] == "not_segmented"
    assert "not a media file" in problem["message"]
    before = store.table(CLIPS).read(columns=["clip_id", "path"]).to_pylist()
    assert cut(store, corpus, config).files == 0
    _tone(corpus / "new.wav", 2.5)
    _tone(corpus / "broken.wav", 1.0)
    assert cut(store, corpus, config) == Segmentation(files=2, segments=2)
    planned(store, corpus, config)
    after = store.table(CLIPS).read(columns=["clip_id", "path"]).to_pylist()
    assert [row for row in after if row["path"] not in ("new.wav", "broken.wav")] == before
    assert clips_of(store)["broken.wav"] == [(0, 1000, None)]
    longer = parse_config({"corpus": {"segment_by": "windows", "window_s": 3}, "execution": {"workers": 1}})
    assert planned(store, corpus, longer).unsegmented == 5


def test_speech_becomes_clips_with_words(tmp_path: Path, corpus: Path) -> None:
    talking = Path(__file__).resolve().parents[4] / "shared" / "media" / "talking_2.mp4"
    if not talking.is_file():
        pytest.skip(f"no real footage at {talking}")
    (corpus / "talking.mp4").symlink_to(talking)
    store = Store.create(tmp_path / "store")
    whisper = made_whisper(tmp_path, SAYS)
    speech = {"segment_by": "speech", "listening": {"recognizer": str(whisper)}, "follow_outside_links": True}
    config = parse_config({"corpus": speech, "execution": {"workers": 1}})
    done = cut(store, corpus, config)
    assert (done.files, done.failed, done.warning) == (4, 1, None)  # the file with a transcript is not heard
    planned(store, corpus, config)
    clips = clips_of(store)
    assert {text for *_, text in clips["talking.mp4"]} == {SAYS.strip()}
    assert clips["a.wav"] == clips["b.wav"] == [(0, None, None)]  # nobody speaks: one clip, whole
    assert clips["said.wav"] == [(500, 1500, "hello"), (2100, 3500, "you")]
    (words,) = store.table(WORDS).read().to_pylist()
    assert (words["path"], words["transcript"], words["language"]) == ("talking.mp4", "talking.mp4", "en")
    assert words["texts"][:2] == SAYS.split()
    # A file that could not be cut is left alone until it changes or somebody asks for it.
    assert cut(store, corpus, config).files == 0
    assert cut(store, corpus, config, retry_failed=True) == Segmentation(files=1, failed=1)
    (corpus / "talking.mp4").unlink()
    planned(store, corpus, config)
    assert store.table(WORDS).read().num_rows == 0
    assert "talking.mp4" not in store.table(TRANSCRIPTS).read()["path"].to_pylist()
    assert os.path.exists(talking)
