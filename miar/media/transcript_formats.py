"""The formats that transcripts come in: srt, vtt, json, csv, tsv, txt and Praat's TextGrid, each as raw cues.

Times are as the file has them, in s; nothing is checked or mended here.
"""

import csv
import html
import io
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from miar.media.errors import TranscriptError

RawWord = tuple[float, float, str]
"""Start and end in s, and the word with markup."""


@dataclass(frozen=True, slots=True)
class RawCue:
    """A cue as it stands in the file."""

    start_s: float
    end_s: float | None
    """``None``: to the end of the file."""
    text: str
    """With markup."""
    speaker: str | None = None
    words: tuple[RawWord, ...] = ()
    """Where the file says when each word is said."""


_CLOCK = r"(-?)(?:(\d+):)?(\d{1,2}):(\d{1,2})(?:[.,](\d{1,3}))?"
_TIMING = re.compile(rf"\s*{_CLOCK}\s*-->\s*{_CLOCK}")


def _parse_subtitles(text: str, *, is_vtt: bool) -> Iterator[RawCue]:
    """srt and vtt: a timing line, then text up to an empty line."""
    blocks = _blocks(text)
    if not blocks and text.strip() and not (is_vtt and text.lstrip().startswith("WEBVTT")):
        raise TranscriptError("no line of the form '00:00:01,000 --> 00:00:02,000' in it")
    for timing, lines in blocks:
        start_s, end_s = _clock_s(timing.groups()[:5]), _clock_s(timing.groups()[5:])
        marked = "\n".join(lines)
        voice = re.search(r"<v(?:\.[^ >]*)?\s+([^>]*)>", marked) if is_vtt else None
        speaker = html.unescape(voice.group(1)) if voice else None
        yield RawCue(start_s, end_s, marked, speaker, tuple(_stamped(marked, start_s, end_s)) if is_vtt else ())


_STAMP = re.compile(r"<(?:(\d+):)?(\d{1,2}):(\d{2})\.(\d{3})>")


def _stamped(marked: str, start_s: float, end_s: float) -> Iterator[RawWord]:
    """The parts of a vtt cue that has time stamps within, as karaoke and automatic captions do."""
    stamps = list(_STAMP.finditer(marked))
    if not stamps:
        return
    begins = [start_s, *(_clock_s((None, *stamp.groups())) for stamp in stamps)]
    texts = [
        marked[a:b] for a, b in zip([0, *(s.end() for s in stamps)], [*(s.start() for s in stamps), None], strict=True)
    ]
    yield from zip(begins, [*begins[1:], end_s], texts, strict=True)


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


def _parse_srt(text: str) -> Iterator[RawCue]:
    return _parse_subtitles(text, is_vtt=False)


def _parse_vtt(text: str) -> Iterator[RawCue]:
    return _parse_subtitles(text, is_vtt=True)


def _parse_txt(text: str) -> Iterator[RawCue]:
    yield RawCue(0.0, None, text)


def _parse_json(text: str) -> Iterator[RawCue]:
    try:
        tree = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise TranscriptError(f"not valid JSON: {error}") from error
    if isinstance(tree, dict) and "segments" not in tree and isinstance(tree.get("text"), str):
        return iter([RawCue(0.0, None, tree["text"], words=tuple(_json_words(tree)))])
    rows = tree.get("segments") if isinstance(tree, dict) else tree
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise TranscriptError('expected {"segments": [{"start", "end", "text"}]} or a list of such segments')
    return _timed_rows(rows)


def _parse_table(text: str) -> Iterator[RawCue]:
    header = text.lstrip().split("\n", 1)[0]
    delimiter = max(",;\t", key=header.count)
    rows = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter)
    try:
        rows.fieldnames = [str(column).strip().lower() for column in rows.fieldnames or []]
        return _timed_rows(list(rows))
    except csv.Error as error:
        raise TranscriptError(f"not a valid table: {error}") from error


def _timed_rows(rows: list[Mapping[str, Any]]) -> Iterator[RawCue]:
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
        words = tuple(_json_words(row))
        yield RawCue(start_s, end_s, str(row["text"]), None if speaker is None else str(speaker), words)


def _json_words(row: Mapping[str, Any]) -> Iterator[RawWord]:
    """``words`` as Whisper and its relatives write them; one that they could not place has no times and is left out."""
    words = row.get("words")
    for word in words if isinstance(words, list) else ():
        text = (word.get("word") or word.get("text")) if isinstance(word, dict) else None
        if isinstance(text, str) and {"start", "end"} <= word.keys():
            with suppress(TypeError, ValueError):
                yield _seconds(word["start"]), _seconds(word["end"]), text


def _seconds(value: Any) -> float:
    try:
        return float(value)
    except OverflowError:  # JSON's whole numbers may have any number of digits
        return math.inf


_WORD_TIERS = re.compile(r"word|phone|phoneme|syll|segment s|mau", re.IGNORECASE)


def _parse_textgrid(text: str) -> Iterator[RawCue]:
    """Every interval tier is a speaker's, but for tiers of words, which say when each word is said, and of phones.

    A file of such tiers alone is one text from its beginning to its end.
    """
    from praatio.utilities.errors import PraatioException
    from praatio.utilities.textgrid_io import parseTextgridStr

    try:
        tiers = parseTextgridStr(text)["tiers"]
        intervals = [(tier["name"], list(tier["entries"])) for tier in tiers if tier["class"] == "IntervalTier"]
    except (PraatioException, ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise TranscriptError("not a TextGrid that can be read") from error
    spoken = [(name, entries) for name, entries in intervals if not _WORD_TIERS.search(name)]
    words = [
        (float(start), float(end), label)
        for name, entries in intervals
        if "word" in name.lower()
        for start, end, label in entries
    ]
    cues = [
        RawCue(float(start), float(end), label, name if len(spoken) > 1 else None)
        for name, entries in spoken
        for start, end, label in entries
    ]
    if words and not spoken:
        cues = [RawCue(0.0, None, " ".join(label for _, _, label in sorted(words)))]
    return iter([replace(cues[0], words=tuple(words)), *cues[1:]] if cues else [])


PARSERS: dict[str, Callable[[str], Iterator[RawCue]]] = {
    ".srt": _parse_srt,
    ".vtt": _parse_vtt,
    ".json": _parse_json,
    ".csv": _parse_table,
    ".tsv": _parse_table,
    ".txt": _parse_txt,
    ".textgrid": _parse_textgrid,
}
