"""Which corpora a refresh is about, and how each of them is read."""

import json
import os
import shutil
from pathlib import Path

import pytest
from made_jobs import carry_out, plan

from miar.config import PipelineConfig
from miar.errors import ConfigError, CorpusError
from miar.pipeline.targets import Target, for_each, refresh_targets
from storage import CLIPS, Store

SMALL = {"execution": {"workers": 2, "shard_clips": 3}}
WHOLE_FILES = PipelineConfig.model_validate({**SMALL, "corpus": {"segment_by": "file", "max_lost_share": 1.0}})


@pytest.fixture
def other(corpus: Path, tmp_path: Path) -> Path:
    return shutil.copytree(corpus, tmp_path / "other")


@pytest.fixture
def two(store: Store, corpus: Path, other: Path) -> Store:
    """A store that knows ``corpus``, cut by transcripts, and ``other``, each file of which is one clip."""
    carry_out(store, plan(store, corpus))
    carry_out(store, plan(store, other, config=WHOLE_FILES))
    return store


def test_without_a_corpus_a_name_chooses_among_those_that_are_known(two: Store, miar):
    assert [target.corpus_id for target in refresh_targets(two, None)] == ["corpus", "other"]
    code, out, _ = miar("refresh", "--store", two.uri, "--corpus-id", "other", "--only", "audio", "--dry-run", "--json")
    assert not code
    (found,) = json.loads(out)
    assert (found["corpus_id"], found["clips"]) == ("other", 4)
    assert (found["new"], found["changed"], found["gone"]) == (0, 0, 0)
    code, out, err = miar("refresh", "--store", two.uri, "--corpus-id", "othr", "--only", "audio", "--dry-run")
    assert (code, out) == (2, "")
    (line,) = err.splitlines()
    assert "'othr'" in line
    assert "corpus, other" in line


def test_a_corpus_is_cut_as_it_was_unless_the_configuration_says_how(two: Store, other: Path):
    target = refresh_targets(two, None, "other")[0]
    default = PipelineConfig.model_validate(SMALL)
    again = plan(two, target.root, config=target.configured(default), corpus_id=target.corpus_id)
    assert again.is_empty
    assert (again.changes.new, again.changes.gone) == (0, 0)
    assert again.config.corpus.segment_by == "file"
    # How much may be lost was said for that time alone.
    assert again.config.corpus.max_lost_share == default.corpus.max_lost_share
    told = PipelineConfig.model_validate({**SMALL, "corpus": {"segment_by": "transcript"}})
    assert target.configured(told) is told
    assert Target(None, str(other)).configured(default) is default


def test_a_bad_corpus_does_not_keep_the_others_from_being_refreshed(two: Store, corpus: Path, miar):
    shutil.rmtree(corpus)
    (corpus.parent / "other" / "new.mp4").write_bytes(b"new")

    def run(target: Target) -> dict:
        config = target.configured(PipelineConfig.model_validate(SMALL))
        return carry_out(two, plan(two, target.root, config=config, corpus_id=target.corpus_id))

    results, error = for_each(refresh_targets(two, None), run)
    assert [(one["corpus_id"], one["new"]) for one in results] == [("other", 1)]
    assert isinstance(error, CorpusError)
    assert "1 of 2 corpora" in str(error)
    assert "corpus: the corpus" in str(error)
    with pytest.raises(CorpusError, match="does not exist"):
        for_each(refresh_targets(two, None, "corpus"), run)
    code, out, err = miar("refresh", "--store", two.uri, "--only", "audio", "--dry-run", "--json")
    assert code == 2
    assert [one["corpus_id"] for one in json.loads(out)] == ["other"]
    assert len(err.splitlines()) == 1


def test_a_last_configuration_that_cannot_be_used_is_one_line(store: Store):
    target = Target("corpus", "/somewhere", {"segment_by": "sentence"})
    with pytest.raises(ConfigError, match="the last refresh of corpus: corpus: segment_by"):
        target.configured(PipelineConfig())


def test_a_corpus_is_called_as_its_folder_or_the_link_to_it(store: Store, corpus: Path, tmp_path: Path):
    link = tmp_path / "current"
    link.symlink_to(corpus)
    planned = plan(store, link)
    assert planned.corpus_id == "current"
    carry_out(store, planned)
    (target,) = refresh_targets(store, None)
    assert target.root == str(link)
    moved = corpus.rename(tmp_path / "v5")
    link.unlink()
    link.symlink_to(moved)
    again = plan(store, link)
    assert (again.changes.new, again.changes.gone) == (0, 0)
    undecodable = os.fsdecode(b"caf\xe9")
    strange = moved.rename(tmp_path / undecodable)
    carry_out(store, planned := plan(store, strange))
    assert planned.corpus_id == "caf%E9"
    assert "caf%E9" in store.table(CLIPS).read(["corpus_id"])["corpus_id"].to_pylist()
    assert [(one.corpus_id, one.root) for one in refresh_targets(store, None, "caf%E9")] == [("caf%E9", str(strange))]
