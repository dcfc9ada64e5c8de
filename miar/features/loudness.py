"""What every audio extractor says of the sound itself: level, clipping, and how far speech stands over its pauses."""

import numpy as np

from miar.features.contract import Extraction, FloatArray

FLOOR_DB = -120.0
"""Level of digital silence."""
CLIPPED_AT = 0.999


def heard(samples: FloatArray | None) -> FloatArray | Extraction:
    """The samples, or what an extractor says of a clip that none can hear.

    Raises:
        ValueError: they are not mono.
    """
    if samples is None:
        return Extraction.missing("no_audio_stream")
    if samples.ndim != 1:
        raise ValueError(f"samples must be mono, (n,); got {samples.shape}")
    if not np.isfinite(samples).all():
        return Extraction.failed("BadSamples", "the sound holds NaN or infinite samples: export it again")
    return samples


def loudness(samples: FloatArray) -> dict[str, float]:
    """``quality_level_db``: the root mean square over the clip, in dB below full scale (dBFS).
    ``quality_clipping_share``: of the samples that stand at full scale."""
    if not samples.size:
        return {"quality_level_db": FLOOR_DB, "quality_clipping_share": 0.0}
    power = float(np.mean(np.square(samples, dtype=np.float64)))
    return {
        "quality_level_db": max(FLOOR_DB, 10 * float(np.log10(max(power, 1e-30)))),
        "quality_clipping_share": float(np.mean(np.abs(samples) >= CLIPPED_AT)),
    }


def speech_to_pause_db(signal: FloatArray, sample_rate: int) -> float:
    """Level of the loud frames over that of the quiet ones, in dB: 95th against 10th percentile of 20 ms frames.

    An estimate of the signal-to-noise ratio where a clip holds pauses, and a lower bound where it holds none.
    """
    size = max(1, sample_rate // 50)
    whole = signal[: signal.size // size * size].reshape(-1, size).astype(np.float64)
    if not whole.size:
        return 0.0
    level = 10 * np.log10(np.maximum(np.mean(whole**2, axis=1), 10 ** (FLOOR_DB / 10)))
    loud, quiet = np.percentile(level, [95, 10])
    return float(loud - quiet)
