"""What a change of the corpus costs: the table in ``docs/corpora.md``."""

import os
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import made_jobs
import pytest
from made_jobs import CUES, FEATURE_SETS, SMALL_SHARDS, carry_out, commit, ok, plan

from miar.errors import ConfigError, CorpusError
from miar.features.contract import Extraction, FeatureSet
from miar.pipeline.plan import plan_feature_sets
from miar.pipeline.refresh import lay_out, running_job, shard_names
from miar.pipeline.rows import feature_spec
from miar.pipeline.shards import Shard
from storage import CLIPS, FAILURES, KeyedTable, Store


@pytest.fixture
def refreshed(store: Store, corpus: Path) -> Path:
    carry_out(store, plan(store, corpus))
    return corpus


def _rename(corpus: Path) -> None:
    for ending in ("mp4", "srt"):
        (corpus / f"a.{ending}").rename(corpus / f"z.{ending}")


def _move_a_cut(corpus: Path) -> None:
    (corpus / "a.srt").write_text(CUES.format("a").replace("00:00:02,000", "00:00:02,500"))


def _edit_a_word(corpus: Path) -> None:
    (corpus / "a.srt").write_text(CUES.format("a").replace("two", "three"))


def _touch_the_transcript(corpus: Path) -> None:
    os.utime(corpus / "a.srt", ns=(0, 10**18))


def _touch_the_video(corpus: Path) -> None:
    os.utime(corpus / "a.mp4", ns=(0, 10**18))


def _change_the_video(corpus: Path) -> None:
    (corpus / "a.mp4").write_bytes(b"other")


def _remove(corpus: Path) -> None:
    (corpus / "a.mp4").unlink()
    (corpus / "a.srt").unlink()


def _remove_the_transcript(corpus: Path) -> None:
    (corpus / "a.srt").unlink()


def _add(corpus: Path) -> None:
    (corpus / "e.mp4").write_bytes(b"e")


def _label(corpus: Path) -> None:
    (corpus / "labels.csv").write_text("path,mood\na.mp4,sad\n")


def _nothing(_: Path) -> None:
    pass


CASES: list[tuple[Callable[[Path], None], tuple[int, int, int], tuple[int, int]]] = [
    # what is done, (new, changed, gone), rows to make of (words, sound and picture each)
    (_nothing, (0, 0, 0), (0, 0)),
    (_rename, (2, 0, 2), (2, 2)),
    (_move_a_cut, (1, 0, 1), (1, 1)),
    (_edit_a_word, (0, 1, 0), (1, 0)),
    (_touch_the_transcript, (0, 0, 0), (0, 0)),
    (_touch_the_video, (0, 0, 0), (0, 0)),
    (_change_the_video, (0, 2, 0), (0, 2)),
    (_remove, (0, 0, 2), (0, 0)),
    (_remove_the_transcript, (1, 0, 2), (1, 1)),
    (_add, (1, 0, 0), (1, 1)),
    (_label, (0, 0, 0), (0, 0)),
]


@pytest.mark.parametrize(("change", "catalogue", "rows"), CASES, ids=[case[0].__name__.strip("_") for case in CASES])
def test_what_a_change_costs(store: Store, refreshed: Path, change, catalogue, rows):
    change(refreshed)
    planned = plan(store, refreshed)
    found = planned.summary()
    assert (found["new"], found["changed"], found["gone"]) == catalogue
    assert (found["to_extract"]["text"], found["to_extract"]["opensmile"]) == rows
    assert found["to_extract"]["opensmile"] == found["to_extract"]["mediapipe"]
    carry_out(store, planned)
    again = plan(store, refreshed)
    assert again.is_empty
    assert again.changes.clips.num_rows == again.changes.labels.num_rows == 0


def test_a_touched_video_is_read_once(store: Store, refreshed: Path, monkeypatch: pytest.MonkeyPatch):
    from miar.pipeline import fingerprints

    read = []
    real = fingerprints.fingerprint
    monkeypatch.setattr(
        fingerprints, "fingerprint", lambda root, source: read.append(source.path) or real(root, source)
    )
    carry_out(store, plan(store, refreshed))
    assert read == []
    _touch_the_video(refreshed)
    carry_out(store, plan(store, refreshed))
    carry_out(store, plan(store, refreshed))
    assert read == ["a.mp4"]


def test_a_transcript_is_read_once(store: Store, corpus: Path, monkeypatch: pytest.MonkeyPatch):
    from miar.corpus import words

    for path in corpus.glob("*.srt"):
        os.utime(path, ns=(0, 10**18))
    read = []
    real = words.read_transcript
    monkeypatch.setattr(words, "read_transcript", lambda content, name: read.append(name) or real(content, name))
    carry_out(store, plan(store, corpus))
    assert sorted(read) == ["a.srt", "b.srt", "c.srt", "d.srt"]
    before = store.table(CLIPS).read().sort_by("clip_id")
    assert plan(store, corpus).is_empty
    assert len(read) == 4
    (corpus / "b.srt").write_text(CUES.format("B"))
    an_hour_on = time.time_ns() + 3600 * 10**9
    os.utime(corpus / "b.srt", ns=(0, an_hour_on))
    carry_out(store, plan(store, corpus))
    # Its time is not past, so it says too little: it is read again, and again, until it has settled.
    plan(store, corpus)
    assert read[4:] == ["b.srt", "b.srt"]
    os.utime(corpus / "b.srt", ns=(0, 10**18 + 1))
    carry_out(store, plan(store, corpus))
    plan(store, corpus)
    assert read[6:] == ["b.srt"]
    (corpus / "b.srt").write_text(CUES.format("b"))
    carry_out(store, plan(store, corpus))
    said = ["clip_id", "text", "text_hash", "state"]
    assert store.table(CLIPS).read().sort_by("clip_id").select(said).equals(before.select(said))


def test_what_comes_back_costs_nothing(store: Store, refreshed: Path, tmp_path: Path):
    aside = shutil.copytree(refreshed, tmp_path / "aside")
    _remove(refreshed)
    carry_out(store, plan(store, refreshed))
    for ending in ("mp4", "srt"):
        shutil.copy2(aside / f"a.{ending}", refreshed)
    planned = plan(store, refreshed)
    assert planned.is_empty
    assert planned.changes.changed == 2
    carry_out(store, planned)
    assert plan(store, refreshed).changes.clips.num_rows == 0


@pytest.mark.parametrize("left", [0, 1])
def test_a_root_that_lost_most_of_its_files_is_refused(store: Store, refreshed: Path, left: int):
    before = store.table(CLIPS).version()
    for path in sorted(refreshed.iterdir())[2 * left :]:
        path.unlink()
    with pytest.raises(
        CorpusError, match="nothing that can be used" if left == 0 else "3 of the 4 files .*max_lost_sh"
    ):
        plan(store, refreshed)
    assert store.table(CLIPS).version() == before


def test_a_root_that_is_gone_is_refused(store: Store, refreshed: Path, tmp_path: Path):
    shutil.rmtree(refreshed)
    with pytest.raises(CorpusError, match="does not exist"):
        plan(store, refreshed)


def test_what_fails_three_times_is_given_up_until_it_changes(store: Store, corpus: Path):
    def fails(clip_id: str, feature_set: FeatureSet) -> Extraction:
        return Extraction.failed("Error", "why") if feature_set.extractor == "text" else ok(clip_id, feature_set)

    for attempt in range(3):
        planned = plan(store, corpus)
        assert (planned.retried, planned.given_up) == (8 if attempt else 0, 0)
        carry_out(store, planned, fails)
    planned = plan(store, corpus)
    assert (planned.is_empty, planned.retried, planned.given_up) == (True, 0, 8)
    assert planned.summary()["up_to_date"] == {"text": 0, "opensmile": 8, "mediapipe": 8}
    again = plan(store, corpus, retry_failed=True)
    assert (again.retried, again.given_up, again.summary()["to_extract"]["text"]) == (8, 0, 8)
    _edit_a_word(corpus)
    planned = plan(store, corpus)
    assert (planned.retried, planned.given_up, planned.summary()["to_extract"]["text"]) == (0, 7, 1)
    _remove(corpus)
    carry_out(store, plan(store, corpus))
    assert store.table(FAILURES).count() == 6


def _fails(clip_id: str, feature_set: FeatureSet) -> Extraction:
    return Extraction.failed("Error", "why") if feature_set.extractor == "text" else ok(clip_id, feature_set)


def test_a_commit_that_is_made_again_is_one_attempt(store: Store, corpus: Path):
    """Its task is tried again where the answer to the first try was lost."""
    with running_job(store, folder := lay_out(store, plan(store, corpus))) as (job, _):
        for name in shard_names(folder):
            shard = Shard.load(folder / "shards" / f"{name}.json")
            for _ in range(3):
                commit(store, job, shard, _fails)
        version = store.table(FAILURES).version()
        commit(store, job, shard, _fails)
        assert store.table(FAILURES).version() == version
    assert store.table(FAILURES).read(["attempts"])["attempts"].to_pylist() == [1] * 8
    carry_out(store, plan(store, corpus), _fails)
    assert store.table(FAILURES).read(["attempts"])["attempts"].to_pylist() == [2] * 8


def test_rows_of_a_killed_run_mend_the_failures_of_earlier_ones(
    store: Store, corpus: Path, monkeypatch: pytest.MonkeyPatch
):
    for _ in range(2):
        carry_out(store, plan(store, corpus), _fails)
    with monkeypatch.context() as killed:
        killed.setattr(made_jobs, "commit_shard", lambda *_: None)  # staged, and no further
        carry_out(store, plan(store, corpus))
    assert store.table(FAILURES).count() == 8
    looked = plan(store, corpus, adopt=False)
    assert (looked.retried, looked.summary()["to_extract"]["text"]) == (8, 8)
    assert store.table(FAILURES).count() == 8
    planned = plan(store, corpus)
    assert planned.is_empty
    assert (planned.adopted, planned.retried, planned.given_up) == (8, 0, 0)
    assert store.table(FAILURES).count() == 0


def test_a_commit_reads_the_failures_of_its_own_clips(store: Store, corpus: Path, monkeypatch: pytest.MonkeyPatch):
    carry_out(store, plan(store, corpus), _fails)
    read: list[int] = []
    whole = KeyedTable.read

    def counted(self: KeyedTable, *arguments, **named):
        rows = whole(self, *arguments, **named)
        if self.spec is FAILURES:
            read.append(rows.num_rows)
        return rows

    with running_job(store, folder := lay_out(store, plan(store, corpus))) as (job, _):
        shards = [Shard.load(folder / "shards" / f"{name}.json") for name in shard_names(folder)]
        monkeypatch.setattr(KeyedTable, "read", counted)
        for shard in shards:
            commit(store, job, shard, _fails)
    assert read == [len(shard.clips) for shard in shards]


def test_two_configurations_of_one_extractor_are_counted_apart(store: Store, corpus: Path):
    one = FEATURE_SETS["text"]
    other = replace(one, config={"model": "another"})
    sets = [one, other, FEATURE_SETS["opensmile"]]
    planned = plan_feature_sets(store, SMALL_SHARDS, sets, root=str(corpus))
    first, second = f"text/{one.config_hash}", f"text/{other.config_hash}"
    assert planned.summary()["to_extract"] == {first: 8, second: 8, "opensmile": 8}
    assert planned.summary()["feature_sets"] == dict(
        zip((first, second, "opensmile"), (each.table for each in sets), strict=True)
    )
    carry_out(store, planned)
    again = plan_feature_sets(store, SMALL_SHARDS, sets, root=str(corpus)).summary()
    assert again["up_to_date"] == {first: 8, second: 8, "opensmile": 8}
    with pytest.raises(ConfigError, match="text stands 2 times in the configuration with the same settings"):
        plan_feature_sets(store, SMALL_SHARDS, [one, one], root=str(corpus))


def test_a_damaged_shard_that_a_dead_run_left_stops_no_refresh(store: Store, corpus: Path, monkeypatch):
    planned = plan(store, corpus, ["text"])
    with monkeypatch.context() as patches:
        patches.setattr("made_jobs.commit_shard", lambda *_: None)
        carry_out(store, planned)
    table = store.table(feature_spec(planned.feature_sets[0]))
    damaged, *others = (Path(table.path) / name for name in table.orphans())
    assert others
    damaged.write_bytes(damaged.read_bytes()[:-20])
    again = plan(store, corpus, ["text"])
    (left,) = again.shards
    assert left.name == damaged.stem, "the same work gives its shard the same name"
    assert again.adopted == 8 - len(left.clips) > 0
    carry_out(store, again)
    clips = [row["clip_id"] for row in store.table(CLIPS).read(["clip_id"]).to_pylist()]
    assert sorted(table.read(["clip_id"])["clip_id"].to_pylist()) == sorted(clips)
    assert table.orphans() == [damaged.name]
