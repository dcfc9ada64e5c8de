"""Transcripts in every format and encoding, good and bad."""

import json

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from miar.media.errors import TranscriptError
from miar.media.transcripts import Cue, read_transcript, spoken_words

SRT = "1\n00:00:01,000 --> 00:00:02,500\n{}\n\n2\n00:00:03,000 --> 00:00:04,000\nbye\n"


def _cues(text, name, encoding="utf-8"):
    return read_transcript(text.encode(encoding), name).cues


def test_every_format_says_the_same():
    expected = [Cue(1000, 2500, "hello"), Cue(3000, 4000, "bye")]
    rows = [{"start": 1, "end": 2.5, "text": "hello"}, {"start": "3.0", "end": 4, "text": " bye "}]
    table = "start{0}end{0}text\n1{0}2.5{0}hello\n3{0}4{0}bye\n"
    grid = (
        'File type = "ooTextFile"\nObject class = "TextGrid"\n\nxmin = 0\nxmax = 4\ntiers? <exists>\nsize = 1\n'
        'item []:\n    item [1]:\n        class = "IntervalTier"\n        name = "utterances"\n        xmin = 0\n'
        "        xmax = 4\n        intervals: size = 4\n"
        '        intervals [1]:\n            xmin = 0\n            xmax = 1\n            text = ""\n'
        '        intervals [2]:\n            xmin = 1\n            xmax = 2.5\n            text = "hello"\n'
        '        intervals [3]:\n            xmin = 2.5\n            xmax = 3\n            text = ""\n'
        '        intervals [4]:\n            xmin = 3\n            xmax = 4\n            text = "bye"\n'
    )
    assert _cues(SRT.format("hello"), "a.srt") == expected
    assert _cues("WEBVTT\n\n00:01.000 --> 00:02.500\nhello\n\n00:03.000 --> 00:04.000\nbye", "a.vtt") == expected
    assert _cues(json.dumps({"text": "x", "segments": rows}), "a.json") == expected
    assert _cues(json.dumps(rows), "a.JSON") == expected
    assert _cues(table.format(","), "a.csv") == expected
    assert _cues(table.format(";"), "a.csv") == expected
    assert _cues(table.format("\t"), "a.tsv") == expected
    assert _cues(grid, "a.TextGrid") == expected
    assert _cues("hello\nbye\n", "a.txt") == [Cue(0, None, "hello bye")]
    assert _cues(json.dumps({"text": "hello"}), "a.json") == [Cue(0, None, "hello")]


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("café déjà vu, naïve", "utf-8"),
        ("café déjà vu, naïve", "utf-8-sig"),
        ("café déjà vu, naïve", "utf-16"),
        ("café déjà vu, naïve", "utf-16-le"),
        ("café déjà vu, naïve", "utf-16-be"),
        ("café déjà vu, naïve", "latin-1"),
        ("она сказала, что всё будет хорошо", "cp1251"),
        ("مرحبا بالعالم \U0001f600 שלום", "utf-8"),
    ],
)
def test_every_encoding(text, encoding):
    assert _cues(SRT.format(text), "a.srt", encoding)[0].text == text


def test_markup_goes_and_speakers_stay():
    vtt = (
        "WEBVTT - title\n\nSTYLE\n::cue { color: red }\n\nNOTE not said\n\nintro\n00:01.000 --> 00:02.000 align:left\n"
        "<v.loud Mary Ann><b>Hi</b> <00:01.500><c>there</c> &amp; you</v>\n\nsecond\n00:03.000 --> 00:04.000\n42\n"
    )
    assert _cues(vtt, "a.vtt") == [Cue(1000, 2000, "Hi there & you", "Mary Ann"), Cue(3000, 4000, "42")]
    srt = SRT.format('<font color="red">a < b</font> {\\an8}{laughs}\n<i>c</i>\n42')
    assert _cues(srt, "a.srt")[0].text == "a < b {laughs} c 42"
    rows = json.dumps([{"start": 0, "end": 1, "text": "x", "speaker": "S1"}])
    assert _cues(rows, "a.json")[0].speaker == "S1"


def test_cues_whose_times_are_wrong():
    text = (
        "1\n00:00:05,000 --> 00:00:02,000\nreversed\n\n2\n-00:00:01,000 --> 00:00:01,000\nnegative\n"
        "3\n00:00:02,000 --> 00:00:02,000\ninstant\n\n4\n00:00:01,000 --> 00:00:03,000\n\n"
        "5\n00:00:02,000 --> 00:00:04,000\nover\n\n6\n00:00:03,000 --> 00:00:05,000\nlapping\n\n"
        "7\n100:00:00,000 --> 100:00:01,000\nfar away\n\n8\n00:00:03,000 --> 00:00:05,000\ntwin\n"
    )
    transcript = read_transcript(text.encode(), "a.srt")
    assert [(cue.start_ms, cue.end_ms, cue.text) for cue in transcript.cues] == [
        (0, 1000, "negative"),
        (2000, 4000, "over"),
        (3000, 5000, "lapping twin"),
        (360_000_000, 360_001_000, "far away"),
    ]
    assert len(transcript.problems) == 3
    assert "reversed" in transcript.problems[0]
    rows = '[{"start": NaN, "end": 1, "text": "x"}, {"start": 0, "end": 1e999, "text": "y"}]'
    assert len(read_transcript(rows.encode(), "a.json").problems) == 2


def test_a_hundred_thousand_words():
    words = " ".join(f"word{number}" for number in range(100_000))
    assert len(_cues(SRT.format(words), "a.srt")[0].text.split()) == 100_000
    assert len((spoken_words(words) or "").split()) == 100_000
    assert len(_cues(words, "a.txt")[0].text.split()) == 100_000


@pytest.mark.parametrize("name", ["a.srt", "a.vtt", "a.txt", "a.csv"])
def test_nothing_said(name):
    assert read_transcript(b"", name).cues == []


def test_tiers_of_a_textgrid():
    def grid(*tiers):
        head = 'File type = "ooTextFile"\nObject class = "TextGrid"\n\n0\n2\n<exists>\n'
        body = "".join(f'"IntervalTier"\n"{name}"\n0\n2\n2\n0\n1\n"{a}"\n1\n2\n"{b}"\n' for name, a, b in tiers)
        return f"{head}{len(tiers)}\n{body}"

    two = _cues(grid(("Ann", "hi", ""), ("Bob", "", "yes")), "a.TextGrid")
    assert two == [Cue(0, 1000, "hi", "Ann"), Cue(1000, 2000, "yes", "Bob")]
    assert _cues(grid(("words", "good", "day"), ("phones", "g", "d")), "a.TextGrid") == [Cue(0, None, "good day")]
    assert _cues(grid(("sentence", "a b", "c"), ("words", "a", "b")), "a.TextGrid")[0] == Cue(0, 1000, "a b")


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (b"no timing line at all", "a.srt"),
        (b"{not json", "a.json"),
        (b'{"a": 1}', "a.json"),
        (b'[{"start": 0, "text": "x"}]', "a.json"),
        (b'[{"start": "one", "end": 2, "text": "x"}]', "a.json"),
        (b"[" * 100_000, "a.json"),
        (b"begin,stop,words\n1,2,x\n", "a.csv"),
        (b"nothing praat knows", "a.TextGrid"),
        (b"\x00\x01\x00\x00\x02" * 100, "a.srt"),
        (b"\xff\xfea", "a.srt"),
        (b"words", "a.docx"),
    ],
)
def test_what_cannot_be_read_says_so_in_one_line(content, name):
    with pytest.raises(TranscriptError) as caught:
        read_transcript(content, name)
    assert "\n" not in str(caught.value)


def test_a_path_and_a_missing_one(tmp_path):
    (tmp_path / "a.txt").write_text("words")
    assert read_transcript(tmp_path / "a.txt").cues == [Cue(0, None, "words")]
    with pytest.raises(TranscriptError, match="cannot be read"):
        read_transcript(tmp_path / "b.txt")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, None),
        ("", None),
        ("XXX", None),
        ("[inaudible]", None),
        (" [laughs]  (coughing) *sighs* ♪ -- ", None),
        ("\U0001f600", None),
        ("I THINK XXX it is [noise] fine", "I THINK it is fine"),
        ("(I think) so (laughs)", "(I think) so"),
        ("AXXXB", "AXXXB"),
        ("مرحبا", "مرحبا"),
        ("7", "7"),
    ],
)
def test_words_without_markers(text, expected):
    assert spoken_words(text) == expected


WORDS = st.lists(st.text(st.characters(categories=["L"]), min_size=1, max_size=8), min_size=1, max_size=5).map(" ".join)


@settings(max_examples=60, deadline=None)
@given(
    said=st.dictionaries(st.integers(0, 10**7), WORDS, min_size=1, max_size=8),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
    name=st.sampled_from(["a.srt", "a.vtt", "a.json", "a.csv"]),
)
def test_what_is_written_is_read(said, encoding, name):
    cues = [Cue(start, start + 500, text) for start, text in sorted(said.items())]

    def clock(ms):
        return f"{ms // 3_600_000:02d}:{ms // 60_000 % 60:02d}:{ms // 1000 % 60:02d}.{ms % 1000:03d}"

    if name in ("a.srt", "a.vtt"):
        blocks = [f"{clock(cue.start_ms)} --> {clock(cue.end_ms)}\n{cue.text}\n" for cue in cues]
        text = ("WEBVTT\n\n" if name == "a.vtt" else "") + "\n".join(blocks)
    elif name == "a.json":
        rows = [{"start": cue.start_ms / 1000, "end": (cue.start_ms + 500) / 1000, "text": cue.text} for cue in cues]
        text = json.dumps(rows, ensure_ascii=False)
    else:
        text = "start,end,text\n" + "".join(f"{c.start_ms / 1000},{(c.start_ms + 500) / 1000},{c.text}\n" for c in cues)
    assert _cues(text, name, encoding) == cues


@settings(max_examples=100, deadline=None)
@given(
    content=st.binary(max_size=200), name=st.sampled_from(["a.srt", "a.vtt", "a.json", "a.csv", "a.txt", "a.TextGrid"])
)
def test_any_bytes_give_cues_or_one_line(content, name):
    try:
        transcript = read_transcript(content, name)
    except TranscriptError as caught:
        message = str(caught)
        assert "\n" not in message
        return
    for cue in transcript.cues:
        assert cue.start_ms >= 0
        assert cue.end_ms is None or cue.end_ms > cue.start_ms
        assert cue.text == " ".join(cue.text.split()) != ""


NINES = "9" * 400


@pytest.mark.parametrize(
    ("name", "content", "left"),
    [
        (
            "a.json",
            '[{"start": 0, "end": 1, "text": "\\ud83d hi", "speaker": "\\ud83d"}]',
            [Cue(0, 1000, "\ufffd hi", "\ufffd")],
        ),
        ("a.json", '{"text": "only \\ude00"}', [Cue(0, None, "only \ufffd")]),
        ("a.csv", "start,end,text\n0,1e20,far\n1,2,near\n", [Cue(1000, 2000, "near")]),
        ("a.json", '[{"start": 1700000000000000000, "end": 1700000001000000000, "text": "epoch"}]', []),
        (
            "a.json",
            f'[{{"start": 0, "end": {NINES}, "text": "far"}}, {{"start": 0, "end": 1, "text": "near"}}]',
            [Cue(0, 1000, "near")],
        ),
        ("a.csv", f"start,end,text\n-{NINES},2,far\n1,2,near\n", [Cue(1000, 2000, "near")]),
        ("a.srt", f"{NINES}:00:00,000 --> {NINES}:00:02,000\nfar\n", []),
        ("a.srt", f"00:00:00,000 --> {NINES * 20}:00:02,000\nfar\n", []),
    ],
)
def test_what_no_table_can_hold_is_replaced_or_left_out(name, content, left):
    """One transcript never ends a refresh: whatever was read of it can be written."""
    found = read_transcript(content.encode(), name)
    assert found.cues == left
    pa.array([cue.text for cue in found.cues] + found.problems, pa.string())
    pa.array([cue.speaker for cue in found.cues], pa.string())
    pa.array([time for cue in found.cues for time in (cue.start_ms, cue.end_ms)], pa.int64())
    assert len(found.problems) == ("far" in content) + ("epoch" in content)
