"""A refresh does what changed and nothing else, and a bad file costs that file."""

import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import av
import pytest
from flow_helpers import CLIPS, assert_each_clip_once, feature_tables, live_clips, live_rows

from miar.config import PipelineConfig

pytestmark = [pytest.mark.xdist_group("prefect"), pytest.mark.usefixtures("prefect_server")]

CONFIG = {"execution": {"workers": 2}}


def _refresh(space, **parameters):
    from flows.refresh_features import refresh_features

    (result,) = refresh_features(str(space.store_path), str(space.corpus), CONFIG, **parameters)
    return result


def _versions(space):
    tables = feature_tables(space.store_path)
    return {name: space.store.snapshots.take().versions[table] for name, table in tables.items()}


def test_every_clip_has_one_row_in_every_table(finished):
    assert len(live_clips(finished.store_path)) == CLIPS
    assert_each_clip_once(finished.store_path)


def test_an_unchanged_corpus_extracts_nothing_and_imports_no_prefect(space):
    before = _versions(space)
    code = (
        "import sys\n"
        f"sys.argv = ['miar', 'refresh', {str(space.corpus)!r}, '--store', {str(space.store_path)!r}, '--json']\n"
        "from miar.cli import main\n"
        "try:\n    main()\nexcept SystemExit as leave:\n    assert not leave.code, leave.code\n"
        "assert 'prefect' not in sys.modules and 'torch' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    import json

    (result,) = json.loads(done.stdout)
    assert set(result["to_extract"].values()) == {0}
    assert result["new"] == result["changed"] == result["gone"] == 0
    assert _versions(space) == before


def test_one_changed_file_costs_its_clips_alone(space):
    changed, other = "videos/v00000", "videos/v00001"
    clips = {row["clip_id"]: row for row in live_rows(space.store_path, "clips")}
    before = {
        name: {row["clip_id"]: row["run_id"] for row in live_rows(space.store_path, table)}
        for name, table in feature_tables(space.store_path).items()
    }
    shutil.copyfile(space.corpus / f"{other}.mp4", space.corpus / f"{changed}.mp4")
    result = _refresh(space)
    affected = {clip_id for clip_id, row in clips.items() if row["video_id"] == changed}
    assert result["to_extract"] == {"text": 0, "opensmile": len(affected), "mediapipe": len(affected)}
    for name, table in feature_tables(space.store_path).items():
        after = {row["clip_id"]: row["run_id"] for row in live_rows(space.store_path, table)}
        again = {clip_id for clip_id in after if after[clip_id] != before[name][clip_id]}
        assert again == (set() if name == "text" else affected), name
    assert_each_clip_once(space.store_path)


def test_an_edited_word_costs_one_row_of_text(space):
    transcript = space.corpus / "videos" / "v00000.srt"
    lines = transcript.read_text().splitlines()
    lines[2] = "Something else entirely was said here."
    transcript.write_text("\n".join(lines))
    result = _refresh(space)
    assert result["to_extract"] == {"text": 1, "opensmile": 0, "mediapipe": 0}
    assert _refresh(space)["to_extract"] == {"text": 0, "opensmile": 0, "mediapipe": 0}


def test_a_touched_file_is_not_extracted_again(space):
    os.utime(space.corpus / "videos" / "v00001.mp4", ns=(1, 10**18))
    assert set(_refresh(space)["to_extract"].values()) == {0}


def test_a_removed_file_is_marked_gone_and_comes_back_for_free(space):
    video, transcript = space.corpus / "videos" / "v00001.mp4", space.corpus / "videos" / "v00001.vtt"
    aside = space.root / "aside"
    aside.mkdir()
    clips = {row["clip_id"] for row in live_rows(space.store_path, "clips") if row["video_id"] == "videos/v00001"}
    shutil.move(video, aside)
    shutil.move(transcript, aside)
    assert _refresh(space)["gone"] == len(clips)
    assert not clips & live_clips(space.store_path)
    shutil.move(aside / video.name, video)
    shutil.move(aside / transcript.name, transcript)
    result = _refresh(space)
    assert set(result["to_extract"].values()) == {0}
    assert clips <= live_clips(space.store_path)


def test_a_vanished_root_is_refused_and_nothing_is_marked_gone(space):
    from miar.errors import CorpusError

    before = live_clips(space.store_path)
    for path in sorted((space.corpus / "videos").iterdir()):
        if not path.name.startswith("v00000"):
            path.unlink()
    with pytest.raises(CorpusError, match="max_lost_share"):
        _refresh(space)
    assert live_clips(space.store_path) == before


def test_two_refreshes_of_one_extractor_exclude_each_other(space):
    from miar.features.contract import Modality
    from miar.pipeline.plan import plan_refresh
    from miar.pipeline.refresh import lock_name
    from storage import StoreError

    (space.corpus / "videos" / "v00000.srt").write_text("1\n00:00:00,000 --> 00:00:01,000\nOther words.\n")
    plan = plan_refresh(space.store, PipelineConfig.model_validate(CONFIG), root=str(space.corpus))
    text, sound, _ = plan.feature_sets
    with (
        space.store.lock(lock_name("corpus", text)),
        pytest.raises(StoreError, match=r"another refresh of text .*corpus"),
    ):
        _refresh(space)
    assert not list((space.store_path / "_staging").iterdir())
    with space.store.lock(lock_name("corpus", sound)):
        assert _refresh(space, only=[Modality.TEXT])["to_extract"] == {"text": 1}


def test_one_corpus_that_cannot_be_read_does_not_keep_the_others_from_it(finished, tmp_path: Path):
    from flows.refresh_features import refresh_features
    from miar.errors import CorpusError

    store, config = tmp_path / "store", {"extractors": [{"extractor": "opensmile"}], "execution": {"workers": 1}}
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        shutil.copyfile(finished.corpus / "videos" / "v00000.mp4", tmp_path / name / "a.mp4")
        refresh_features(str(store), str(tmp_path / name), config)
    shutil.rmtree(tmp_path / "first")
    shutil.copyfile(finished.corpus / "videos" / "v00001.mp4", tmp_path / "second" / "b.mp4")
    with pytest.raises(CorpusError, match="1 of 2 corpora were not refreshed: first"):
        refresh_features(str(store), None, config)
    assert sorted((row["corpus_id"], row["path"]) for row in live_rows(store, "clips")) == [
        ("first", "a.mp4"),
        ("second", "a.mp4"),
        ("second", "b.mp4"),
    ]
    assert_each_clip_once(store, ("opensmile",))


@pytest.mark.timeout(300)
def test_a_run_that_ends_early_does_not_wait_for_the_shard_in_hand(
    finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A commit fails for good while another worker is at its shard, and stays there."""
    from flows.refresh_features import refresh_features
    from miar.pipeline import refresh
    from storage import StoreError

    def full(*_: object) -> None:
        raise StoreError("the disk is full")

    def stop_a_worker() -> None:
        while len(found := [one for one in multiprocessing.active_children() if "pebble" in one.name]) < 2:
            time.sleep(0.01)
        os.kill(found[0].pid or 0, signal.SIGSTOP)

    monkeypatch.setattr(refresh, "commit_shard", full)
    threading.Thread(target=stop_a_worker, daemon=True).start()
    config = {"extractors": [{"extractor": "opensmile"}], "execution": {"workers": 2, "shard_clips": 8}}
    with pytest.raises(StoreError, match="the disk is full"):
        refresh_features(str(tmp_path / "store"), str(finished.corpus), config)
    assert not [one for one in multiprocessing.active_children() if "pebble" in one.name]


def test_an_extractor_without_weights_is_left_out_with_its_reason(space, tmp_path: Path):
    from flows.refresh_features import refresh_features
    from miar.errors import UnavailableError

    config = {
        "extractors": [
            {"extractor": "opensmile"},
            {"extractor": "mediapipe", "weights": str(tmp_path / "nowhere.task")},
        ],
        "execution": {"workers": 2},
    }
    store = tmp_path / "voice"
    (result,) = refresh_features(str(store), str(space.corpus), config)
    assert "miar fetch face_landmarker" in result["unavailable"]["mediapipe"]
    assert set(feature_tables(store)) == {"opensmile"}
    assert_each_clip_once(store, ("opensmile",))
    with pytest.raises(UnavailableError, match="miar fetch face_landmarker"):
        refresh_features(str(tmp_path / "strict"), str(space.corpus), {**config, "on_unavailable": "fail"})


@pytest.fixture
def bad_corpus(finished, tmp_path: Path) -> Path:
    """One good clip among everything that can be wrong with its neighbours."""
    root = tmp_path / "bad"
    root.mkdir()
    good = finished.corpus / "videos" / "v00000.mp4"
    shutil.copyfile(good, root / "good.mp4")
    (root / "empty.mp4").touch()
    (root / "text.mp4").write_text("This is not a video.\n" * 50)
    (root / "truncated.mp4").write_bytes(good.read_bytes()[:3000])
    _silent_copy(good, root / "no_sound.mp4")
    _blank_video(root / "no_face.mp4")
    (root / "nowhere.srt").write_text("1\n00:00:00,000 --> 00:00:01,000\nA transcript of nothing.\n")
    return root


def _miar(*arguments: object) -> subprocess.CompletedProcess[str]:
    """The command line in a process of its own, with the tests' Prefect server."""
    from prefect.settings import get_current_settings

    environment = {**os.environ, "PREFECT_API_URL": str(get_current_settings().api.url)}
    command = [sys.executable, "-m", "miar.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


def test_broken_files_stand_in_failures_with_a_reason(bad_corpus: Path, tmp_path: Path):
    store = tmp_path / "store"
    command = ("refresh", bad_corpus, "--store", store, "--only", "audio,face")
    done = _miar(*command)
    assert done.returncode == 0, done.stderr
    assert "warning:" in done.stderr
    assert "miar status" in done.stderr
    assert "Traceback" not in done.stderr
    failures = live_rows(store, "failures")
    reasons = {row["path"]: row["message"] for row in failures}
    assert set(reasons) == {"empty.mp4", "text.mp4", "truncated.mp4", "nowhere.srt"}
    assert all(len(message) > 10 and "\n" not in message for message in reasons.values())
    tables = feature_tables(store)
    paths = {row["clip_id"]: row["path"] for row in live_rows(store, "clips")}
    outcome = {
        name: {paths[row["clip_id"]]: row["reason"] or row["status"] for row in live_rows(store, table)}
        for name, table in tables.items()
    }
    assert outcome["opensmile"]["good.mp4"] == outcome["mediapipe"]["good.mp4"] == "ok"
    assert outcome["opensmile"]["no_sound.mp4"] == "no_audio_stream"
    assert outcome["mediapipe"]["no_face.mp4"] == "no_face"
    assert {"empty.mp4", "text.mp4", "truncated.mp4"}.isdisjoint(outcome["opensmile"])
    status = _miar("status", store)
    assert status.returncode == 0
    assert all(path in status.stdout for path in reasons)
    # Mended: just that file is picked up, and its failures go away.
    shutil.copyfile(bad_corpus / "good.mp4", bad_corpus / "empty.mp4")
    again = _miar(*command, "--json")
    assert again.returncode == 0, again.stderr
    assert {row["path"] for row in live_rows(store, "failures")} == {"text.mp4", "truncated.mp4", "nowhere.srt"}
    assert_each_clip_once(store, ("opensmile", "mediapipe"))


def _silent_copy(source: Path, target: Path) -> None:
    with av.open(str(source)) as given, av.open(str(target), "w") as made:
        stream = made.add_stream_from_template(given.streams.video[0])
        for packet in given.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                made.mux(packet)


def _blank_video(target: Path) -> None:
    import numpy as np

    with av.open(str(target), "w") as made:
        stream = made.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 160, 120, "yuv420p"
        for shade in range(30):
            picture = np.full((120, 160, 3), 60 + shade, np.uint8)
            for packet in stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")):
                made.mux(packet)
        for packet in stream.encode():
            made.mux(packet)
