"""Speech is found on real footage, and recognised by a small model that the test makes."""

import itertools
from pathlib import Path

import numpy as np
import pytest
from made_whisper import made_whisper

from miar.config import CorpusConfig, ListeningConfig, MediaLimits
from miar.media.decode import Span, decode_spans
from miar.segmentation import sound
from miar.segmentation.recognition import Recognizer
from miar.segmentation.segmenter import segmenter_id, segmenter_of
from miar.segmentation.voice import VoiceDetector, detector_options

FOOTAGE = Path(__file__).resolve().parents[4] / "shared" / "media"
real = pytest.mark.skipif(not FOOTAGE.is_dir(), reason=f"no real footage at {FOOTAGE}")
SAYS = " Good day to you"


def spans(name: str, config: ListeningConfig | None = None) -> list[tuple[int, int]]:
    found = VoiceDetector(config or ListeningConfig()).segment(str(FOOTAGE / name), MediaLimits())
    assert all(one.text is None for one in found.segments)
    return [(one.start_ms, one.end_ms) for one in found.segments]


def heard(name: str) -> np.ndarray:
    (end,) = decode_spans(str(FOOTAGE / name), [Span(0, None)], audio_rate=16_000, video=None, limits=MediaLimits())
    return end.audio


@real
@pytest.mark.parametrize("name", ["talking_1.mp4", "talking_2.mp4", "talking_3.mp4"])
def test_as_the_detector_itself_finds_it(name: str) -> None:
    from faster_whisper.vad import VadOptions, get_speech_timestamps

    found = get_speech_timestamps(heard(name), VadOptions(**detector_options(ListeningConfig())))
    assert spans(name) == [(round(one["start"] / 16), round(one["end"] / 16)) for one in found]
    assert sum(end - start for start, end in spans(name)) > 3000  # they do talk most of the time


@real
def test_pauses_hold_no_speech() -> None:
    """In talking_2 somebody pauses for most of a second: the sound there is far below that of the speech."""
    (first, second), samples = spans("talking_2.mp4"), heard("talking_2.mp4")
    pause, speech = samples[first[1] * 16 : second[0] * 16], samples[first[0] * 16 : first[1] * 16]
    assert second[0] - first[1] > 500
    assert np.sqrt(np.mean(pause**2)) < 0.25 * np.sqrt(np.mean(speech**2))
    assert len(spans("talking_2.mp4", ListeningConfig(min_pause_s=2.0))) == 1
    assert max(end - start for start, end in spans("talking_1.mp4", ListeningConfig(max_speech_s=2.0))) <= 2000


@real
@pytest.mark.parametrize("name", ["talking_2.mp4", "talking_3.mp4"])
def test_a_piece_at_a_time_finds_the_same(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = spans(name)
    monkeypatch.setattr(sound, "PIECE_S", 2)
    in_pieces = spans(name)
    assert len(in_pieces) == len(whole)
    np.testing.assert_allclose(in_pieces, whole, atol=150)


def test_what_goes_on_is_found_once() -> None:
    """Runs of ones in a signal that is handed out in pieces of any size."""
    rate = sound.SAMPLE_RATE
    signal = np.zeros(20 * rate, np.float32)
    runs = [(1.0, 3.5), (5.0, 12.0), (19.0, 20.0)]
    for start, end in runs:
        signal[int(start * rate) : int(end * rate)] = 1

    def find(samples: np.ndarray, begin_s: float) -> list[tuple[float, float]]:
        edges = np.flatnonzero(np.diff(np.concatenate([[0], samples, [0]])))
        return [(begin_s + a / rate, begin_s + b / rate) for a, b in edges.reshape(-1, 2)]

    for piece_s in (1.0, 3.0, 7.3, 30.0):
        size = int(piece_s * rate)
        pieces = (signal[at : at + size] for at in range(0, len(signal), size))
        np.testing.assert_allclose(list(sound.carried_over(pieces, find, lambda span: span)), runs, atol=1e-3)


def test_silence_noise_and_no_sound_hold_no_speech(tmp_path: Path) -> None:
    import av

    for name, samples in {
        "silent.wav": np.zeros(32_000),
        "noise.wav": 0.1 * np.random.default_rng(0).normal(size=32_000),
    }.items():
        with av.open(str(tmp_path / name), "w") as output:
            stream = output.add_stream("pcm_s16le", rate=16_000, layout="mono")
            block = (32767 * np.clip(samples, -1, 1)).astype(np.int16)[None]
            frame = av.AudioFrame.from_ndarray(block, format="s16", layout="mono")
            frame.sample_rate = 16_000
            output.mux(stream.encode(frame))
            output.mux(stream.encode(None))
        assert VoiceDetector(ListeningConfig()).segment(str(tmp_path / name), MediaLimits()).segments == []


@pytest.fixture(scope="module")
def whisper(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_whisper(tmp_path_factory.mktemp("whisper"), SAYS)


@real
def test_words_and_when_they_are_said(whisper: Path) -> None:
    recognizer = Recognizer(ListeningConfig(recognizer=str(whisper)))
    found = recognizer.segment(str(FOOTAGE / "talking_1.mp4"), MediaLimits())
    assert found.segments
    assert {one.text for one in found.segments} == {SAYS.strip()}
    assert [word.text for word in found.words] == SAYS.split() * len(found.segments)
    assert found.language == "en"
    assert found.segments[-1].end_ms <= 5100
    assert all(a.start_ms <= b.start_ms < b.end_ms for a, b in itertools.pairwise(found.words))
    assert recognizer.segment(str(FOOTAGE / "talking_1.mp4"), MediaLimits()) == found  # the same words every time


@real
def test_as_the_recogniser_itself_hears_it(whisper: Path) -> None:
    from faster_whisper import WhisperModel

    config = ListeningConfig(recognizer=str(whisper), language="en")
    heard_by_itself, _ = WhisperModel(str(whisper)).transcribe(
        heard("talking_2.mp4"),
        language="en",
        temperature=0.0,
        condition_on_previous_text=False,
        word_timestamps=True,
        vad_filter=True,
        vad_parameters=detector_options(config),
    )
    bare = [(one.start, min(one.end, 4.88), one.text.strip()) for one in heard_by_itself if one.start < 4.87]
    ours = Recognizer(config).segment(str(FOOTAGE / "talking_2.mp4"), MediaLimits()).segments
    assert [one.text for one in ours] == [text for *_, text in bare]
    np.testing.assert_allclose(
        [(one.start_ms, one.end_ms) for one in ours], [(1000 * a, 1000 * b) for a, b, _ in bare], atol=10
    )


def test_without_the_model_voice_is_still_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    asked = CorpusConfig(segment_by="speech", listening=ListeningConfig(recognizer="org/nowhere"))
    segmenter, warning = segmenter_of(asked)
    assert isinstance(segmenter, VoiceDetector)
    assert "speech recogniser org/nowhere is not on this machine" in (warning or "")
    assert "miar fetch whisper:org/nowhere" in (warning or "")


def test_cuts_are_known_by_what_makes_them(whisper: Path) -> None:
    def number(**listening: object) -> int:
        segmenter, _ = segmenter_of(CorpusConfig(segment_by="speech", listening=ListeningConfig(**listening)))
        assert segmenter is not None
        return segmenter_id(segmenter)

    numbers = [number(), number(min_pause_s=1.0), number(recognizer=str(whisper))]
    numbers += [number(recognizer=str(whisper), language="de")]
    assert len(set(numbers)) == 4
    assert number() == numbers[0]
    assert all(10 < one < 2**31 for one in numbers)
    assert segmenter_of(CorpusConfig())[0] is None
