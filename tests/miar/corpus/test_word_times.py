"""When each word is said: read from transcripts that say it, kept by the file that clips are cut from."""

import json
import os
from pathlib import Path

import pytest

from miar.config import CorpusConfig
from miar.corpus.listing import list_corpus
from miar.corpus.model import CorpusListing, Remembered
from miar.media.transcripts import Word, read_transcript

GOOD_DAY = [Word(1000, 1400, "Good"), Word(1500, 2000, "day.")]
SETTLED_S = 1_700_000_000


def whisper(*words: tuple[float, float, str], start: float = 1.0, end: float = 2.5) -> str:
    said = [{"start": a, "end": b, "word": text} for a, b, text in words]
    text = "".join(text for *_, text in words)
    return json.dumps({"segments": [{"start": start, "end": end, "text": text, "words": said}]})


SAYS_GOOD_DAY = {
    "a.json": whisper((1.0, 1.4, " Good"), (1.5, 2.0, " day.")),
    "whole.json": json.dumps(
        {
            "text": "Good day.",
            "words": [{"start": 1, "end": 1.4, "text": "Good"}, {"start": 1.5, "end": 2, "word": "day."}],
        }
    ),
    "a.vtt": "WEBVTT\n\n00:01.000 --> 00:02.000\nGood<00:00:01.400> <00:00:01.500><c> day.</c>\n",
}


@pytest.mark.parametrize("name", SAYS_GOOD_DAY)
def test_formats_that_say_when(name: str) -> None:
    transcript = read_transcript(SAYS_GOOD_DAY[name].encode(), name)
    assert transcript.words == GOOD_DAY
    assert [cue.text for cue in transcript.cues] == ["Good day."]


@pytest.mark.parametrize("spoken", [True, False])
def test_a_tier_of_words(spoken: bool) -> None:
    tiers = [("Ann", [(1.0, 2.0, "Good day.")])] if spoken else []
    tiers += [("words", [(1.0, 1.4, "Good"), (1.4, 1.5, ""), (1.5, 2.0, "day.")]), ("phones", [(1.0, 1.2, "g")])]
    assert read_transcript(_grid(tiers).encode(), "a.TextGrid").words == GOOD_DAY


def test_what_cannot_be_placed_is_left_out() -> None:
    odd = {
        "segments": [
            {
                "start": 0,
                "end": 5,
                "text": "one two three four five six",
                "words": [
                    {"word": "one", "start": 1, "end": 1},
                    {"word": "two"},
                    {"word": "three", "start": "x", "end": 2},
                    {"word": "four", "start": 3, "end": 2},
                    {"word": "five", "start": -1, "end": 2},
                    {"word": "<i>six</i>", "start": 4, "end": 4.5},
                    "seven",
                    {"word": " ", "start": 4, "end": 4.5},
                    {"word": "eight", "start": 1e400, "end": 1e400},
                ],
            }
        ]
    }
    words = read_transcript(json.dumps(odd).encode(), "a.json").words
    assert words == [Word(1000, 1001, "one"), Word(4000, 4500, "six")]
    assert read_transcript(b'{"segments": [{"start": 0, "end": 1, "text": "a", "words": 3}]}', "a.json").words == []


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    root = tmp_path / "corpus"
    root.mkdir()
    for name, text in {"a.mp4": "x", "b.mp4": "y", "a.json": SAYS_GOOD_DAY["a.json"], "b.txt": "hello"}.items():
        write(root / name, text)
    return root


def write(path: Path, text: str) -> None:
    path.write_text(text)
    os.utime(path, (SETTLED_S, SETTLED_S))


def listed(root: Path, before: CorpusListing | None = None, timed: dict[str, str] | None = None) -> CorpusListing:
    """As a refresh lists it that remembers what was read before."""
    read = None if before is None else Remembered(before.read.transcripts, timed or {})
    return list_corpus(str(root), CorpusConfig(), remembered=read)


def words_of(listing: CorpusListing) -> dict[str, tuple[str, list[str], list[int]]]:
    rows = listing.read.words.to_pylist()
    return {row["path"]: (row["transcript"], row["texts"], row["starts"]) for row in rows}


def test_words_stand_by_the_file_that_clips_are_cut_from(corpus: Path) -> None:
    assert words_of(listed(corpus)) == {"a.mp4": ("a.json", ["Good", "day."], [1000, 1500])}


def test_a_transcript_that_is_recalled_changes_nothing(corpus: Path) -> None:
    again = listed(corpus, listed(corpus), {"a.mp4": "a.json"})
    assert words_of(again) == {}
    assert again.read.words_gone == []
    assert again.read.transcripts.num_rows == 0


def test_an_edited_transcript_replaces_the_words_or_takes_them_away(corpus: Path) -> None:
    first = listed(corpus)
    (corpus / "a.json").write_text(whisper((1.0, 1.4, " Bad"), (1.5, 2.0, " day.")))
    assert words_of(listed(corpus, first, {"a.mp4": "a.json"}))["a.mp4"][1] == ["Bad", "day."]
    (corpus / "a.json").write_text(json.dumps({"segments": [{"start": 1, "end": 2, "text": "Bad day."}]}))
    without = listed(corpus, first, {"a.mp4": "a.json"})
    assert (words_of(without), without.read.words_gone) == ({}, ["a.mp4"])
    (corpus / "a.json").write_text("{")
    assert listed(corpus, first, {"a.mp4": "a.json"}).read.words_gone == ["a.mp4"]


def test_a_transcript_that_is_gone_takes_its_words_along(corpus: Path) -> None:
    first = listed(corpus)
    (corpus / "a.json").unlink()
    assert listed(corpus, first, {"a.mp4": "a.json"}).read.words_gone == ["a.mp4"]


def test_another_transcript_goes_before_the_one_with_words(corpus: Path) -> None:
    write(corpus / "a.srt", "1\n00:00:01,000 --> 00:00:02,000\nGood day.\n")
    both = listed(corpus, listed(corpus), {"a.mp4": "a.json"})
    assert both.read.words_gone == ["a.mp4"]


def test_another_video_of_the_same_transcript_gets_the_words(corpus: Path) -> None:
    first = listed(corpus)
    (corpus / "a.mp4").rename(corpus / "a.mov")
    moved = listed(corpus, first, {"a.mp4": "a.json"})
    assert words_of(moved) == {"a.mov": ("a.json", ["Good", "day."], [1000, 1500])}


def _grid(tiers: list[tuple[str, list[tuple[float, float, str]]]]) -> str:
    lines = ['File type = "ooTextFile"', 'Object class = "TextGrid"', "", "xmin = 0", "xmax = 3", "tiers? <exists>"]
    lines += [f"size = {len(tiers)}", "item []:"]
    for number, (name, intervals) in enumerate(tiers, start=1):
        lines += [f"    item [{number}]:", '        class = "IntervalTier"', f'        name = "{name}"']
        lines += ["        xmin = 0", "        xmax = 3", f"        intervals: size = {len(intervals)}"]
        for at, (start, end, text) in enumerate(intervals, start=1):
            lines += [f"        intervals [{at}]:", f"            xmin = {start}", f"            xmax = {end}"]
            lines += [f'            text = "{text}"']
    return "\n".join(lines) + "\n"
