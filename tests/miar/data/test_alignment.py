"""Sequences of different rates at common steps, against a plain loop over clips, steps and frames."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from miar.data.alignment import EqualSteps, Frames, Steps, WordSteps, align, mean_within
from miar.data.reading import SnapshotReader
from miar.data.selection import Selection
from miar.data.word_times import places
from storage import CLIPS, FEATURE_SETS, WORDS, Store, feature_table

TEXT, AUDIO, FACE = "features/text/aaaa", "features/opensmile/bbbb", "features/mediapipe/cccc"
RATES = {AUDIO: 10.0, FACE: 2.0}


def made(folder: Path, clips: list[dict[str, Any]], words: list[dict[str, Any]], rows: dict[str, list[dict]]) -> Store:
    """A store of ``clips`` whose feature tables hold ``rows``: clip, times and (n, 2) values."""
    store = Store.create(folder)
    facts = {"corpus_id": "made", "segment": 0, "state": "live"}
    _merge(store, CLIPS, [facts | {"video_id": clip["clip_id"]} | clip for clip in clips])
    if words:
        _merge(store, WORDS, [{"corpus_id": "made", "transcript": "a.json"} | row for row in words])
    modality = {TEXT: "text", AUDIO: "audio", FACE: "face"}
    for table, found in rows.items():
        extractor, config_hash = table.split("/")[1:]
        described = {"extractor": extractor, "config_hash": config_hash, "modality": modality[table], "state": "active"}
        described |= {"columns": ["a", "b"], "layers": 1, "rate_hz": RATES.get(table), "created_at": 0}
        _merge(store, FEATURE_SETS, [described])
        filled = [
            {
                "clip_id": row["clip"],
                "corpus_id": "made",
                "input_hash": "h",
                "status": "ok",
                "n_frames": len(row["times"]),
                "times": row["times"],
                "values": np.ravel(row["values"]).tolist(),
            }
            for row in found
        ]
        _merge(store, feature_table(table, n_columns=2, summary_columns=[], quality_columns=[]), filled)
    return store


def _merge(store: Store, spec: Any, rows: list[dict[str, Any]]) -> None:
    store.table(spec).merge(pa.Table.from_pylist(rows, schema=spec.schema))


def reader_of(store: Store) -> SnapshotReader:
    return SnapshotReader(store.snapshots.take())


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Clip ``a`` is 1 to 3 s of a file with word times, ``b`` the whole of one without."""
    clips = [
        {
            "clip_id": "a",
            "path": "a.mp4",
            "start_ms": 1000,
            "end_ms": 3000,
            "text": "Good [sighs] day, Ann",
            "text_hash": "h",
        },
        {"clip_id": "b", "path": "b.mp4", "start_ms": 0, "end_ms": None, "text": "one two", "text_hash": "h"},
    ]
    said = {"texts": ["early", "Good", "day,", "Ann"], "starts": [0, 1000, 1400, 2900], "ends": [900, 1400, 1800, 2950]}
    # Tokens of "Good day, Ann": "Go" "od" "day" "," "Ann".
    tokens = {"clip": "a", "times": [0, 2, 5, 8, 10], "values": [[1, 0], [3, 0], [4, 0], [8, 2], [5, 5]]}
    sound = {"clip": "a", "times": [0.05, 0.15, 0.35, 0.45, 1.05], "values": [[1, 1], [2, 1], [6, 1], [5, 0], [9, 9]]}
    rows = {
        TEXT: [tokens, {"clip": "b", "times": [0, 4], "values": [[1, 1], [2, 2]]}],
        AUDIO: [sound, {"clip": "b", "times": [0.5, 1.5], "values": [[1, 1], [3, 3]]}],
        FACE: [{"clip": "a", "times": [0.25], "values": [[7, 7]]}],
    }
    return made(tmp_path_factory.mktemp("alignment") / "store", clips, [{"path": "a.mp4"} | said], rows)


def test_a_step_for_each_word(store: Store) -> None:
    reader = reader_of(store)
    aligned = align(reader, reader.select(), WordSteps())
    assert aligned.clip_ids == ["a", "b"]
    assert aligned.lengths.tolist() == [3, 0]  # the word before the clip is not in it, and b has no words with times
    assert aligned.words == ["Good", "day,", "Ann"]
    np.testing.assert_allclose(aligned.spans, [[0, 0.4], [0.4, 0.8], [1.9, 1.95]])
    np.testing.assert_allclose(aligned.values["text"], [[2, 0], [6, 1], [5, 5]])
    np.testing.assert_allclose(aligned.values["audio"], [[3, 1], [5, 0], [0, 0]])
    assert aligned.present["audio"].tolist() == [True, True, False]  # the nearest frame is 0.85 s away
    np.testing.assert_allclose(aligned.values["face"], [[7, 7], [7, 7], [0, 0]])
    assert aligned.present["face"].tolist() == [True, True, False]  # within half a second of the second word


def test_steps_of_equal_length(store: Store) -> None:
    reader = reader_of(store)
    aligned = align(reader, reader.select(), EqualSteps(2))
    assert (aligned.lengths.tolist(), aligned.words) == ([2, 2], None)
    np.testing.assert_allclose(aligned.spans, [[0, 1], [1, 2], [0, 0.75], [0.75, 1.5]], atol=1e-5)
    np.testing.assert_allclose(aligned.values["audio"], [[3.5, 0.75], [9, 9], [1, 1], [3, 3]])
    np.testing.assert_allclose(aligned.values["text"], [[4, 0.5], [5, 5], [1, 1], [2, 2]])
    assert aligned.present["face"].tolist() == [True, False, False, False]


def test_padded_to_one_length(store: Store) -> None:
    reader = reader_of(store)
    aligned = align(reader, reader.select(), WordSteps())
    values, present = aligned.padded(4)
    assert values["text"].shape == (2, 4, 2)
    assert values["text"][0].tolist() == [[2, 0], [6, 1], [5, 5], [0, 0]]
    assert present["text"].tolist() == [[True, True, True, False], [False] * 4]
    assert aligned.padded(4, at_end=False)[0]["text"][0].tolist() == [[0, 0], [2, 0], [6, 1], [5, 5]]
    assert aligned.padded(2)[0]["text"][0].tolist() == [[2, 0], [6, 1]]


def test_some_clips_in_any_order(store: Store) -> None:
    reader = reader_of(store)
    both = align(reader, reader.positions(["b", "a"]), EqualSteps(3))
    alone = align(reader, reader.select(Selection(clip_ids=["a"])), EqualSteps(3))
    assert both.clip_ids == ["b", "a"]
    for name in alone.values:
        np.testing.assert_array_equal(both.values[name][3:], alone.values[name])
    assert align(reader, reader.positions([]), EqualSteps(3)).spans.shape == (0, 2)
    assert align(reader, reader.positions(["b"]), WordSteps()).values["text"].shape == (0, 2)


def test_no_steps_are_a_mistake() -> None:
    with pytest.raises(ValueError, match="0 steps"):
        EqualSteps(0)


def test_words_are_pinned_with_the_snapshot(store: Store) -> None:
    before = store.snapshots.take()
    changed = {"corpus_id": "made", "path": "a.mp4", "transcript": "a.json", "texts": [], "starts": [], "ends": []}
    row = store.table(WORDS).read()
    store.table(WORDS).merge(pa.Table.from_pylist([changed], schema=WORDS.schema))
    reader = SnapshotReader(before)
    assert align(reader, reader.select(), WordSteps()).words == ["Good", "day,", "Ann"]
    store.table(WORDS).merge(row)


def test_words_are_found_in_order_and_not_far_ahead() -> None:
    assert places(["a", "b", "a"], "a b a") == [0, 2, 4]
    assert places(["A", "x", "b"], "a [noise] B") == [0, -1, 2]
    assert places(["late"], "word " * 40 + "late") == [-1]
    assert places(["a"], None) == [-1]


FRAMES = st.lists(st.integers(0, 40), unique=True, max_size=8).map(sorted)
SPANS = st.lists(st.tuples(st.integers(0, 40), st.integers(1, 15)), max_size=5).map(sorted)


@settings(max_examples=200, deadline=None)
@given(clips=st.lists(st.tuples(FRAMES, SPANS), min_size=1, max_size=4))
def test_any_frames_within_any_words(clips: list[tuple[list[int], list[tuple[int, int]]]]) -> None:
    """Times in eighths of a second, which floats hold exactly; words may overlap, and stand where there is no frame."""
    draw = np.random.default_rng(0)
    values = [draw.normal(size=(len(frames), 2)).astype(np.float32) for frames, _ in clips]
    times = np.array([frame / 8 for frames, _ in clips for frame in frames])
    frames = Frames(np.concatenate(values), times, np.cumsum([0, *(len(one) for one, _ in clips)]))
    spans = np.array([(start / 8, (start + length) / 8) for _, words in clips for start, length in words])
    owner = np.repeat(np.arange(len(clips)), [len(words) for _, words in clips])
    means, present = mean_within(frames, Steps(owner, spans.reshape(-1, 2)), gap_s=1 / 8)
    expected = [_by_hand(one, values[i], span) for i, (one, words) in enumerate(clips) for span in words]
    assert present.tolist() == [one is not None for one in expected]
    by_hand = np.array([[0, 0] if one is None else one for one in expected]).reshape(-1, 2)
    np.testing.assert_allclose(means, by_hand, atol=1e-5)


def _by_hand(frames: list[int], values: np.ndarray, span: tuple[int, int]) -> np.ndarray | None:
    start, end = span[0], span[0] + span[1]
    inside = [value for frame, value in zip(frames, values, strict=True) if start <= frame < end]
    if inside:
        return np.mean(inside, axis=0)
    near = [(abs(frame - (start + end) / 2), frame) for frame in frames if start - 1 <= frame <= end + 1]
    return values[frames.index(min(near)[1])] if near else None
