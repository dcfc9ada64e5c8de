"""Read transcripts: srt, vtt, json, csv, tsv, txt and Praat's TextGrid, in whatever encoding they come.

Text is kept as it stands, without markup: markers such as ``[inaudible]`` stay, since whether they are words
is the text extractor's question, which :func:`spoken_words` answers.
"""

import html
import math
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePath

from miar.media.encoding import decode_text
from miar.media.errors import TranscriptError
from miar.media.transcript_formats import PARSERS, RawCue, RawWord

READER_VERSION = 3
"""Raised with every change of what is read from the same file, so that nothing read before is taken for it."""
MAX_BYTES = 64 * 2**20
"""A transcript beyond this size is something else."""
LONGEST_MS = 2**53
"""Times beyond are no longer whole milliseconds in a float, nor times of any file."""


@dataclass(frozen=True, slots=True)
class Cue:
    """Words and when they are said, in ms from the file's start."""

    start_ms: int
    end_ms: int | None
    """``None``: to the end of the file."""
    text: str
    speaker: str | None = None


@dataclass(frozen=True, slots=True)
class Word:
    """One word and when it is said, in ms from the file's start."""

    start_ms: int
    end_ms: int
    """After ``start_ms``."""
    text: str


@dataclass
class Transcript:
    """What one transcript says."""

    cues: list[Cue] = field(default_factory=list)
    """In order of time. No two have the same times; they may overlap."""
    words: list[Word] = field(default_factory=list)
    """In order of time, those of all cues; empty where the transcript does not say when each word is said."""
    problems: list[str] = field(default_factory=list)
    """One line for each cue that was left out or mended."""


def read_transcript(source: str | os.PathLike[str] | bytes, name: str | None = None) -> Transcript:
    """Read one transcript.

    Args:
        source: A path, or the file's content.
        name: File name; its extension says the format. Default: the path's own.

    Raises:
        TranscriptError: it cannot be read, with one line that says why.
        ValueError: content without a name.
    """
    if not isinstance(source, bytes):
        name = name or os.fspath(source)
        source = _read_bytes(source)
    if name is None:
        raise ValueError("the content of a transcript needs a name: its extension says the format")
    if len(source) > MAX_BYTES:
        raise TranscriptError(f"a transcript of {len(source):,} bytes; the limit is {MAX_BYTES:,}")
    parse = PARSERS.get(PurePath(name).suffix.lower())
    if parse is None:
        raise TranscriptError(f"no transcript format has this extension; known: {', '.join(sorted(PARSERS))}")
    return _clean(parse(decode_text(source)))


def is_transcript(name: str) -> bool:
    """Whether a file's extension is one of a transcript."""
    return os.path.splitext(name)[1].lower() in PARSERS


def _read_bytes(path: str | os.PathLike[str]) -> bytes:
    try:
        with Path(path).open("rb") as file:
            return file.read(MAX_BYTES + 1)
    except OSError as error:
        raise TranscriptError(f"cannot be read: {error.strerror}") from error


# --- cues


def _clean(raw: Iterator[RawCue]) -> Transcript:
    transcript = Transcript()
    merged: dict[tuple[int, int | None], Cue] = {}
    words: list[RawWord] = []
    for number, cue in enumerate(raw, start=1):
        words += cue.words
        text, speaker = without_markup(cue.text), cue.speaker
        problem, times = _times_ms(cue.start_s, cue.end_s)
        if problem:
            transcript.problems.append(f"cue {number} ({text[:40]!r}): {problem}")
        if times is None or not text:
            continue
        speaker = _encodable(speaker or "").strip() or None
        twin = merged.get(times)
        if twin is not None:  # two speakers at once, as some subtitles have it
            text = f"{twin.text} {text}"
            speaker = speaker if speaker == twin.speaker else None
        merged[times] = Cue(*times, text, speaker)
    transcript.cues = sorted(merged.values(), key=lambda cue: (cue.start_ms, cue.end_ms or math.inf))
    transcript.words = _clean_words(words)
    return transcript


def _clean_words(raw: Iterable[RawWord]) -> list[Word]:
    """Words with usable times; one that takes no time, as recognisers write them, takes a millisecond."""
    found: set[tuple[int, int, str]] = set()
    for start_s, end_s, marked in raw:
        text = without_markup(marked)
        if not text or not 0 <= start_s <= end_s < LONGEST_MS / 1000:
            continue
        start_ms, end_ms = round(start_s * 1000), round(end_s * 1000)
        found.add((start_ms, max(end_ms, start_ms + 1), text))
    return [Word(*word) for word in sorted(found)]


def _times_ms(start_s: float, end_s: float | None) -> tuple[str | None, tuple[int, int | None] | None]:
    """What is wrong with a cue's times, and the times to use; ``None`` where it has to be left out."""
    if not math.isfinite(start_s) or (end_s is not None and not math.isfinite(end_s)):
        return "its times are not numbers; left out", None
    if max(abs(start_s), abs(end_s or 0.0)) * 1000 > LONGEST_MS:
        return "its times lie beyond the end of any file (they are read as seconds); left out", None
    start_ms, end_ms = round(start_s * 1000), None if end_s is None else round(end_s * 1000)
    if end_ms is not None and end_ms <= start_ms:
        return f"it ends at {end_s:g} s, not after its start at {start_s:g} s; left out", None
    if end_ms is not None and end_ms <= 0:
        return "it lies before the start of the file; left out", None
    if start_ms < 0:
        return f"it starts at {start_s:g} s; taken from 0", (0, end_ms)
    return None, (start_ms, end_ms)


_TAG = re.compile(r"</?[A-Za-z][^<>]*>|</?\d[\d:.]*>")
_OVERRIDE = re.compile(r"\{\\[^}]*\}")
_SURROGATE = re.compile("[\ud800-\udfff]")


def without_markup(text: str) -> str:
    """Plain text on one line: no HTML or vtt tags, no SubStation overrides, entities spelled out."""
    plain = html.unescape(_OVERRIDE.sub("", _TAG.sub("", text)))
    return " ".join(_encodable(plain).replace("\u200b", "").replace("\x00", "").split())


def _encodable(text: str) -> str:
    """JSON can write half of a character, which no file and no table can hold."""
    return _SURROGATE.sub("\ufffd", text)


# --- words

_SOUNDS = (
    r"laugh|chuckl|giggl|cough|sigh|sob|cry|crie|weep|gasp|sniff|breath|inhal|exhal|groan|moan|scream|shout|yawn|"
    r"sneez|throat|hum|whistl|music|applau|clap|cheer|noise|sound|silence|pause|beep|static|inaudible|"
    r"unintelligible|indistinct|unclear|crosstalk|overlap|foreign|mumbl|stutter|smack|lip"
)
_MARKERS = re.compile(
    r"\[[^\[\]]*\]"  # [anything]
    rf"|\((?=[^()]*\b(?:{_SOUNDS}))[^()]{{1,60}}\)"  # (laughs), but not (I think)
    rf"|\*(?=[^*]*\b(?:{_SOUNDS}))[^*]{{1,60}}\*"  # *sighs*
    r"|\b[xX]{3,}\b|\b(?:yyy|www)\b"  # what CHAT and others write for speech that cannot be understood
    r"|[♩♪♫♬]+",
    re.IGNORECASE,
)


def spoken_words(text: str | None) -> str | None:
    """The words in ``text`` without non-verbal markers, on one line; ``None`` where no word remains.

    Markers are anything in square brackets; sounds in parentheses or asterisks (``(laughs)``, ``*sighs*``);
    ``XXX``;
    notes of music.
    """
    if text is None:
        return None
    words = " ".join(_MARKERS.sub(" ", text).split())
    return words if any(character.isalnum() for character in words) else None
