"""Corpora, good and bad, as :func:`miar.corpus.listing.list_corpus` reads them."""

import os
import time
from dataclasses import replace

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from miar.config import CorpusConfig, SplitConfig
from miar.corpus.listing import list_corpus
from miar.corpus.model import Clip, Source
from miar.corpus.paths import escape_path, inside_root, unescape_path
from miar.corpus.sources import fingerprint, open_source
from miar.corpus.splits import assign_splits
from miar.errors import CorpusError
from miar.media.errors import MediaError

SRT = "1\n00:00:00,000 --> 00:00:01,000\nhello\n\n2\n00:00:01,500 --> 00:00:02,000\nbye\n"


@pytest.fixture
def lay(tmp_path):
    """``lay({path: content})`` -> root of a corpus; listing opens no media, so any bytes will do."""

    def write(files):
        root = tmp_path / "corpus"
        for path, content in files.items():
            file = root / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content if isinstance(content, bytes) else content.encode())
        return root

    return write


def _list(root, known_splits=None, **config):
    return list_corpus(str(root), CorpusConfig(**config), known_splits)


def _errors(listing):
    return sorted((problem.error, problem.path) for problem in listing.problems)


# --- how clips are cut


def test_clips_by_transcript_by_file_and_by_both(lay):
    root = lay({"v/a.mp4": "x", "v/a.srt": SRT, "v/b.wav": "x", "v/b.txt": "all of it", "c.webm": "x"})
    listing = _list(root)
    assert [(clip.path, clip.segment, clip.start_ms, clip.end_ms, clip.text) for clip in listing.clips] == [
        ("c.webm", 0, 0, None, None),
        ("v/a.mp4", 0, 0, 1000, "hello"),
        ("v/a.mp4", 1, 1500, 2000, "bye"),
        ("v/b.wav", 0, 0, None, "all of it"),
    ]
    assert listing.corpus_id == "corpus"
    assert [clip.video_id for clip in listing.clips] == ["c", "v/a", "v/a", "v/b"]
    assert set(listing.sources) == {"c.webm", "v/a.mp4", "v/b.wav"}
    assert listing.problems == []
    whole = _list(root, segment_by="file")
    assert [(clip.path, clip.text) for clip in whole.clips][1] == ("v/a.mp4", "hello bye")
    assert _errors(_list(root, segment_by="transcript")) == [("no_transcript", "c.webm")]


def test_a_corpus_of_words_alone(lay):
    listing = _list(lay({"a.srt": SRT, "b/c.txt": "words", "README.txt": "about"}))
    assert [(clip.path, clip.text) for clip in listing.clips] == [
        ("a.srt", "hello"),
        ("a.srt", "bye"),
        ("b/c.txt", "words"),
    ]
    assert not any(source.is_media for source in listing.sources.values())


def test_a_manifest_says_everything(lay):
    manifest = (
        "path,start,end,clip_id,video_id,text,speaker,split,mood,score\n"
        "a.mp4,1,2.5,A2,vid,second,s1,dev,sad,2\n"
        "a.mp4,0,1,A1,vid,first,s1,Train,happy,-1\n"
        "./b.wav,,,B,,,s2,test,,\n"
    )
    listing = _list(lay({"a.mp4": "x", "b.wav": "x", "a.srt": SRT, "manifest.csv": manifest}))
    got = {clip.source_id: clip for clip in listing.clips}
    assert [(clip.segment, clip.start_ms, clip.end_ms, clip.split) for clip in (got["A1"], got["A2"], got["B"])] == [
        (0, 0, 1000, "train"),
        (1, 1000, 2500, "valid"),
        (0, 0, None, "test"),
    ]
    assert (got["A1"].text, got["A1"].video_id, got["B"].video_id, got["B"].text) == ("first", "vid", "b", None)
    labels = {(label.clip_id, label.name): (label.value, label.category) for label in listing.labels}
    assert labels == {
        (got["A1"].clip_id, "mood"): (None, "happy"),
        (got["A1"].clip_id, "score"): (-1.0, None),
        (got["A2"].clip_id, "mood"): (None, "sad"),
        (got["A2"].clip_id, "score"): (2.0, None),
    }


def test_a_manifest_without_words_takes_them_from_the_transcript(lay):
    root = lay({"a.mp4": "x", "a.srt": SRT, "manifest.csv": "path,start,end\na.mp4,0,1.2\na.mp4,1.2,3\n"})
    assert [clip.text for clip in _list(root).clips] == ["hello", "bye"]


def test_rows_of_a_manifest_that_cannot_be_used(lay):
    manifest = (
        "path,start,end\n../x.mp4,0,1\n/etc/passwd,0,1\nhttp://a.b/c.mp4,0,1\nnone.mp4,0,1\n,0,1\n"
        "a.mp4,2,1\na.mp4,-1,1\na.mp4,nan,1\na.mp4,one,2\na.mp4,0,1\na.mp4,0.0,1.0\n"
    )
    listing = _list(lay({"a.mp4": "x", "manifest.csv": manifest}))
    assert len(listing.clips) == 1
    assert sorted(error for error, _ in _errors(listing)) == sorted(
        ["outside_root"] * 2 + ["url_not_allowed"] + ["missing_file"] * 2 + ["bad_times"] * 4 + ["duplicate_clip"]
    )


# --- labels


def _demo(lay, labels, name="labels.csv"):
    return lay({"videos/v1.mp4": "x", "videos/v1.srt": SRT, "videos/v2.mp4": "x", name: labels})


def test_labels_by_video_and_segment(lay):
    listing = _list(
        _demo(
            lay,
            "clip_id,video_id,segment,speaker,split,sentiment,emotion\n"
            "u1,videos/v1,0,s1,train,1.5,happy\nu2,videos/v1,1,s1,val,-2,sad\nu3,videos/v2,0,s2,test,,\n",
        )
    )
    assert [(clip.source_id, clip.speaker, clip.split) for clip in listing.clips] == [
        ("u1", "s1", "train"),
        ("u2", "s1", "valid"),
        ("u3", "s2", "test"),
    ]
    assert [(label.name, label.value, label.category) for label in listing.labels] == [
        ("emotion", None, "happy"),
        ("sentiment", 1.5, None),
        ("emotion", None, "sad"),
        ("sentiment", -2.0, None),
    ]


@pytest.mark.parametrize(
    "table",
    [
        "path,start,end,y\nvideos/v1.mp4,1.5,2,7\n",
        "video_id,segment,y\nvideos/v1,1.0,7\n",
        "path,start,end,y\n./videos/v1.mp4,1.500,2.0,7\n",
    ],
)
def test_other_ways_to_name_a_clip(lay, table):
    listing = _list(_demo(lay, table))
    (label,) = listing.labels
    assert (label.clip_id, label.value) == (listing.clips[1].clip_id, 7.0)
    listing = _list(_demo(lay, f"clip_id,y\n{label.clip_id},8\nvideos/v2,9\n"))
    assert [label.value for label in listing.labels] == [8.0, 9.0]
    for key in ("video_id,y\nvideos/v1", "path,y\nvideos/v1.mp4"):
        assert [label.value for label in _list(_demo(lay, f"{key},3\n")).labels] == [3.0, 3.0]


def test_labels_in_parquet(lay, tmp_path):
    table = pa.table({"video_id": ["videos/v1", "videos/v2"], "segment": [1.0, 0.0], "y": [float("nan"), 2.0]})
    pq.write_table(table, tmp_path / "l.parquet")
    listing = _list(_demo(lay, (tmp_path / "l.parquet").read_bytes(), "labels.parquet"))
    assert [label.value for label in listing.labels] == [2.0]
    assert _errors(listing) == [("bad_label", "labels.parquet")]


def test_labels_that_cannot_be_used(lay):
    listing = _list(
        _demo(
            lay,
            "video_id,segment,split,y,z\nvideos/v1,0,train,nan,a\nvideos/v1,1,train,inf,b\nvideos/v1,1,test,1,c\n"
            "videos/v2,0,test,3,d\nvideos/v2,0,test,3,d\nvideos/v8,0,test,3,d\nvideos/v9,0,test,3,d\n",
        )
    )
    assert _errors(listing) == [
        ("bad_label", "labels.csv"),
        ("conflicting_label", ""),
        ("conflicting_split", ""),
        ("label_without_clip", "labels.csv"),
    ]
    unknown = next(problem for problem in listing.problems if problem.error == "label_without_clip")
    assert "2 rows" in unknown.message
    assert "videos/v8 0" in unknown.message
    assert [(label.name, label.value or label.category) for label in listing.labels] == [
        ("z", "a"),
        ("y", 1.0),
        ("y", 3.0),
        ("z", "d"),
    ]
    assert listing.clips[1].split == "test"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("labels.csv", "segment,y\n0,1\n", "it has segment, y"),
        ("labels.csv", "video_id,split\nvideos/v1,holdout\n", "holdout"),
        ("labels.csv", "video_id,y\nvideos/v1,1,2,3\n", "row 1 has 4 cells"),
        ("labels.csv", "", "labels.csv is empty: fill it, or remove it"),
        ("labels.parquet", "not parquet", "not a Parquet file"),
        ("manifest.csv", "file,start\na,0\n", "needs a column path"),
        ("manifest.csv", b"\0\1\0\0\2" * 9, "not text"),
    ],
)
def test_a_table_that_cannot_be_used_is_one_line(lay, name, content, message):
    with pytest.raises(CorpusError, match=message) as caught:
        _list(_demo(lay, content, name))
    assert "\n" not in str(caught.value)


# --- files


def test_transcripts_and_their_files(lay):
    root = lay(
        {"a.mp4": "x", "a.en.srt": SRT, "b.mp4": "x", "b.srt": SRT, "b.txt": "t", "c.mp4": "x", "c.wav": "x"}
        | {"d.mp4": "x", "d.json": "{", "e.mp4": "x", "e.srt": "", "gone.vtt": "WEBVTT", "notes.json": "{}"}
    )
    listing = _list(root)
    assert _errors(listing) == [
        ("empty_transcript", "e.srt"),
        ("orphan_transcript", "gone.vtt"),
        ("same_name", "c.wav"),
        ("several_transcripts", "b.mp4"),
        ("unreadable_transcript", "d.json"),
    ]
    assert [clip.path for clip in listing.clips] == ["a.mp4", "a.mp4", "b.mp4", "b.mp4", "c.mp4", "e.mp4"]


def test_links_folders_pipes_and_hidden_files(lay, tmp_path):
    root = lay({"a.mp4": "x", ".hidden.mp4": "x", ".git/b.mp4": "x", "dir.mp4/c.mp4": "x"})
    (tmp_path / "outside.mp4").write_text("x")
    (root / "out.mp4").symlink_to(tmp_path / "outside.mp4")
    (root / "up").symlink_to(tmp_path)
    (root / "loop").symlink_to(root)
    (root / "dangling.mp4").symlink_to("nowhere.mp4")
    (root / "self.mp4").symlink_to("self.mp4")
    (root / "inner.mp4").symlink_to("a.mp4")
    os.mkfifo(root / "pipe.mp4")
    listing = _list(root)
    assert [clip.path for clip in listing.clips] == ["a.mp4", "dir.mp4/c.mp4", "inner.mp4"]
    assert _errors(listing) == [
        ("dangling_link", "dangling.mp4"),
        ("dangling_link", "self.mp4"),
        ("link_loop", "loop"),
        ("not_a_file", "dir.mp4"),
        ("not_a_file", "pipe.mp4"),
        ("outside_link", "out.mp4"),
        ("outside_link", "up"),
    ]
    assert "out.mp4" in _list(root, follow_outside_links=True).sources


def test_strange_names_survive(lay, tmp_path):
    root = lay({"a.mp4": "x"})
    names = [b"b \xff.mp4", b"b%FF.mp4", "c\n'\"\U0001f600.mp4".encode(), b"100%.mp4", b"d%25.mp4"]
    for name in names:
        with open(os.fsencode(root) + b"/" + name, "wb") as file:
            file.write(name)
    listing = _list(root)
    assert len(listing.sources) == len(names) + 1
    pq.write_table(pa.table({"path": list(listing.sources)}), tmp_path / "t.parquet")
    paths = pq.read_table(tmp_path / "t.parquet").column("path").to_pylist()
    assert paths == list(listing.sources)
    for path in paths:
        opened = open_source(str(root), path)
        assert isinstance(opened, str)
        with open(opened, "rb") as file:
            assert file.read() in [*names, b"x"]


@given(path=st.text(st.characters(codec="utf-8") | st.sampled_from("%25F8A\udc80\udcff/ \n"), max_size=30))
def test_escaping_is_reversible(path):
    escaped = escape_path(path)
    escaped.encode("utf-8")
    assert unescape_path(escaped) == path


@pytest.mark.parametrize("path", ["/a.mp4", "../a.mp4", "a/../../b.mp4", "..", ".", "", "C:\\a.mp4"])
def test_paths_out_of_the_root_are_refused(path):
    assert inside_root(path) is None


def test_a_memory_store_is_a_corpus_too(lay):
    memory = fsspec.filesystem("memory")
    memory.pipe("/bucket/set/v/a.mp4", b"media")
    memory.pipe("/bucket/set/v/a.srt", SRT.encode())
    memory.pipe("/bucket/set/.hidden/b.mp4", b"media")
    try:
        listing = list_corpus("memory://bucket/set", CorpusConfig())
        assert listing.corpus_id == "set"
        assert [(clip.path, clip.text) for clip in listing.clips] == [("v/a.mp4", "hello"), ("v/a.mp4", "bye")]
        source = listing.sources["v/a.mp4"]
        remote = fingerprint("memory://bucket/set", source)
        root = lay({"v/a.mp4": "media"})
        assert fingerprint(str(root), _list(root).sources["v/a.mp4"]) == remote
        assert fingerprint(f"file://{root}", source) == remote
        assert [clip.path for clip in list_corpus(f"file://{root}", CorpusConfig()).clips] == ["v/a.mp4"]
        tagged = replace(source, etag="abc")
        assert fingerprint("memory://bucket/set", tagged) == "etag:abc:5"
        memory.rm("/bucket/set/v/a.mp4")
        with pytest.raises(MediaError) as caught:
            fingerprint("memory://bucket/set", source)
        assert caught.value.kind == "vanished"
    finally:
        memory.rm("/bucket", recursive=True)


def test_a_fingerprint_follows_the_content(lay):
    root = lay({"a.mp4": "x" * 3_000_000, "b.mp4": "x" * 3_000_000})
    sources = _list(root).sources
    before = fingerprint(str(root), sources["a.mp4"])
    assert before == fingerprint(str(root), sources["b.mp4"])
    (root / "a.mp4").write_bytes(b"x" * 2_999_999 + b"y")
    assert fingerprint(str(root), sources["a.mp4"]) != before
    (root / "a.mp4").unlink()
    with pytest.raises(MediaError):
        fingerprint(str(root), sources["a.mp4"])


@pytest.mark.parametrize("root", ["nowhere", "memory://nowhere", "foo://bar"])
def test_roots_that_are_none(tmp_path, root):
    with pytest.raises(CorpusError) as caught:
        list_corpus(root if "://" in root else str(tmp_path / root), CorpusConfig())
    assert "\n" not in str(caught.value)


def test_roots_with_nothing_usable(lay, tmp_path):
    with pytest.raises(CorpusError, match="nothing that can be used"):
        _list(lay({"README.md": "x"}))
    (tmp_path / "file").write_text("x")
    with pytest.raises(CorpusError, match="is a file"):
        _list(tmp_path / "file")
    with pytest.raises(CorpusError, match=r"no file mine\.csv"):
        _list(lay({"a.mp4": "x"}), labels="mine.csv")
    with pytest.raises(CorpusError, match="no manifest"):
        _list(lay({"a.mp4": "x"}), segment_by="manifest")


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(names=st.sets(st.text("abc/", min_size=1, max_size=5).map(lambda name: name.replace("/", "_")), min_size=2))
def test_clips_stay_themselves_when_a_file_comes(names, tmp_path_factory):
    root = tmp_path_factory.mktemp("stable")
    *some, new = sorted(names)
    for name in some:
        (root / f"{name}.mp4").touch()
    before = _list(root)
    (root / f"{new}.mp4").touch()
    known = {clip.video_id: clip.split for clip in before.clips}
    after = {clip.clip_id: clip for clip in _list(root, known_splits=known).clips}
    assert all(after[clip.clip_id] == clip for clip in before.clips)
    assert len(after) == len(names)


# --- splits


def _clips(speakers, splits=None):
    return [
        Clip(f"c{at}", "x", f"v{at // 2}", at % 2, "p", 0, None, speaker=speaker, split=(splits or {}).get(at))
        for at, speaker in enumerate(speakers)
    ]


@settings(max_examples=60, deadline=None)
@given(
    speakers=st.lists(st.sampled_from("abcdefghij"), min_size=1, max_size=60), seed=st.integers(0, 3), data=st.data()
)
def test_no_group_is_in_two_splits_and_known_ones_stay(speakers, seed, data):
    config = SplitConfig(seed=seed)
    clips = assign_splits(_clips(speakers), config)
    of_speaker = {clip.speaker or "": clip.split or "" for clip in clips}
    assert all(clip.split == of_speaker[clip.speaker or ""] for clip in clips)
    assert clips == assign_splits(_clips(speakers), config)
    more = speakers + data.draw(st.lists(st.sampled_from("jklmno"), max_size=20))
    later = assign_splits(_clips(more), config, of_speaker)
    assert all(clip.split == of_speaker.get(clip.speaker or "", clip.split) for clip in later)
    by_clip = assign_splits(_clips(more), config, {clip.clip_id: clip.split or "" for clip in clips})
    assert by_clip == later


def test_shares_are_met_and_given_splits_kept():
    clips = assign_splits(_clips([f"s{at}" for at in range(400)]), SplitConfig())
    counts = {name: sum(clip.split == name for clip in clips) for name in ("train", "valid", "test")}
    assert counts == {"train": 280, "valid": 60, "test": 60}
    given_one = assign_splits(_clips(["a", "a", "b", "b"], {0: "test"}), SplitConfig())
    assert [clip.split for clip in given_one][:2] == ["test", "test"]
    by_video = assign_splits(_clips([None, None, None, None]), SplitConfig())
    assert by_video[0].split == by_video[1].split
    with pytest.raises(CorpusError, match="by speaker"):
        assign_splits(_clips([None]), SplitConfig(by="speaker"))
    with pytest.raises(CorpusError, match="all zero"):
        assign_splits(_clips(["a"]), SplitConfig(train=0, valid=0, test=0))


def test_a_hundred_thousand_clips_take_no_quadratic_time(lay):
    rows, labels = ["path,start,end,clip_id,speaker"], ["clip_id,y"]
    for at in range(100_000):
        rows.append(f"v{at % 50}.mp4,{at},{at + 0.5},u{at},s{at % 1000}")
        labels.append(f"u{at},{at % 7}")
    files = {f"v{at}.mp4": "x" for at in range(50)}
    root = lay(files | {"manifest.csv": "\n".join(rows), "labels.csv": "\n".join(labels)})
    begin = time.process_time()
    listing = _list(root)
    assert len(listing.clips) == len(listing.labels) == 100_000
    assert time.process_time() - begin < 60  # a quadratic pass takes hours
    assert isinstance(listing.sources["v0.mp4"], Source)
