"""Speech by eSpeak NG: the library of the ``espeakng-loader`` wheel, through ctypes.

The library keeps state from one utterance to the next (the phase of its oscillators, its noise), which would make a
clip depend on the ones before it. So it is loaded afresh for each: 5 ms, and the same samples every time. The breath of
some voices is drawn from the C library's generator, which eSpeak NG seeds with the time of day: it is seeded anew
before each utterance. It is not safe in threads: one per process.
"""

import _ctypes
import ctypes
import sys
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from miar.errors import UnavailableError
from miar.synth.speakers import Speaker

SAMPLE_RATE = 22_050
"""Hz; eSpeak NG's own."""
_SYNCHRONOUS = 2  # AUDIO_OUTPUT_SYNCHRONOUS: samples go to the callback, before the call returns
_UTF8 = 1
_PARAMETERS = {"rate": 1, "volume": 2, "pitch": 3, "range": 4}
_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)

FloatArray = NDArray[np.float64]
_SMOOTHER: FloatArray = np.hanning(11).astype(np.float64) / np.hanning(11).sum()

BREATH_SEED = 1

LEVEL_DB = -23.0
"""Level of a neutral utterance: RMS of its louder half, in dB of full scale."""
_ENVELOPE = 1323
LOUDEST = 0.92
"""Beyond this the tops of the waves are rounded off."""


@dataclass(frozen=True)
class Manner:
    """How an utterance is spoken."""

    rate: int
    """Words per minute."""
    pitch: int
    """eSpeak's scale, 0..100."""
    pitch_range: int
    """eSpeak's scale, 0 (monotonous) .. 100."""
    level_db: float
    brightness: float
    """Vocal effort as tilt of the spectrum: -1 (muffled) .. 1 (pressed)."""
    evenness: float
    """How far every syllable is brought to the same loudness, 0 (not at all) .. 1."""


def manner(speaker: Speaker, tone: float, flat: bool) -> Manner:
    """How ``speaker`` sounds with this ``tone`` (-3..3): faster, higher, louder, brighter the better the mood.

    ``flat`` takes the melody away, and the stress with it.
    """
    return Manner(
        rate=round((182 + 13 * tone) * speaker.rate),
        pitch=round(speaker.pitch + 5 * tone),
        pitch_range=0 if flat else round(72 + 5 * tone),
        level_db=LEVEL_DB + 3.2 * tone + speaker.gain_db,
        brightness=tone / 3,
        evenness=0.8 if flat else 0.0,
    )


def speak(text: str, voice: str, how: Manner, longest_s: float) -> FloatArray:
    """Speech (n,) in -1..1 at :data:`SAMPLE_RATE`, without silence around it; hurried if it would last too long."""
    samples = _trim(_synthesize(text, voice, how.rate, how.pitch, how.pitch_range))
    hurry = len(samples) / SAMPLE_RATE / longest_s
    if hurry > 1:
        rate = int(np.ceil(how.rate * hurry * 1.06))
        samples = _trim(_synthesize(text, voice, rate, how.pitch, how.pitch_range))[: int(longest_s * SAMPLE_RATE)]
    return _levelled(_evened(_tilted(samples, how.brightness), how.evenness), how.level_db)


def loudness(samples: FloatArray, rate_hz: float) -> FloatArray:
    """Envelope of ``samples`` (n,) in frames of 1 / ``rate_hz`` s: RMS relative to the loudest frame, 0..1."""
    frame = round(SAMPLE_RATE / rate_hz)
    count = -(-len(samples) // frame)
    padded = np.zeros(count * frame)
    padded[: len(samples)] = samples
    level = np.sqrt((padded.reshape(count, frame) ** 2).mean(axis=1))
    return level / level.max() if level.size and level.max() > 0 else level


def _synthesize(text: str, voice: str, rate: int, pitch: int, pitch_range: int) -> FloatArray:
    """eSpeak's own samples (n,), in -1..1."""
    try:
        import espeakng_loader
    except ImportError as error:
        raise UnavailableError(
            "the demo corpus speaks through eSpeak NG: pip install 'miar[demo]' brings it"
        ) from error
    chunks: list[NDArray[np.int16]] = []

    @_CALLBACK
    def receive(wave: "ctypes._Pointer[ctypes.c_short]", count: int, _events: int) -> int:
        if wave and count > 0:
            chunks.append(np.ctypeslib.as_array(wave, (count,)).copy())
        return 0

    library = ctypes.CDLL(espeakng_loader.get_library_path())
    try:
        _check(library.espeak_Initialize(_SYNCHRONOUS, 0, espeakng_loader.get_data_path().encode(), 0) > 0)
        library.espeak_SetSynthCallback(receive)
        _check(library.espeak_SetVoiceByName(f"en-us+{voice}".encode()) == 0)
        values = {"rate": rate, "volume": 100, "pitch": min(99, max(0, pitch)), "range": min(99, pitch_range)}
        for name, value in values.items():
            _check(library.espeak_SetParameter(_PARAMETERS[name], value, 0) == 0)
        library.espeak_ng_SetRandSeed(ctypes.c_long(BREATH_SEED))
        ctypes.CDLL(None).srand(BREATH_SEED)
        data = text.encode()
        _check(library.espeak_Synth(data, len(data) + 1, 0, 0, 0, _UTF8, None, None) == 0)
        library.espeak_Synchronize()
        library.espeak_Terminate()
    finally:
        _unload(library)
    return np.concatenate(chunks).astype(np.float64) / 32768


def _check(done: bool) -> None:
    if not done:
        raise RuntimeError("eSpeak NG refused a request")


def _unload(library: ctypes.CDLL) -> None:
    if sys.platform == "win32":
        _ctypes.FreeLibrary(library._handle)
    else:
        _ctypes.dlclose(library._handle)


def _trim(samples: FloatArray) -> FloatArray:
    loud = np.flatnonzero(np.abs(samples) > 0.003)
    return samples[loud[0] : loud[-1] + 1] if loud.size else samples[:0]


def _tilted(samples: FloatArray, brightness: float) -> FloatArray:
    """Mix in the slope (brighter) or the running mean (duller) of the wave."""
    if brightness > 0:
        return samples + 1.5 * brightness * np.diff(samples, prepend=0.0)
    smooth = np.convolve(samples, _SMOOTHER, mode="same")
    return samples * (1 + 0.85 * brightness) - 0.85 * brightness * smooth


def _evened(samples: FloatArray, evenness: float) -> FloatArray:
    """Divide by the power ``evenness`` of the envelope (60 ms), down to a tenth of its mean."""
    if not evenness or not len(samples):
        return samples
    envelope = np.sqrt(np.convolve(samples**2, np.full(_ENVELOPE, 1 / _ENVELOPE), mode="same"))
    relative = np.maximum(envelope / envelope.mean(), 0.1)
    return samples / relative**evenness


def _levelled(samples: FloatArray, level_db: float) -> FloatArray:
    """Scale so that the louder half of 20 ms frames has the RMS ``level_db`` (dB of full scale)."""
    frames = samples[: len(samples) // 441 * 441].reshape(-1, 441)
    power = np.sort((frames**2).mean(axis=1))
    louder = np.sqrt(power[len(power) // 2 :].mean())
    scaled = samples * (10 ** (level_db / 20) / louder)
    return np.tanh(scaled / LOUDEST) * LOUDEST
