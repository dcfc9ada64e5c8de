"""Whole small corpora: files that decode, tables that agree, the same again whatever the number of workers."""

import csv
import hashlib
import json
import os
import re
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest

import miar.synth.corpus as corpus_module
from miar.errors import UserError
from miar.synth import make_corpus
from miar.synth.tables import LABEL_COLUMNS, TRUTH_COLUMNS
from miar.synth.words import NO_WORDS

CLIPS, SEED = 12, 6
"""Seed 6 gives clips without a face, without sound and without words among the first twelve."""


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("synth") / "corpus"
    summary = make_corpus(out, clips=CLIPS, seed=SEED, workers=2)
    assert (summary.clips, summary.videos, summary.speakers, summary.reused) == (CLIPS, 3, 2, False)
    return out


def table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def contents(root: Path) -> dict[str, str]:
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def decoded(path: Path) -> tuple[list[np.ndarray], np.ndarray]:
    """Frames (320, 320, 3) and samples (n,) of a file."""
    with av.open(str(path)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    with av.open(str(path)) as container:
        samples = np.concatenate([frame.to_ndarray()[0] for frame in container.decode(audio=0)])
    return frames, samples


def test_every_file_has_picture_and_sound_of_the_same_length(corpus):
    videos = sorted((corpus / "videos").glob("*.mp4"))
    assert len(videos) == 3
    for path in videos:
        with av.open(str(path)) as container:
            video, audio = container.streams.video[0], container.streams.audio[0]
            assert (video.codec_context.name, audio.codec_context.name) == ("h264", "aac")
            assert (video.width, video.height, video.average_rate) == (320, 320, 10)
        frames, samples = decoded(path)
        assert len(samples) / 22_050 == pytest.approx(len(frames) / 10, abs=0.1)
        last = max(int(row["end_ms"]) for row in table(corpus / "truth.csv") if path.stem in row["video_id"])
        assert last / 1000 < len(frames) / 10


def test_tables_agree_with_each_other_and_with_the_files(corpus):
    labels, truth = table(corpus / "labels.csv"), table(corpus / "truth.csv")
    assert tuple(labels[0]) == LABEL_COLUMNS
    assert tuple(truth[0]) == TRUTH_COLUMNS
    assert len(labels) == len({row["clip_id"] for row in labels}) == CLIPS
    for label, fact in zip(labels, truth, strict=True):
        assert [label[key] for key in ("clip_id", "video_id", "segment", "sentiment")] == [
            fact[key] for key in ("clip_id", "video_id", "segment", "sentiment")
        ]
        assert (corpus / f"{label['video_id']}.mp4").is_file()
        assert -3 <= float(label["sentiment"]) <= 3
        assert 2_000 <= int(fact["end_ms"]) - int(fact["start_ms"]) <= 5_000
        absent = fact["absent"].split(",")
        assert (fact["text"] == NO_WORDS) == ("text" in absent)
        assert (fact["AU12_mean"] == "") == ("face" in absent)


def test_transcripts_of_both_kinds_hold_the_clips_in_order(corpus):
    kinds = {path.suffix for path in (corpus / "videos").iterdir()}
    assert kinds == {".mp4", ".srt", ".vtt"}
    for path in (corpus / "videos").glob("*.[sv][rt]t"):
        rows = [row for row in table(corpus / "truth.csv") if row["video_id"] == f"videos/{path.stem}"]
        text = path.read_text("utf-8")
        assert [line for line in text.splitlines() if line in {row["text"] for row in rows}] == [
            row["text"] for row in rows
        ]
        assert text.startswith("WEBVTT\n\n") == (path.suffix == ".vtt")
        times = re.findall(r"(\d+):(\d+):(\d+)[.,](\d+)", text)
        seen = [((int(h) * 60 + int(m)) * 60 + int(s)) * 1000 + int(ms) for h, m, s, ms in times]
        assert seen == [int(row[key]) for row in rows for key in ("start_ms", "end_ms")]
        assert all(400 <= second - first <= 800 for first, second in pairwise(seen) if first in seen[1::2])


def test_splits_never_share_a_speaker(corpus, tmp_path):
    split_of: dict[str, set[str]] = {}
    for row in table(corpus / "labels.csv"):
        split_of.setdefault(row["speaker"], set()).add(row["split"])
    assert all(len(splits) == 1 for splits in split_of.values())


def test_one_worker_makes_the_same_bytes(corpus, tmp_path):
    make_corpus(tmp_path / "again", clips=CLIPS, seed=SEED, workers=1)
    assert contents(tmp_path / "again") == contents(corpus)


def test_another_seed_makes_another_corpus(corpus, tmp_path):
    make_corpus(tmp_path / "other", clips=1, seed=SEED + 1, workers=1)
    assert table(tmp_path / "other" / "labels.csv")[0] != table(corpus / "labels.csv")[0]


def test_a_finished_corpus_is_kept(corpus, monkeypatch):
    def refuse(*_: object) -> None:
        raise AssertionError("a finished corpus was made again")

    monkeypatch.setattr(corpus_module, "make_video", refuse)
    summary = make_corpus(corpus, clips=CLIPS, seed=SEED)
    assert summary.reused
    assert summary.correlations["all"].keys() == {"text", "audio", "face", "linear", "optimum"}


def test_a_run_cut_short_is_finished_not_repeated(corpus, tmp_path, monkeypatch):
    out, real, made = tmp_path / "corpus", corpus_module.make_video, []

    def make_or_stop(folder, plan):
        if len(made) == 1:
            (folder / f"{plan.name}.mp4").write_bytes(b"torn")
            raise KeyboardInterrupt
        made.append(plan.number)
        return real(folder, plan)

    monkeypatch.setattr(corpus_module, "make_video", make_or_stop)
    with pytest.raises(KeyboardInterrupt):
        make_corpus(out, clips=CLIPS, seed=SEED, workers=1)
    assert not (out / "corpus.json").exists()
    with pytest.raises(UserError, match="another demo corpus"):
        make_corpus(out, clips=CLIPS, seed=SEED + 1)
    monkeypatch.setattr(corpus_module, "make_video", real)
    before = os.stat(out / "videos" / "v00000.mp4").st_mtime_ns
    progress: list[tuple[int, int]] = []
    make_corpus(out, clips=CLIPS, seed=SEED, workers=1, on_progress=lambda done, total: progress.append((done, total)))
    assert os.stat(out / "videos" / "v00000.mp4").st_mtime_ns == before
    assert progress == [(4, 12), (9, 12), (12, 12)]
    assert contents(out) == contents(corpus)


@pytest.mark.parametrize(
    ("clips", "seed", "words"),
    [(CLIPS + 1, SEED, "clips 12 instead of 13"), (CLIPS, 99, "another demo corpus"), (0, 0, "1 to"), (5, -1, "seed")],
)
def test_a_mistake_is_one_clear_line(corpus, clips, seed, words):
    with pytest.raises(UserError, match=words) as caught:
        make_corpus(corpus, clips=clips, seed=seed)
    assert "\n" not in str(caught.value)


def test_a_folder_in_use_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("do not touch")
    with pytest.raises(UserError, match="not empty"):
        make_corpus(tmp_path, clips=1, seed=0)
    with pytest.raises(UserError, match="is a file"):
        make_corpus(tmp_path / "thesis.txt", clips=1, seed=0)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_the_seal_publishes_the_reliabilities(corpus):
    document = json.loads((corpus / "corpus.json").read_text("utf-8"))
    assert (document["clips"], document["seed"]) == (CLIPS, SEED)
    for part in ("all", "disagreeing"):
        assert document["reliabilities"][part]["optimum"] > document["reliabilities"][part]["linear"]
    readme = (corpus / "README.md").read_text("utf-8")
    assert f"{document['reliabilities']['all']['optimum']:.3f}" in readme
    assert not (corpus / ".parts").exists()


def test_silence_is_silent_and_speech_is_not(corpus):
    for row in table(corpus / "truth.csv"):
        _, samples = decoded(corpus / f"{row['video_id']}.mp4")
        clip = samples[int(row["start_ms"]) * 22_050 // 1000 : int(row["end_ms"]) * 22_050 // 1000]
        level = np.sqrt((clip**2).mean())
        assert level < 1e-3 if "audio" in row["absent"].split(",") else level > 5e-3


def test_mouths_move_with_the_speech(corpus):
    """In the pixels: how much the mouth's region differs from rest follows the loudness of the decoded sound."""
    checked = 0
    for row in table(corpus / "truth.csv"):
        if row["absent"]:
            continue
        frames, samples = decoded(corpus / f"{row['video_id']}.mp4")
        first, last = int(row["start_ms"]) // 100, int(row["end_ms"]) // 100
        dark = [float((frame[195:245, 120:200].max(axis=2) < 90).mean()) for frame in frames[first:last]]
        sound = samples[first * 2205 : last * 2205].reshape(-1, 2205)
        assert np.corrcoef(dark, np.sqrt((sound**2).mean(axis=1)))[0, 1] > 0.3, row["clip_id"]
        checked += 1
    assert checked >= 4


def test_mediapipe_sees_a_face_where_there_is_one_and_none_elsewhere(corpus):
    weights = Path(os.environ.get("MIAR_MODEL_DIR", "")) / "face_landmarker.task"
    if not weights.is_file():
        pytest.skip("face_landmarker.task is not in MIAR_MODEL_DIR")
    import mediapipe
    from mediapipe.tasks.python import BaseOptions, vision

    options = vision.FaceLandmarkerOptions(base_options=BaseOptions(model_asset_path=str(weights)))
    seen = {True: 0, False: 0}
    with vision.FaceLandmarker.create_from_options(options) as landmarker:
        for row in table(corpus / "truth.csv"):
            frames, _ = decoded(corpus / f"{row['video_id']}.mp4")
            for frame in frames[int(row["start_ms"]) // 100 : int(row["end_ms"]) // 100 : 8]:
                image = mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data=np.ascontiguousarray(frame))
                expected = "face" not in row["absent"].split(",")
                assert bool(landmarker.detect(image).face_landmarks) == expected, row["clip_id"]
                seen[expected] += 1
    assert min(seen.values()) > 0
