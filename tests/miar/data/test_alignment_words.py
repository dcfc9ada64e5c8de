"""A real encoder's tokens are put together to words by where they begin in the text, whatever the tokenizer."""

import numpy as np
import pytest

from miar.data.word_times import places
from miar.features.configs import TextConfig
from miar.features.text import TextEncoderExtractor, prepare


@pytest.mark.parametrize(
    "text", ["Good [sighs] day, extraordinarily Unbelievable ANN!", "ÉTÉ à Zürich", "GOOD DAY TO YOU"]
)
def test_tokens_of_a_word_begin_within_it(text: str) -> None:
    extractor = TextEncoderExtractor(TextConfig(layers=(3,)))
    (found,) = extractor.extract([text])
    assert found.times is not None
    read = prepare(text, "auto") or ""
    words = read.split()
    at = places(words, text)
    assert at == [read.index(word) for word in words]
    owner = np.searchsorted(at, found.times, side="right") - 1
    assert set(owner) == set(range(len(words)))
    for token, word in zip(found.times, owner, strict=True):
        assert at[word] <= token < at[word] + len(words[word])
