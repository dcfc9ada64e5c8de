"""What a refresh has to do: one listing of the corpus against one scan of the store's keys.

A feature row is up to date when the store holds its ``(clip_id, input_hash)`` under the extractor's ``config_hash``.
Everything else is work, cut into shards of whole source files. Clips are columns here and positions in them: a million
of them are looked through in seconds, and only those that have work become objects.
"""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from miar.config import PipelineConfig
from miar.corpus.listing import corpus_name, list_corpus
from miar.corpus.model import CorpusListing
from miar.errors import ConfigError, UnavailableError
from miar.features.configs import ExtractorConfig
from miar.features.contract import FeatureSet
from miar.features.registry import availability
from miar.pipeline import catalogue
from miar.pipeline.catalogue import CatalogueChanges
from miar.pipeline.cutting import Work, cut_shards
from miar.pipeline.runs import new_run_id
from miar.pipeline.shards import Shard, names_of
from miar.pipeline.staleness import find_stale
from miar.segmentation.segmenter import segmenter_id, segmenter_of
from storage import Store
from storage.arrow import pc

MAX_ATTEMPTS = 3
"""A clip that failed this often on the same input is left alone until it changes or ``--retry-failed`` is given."""


@dataclass
class RefreshPlan:
    """Everything a refresh of one corpus will do."""

    run_id: str
    corpus_id: str
    root: str | None
    """``None``: the corpus was imported; only what the store itself holds (words) can be extracted."""
    config: PipelineConfig
    feature_sets: list[FeatureSet]
    unavailable: dict[str, str]
    """Extractor -> why it is left out, and the command that mends it."""
    changes: CatalogueChanges
    unsegmented: int = 0
    """Files that have to be cut into clips first: nothing of them is counted yet."""
    shards: list[Shard] = field(default_factory=list)
    seconds: float = 0.0
    """What the shards will take one worker, by rough constants."""
    clips_wanted: int = 0
    """Clips that have anything to be made from."""
    media_seconds: float = 0.0
    """How long those are together."""
    wanted: dict[str, int] = field(default_factory=dict)
    """Feature table -> rows to make."""
    up_to_date: dict[str, int] = field(default_factory=dict)
    """Feature table -> rows made from what the corpus holds now, ``missing`` ones too."""
    known_missing: dict[str, int] = field(default_factory=dict)
    """How many of those say that the clip has no such modality."""
    retried: int = 0
    """(clip, extractor) pairs that failed before on the same input and are tried again."""
    given_up: int = 0
    """(clip, extractor) pairs that failed ``MAX_ATTEMPTS`` times and did not change."""
    versions: dict[str, int | None] = field(default_factory=dict)
    """Feature table -> the version that was looked at."""
    adopted: int = 0
    """Rows that another run had finished, and that only had to be registered: it was killed, or is not there yet."""

    @property
    def is_empty(self) -> bool:
        return not self.shards

    def summary(self) -> dict[str, Any]:
        """Counts, for people and for ``--json``."""
        changes, names = self.changes, names_of(self.feature_sets)
        return {
            "corpus_id": self.corpus_id,
            "root": self.root,
            "clips": changes.live.num_rows,
            "files": pc.count_distinct(changes.live["path"]).as_py(),
            "new": changes.new,
            "changed": changes.changed,
            "gone": changes.gone,
            "problems": changes.problems,
            "unsegmented": self.unsegmented,
            "feature_sets": {name: table for table, name in names.items()},
            "to_extract": {names[table]: count for table, count in self.wanted.items()},
            "up_to_date": {names[table]: count for table, count in self.up_to_date.items()},
            "known_missing": {names[table]: count for table, count in self.known_missing.items()},
            "retried": self.retried,
            "given_up": self.given_up,
            "adopted": self.adopted,
            "shards": len(self.shards),
            "clips_to_extract": self.clips_wanted,
            "unavailable": self.unavailable,
        }


def without_unavailable(config: PipelineConfig) -> tuple[PipelineConfig, list[FeatureSet], dict[str, str]]:
    """The configuration with the extractors that can run, their descriptors, and why each of the others cannot.

    Raises:
        UnavailableError: an extractor is not to be had and the configuration says ``on_unavailable: fail``, or none is.
        ConfigError: it names none.
    """
    if not config.extractors:
        raise ConfigError("the configuration names no extractor: leave `extractors` out for the usual ones")
    found: list[FeatureSet] = []
    able: list[ExtractorConfig] = []
    unavailable: dict[str, str] = {}
    for extractor in config.extractors:
        answer = availability(extractor)
        if not isinstance(answer, UnavailableError):
            found.append(answer)
            able.append(extractor)
        elif config.on_unavailable == "fail":
            raise answer
        else:
            earlier = unavailable.get(extractor.extractor)
            unavailable[extractor.extractor] = f"{earlier}; {answer}" if earlier else str(answer)
    if not found:
        raise UnavailableError(f"no extractor can run: {'; '.join(unavailable.values())}")
    return config.model_copy(update={"extractors": tuple(able)}), found, unavailable


def plan_refresh(
    store: Store,
    config: PipelineConfig,
    *,
    root: str | None,
    corpus_id: str | None = None,
    retry_failed: bool = False,
    adopt: bool = True,
) -> RefreshPlan:
    """Find out what is new, stale, failed and gone. Commits nothing but what a killed run had already finished.

    ``root``: where the corpus is; ``None``: the imported corpus ``corpus_id``, whose words alone are at hand.
    ``adopt``: whether that may be committed; without it nothing at all is written, and no lock is taken.

    Raises:
        CorpusError, UnavailableError: see :func:`list_corpus`, :func:`catalogue.compare`,
            :func:`without_unavailable`.
    """
    config, feature_sets, unavailable = without_unavailable(config)
    plan = plan_feature_sets(
        store, config, feature_sets, root=root, corpus_id=corpus_id, retry_failed=retry_failed, adopt=adopt
    )
    plan.unavailable = unavailable
    return plan


def plan_feature_sets(
    store: Store,
    config: PipelineConfig,
    feature_sets: list[FeatureSet],
    *,
    root: str | None,
    corpus_id: str | None = None,
    retry_failed: bool = False,
    adopt: bool = True,
) -> RefreshPlan:
    """:func:`plan_refresh` where it is known what the extractors of ``config`` make.

    Raises:
        CorpusError: see :func:`list_corpus` and :func:`catalogue.compare`.
        ConfigError: two extractors make the same feature set.
    """
    _refuse_twins(feature_sets)
    if root is not None:
        changes, unsegmented = _read_corpus(store, config, root, corpus_id)
    else:
        assert corpus_id is not None
        changes, unsegmented = _imported_corpus(store, corpus_id), 0
    plan = RefreshPlan(
        run_id=new_run_id("refresh"),
        corpus_id=changes.corpus_id,
        root=root,
        config=config,
        feature_sets=feature_sets,
        unavailable={},
        changes=changes,
        unsegmented=unsegmented,
    )
    found = find_stale(store, plan.corpus_id, changes.live, feature_sets, has_media=root is not None, adopt=adopt)
    stale: dict[str, np.ndarray] = {}
    for name, one in found.items():
        given_up = np.zeros(len(one.stale), bool) if retry_failed else one.stale & (one.attempts >= MAX_ATTEMPTS)
        chosen = one.stale & ~given_up
        stale[name] = np.flatnonzero(chosen)
        plan.wanted[name], plan.up_to_date[name] = int(chosen.sum()), one.up_to_date
        plan.known_missing[name], plan.versions[name] = one.missing, one.version
        plan.adopted += one.adopted
        plan.given_up += int(given_up.sum())
        plan.retried += int((chosen & (one.attempts > 0)).sum())
    work = Work.of(changes.live, stale, feature_sets)
    plan.shards, plan.seconds = cut_shards(work, config.execution), work.seconds
    plan.clips_wanted, plan.media_seconds = work.clips.num_rows, float(work.length_s.sum())
    return plan


def _refuse_twins(feature_sets: list[FeatureSet]) -> None:
    for table, count in Counter(one.table for one in feature_sets).items():
        if count > 1:
            extractor = table.split("/")[1]
            raise ConfigError(
                f"the extractor {extractor} stands {count} times in the configuration with the same settings: keep one"
            )


def listed_corpus(
    store: Store, config: PipelineConfig, root: str, corpus_id: str | None, *, retry_failed: bool = False
) -> tuple[CorpusListing, pa.Table]:
    """The corpus as it is now, read with what the store remembers of it, and its clips as the store knows them.

    ``retry_failed``: as if files that could not be cut had not been tried.

    Raises:
        CorpusError, UnavailableError: see :func:`list_corpus` and :func:`segmenter_of`.
    """
    corpus_id = corpus_id or config.corpus.corpus_id or corpus_name(root)
    corpus = config.corpus.model_copy(update={"corpus_id": corpus_id})
    segmenter, _ = segmenter_of(corpus)
    known = catalogue.known_clips(store, corpus_id)
    listing = list_corpus(
        root,
        corpus,
        catalogue.known_splits(known),
        catalogue.remembered(store, corpus_id, retry_failed=retry_failed),
        None if segmenter is None else segmenter_id(segmenter),
    )
    return listing, known


def _read_corpus(
    store: Store, config: PipelineConfig, root: str, corpus_id: str | None
) -> tuple[CatalogueChanges, int]:
    """What changed, and how many files have to be cut first. The listing of a million clips is let go of here."""
    listing, known = listed_corpus(store, config, root, corpus_id)
    changes = catalogue.compare(store, listing, known, config.corpus.max_lost_share)
    return changes, len(listing.unsegmented)


def _imported_corpus(store: Store, corpus_id: str) -> CatalogueChanges:
    known = catalogue.known_clips(store, corpus_id)
    return CatalogueChanges(live=known.filter(pc.equal(known["state"], "live")), corpus_id=corpus_id)
