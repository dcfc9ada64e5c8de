"""From words to what an encoder reads: tokens in windows, and where in the text each token starts.

The prefix and the text are tokenised as one string, as ``sentence_transformers`` does, since a tokenizer may treat the
first word of a string otherwise than the next. Every window then starts with the prefix.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from miar.errors import ConfigError
from miar.features.contract import FloatArray

MAX_TOKENS = 4096
"""Longest text of one clip, about 25 minutes of speech: a row beyond it would not fit into memory by the thousand."""
SHORTEST_WINDOW = 4
"""Tokens of the text that a window must have room for."""


@dataclass(frozen=True)
class Window:
    """A piece of one text."""

    text: int
    """Number of the text that it is of."""
    input_ids: list[int]
    """What goes into the encoder: special tokens, prefix, a piece of the text."""
    rows: slice
    """Of which of them the states are kept: those that stand farther from an edge here than in any other window."""


@dataclass(frozen=True)
class Tokens:
    """One text, cut into windows."""

    windows: list[Window]
    positions: FloatArray
    """(n_tokens,) where in the text each kept token starts, in characters."""
    truncated: int
    """How many tokens lie beyond :data:`MAX_TOKENS`."""


class TokenReader:
    """A tokenizer with its prefix and window."""

    def __init__(self, tokenizer: Any, prefix: str, window: int) -> None:
        """
        Args:
            tokenizer: a fast one, of transformers.
            prefix: what is put before every text and leaves no rows.
            window: tokens per forward pass, special ones and prefix included.

        Raises:
            ConfigError: the prefix leaves no room in the window.
        """
        self._tokenizer = tokenizer
        self._prefix = prefix
        self._window = window
        alone = tokenizer(prefix, add_special_tokens=True)["input_ids"]
        if window - len(alone) < SHORTEST_WINDOW:
            raise ConfigError(
                f"a prefix of {len(alone)} tokens leaves no room in a window of {window}: shorten it, or raise "
                "window_tokens"
            )
        self.prompt_length = len(alone) - (alone[-1] in tokenizer.all_special_ids) if prefix else 0
        """Tokens of the prefix, and of what stands before it, as ``sentence_transformers`` counts them: those of the
        prefix alone. Where it ends in a space, that can be one more than it has before a word."""

    def read(self, number: int, text: str) -> Tokens:
        """Cut text number ``number`` into windows that overlap by a quarter of the text in them."""
        whole = self._prefix + text
        encoded = self._tokenizer(
            whole,
            add_special_tokens=True,
            return_special_tokens_mask=True,
            return_offsets_mapping=True,
            verbose=False,
        )
        ids, offsets = list(encoded["input_ids"]), encoded["offset_mapping"]
        inner = [i for i, special in enumerate(encoded["special_tokens_mask"]) if not special]
        if not inner:
            return Tokens([], np.zeros(0, np.float32), 0)
        end = inner[-1] + 1
        # The first token that reaches into the text: one of a byte-level tokenizer may start with the prefix's space.
        first = next((i for i in inner if offsets[i][1] > len(self._prefix)), end) if self._prefix else inner[0]
        before, content, after = ids[:first], ids[first:end], ids[end:]
        kept = content[:MAX_TOKENS]
        spans = _overlapping(len(kept), self._window - len(before) - len(after))
        windows = [
            Window(
                number,
                before + kept[start : start + length] + after,
                slice(len(before) + keep.start, len(before) + keep.stop),
            )
            for start, length, keep in spans
        ]
        starts = [offset[0] for offset in offsets[first : first + len(kept)]]
        return Tokens(windows, _positions(whole, starts, len(self._prefix)), len(content) - len(kept))


def _overlapping(n_tokens: int, size: int) -> list[tuple[int, int, slice]]:
    """Windows of at most ``size`` tokens: first token, length, and which of its tokens are kept.

    The kept parts follow on each other and hold every token once.
    """
    overlap = size // 4
    starts = range(0, max(1, n_tokens - overlap), size - overlap)
    found = []
    for start in starts:
        length = min(size, n_tokens - start)
        first = (overlap + 1) // 2 if start else 0
        last = length - (overlap // 2 if start + length < n_tokens else 0)
        found.append((start, length, slice(first, last)))
    return found if n_tokens else []


def _positions(whole: str, starts: Sequence[int], prefix: int) -> FloatArray:
    """(n_tokens,) index in the text, without the prefix, of each token's first character that is no space.

    A token of nothing but a space, as SentencePiece has them, stands where the word after it starts.
    """
    found = np.empty(len(starts), np.float32)
    for number, start in enumerate(starts):
        start = max(start, prefix)
        while start + 1 < len(whole) and whole[start].isspace():
            start += 1
        found[number] = start - prefix
    return found
