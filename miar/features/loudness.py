"""What every audio extractor says of the sound itself: level, clipping, and noise."""

import numpy as np

from miar.features.contract import Extraction, FloatArray

FLOOR_DB = -120.0
"""Level of digital silence."""
CLIPPED_AT = 0.999
LEAST_SNR_DB = -20.0
"""Of sound that is noise alone."""


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


def signal_to_noise_db(signal: FloatArray, sample_rate: int) -> float:
    """Power of the sound over that of its noise, in dB, at least :data:`LEAST_SNR_DB`.

    The noise is the 10th percentile of the power of 20 ms frames, and the sound what the mean has above it. Noise added
    to real speech at 20 to -5 dB is found within 1 dB; above, the recording's own noise counts. Without pauses it is a
    lower bound, since the quietest speech is taken for noise.
    """
    size = max(1, sample_rate // 50)
    whole = signal[: signal.size // size * size].reshape(-1, size).astype(np.float64)
    if not whole.size:
        return 0.0
    power = np.mean(whole**2, axis=1)
    noise = max(float(np.percentile(power, 10)), 10 ** (FLOOR_DB / 10))
    return max(LEAST_SNR_DB, 10 * float(np.log10(max(float(power.mean()) / noise - 1, 1e-30))))
