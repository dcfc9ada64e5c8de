"""Windows of equal length cover a file, and stay where they are when it grows."""

import itertools
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from miar.config import MediaLimits
from miar.media.errors import MediaError
from miar.segmentation.segments import Segment
from miar.segmentation.windows import Windows, window_spans


@given(length_ms=st.integers(1, 10**7), window_ms=st.integers(500, 60_000))
def test_windows_cover_the_file(length_ms: int, window_ms: int) -> None:
    spans = window_spans(length_ms / 1000, window_ms)
    assert (spans[0][0], spans[-1][1]) == (0, pytest.approx(length_ms, abs=1))
    assert all(a[1] == b[0] for a, b in itertools.pairwise(spans))
    assert all(end - start == window_ms for start, end in spans[:-1])
    if len(spans) > 1:
        assert window_ms / 2 - 1 <= spans[-1][1] - spans[-1][0] < 1.5 * window_ms


@given(length_s=st.floats(1, 1000), more_s=st.floats(0, 1000), window_ms=st.integers(500, 60_000))
def test_a_file_that_grows_keeps_its_windows_but_the_last(length_s: float, more_s: float, window_ms: int) -> None:
    before, after = window_spans(length_s, window_ms), window_spans(length_s + more_s, window_ms)
    assert after[: len(before) - 1] == before[:-1]


def test_nothing_has_no_windows() -> None:
    assert window_spans(0.0, 1000) == []


def test_length_is_told_by_packets(tmp_path: Path) -> None:
    write_wav(tmp_path / "a.wav", 5.25)
    assert Windows(2.0).segment(str(tmp_path / "a.wav"), MediaLimits()).segments == [
        Segment(0, 2000),
        Segment(2000, 4000),
        Segment(4000, 5250),
    ]
    assert Windows(2.0).segment(str(tmp_path / "a.wav"), MediaLimits(max_duration_s=3)).segments[-1].end_ms == 3000


def test_no_media_file_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_text("words")
    with pytest.raises(MediaError, match="not a media file"):
        Windows(2.0).segment(str(tmp_path / "a.mp4"), MediaLimits())


def write_wav(path: Path, seconds: float, level: float = 0.1) -> None:
    """A tone of 220 Hz."""
    rate = 16_000
    samples = (level * 32767 * np.sin(2 * np.pi * 220 * np.arange(round(seconds * rate)) / rate)).astype(np.int16)
    with av.open(str(path), "w") as output:
        stream = output.add_stream("pcm_s16le", rate=rate, layout="mono")
        frame = av.AudioFrame.from_ndarray(samples[None], format="s16", layout="mono")
        frame.sample_rate = rate
        output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
