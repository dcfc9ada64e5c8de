"""Times, cuts and sampling of :func:`miar.media.decode.decode_spans`, on footage whose contents are known."""

import av
import numpy as np
import pytest
import soxr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from miar.config import MediaLimits
from miar.media.decode import Span, VideoRequest, decode_spans

FLASH_S = 1.0
RATE = 48_000


def _flash(time_s):
    return 255 if abs(time_s - FLASH_S) < 0.001 else 0


def _clap(start_s, seconds=2.0):
    sound = np.zeros((1, round(seconds * RATE)), np.float32)
    sound[0, round((FLASH_S - start_s) * RATE)] = 0.9
    return sound


@pytest.mark.parametrize(
    ("video_start_s", "audio_start_s"), [(0.0, 0.0), (0.4, 0.0), (0.0, 0.4), (0.2, 0.6), (0.6, 0.2)]
)
@pytest.mark.parametrize("extension", ["mkv", "mov"])
def test_a_clap_and_its_flash_coincide_whatever_the_streams_starts(
    footage, decode, video_start_s, audio_start_s, extension
):
    path = footage(
        f"clap.{extension}",
        audio="pcm_s16le",
        picture=_flash,
        sound=_clap(audio_start_s),
        video_start_s=video_start_s,
        audio_start_s=audio_start_s,
    )
    zero_s = min(video_start_s, audio_start_s)
    for start_ms in (0, 240):
        got = decode(path, [Span(start_ms, 1400)], audio_rate=RATE)
        expected_s = FLASH_S - zero_s - start_ms / 1000
        bright = [frame for frame in got.frames[0] if frame.rgb.mean() > 128]
        assert len(bright) == 1
        assert bright[0].time_s == pytest.approx(expected_s + 0.5 / 25, abs=0.002)
        assert np.argmax(np.abs(got.sound())) / RATE == pytest.approx(expected_s, abs=0.002)


def test_sound_is_cut_first_and_then_resampled(footage, decode, tone):
    sound = tone(3.0, RATE, hz=997.0)
    path = footage("tone.mkv", seconds=3.0, video=None, audio="pcm_f32le", sound=sound)
    spans = [Span(1000, 2500), Span(0, None), Span(1200, 1300), Span(0, 1000)]
    got = decode(path, spans)
    for at, span in enumerate(spans):
        stop = None if span.end_ms is None else span.end_ms * RATE // 1000
        expected = soxr.resample(sound[0, span.start_ms * RATE // 1000 : stop], RATE, 16_000, quality="HQ")
        np.testing.assert_allclose(got.sound(at), expected, atol=1e-6)
        assert got.ends[at].duration_s == pytest.approx(len(expected) / 16_000, abs=0.002)
        assert got.ends[at].problem is None


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_span_never_depends_on_its_neighbours(shared_clip, decode, data):
    times = st.integers(0, 2600)
    cuts = data.draw(st.lists(st.tuples(times, times), min_size=1, max_size=6))
    spans = [Span(min(cut), max(cut) + 1) for cut in cuts]
    fps = data.draw(st.sampled_from([5.0, 10.0, 24.0, 25.0, 60.0]))
    together = decode(shared_clip, spans, fps=fps)
    alone_at = data.draw(st.integers(0, len(spans) - 1))
    alone = decode(shared_clip, [spans[alone_at]], fps=fps)
    assert alone.times() == together.times(alone_at)
    np.testing.assert_array_equal(alone.sound(), together.sound(alone_at))
    for one, other in zip(alone.frames[0], together.frames[alone_at], strict=True):
        np.testing.assert_array_equal(one.rgb, other.rgb)
    span_s = min(spans[alone_at].end_ms / 1000, 2.0) - spans[alone_at].start_ms / 1000
    if span_s > 0:
        assert len(alone.frames[0]) <= span_s * min(fps, 25) + 1.01
        assert len(alone.frames[0]) >= max(1, span_s * min(fps, 25) - 1.01)
        assert all(0 <= time_s < span_s + 1e-6 for time_s in alone.times())
    elif spans[alone_at].start_ms >= 2100:
        assert alone.ends[0].problem == "beyond_end"


@pytest.fixture(scope="module")
def shared_clip(tmp_path_factory):
    from fractions import Fraction

    path = tmp_path_factory.mktemp("media") / "shared.mkv"
    with av.open(str(path), "w") as output:
        video = output.add_stream("libx264", rate=25)
        video.width, video.height, video.pix_fmt = 32, 32, "yuv420p"
        sound = output.add_stream("pcm_s16le", rate=44_100)
        sound.layout = "mono"
        noise = np.random.default_rng(0).integers(-9999, 9999, (1, 88_200), dtype=np.int16)
        for at in range(50):
            frame = av.VideoFrame.from_ndarray(np.full((32, 32, 3), 5 * at, np.uint8), format="rgb24")
            frame.pts, frame.time_base = at, Fraction(1, 25)
            output.mux(video.encode(frame))
            piece = noise[:, at * 1764 : (at + 1) * 1764]
            block = av.AudioFrame.from_ndarray(piece, format="s16", layout="mono")
            block.sample_rate, block.pts, block.time_base = 44_100, at * 1764, Fraction(1, 44_100)
            output.mux(sound.encode(block))
        for stream in (video, sound):
            output.mux(stream.encode(None))
    return path


@pytest.mark.parametrize("extension", ["mp4", "mkv"])
@pytest.mark.parametrize(("asked", "expected"), [(25, 50), (100, 50), (12.5, 25), (5, 10), (1, 2)])
def test_frames_are_sampled_at_the_wanted_rate(footage, decode, extension, asked, expected):
    path = footage(f"rate.{extension}", audio=None)
    got = decode(path, fps=asked)
    assert len(got.frames[0]) == expected
    assert np.diff(got.times()) == pytest.approx(max(1 / asked, 1 / 25), abs=0.021)


def test_a_thirtieth_of_a_second_survives_rounded_time_stamps(footage, decode):
    """30 frames/s in ms ticks, cut at half a frame: every frame is there."""
    path = footage("thirty.mkv", audio=None, fps=30)
    got = decode(path, [Span(0, 1000), Span(517, 1517)], fps=30)
    assert [len(got.frames[0]), len(got.frames[1])] == [30, 30]


def test_a_variable_frame_rate_keeps_true_times(footage, decode):
    ticks = [0, 1, 2, 3, 10, 11, 40, 41, 42]
    path = footage("variable.mkv", audio=None, frame_times=ticks, picture=lambda time_s: round(time_s * 100))
    got = decode(path, fps=25)
    seen = [round(frame.rgb.mean() / 4) for frame in got.frames[0]]
    assert seen == pytest.approx(ticks, abs=1)
    for tick, time_s in zip(ticks, got.times(), strict=True):
        assert tick / 25 <= time_s <= tick / 25 + 1.2


def test_a_span_within_one_still_frame_gets_that_frame(footage, decode):
    path = footage("still.mp4", audio=None, frame_times=[0, 100], picture=lambda time_s: 200 if time_s else 50)
    got = decode(path, [Span(1000, 2000)], fps=10)
    assert len(got.frames[0]) == 1
    assert got.frames[0][0].rgb.mean() == pytest.approx(50, abs=3)
    assert got.times() == [pytest.approx(0.5)]


def test_frames_are_scaled_down_never_up(footage, decode):
    path = footage("large.mp4", size=(320, 180), audio=None, seconds=0.2)
    assert decode(path, max_side=160).frames[0][0].rgb.shape == (90, 160, 3)
    assert decode(path, max_side=640).frames[0][0].rgb.shape == (180, 320, 3)


@pytest.mark.parametrize("rotation", [90, 180, -90])
def test_rotation_metadata_turns_frames_upright(footage, decode, rotation):
    bright_top = np.zeros((48, 64, 3), np.uint8)
    bright_top[:16] = 255
    path = footage("turned.mp4", audio=None, seconds=0.2, rotation=rotation, picture=lambda _: bright_top)
    rgb = decode(path).frames[0][0].rgb
    expected = np.rot90(bright_top, rotation // 90)
    assert rgb.shape == expected.shape
    assert np.abs(rgb.astype(int) - expected).mean() < 12


def test_sound_alone_and_pictures_alone_can_be_asked_for(footage, decode):
    path = footage("both.mp4")
    silent = decode(path, audio_rate=None)
    assert silent.ends[0].audio is None
    assert silent.ends[0].has_audio_stream
    blind = decode(path, fps=0)
    assert blind.frames[0] == []
    assert len(blind.sound()) == pytest.approx(32_000, abs=500)
    with pytest.raises(ValueError, match="ask for"):
        decode_spans(path, [Span(0, None)], audio_rate=None, video=None, limits=MediaLimits())


def test_spans_and_requests_that_make_no_sense_are_refused():
    for start_ms, end_ms in ((-1, 5), (5, 5), (7, 5)):
        with pytest.raises(ValueError, match="holds no time"):
            Span(start_ms, end_ms)
    with pytest.raises(ValueError, match="sample"):
        VideoRequest(0, 640)


def test_a_file_object_gives_what_its_path_gives(footage, decode):
    path = footage("object.mp4")
    with path.open("rb") as file:
        from_object = decode(file)
        assert not file.closed
    from_path = decode(path)
    np.testing.assert_array_equal(from_object.sound(), from_path.sound())
    assert from_object.times() == from_path.times()


def test_decoding_stops_after_the_last_span(footage, decode):
    path = footage("long.mkv", seconds=20.0, audio="pcm_s16le")

    class Counting:
        def __init__(self, file):
            self.file, self.bytes = file, 0
            self.seek, self.tell = file.seek, file.tell

        def read(self, size):
            block = self.file.read(size)
            self.bytes += len(block)
            return block

    with path.open("rb") as file:
        counting = Counting(file)
        decode(counting, [Span(0, 1000)])
    assert counting.bytes < path.stat().st_size / 3
