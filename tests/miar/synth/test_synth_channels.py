"""Each channel carries its signal: words by grade, voice by measurable sound, face by its action units."""

import time

import numpy as np
import opensmile
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from miar.synth.draw import SIDE, Portrait
from miar.synth.expression import perform, rest
from miar.synth.mesh import LIPS_LOWER_INNER, LIPS_UPPER_INNER, mesh_model
from miar.synth.speakers import VOICES, make_speaker
from miar.synth.voice import SAMPLE_RATE, loudness, manner, speak
from miar.synth.words import FEELINGS, JUDGEMENTS, sentence


def grade(text: str) -> float:
    """Mean grade of the judgement and the feeling that a sentence holds, found without the generator's help."""
    judged = text.split(" was ", 1)[1]
    judgements = [(len(p), grade) for grade, phrases in JUDGEMENTS.items() for p in phrases if judged.startswith(p)]
    feelings = [(len(p), grade) for grade, phrases in FEELINGS.items() for p in phrases if text.endswith(f"{p}.")]
    return (max(judgements)[1] + max(feelings)[1]) / 2


@given(signal=st.floats(-3, 3), seed=st.integers(0, 2**32))
def test_a_sentence_says_its_signal(signal, seed):
    assert grade(sentence(signal, np.random.default_rng(seed))) == pytest.approx(signal, abs=0.3)


def test_sentences_hardly_repeat():
    rng = np.random.default_rng(0)
    said = [sentence(float(signal), rng) for signal in rng.uniform(-3, 3, 1_000)]
    assert len(set(said)) > 980


def test_the_same_utterance_has_the_same_samples_whatever_was_spoken_before():
    speaker = make_speaker(0, 1)
    how = manner(speaker, 1.0, False)
    first = speak("Well, the film was great.", speaker.voice, how, 4.0)
    speak("Something else, in another voice.", "m3", manner(make_speaker(0, 2), -2.0, True), 4.0)
    np.testing.assert_array_equal(speak("Well, the film was great.", speaker.voice, how, 4.0), first)


def test_better_mood_is_louder_and_faster():
    speaker, text = make_speaker(0, 0), "You know, the hotel was fine and I was satisfied."
    low, high = (speak(text, speaker.voice, manner(speaker, tone, False), 5.0) for tone in (-2.5, 2.5))
    assert len(low) > 1.2 * len(high)
    assert np.sqrt((high**2).mean()) > 3 * np.sqrt((low**2).mean())
    assert max(np.abs(low).max(), np.abs(high).max()) < 1


@settings(max_examples=15, deadline=None)
@given(tone=st.floats(-3, 3), number=st.integers(0, 60), flat=st.booleans())
def test_speech_keeps_to_its_time(tone, number, flat):
    speaker = make_speaker(1, number)
    text = "I mean, the neighbourhood was a bit disappointing and honestly I have no strong opinion."
    samples = speak(text, speaker.voice, manner(speaker, tone, flat), 4.6)
    assert 1.0 * SAMPLE_RATE < len(samples) <= 4.6 * SAMPLE_RATE


@pytest.mark.parametrize("voice_of", [0, 1])
def test_a_flat_voice_has_no_melody(voice_of):
    smile = opensmile.Smile(opensmile.FeatureSet.eGeMAPSv02, opensmile.FeatureLevel.Functionals)
    speaker, text = make_speaker(4, voice_of), "As I said, the concert was wonderful and I loved every minute."
    spread = []
    for flat in (False, True):
        samples = speak(text, speaker.voice, manner(speaker, 0.0, flat), 4.6)
        table = smile.process_signal(samples.astype(np.float32), SAMPLE_RATE)
        spread.append(float(table["F0semitoneFrom27.5Hz_sma3nz_stddevNorm"].iloc[0]))
    assert spread[1] < 0.6 * spread[0]


def test_the_face_smiles_and_frowns_with_its_signal():
    envelope = np.zeros(30)
    happy, sad = (perform(signal, envelope, np.random.default_rng(0)) for signal in (2.5, -2.5))
    assert happy.units["AU12"].mean() > 0.6 > 0.1 > sad.units["AU12"].mean()
    assert sad.units["AU04"].mean() > 0.6 > 0.1 > happy.units["AU04"].mean()
    np.testing.assert_array_equal(happy.units["AU01"], sad.units["AU01"])


def test_the_mouth_of_the_mesh_follows_the_loudness_of_the_speech():
    speaker = make_speaker(0, 3)
    speech = speak("So, the museum was superb and I adore it.", speaker.voice, manner(speaker, 0.0, False), 4.6)
    envelope = loudness(np.concatenate([np.zeros(5_000), speech, np.zeros(9_000)]), 10)
    controls = perform(0.0, envelope, np.random.default_rng(1)).controls()
    mesh = mesh_model().vertices(controls)
    gap = (mesh[:, LIPS_LOWER_INNER, 1] - mesh[:, LIPS_UPPER_INNER, 1]).mean(axis=1)
    assert np.corrcoef(gap, envelope)[0, 1] > 0.9
    assert gap[envelope > 0.6].min() > 2 * gap[envelope == 0].max()


def test_a_drawn_face_fills_the_frame_and_moves_only_where_it_should():
    portrait = Portrait(make_speaker(0, 5))
    still = portrait.frames(rest().controls(), rest().shifts)[0]
    smile = perform(3.0, np.zeros(20), np.random.default_rng(0))
    moved = portrait.frames(smile.controls()[10:11], np.zeros((1, 2)))[0]
    assert still.shape == moved.shape == (SIDE, SIDE, 3)
    changed = np.abs(still.astype(int) - moved).max(axis=2) > 8
    assert changed.sum() > 300
    assert not changed[:40].any()
    assert not changed[:, :60].any()
    assert not np.array_equal(portrait.empty_room(), still)


def test_every_voice_says_the_same_at_any_time_of_day_and_in_any_order() -> None:
    """eSpeak NG seeds the breath of some voices with the time in seconds."""
    how = manner(make_speaker(0, 0), 1.0, flat=False)

    def spoken(voices: list[str]) -> dict[str, bytes]:
        return {voice: speak("No strong opinion.", voice, how, 4.0).tobytes() for voice in voices}

    first = spoken(list(VOICES))
    time.sleep(1.1)
    assert spoken(list(VOICES)[::-1]) == first
