"""Makes one video: speech, face, file and transcript."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from miar.synth.draw import SIDE, Frame, Portrait
from miar.synth.expression import FRAMES_PER_SECOND, REPORTED_UNITS, Performance, perform, rest
from miar.synth.model import Signals, draw_signals
from miar.synth.plan import VideoPlan
from miar.synth.speakers import Speaker, make_speaker
from miar.synth.voice import SAMPLE_RATE, FloatArray, loudness, manner, speak
from miar.synth.words import NO_WORDS, mumble, sentence

SHORTEST, LONGEST = 2.0, 5.0
"""Length of a clip in seconds."""
LEAD_FRAMES = 2
"""Frames before the speech starts, and at least as many after it."""
ROOM_TONE = 1e-4
"""Deviation of the noise that is everywhere, relative to full scale: -80 dB."""
SAMPLES_PER_FRAME = SAMPLE_RATE // FRAMES_PER_SECOND


@dataclass(frozen=True)
class ClipFacts:
    """What was put into one clip."""

    start_ms: int
    end_ms: int
    text: str
    """As in the transcript."""
    units: dict[str, float]
    """``AU01_mean``, ``AU01_max`` ... of a clip with a face; empty otherwise."""


@dataclass(frozen=True)
class _Clip:
    """One clip before it is drawn."""

    text: str
    samples: FloatArray
    """(n_frames * SAMPLES_PER_FRAME,)"""
    performance: Performance | None
    """``None``: no face in view."""
    turned_away: bool

    @property
    def frames(self) -> int:
        return len(self.samples) // SAMPLES_PER_FRAME


def make_video(folder: Path, plan: VideoPlan) -> list[ClipFacts]:
    """Write ``folder/<name>.mp4`` and its transcript (srt for even numbers, vtt for odd ones).

    Everything is drawn from (seed, video number): the result does not depend on what was made before or elsewhere.

    Returns:
        What was put into each clip, in order.
    """
    rng = np.random.default_rng([plan.seed, plan.number, 0x71DE0])
    speaker = make_speaker(plan.seed, plan.speaker)
    signals = draw_signals(plan.seed, plan.first_clip, plan.clips)
    clips = [_compose(speaker, signals, index, rng) for index in range(plan.clips)]
    gaps = [int(rng.integers(4, 9)) for _ in range(plan.clips + 1)]  # frames before, between and after
    facts = _facts(clips, gaps)
    _write_media(folder / f"{plan.name}.mp4", _scenes(Portrait(speaker), clips, gaps), _sound(clips, gaps, rng))
    _write_transcript(folder / plan.name, facts, as_srt=plan.number % 2 == 0)
    return facts


def _compose(speaker: Speaker, signals: Signals, index: int, rng: np.random.Generator) -> _Clip:
    """Words, sound and acting of one clip."""
    has_words, has_sound, has_face = (bool(value) for value in signals.available[index])
    tone, flat = float(signals.tone[index]), bool(signals.flat[index])
    text = sentence(float(signals.words[index]), rng) if has_words else NO_WORDS
    uttered = text if has_words else mumble(rng)
    longest = LONGEST - 2 * LEAD_FRAMES / FRAMES_PER_SECOND
    speech = np.zeros(0)
    if has_words or has_sound:  # words without sound were spoken all the same: the lips move
        speech = speak(uttered, speaker.voice, manner(speaker, tone, flat), longest)
    wanted = -(-len(speech) // SAMPLES_PER_FRAME) + 2 * LEAD_FRAMES
    shortest = int(SHORTEST * FRAMES_PER_SECOND) + int(rng.integers(0, 6))
    count = max(wanted, shortest)
    samples = np.zeros(count * SAMPLES_PER_FRAME)
    start = LEAD_FRAMES * SAMPLES_PER_FRAME
    samples[start : start + len(speech)] = speech
    performance = perform(float(signals.face[index]), loudness(samples, FRAMES_PER_SECOND), rng)
    someone_there = (has_words or has_sound) and bool(rng.random() < 0.6)
    return _Clip(text, samples * has_sound, performance if has_face else None, someone_there)


def _facts(clips: list[_Clip], gaps: list[int]) -> list[ClipFacts]:
    facts, frame = [], 0
    for clip, gap in zip(clips, gaps, strict=False):
        start = frame + gap
        frame = start + clip.frames
        units = {}
        if clip.performance is not None:
            for unit in REPORTED_UNITS:
                values = clip.performance.units[unit]
                units |= {f"{unit}_mean": float(values.mean()), f"{unit}_max": float(values.max())}
        milliseconds = 1000 // FRAMES_PER_SECOND
        facts.append(ClipFacts(start * milliseconds, frame * milliseconds, clip.text, units))
    return facts


def _scenes(portrait: Portrait, clips: list[_Clip], gaps: list[int]) -> Iterator[Frame]:
    """Every frame of the video. A gap shows what its neighbour clips show, half each."""
    still = [_still(portrait, clip) for clip in clips]
    yield from [still[0]] * gaps[0]
    for index, clip in enumerate(clips):
        if clip.performance is None:
            yield from [still[index]] * clip.frames
        else:
            yield from portrait.frames(clip.performance.controls(), clip.performance.shifts)
        after, following = gaps[index + 1], still[min(index + 1, len(clips) - 1)]
        yield from [still[index]] * (after // 2)
        yield from [following] * (after - after // 2)


def _still(portrait: Portrait, clip: _Clip) -> Frame:
    if clip.performance is not None:
        return portrait.frames(rest().controls(), rest().shifts)[0]
    return portrait.back_of_head() if clip.turned_away else portrait.empty_room()


def _sound(clips: list[_Clip], gaps: list[int], rng: np.random.Generator) -> FloatArray:
    """(n,) the sound of the whole video, room tone included."""
    parts = [np.zeros(gaps[0] * SAMPLES_PER_FRAME)]
    for clip, gap in zip(clips, gaps[1:], strict=True):
        parts += [clip.samples, np.zeros(gap * SAMPLES_PER_FRAME)]
    sound = np.concatenate(parts)
    return sound + rng.normal(0, ROOM_TONE, len(sound))


def _write_media(path: Path, frames: Iterator[Frame], sound: FloatArray) -> None:
    """Encode as H.264 and AAC; the file appears under its name only when it is whole."""
    import av

    partial = path.with_suffix(".partial")
    with av.open(str(partial), "w", format="mp4", options={"fflags": "+bitexact"}) as container:
        video = container.add_stream("libx264", rate=FRAMES_PER_SECOND)
        video.width = video.height = SIDE
        video.pix_fmt = "yuv420p"
        # one thread: the same bytes on every machine, and the processes already fill the cores
        video.options = {"preset": "veryfast", "crf": "20", "threads": "1", "flags": "+bitexact"}
        audio = container.add_stream("aac", rate=SAMPLE_RATE, layout="mono")
        audio.bit_rate = 80_000
        audio.options = {"flags": "+bitexact", "aac_coder": "fast"}  # a fifth of the default's time
        samples = sound.astype(np.float32)
        for number, frame in enumerate(frames):
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
            picture.pts = number
            container.mux(video.encode(picture))
            start = number * SAMPLES_PER_FRAME
            piece = av.AudioFrame.from_ndarray(samples[None, start : start + SAMPLES_PER_FRAME], "fltp", "mono")
            piece.sample_rate, piece.pts = SAMPLE_RATE, start
            container.mux(audio.encode(piece))
        container.mux(video.encode(None))
        container.mux(audio.encode(None))
    os.replace(partial, path)


def _write_transcript(stem: Path, facts: list[ClipFacts], *, as_srt: bool) -> None:
    mark = "," if as_srt else "."
    cues = [
        f"{number}\n{_clock(fact.start_ms, mark)} --> {_clock(fact.end_ms, mark)}\n{fact.text}\n"
        for number, fact in enumerate(facts, start=1)
    ]
    header = "" if as_srt else "WEBVTT\n\n"
    stem.with_suffix(".srt" if as_srt else ".vtt").write_text(header + "\n".join(cues), "utf-8", newline="\n")


def _clock(milliseconds: int, mark: str) -> str:
    seconds, rest_ms = divmod(milliseconds, 1000)
    return f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}{mark}{rest_ms:03d}"
