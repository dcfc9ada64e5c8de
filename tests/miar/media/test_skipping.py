"""A span that starts late is decoded from shortly before it, and nothing that comes out differs by a bit."""

from dataclasses import asdict
from pathlib import Path

import av
import numpy as np
import pytest

from miar.media import skipping
from miar.media.decode import Span

SECONDS = 26
SPANS = [Span(14_000, 16_000), Span(15_100, 15_700), Span(20_030, 21_000), Span(24_000, None)]
TALKING = sorted((Path(__file__).resolve().parents[4] / "shared" / "media").glob("*.mp4"))


def _moving(seed: int = 0):
    """Pictures of which each depends on the time: a texture that wanders, with some noise."""
    noise = np.random.default_rng(seed).integers(0, 255, (48, 256, 3), dtype=np.uint8)
    return lambda time_s: np.roll(noise, round(time_s * 40), axis=1)[:, :64]


@pytest.fixture
def written(footage):
    """``written(name, codec, options, audio)``: 25 frames/s with a keyframe each second."""

    def write(name: str, codec: str = "libx264", options: dict[str, str] | None = None, audio: str | None = "aac"):
        return footage(
            name,
            seconds=SECONDS,
            video=codec,
            video_options={"g": "25", **(options or {})},
            audio=audio,
            picture=_moving(),
            pixels="yuvj420p" if codec == "mjpeg" else "yuv420p",
        )

    return write


@pytest.fixture
def both_ways(decode, monkeypatch: pytest.MonkeyPatch):
    """Decode as it comes and from the beginning, check that all is the same; returns how many packets were passed over,
    or ``None`` where nothing may be."""

    def compare(file: Path, spans: list[Span] = SPANS, **options) -> int | None:
        held: list[int] = []
        taken: list[int] = []
        take, give = skipping.LateStart.take, skipping.LateStart.held

        def counted(self, packet):
            taken.append(1)
            return take(self, packet)

        def given(self):
            held.append(len(give(self)))
            return give(self)

        with monkeypatch.context() as patch:
            patch.setattr(skipping.LateStart, "take", counted)
            patch.setattr(skipping.LateStart, "held", given)
            late = decode(file, spans, **options)
        with monkeypatch.context() as patch:
            patch.setattr(skipping, "WORTH_SKIPPING_S", float("inf"))
            whole = decode(file, spans, **options)
        for at in range(len(spans)):
            assert late.times(at) == whole.times(at)
            for one, other in zip(late.frames[at], whole.frames[at], strict=True):
                np.testing.assert_array_equal(one.rgb, other.rgb)
            mine, theirs = asdict(late.ends[at]), asdict(whole.ends[at])
            np.testing.assert_array_equal(mine.pop("audio"), theirs.pop("audio"))
            assert mine == theirs
        return len(taken) - held[-1] if held else None

    return compare


CODED = [
    ("a.mp4", "libx264", {"bf": "3"}, "aac"),
    ("a.mkv", "libx264", {"bf": "3", "x264-params": "open-gop=1:bframes=3"}, "flac"),
    ("a.mkv", "libx264", {"x264-params": "intra-refresh=1:keyint=25"}, "libopus"),
    ("a.ts", "libx264", {"bf": "2", "x264-params": "open-gop=1"}, "mp2"),
    ("a.mp4", "mpeg4", {"bf": "2"}, "aac"),
    ("a.ts", "mpeg2video", {"bf": "2"}, "mp2"),
    ("a.webm", "libvpx-vp9", {"deadline": "realtime", "cpu-used": "8"}, "libopus"),
    ("a.mp4", "libx265", {"x265-params": "keyint=25:open-gop=1:log-level=none"}, "aac"),
    ("a.mkv", "mjpeg", {}, "pcm_s16le"),
    ("a.mov", "libx264", {"bf": "3"}, None),
]


@pytest.mark.parametrize(("name", "codec", "options", "audio"), CODED, ids=lambda value: str(value)[:40])
def test_nothing_differs_by_a_bit(written, both_ways, name, codec, options, audio):
    if codec not in av.codecs_available:
        pytest.skip(f"no {codec} here")
    passed_over = both_ways(written(name, codec, options, audio), audio_rate=16_000 if audio else None)
    assert passed_over is not None
    assert passed_over >= 10 * 25


@pytest.mark.parametrize("spans", [[Span(25_900, 40_000)], [Span(30_000, 31_000), Span(11_000, 11_100)]])
def test_at_and_beyond_the_end(written, both_ways, spans):
    assert both_ways(written("a.mkv"), spans)


def test_a_file_that_is_cut_off(tmp_path: Path, written, both_ways):
    path = written("a.mkv", audio="pcm_s16le")
    short = tmp_path / "short.mkv"
    short.write_bytes(path.read_bytes()[: path.stat().st_size * 3 // 5])
    both_ways(short, [Span(11_000, 12_000), Span(14_000, 18_000), Span(22_000, 23_000)])


def test_time_stamps_that_are_not_there_or_jump_are_not_skipped(tmp_path: Path, written, both_ways):
    both_ways(written("a.avi", "mpeg4", {"bf": "2"}, "mp2"))
    first = written("a.ts", audio="mp2")
    joined = tmp_path / "joined.ts"
    joined.write_bytes(first.read_bytes() * 2)
    assert both_ways(joined, [Span(40_000, 42_000)]) is None


def test_a_file_with_one_keyframe_is_decoded_from_it(written, both_ways, monkeypatch: pytest.MonkeyPatch):
    path = written("a.mp4", options={"g": "10000", "sc_threshold": "0"})
    assert both_ways(path) == 0
    monkeypatch.setattr(skipping, "MOST_HELD_BYTES", 2000)
    assert both_ways(path) == 0


@pytest.mark.skipif(not TALKING, reason="the talking clips are not at hand")
@pytest.mark.parametrize("path", TALKING, ids=lambda path: path.name)
def test_real_footage(both_ways, path: Path):
    with av.open(str(path)) as container:
        length_ms = (container.duration or 0) // 1000
    if length_ms < 14_000:
        pytest.skip("too short")
    both_ways(path, [Span(length_ms - 3000, length_ms - 1000), Span(length_ms - 2000, None)], fps=10)


def test_what_is_broken_long_before_a_span_does_not_concern_it(written, decode):
    """Not even where it would end the decoder: it is never given to it."""
    path = written("a.mkv", audio=None)
    data = bytearray(path.read_bytes())
    before = decode(path, [Span(20_000, 21_000)], audio_rate=None)
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.pts is not None and packet.size]
        broken = [bytes(packet) for packet in packets if 5 < packet.pts * packet.time_base < 8]
    for packet in broken:
        place = data.index(packet)
        data[place + 4 : place + len(packet)] = bytes(len(packet) - 4)
    path.write_bytes(data)
    after = decode(path, [Span(20_000, 21_000)], audio_rate=None)
    assert after.times() == before.times()
    for one, other in zip(after.frames[0], before.frames[0], strict=True):
        np.testing.assert_array_equal(one.rgb, other.rgb)
