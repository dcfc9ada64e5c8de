"""Shards over real footage: one decode pass, every extractor, and every way a clip can fail."""

import dataclasses
import os
import pickle
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import av
import numpy as np
import opensmile
import pytest

from miar.config import MediaLimits
from miar.errors import UnavailableError
from miar.features.configs import MediaPipeConfig, OpenSmileConfig, TextConfig
from miar.features.contract import Extraction, FeatureSet, Modality, Status
from miar.features.registry import availability, build_extractor, feature_set_of
from miar.features.requests import ClipRequest, ShardRequest
from miar.features.runner import extract_shard, extract_texts, initialise_worker, opened
from miar.features.source_pass import extract_source
from miar.features.weights import package_folder
from miar.media.decode import Span, SpanEnd, SpanFrame, VideoRequest, decode_spans

FOOTAGE = Path(str(package_folder("feat"))) / "tests" / "data"
TALKING = Path(__file__).resolve().parents[4] / "shared" / "media"
AUDIO, FACE, TEXT = OpenSmileConfig(), MediaPipeConfig(fps=5), TextConfig()


@pytest.fixture(scope="module")
def tables() -> dict[str, str]:
    if isinstance(unavailable := availability(FACE), UnavailableError):
        pytest.skip(str(unavailable))
    return {config.extractor: feature_set_of(config).table for config in (AUDIO, FACE, TEXT)}


def without_sound(source: Path, target: Path) -> None:
    """Copy the picture's packets into a file of their own."""
    with av.open(str(source)) as given, av.open(str(target), "w") as out:
        stream = given.streams.video[0]
        copied = out.add_stream_from_template(stream)
        for packet in given.demux(stream):
            if packet.dts is not None:
                packet.stream = copied
                out.mux(packet)


@pytest.fixture(scope="module")
def footage(tmp_path_factory) -> Path:
    """A corpus folder of real clips: with sound and a face, silent, without a face."""
    root = tmp_path_factory.mktemp("footage")
    for path in (*FOOTAGE.glob("*.mp4"), *FOOTAGE.glob("*.mov"), *TALKING.glob("*.mp4")):
        (root / path.name).symlink_to(path)
    without_sound(FOOTAGE / "single_face.mp4", root / "mute.mp4")
    (root / "empty.mp4").write_bytes(b"")
    (root / "notes.mp4").write_text("this is no video")
    return root


def clip(name: str, path: str, wants, start: int = 0, end: int | None = None, text: str | None = None):
    return ClipRequest(name, path, start, end, text, frozenset(wants))


def shard(root: Path, clips, extractors=(AUDIO, FACE, TEXT)) -> dict[str, dict[str, Extraction]]:
    """Table -> clip id -> extraction."""
    done = extract_shard(ShardRequest(str(root), tuple(clips), tuple(extractors)))
    for table, rows in done.results.items():
        wanted = sorted(c.clip_id for c in clips if table in c.wants)
        assert sorted(name for name, _ in rows) == wanted  # one row for each, none twice
    return {table: dict(rows) for table, rows in done.results.items()}


needs_talking = pytest.mark.skipif(not TALKING.is_dir(), reason="the talking clips are not at hand")


@needs_talking
def test_one_pass_gives_what_each_extractor_gives_alone(footage, tables):
    span = Span(1000, 3000)
    found = shard(footage, [clip("a", "talking_1.mp4", tables.values(), 1000, 3000, "So nice to meet you")])
    events = list(
        decode_spans(
            footage / "talking_1.mp4", [span], audio_rate=16_000, video=VideoRequest(5, 640), limits=MediaLimits()
        )
    )
    end = next(event for event in events if isinstance(event, SpanEnd))
    session = build_extractor(FACE).open()
    for event in events:
        if isinstance(event, SpanFrame):
            session.push(event.frame)
    expected = {
        "mediapipe": session.close(),
        "opensmile": build_extractor(AUDIO).extract(end.audio),
        "text": build_extractor(TEXT).extract(["So nice to meet you"])[0],
    }
    for name, extraction in expected.items():
        got = found[tables[name]]["a"]
        assert extraction.status is got.status is Status.OK
        np.testing.assert_allclose(got.values, extraction.values, atol=1e-5)
        np.testing.assert_allclose(got.times, extraction.times, atol=1e-6)
        assert got.summary == pytest.approx(extraction.summary, abs=1e-5)
        assert got.quality == pytest.approx(extraction.quality, abs=1e-5)


@needs_talking
@pytest.mark.parametrize("name", ["talking_1.mp4", "talking_2.mp4", "talking_3.mp4"])
def test_real_speech_equals_bare_opensmile_on_the_same_samples(footage, tables, name):
    found = shard(footage, [clip("a", name, [tables["opensmile"]])])[tables["opensmile"]]["a"]
    events = decode_spans(footage / name, [Span(0, None)], audio_rate=16_000, video=None, limits=MediaLimits())
    samples = next(event.audio for event in events if isinstance(event, SpanEnd))
    levels = opensmile.FeatureLevel
    for level, mine in (
        (levels.LowLevelDescriptors, found.values),
        (levels.Functionals, np.array([list(found.summary.values())])),
    ):
        bare = opensmile.Smile(opensmile.FeatureSet.eGeMAPSv02, level).process_signal(samples, 16_000)
        np.testing.assert_allclose(mine, bare.to_numpy(), rtol=1e-4, atol=1e-4)


def test_film_without_sound_and_film_without_a_face(footage, tables):
    media = [tables["opensmile"], tables["mediapipe"]]
    clips = [clip("mute", "mute.mp4", media, 0, 1000), clip("landscape", "no_face.mp4", media, 0, 1000)]
    found = shard(footage, clips)
    assert found[tables["mediapipe"]]["mute"].status is Status.OK
    assert (found[tables["opensmile"]]["mute"].status, found[tables["opensmile"]]["mute"].reason) == (
        Status.MISSING,
        "no_audio_stream",
    )
    assert (found[tables["mediapipe"]]["landscape"].status, found[tables["mediapipe"]]["landscape"].reason) == (
        Status.MISSING,
        "no_face",
    )


def test_sound_alone_has_no_video_stream(tables, tmp_path):
    import wave

    with wave.open(str(tmp_path / "tone.wav"), "wb") as file:
        file.setparams((1, 2, 16_000, 0, "NONE", ""))
        t = np.arange(16_000) / 16_000
        file.writeframes((sum(np.sin(2 * np.pi * 150 * k * t) / k for k in range(1, 9)) * 6000).astype("<i2").tobytes())
    found = shard(tmp_path, [clip("a", "tone.wav", [tables["opensmile"], tables["mediapipe"]])])
    assert found[tables["mediapipe"]]["a"].reason == "no_video_stream"
    assert found[tables["opensmile"]]["a"].status is Status.OK


@pytest.mark.parametrize("path", ["empty.mp4", "notes.mp4", "not_there.mp4"])
def test_a_bad_file_fails_its_clips_but_not_their_words_nor_the_others(footage, tables, path):
    clips = [
        clip("bad", path, tables.values(), 0, 800, "words that are fine"),
        clip("good", "single_face.mp4", [tables["mediapipe"]], 0, 800),
    ]
    found = shard(footage, clips)
    for name in ("opensmile", "mediapipe"):
        extraction = found[tables[name]]["bad"]
        assert extraction.status is Status.FAILED
        assert extraction.reason
        assert extraction.message
        assert "\n" not in extraction.message
    assert found[tables["text"]]["bad"].status is Status.OK
    assert found[tables["mediapipe"]]["good"].status is Status.OK


def test_a_clip_beyond_the_end_or_without_time_fails_alone(footage, tables):
    face = [tables["mediapipe"]]
    clips = [
        clip("good", "single_face.mp4", face, 0, 800),
        clip("late", "single_face.mp4", face, 900_000, 901_000),
        clip("nothing", "single_face.mp4", face, 500, 500),
    ]
    found = shard(footage, clips)[tables["mediapipe"]]
    assert found["good"].status is Status.OK
    assert (found["late"].status, found["late"].reason) == (Status.FAILED, "beyond_end")
    assert (found["nothing"].status, found["nothing"].reason) == (Status.FAILED, "BadSpan")


def test_only_what_is_wanted_is_done(footage, tables):
    clips = [
        clip("face only", "single_face.mp4", [tables["mediapipe"]], 0, 600),
        clip("text only", "single_face.mp4", [tables["text"]], 600, 900, "hello there"),
    ]
    found = shard(footage, clips)
    assert set(found[tables["mediapipe"]]) == {"face only"}
    assert set(found[tables["text"]]) == {"text only"}
    assert tables["opensmile"] not in found
    only_words = shard(footage, [clip("w", "not_there.mp4", [tables["text"]], 0, 1, "no file is opened")])
    assert only_words[tables["text"]]["w"].status is Status.OK


def test_two_face_settings_are_two_passes(footage):
    slow, fast = MediaPipeConfig(fps=2), MediaPipeConfig(fps=10)
    names = [feature_set_of(config).table for config in (slow, fast)]
    found = shard(footage, [clip("a", "single_face.mp4", names, 0, 1000)], extractors=(slow, fast))
    frames = [found[name]["a"].quality["quality_frames"] for name in names]
    assert frames == [2, 10]


def test_a_want_that_nobody_gives_is_an_error(footage):
    with pytest.raises(ValueError, match="features/opensmile/nonsense"):
        shard(footage, [clip("a", "single_face.mp4", ["features/opensmile/nonsense"])])


class Fragile:
    """An extractor that breaks on the clips we choose: a model's surprise, not a bad file."""

    sample_rate = 16_000

    def __init__(self, modality: Modality) -> None:
        self.feature_set = FeatureSet("fragile", modality, ("x",), None)

    def extract(self, given):
        if self.feature_set.modality is Modality.TEXT:
            if "boom" in given:
                raise RuntimeError("a model\nfell over")
            return [Extraction(Status.OK) for _ in given]
        raise RuntimeError("a model\nfell over")


class FragileFace(Fragile):
    fps, max_side = 5.0, 320

    def __init__(self) -> None:
        super().__init__(Modality.FACE)
        self.closed = 0

    def open(self):
        return self

    def push(self, frame) -> None:
        if frame.time_s > 0.3:
            raise RuntimeError("a model\nfell over")

    def close(self) -> Extraction:
        self.closed += 1
        return Extraction(Status.OK)


def test_an_exception_in_an_extractor_fails_that_clip_only(footage):
    face, ears = FragileFace(), Fragile(Modality.AUDIO)
    clips = [
        clip("short", "single_face.mp4", ["face", "ears"], 0, 300),
        clip("long", "single_face.mp4", ["face", "ears"], 0, 800),
    ]
    rows = extract_source(
        lambda: opened(str(footage), "single_face.mp4"),
        clips,
        {"face": face, "ears": ears},
        MediaLimits(),
    )
    found = {(table, c.clip_id): extraction for table, c, extraction in rows}
    assert len(rows) == len(found) == 4
    assert found["face", "short"].status is Status.OK
    for key in (("face", "long"), ("ears", "short"), ("ears", "long")):
        assert (found[key].status, found[key].reason) == (Status.FAILED, "RuntimeError")
        assert found[key].message == "a model fell over"
    assert face.closed == 2  # the broken session too: it holds native memory


class CountedFaces(FragileFace):
    """Says how many of its sessions were open at once."""

    def __init__(self) -> None:
        super().__init__()
        self.open_now = self.most = 0

    def open(self):
        self.open_now += 1
        self.most = max(self.most, self.open_now)
        return self

    def push(self, frame) -> None:
        pass

    def close(self) -> Extraction:
        self.open_now -= 1
        return super().close()


def test_a_clip_that_failed_keeps_no_session_open(tmp_path):
    """A landmarker holds 30 MB and four threads."""
    path = tmp_path / "damaged.mkv"
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=25, options={"g": "25", "bf": "0"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        noise = np.random.default_rng(0)
        for _ in range(200):
            picture = noise.integers(0, 255, (48, 64, 3), dtype=np.uint8)
            out.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        out.mux(stream.encode(None))
    data = bytearray(path.read_bytes())
    with av.open(str(path)) as container:
        packets = [bytes(packet) for packet in container.demux(video=0) if packet.size]
    for number, packet in enumerate(packets):
        if 12 < number % 25 < 24:
            place = data.index(packet)
            data[place : place + len(packet)] = bytes(len(packet))
    path.write_bytes(data)
    faces = CountedFaces()
    clips = [clip(str(second), path.name, ["face"], second * 1000, second * 1000 + 1000) for second in range(8)]
    rows = extract_source(lambda: opened(str(tmp_path), path.name), clips, {"face": faces}, MediaLimits())
    assert [extraction.reason for _, _, extraction in rows] == ["damaged"] * 8
    assert faces.most <= 2
    assert faces.open_now == 0


def test_sound_with_samples_that_are_no_numbers_fails_its_clip(tmp_path):
    path = tmp_path / "export.wav"
    with av.open(str(path), "w") as out:
        stream = out.add_stream("pcm_f32le", rate=16_000, layout="mono")
        sound = np.full((1, 32_000), 0.1, np.float32)
        sound[0, 20_000:20_005] = np.nan
        block = av.AudioFrame.from_ndarray(sound, format="flt", layout="mono")
        block.sample_rate = 16_000
        out.mux(stream.encode(block))
        out.mux(stream.encode(None))
    clips = [clip("good", path.name, ["ears"], 0, 1000), clip("bad", path.name, ["ears"], 1000, 2000)]
    ears = OpenSmileConfig()
    rows = extract_source(
        lambda: opened(str(tmp_path), path.name), clips, {"ears": build_extractor(ears)}, MediaLimits()
    )
    found = {request.clip_id: extraction for _, request, extraction in rows}
    assert found["good"].status is not Status.FAILED
    assert (found["bad"].status, found["bad"].reason) == (Status.FAILED, "BadSamples")
    assert found["bad"].message == "5 samples of the sound are NaN or infinite: export it again"


def test_a_text_that_breaks_the_model_does_not_take_the_batch_along():
    clips = [clip(text, "x", (), text=text) for text in ("fine", "boom", "good")]
    rows = dict(extract_texts(Fragile(Modality.TEXT), clips))
    assert [rows[c].status for c in clips] == [Status.OK, Status.FAILED, Status.OK]


def test_requests_and_results_travel_between_processes(footage, tables):
    media = [tables["opensmile"], tables["mediapipe"]]
    request = ShardRequest(str(footage), (clip("a", "single_face.mp4", media, 0, 800),), (AUDIO, FACE, TEXT))
    assert pickle.loads(pickle.dumps(request)) == request
    here = extract_shard(request)
    with ProcessPoolExecutor(1, get_context("spawn"), initializer=initialise_worker, initargs=(1,)) as pool:
        there, again = (pool.submit(extract_shard, request).result(timeout=200) for _ in range(2))
    assert again.timings.load < there.timings.load / 5  # extractors stay loaded
    for table, rows in here.results.items():
        for (name, mine), (other, theirs) in zip(rows, there.results[table], strict=True):
            assert name == other
            assert (mine.status, mine.reason, mine.quality) == (theirs.status, theirs.reason, theirs.quality)
            if mine.values is not None:
                np.testing.assert_allclose(mine.values, theirs.values, atol=1e-5)


def test_time_is_accounted_for(footage, tables):
    request = ShardRequest(str(footage), (clip("a", "single_face.mp4", [tables["mediapipe"]]),), (FACE,))
    timings = dataclasses.asdict(extract_shard(request).timings)
    assert timings["decode"] > 0
    assert timings["face"] > 0
    assert timings["audio"] == timings["text"] == 0


QUIET = """
import os, sys
from miar.features.runner import initialise_worker
initialise_worker(1)
os.write(2, b"native chatter")
print("a person reads this", file=sys.stderr)
print(os.environ["OMP_NUM_THREADS"])
"""


def test_a_worker_hides_native_chatter_and_keeps_python_s_stderr():
    env = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    done = subprocess.run(
        [sys.executable, "-c", QUIET], capture_output=True, text=True, timeout=60, env=env, check=True
    )
    assert done.stderr == "a person reads this\n"
    assert done.stdout == "1\n"
