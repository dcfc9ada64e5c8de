"""Read transcripts: srt, vtt, json, csv, tsv, txt and Praat's TextGrid, in whatever encoding they come.

Text is kept as it stands, without markup: markers such as ``[inaudible]`` stay, since whether they are words
is the text extractor's question, which :func:`spoken_words` answers.
"""

import csv
import html
import io
import json
import math
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any

from miar.media.encoding import decode_text
from miar.media.errors import TranscriptError

READER_VERSION = 2
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


@dataclass
class Transcript:
    """What one transcript says."""

    cues: list[Cue] = field(default_factory=list)
    """In order of time. No two have the same times; they may overlap."""
    problems: list[str] = field(default_factory=list)
    """One line for each cue that was left out or mended."""


_RawCue = tuple[float, float | None, str, str | None]
"""Start and end in s, text with markup, speaker."""


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
    parse = _PARSERS.get(PurePath(name).suffix.lower())
    if parse is None:
        raise TranscriptError(f"no transcript format has this extension; known: {', '.join(sorted(_PARSERS))}")
    return _clean(parse(decode_text(source)))


def is_transcript(name: str) -> bool:
    """Whether a file's extension is one of a transcript."""
    return os.path.splitext(name)[1].lower() in _PARSERS


def _read_bytes(path: str | os.PathLike[str]) -> bytes:
    try:
        with Path(path).open("rb") as file:
            return file.read(MAX_BYTES + 1)
    except OSError as error:
        raise TranscriptError(f"cannot be read: {error.strerror}") from error


# --- formats


_CLOCK = r"(-?)(?:(\d+):)?(\d{1,2}):(\d{1,2})(?:[.,](\d{1,3}))?"
_TIMING = re.compile(rf"\s*{_CLOCK}\s*-->\s*{_CLOCK}")


def _parse_subtitles(text: str, *, is_vtt: bool) -> Iterator[_RawCue]:
    """srt and vtt: a timing line, then text up to an empty line."""
    blocks = _blocks(text)
    if not blocks and text.strip() and not (is_vtt and text.lstrip().startswith("WEBVTT")):
        raise TranscriptError("no line of the form '00:00:01,000 --> 00:00:02,000' in it")
    for timing, lines in blocks:
        start_s, end_s = _clock_s(timing.groups()[:5]), _clock_s(timing.groups()[5:])
        marked = "\n".join(lines)
        voice = re.search(r"<v(?:\.[^ >]*)?\s+([^>]*)>", marked) if is_vtt else None
        yield start_s, end_s, marked, html.unescape(voice.group(1)) if voice else None


def _blocks(text: str) -> list[tuple[re.Match[str], list[str]]]:
    blocks: list[tuple[re.Match[str], list[str]]] = []
    is_inside = False
    for line in text.splitlines():
        timing = _TIMING.match(line)
        if timing:
            if is_inside and blocks[-1][1] and blocks[-1][1][-1].strip().isdigit():
                blocks[-1][1].pop()  # the number of this cue, where no empty line stands before it
            blocks.append((timing, []))
            is_inside = True
        elif not line.strip():
            is_inside = False
        elif is_inside:
            blocks[-1][1].append(line)
    return blocks


def _clock_s(parts: tuple[str | None, ...]) -> float:
    sign, hours, minutes, seconds, fraction = parts
    value = float(hours or 0) * 3600 + int(minutes or 0) * 60 + int(seconds or 0)
    return (-1 if sign else 1) * (value + (int(fraction.ljust(3, "0")) / 1000 if fraction else 0))


def _parse_srt(text: str) -> Iterator[_RawCue]:
    return _parse_subtitles(text, is_vtt=False)


def _parse_vtt(text: str) -> Iterator[_RawCue]:
    return _parse_subtitles(text, is_vtt=True)


def _parse_txt(text: str) -> Iterator[_RawCue]:
    yield 0.0, None, text, None


def _parse_json(text: str) -> Iterator[_RawCue]:
    try:
        tree = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise TranscriptError(f"not valid JSON: {error}") from error
    if isinstance(tree, dict) and "segments" not in tree and isinstance(tree.get("text"), str):
        return iter([(0.0, None, tree["text"], None)])
    rows = tree.get("segments") if isinstance(tree, dict) else tree
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise TranscriptError('expected {"segments": [{"start", "end", "text"}]} or a list of such segments')
    return _timed_rows(rows)


def _parse_table(text: str) -> Iterator[_RawCue]:
    header = text.lstrip().split("\n", 1)[0]
    delimiter = max(",;\t", key=header.count)
    rows = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter)
    try:
        rows.fieldnames = [str(column).strip().lower() for column in rows.fieldnames or []]
        return _timed_rows(list(rows))
    except csv.Error as error:
        raise TranscriptError(f"not a valid table: {error}") from error


def _timed_rows(rows: list[Mapping[str, Any]]) -> Iterator[_RawCue]:
    for number, row in enumerate(rows, start=1):
        missing = [key for key in ("start", "end", "text") if row.get(key) is None]
        if missing:
            found = ", ".join(str(key) for key in row) or "nothing"
            raise TranscriptError(f"segment {number} lacks {', '.join(missing)}; it has {found}")
        try:
            start_s, end_s = _seconds(row["start"]), _seconds(row["end"])
        except (TypeError, ValueError) as error:
            raise TranscriptError(f"segment {number}: start and end are times in seconds") from error
        speaker = row.get("speaker")
        yield start_s, end_s, str(row["text"]), None if speaker is None else str(speaker)


def _seconds(value: Any) -> float:
    try:
        return float(value)
    except OverflowError:  # JSON's whole numbers may have any number of digits
        return math.inf


_WORD_TIERS = re.compile(r"word|phone|phoneme|syll|segment s|mau", re.IGNORECASE)


def _parse_textgrid(text: str) -> Iterator[_RawCue]:
    """Every interval tier is a speaker's; a file of word and phone tiers alone is read as one text without
    times."""
    from praatio.utilities.errors import PraatioException
    from praatio.utilities.textgrid_io import parseTextgridStr

    try:
        tiers = parseTextgridStr(text)["tiers"]
        intervals = [(tier["name"], list(tier["entries"])) for tier in tiers if tier["class"] == "IntervalTier"]
    except (PraatioException, ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise TranscriptError("not a TextGrid that can be read") from error
    spoken = [(name, entries) for name, entries in intervals if not _WORD_TIERS.search(name)]
    for name, entries in spoken:
        for start, end, label in entries:
            yield float(start), float(end), label, name if len(spoken) > 1 else None
    words = next((entries for name, entries in intervals if "word" in name.lower()), None)
    if not spoken and words is not None:
        yield 0.0, None, " ".join(label for _, _, label in words), None


_PARSERS: dict[str, Callable[[str], Iterator[_RawCue]]] = {
    ".srt": _parse_srt,
    ".vtt": _parse_vtt,
    ".json": _parse_json,
    ".csv": _parse_table,
    ".tsv": _parse_table,
    ".txt": _parse_txt,
    ".textgrid": _parse_textgrid,
}

# --- cues


def _clean(raw: Iterator[_RawCue]) -> Transcript:
    transcript = Transcript()
    merged: dict[tuple[int, int | None], Cue] = {}
    for number, (start_s, end_s, marked, speaker) in enumerate(raw, start=1):
        text = without_markup(marked)
        problem, times = _times_ms(start_s, end_s)
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
    return transcript


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
