"""One way to turn a value into a short, stable key."""

import hashlib
import json
from typing import Any

KEY_HEX_DIGITS = 32
"""128 bits: at ten billion keys the chance of any collision is below 1e-18."""


def stable_key(value: Any) -> str:
    """Return 32 hex digits that depend on ``value`` alone: not on the process, the platform or the order of dict keys.

    ``value`` is anything JSON can hold. Lone surrogates (file names that are not UTF-8) are kept apart by escaping.

    Raises:
        TypeError: ``value`` holds something JSON cannot.
        ValueError: ``value`` holds NaN or an infinity, which JSON has no name for.
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode("ascii")).hexdigest()[:KEY_HEX_DIGITS]
