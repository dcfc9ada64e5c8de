"""What a refresh has to do: one listing of the corpus against one scan of the store's keys.

A feature row is up to date when the store holds its ``(clip_id, input_hash)`` under the extractor's ``config_hash``.
Everything else is work, cut into shards of whole source files.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from miar.config import ExecutionConfig, PipelineConfig
from miar.corpus.listing import list_corpus
from miar.corpus.sources import check_folder, local_root
from miar.errors import CorpusError, UnavailableError
from miar.features.configs import ExtractorConfig
from miar.features.contract import FeatureSet, Modality, Status
from miar.features.registry import feature_set_of
from miar.features.runner import ClipRequest
from miar.pipeline import catalogue
from miar.pipeline.catalogue import CatalogueChanges
from miar.pipeline.rows import feature_spec
from miar.pipeline.runs import latest_runs, new_run_id
from miar.pipeline.shards import Shard, make_shard
from storage import CLIPS, FAILURES, Store

MAX_ATTEMPTS = 3
"""A clip that failed this often on the same input is left alone until it changes or ``--retry-failed`` is given."""

SECONDS_PER_CLIP = 0.05
SECONDS_PER_MEDIA_SECOND = {Modality.TEXT: 0.0, Modality.AUDIO: 0.03, Modality.FACE: 0.12}
DECODE_SECONDS_PER_MEDIA_SECOND = 0.03
ASSUMED_BYTES_PER_SECOND = 125_000
"""A guess at the length of a file that nobody has opened yet: 1 Mbit/s."""
SHARDS_PER_WORKER = 4
"""Enough shards that no worker is idle for long at the end."""


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
    shards: list[Shard]
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
    adopted: int = 0
    """Rows of an earlier, killed run that were finished and only had to be registered."""

    @property
    def is_empty(self) -> bool:
        return not self.shards

    def summary(self) -> dict[str, Any]:
        """Counts, for people and for ``--json``."""
        changes = self.changes
        return {
            "corpus_id": self.corpus_id,
            "root": self.root,
            "clips": len(changes.live),
            "files": len({row["path"] for row in changes.live.values()}),
            "new": changes.new,
            "changed": changes.changed,
            "gone": changes.gone,
            "problems": changes.problems,
            "to_extract": {_extractor_of(table): count for table, count in self.wanted.items()},
            "up_to_date": {_extractor_of(table): count for table, count in self.up_to_date.items()},
            "known_missing": {_extractor_of(table): count for table, count in self.known_missing.items()},
            "retried": self.retried,
            "given_up": self.given_up,
            "adopted": self.adopted,
            "shards": len(self.shards),
            "unavailable": self.unavailable,
        }


def _extractor_of(table: str) -> str:
    return table.split("/")[1]


def open_store(uri: str, corpus: str | None) -> Store:
    """The store to refresh: made if it is not there and a corpus is named; a mistyped corpus leaves no store behind.

    Raises:
        CorpusError: the corpus does not exist, or is a file.
        StoreError: no corpus is named and there is no store, or what is there is none.
    """
    if corpus is None:
        return Store.open(uri)
    if (folder := local_root(corpus)) is not None:
        check_folder(folder)
    return Store.open_or_create(uri)


def refresh_targets(store: Store, corpus: str | None) -> list[tuple[str | None, str | None]]:
    """(corpus id, root) of every corpus that a refresh without arguments is about; one pair where ``corpus`` is given.

    A corpus that was read from a folder is read from there again; one that was imported has no root.

    Raises:
        CorpusError: the store knows no corpus yet.
    """
    if corpus is not None:
        return [(None, corpus)]
    ids = sorted(set(store.table(CLIPS).read(columns=["corpus_id"])["corpus_id"].to_pylist()))
    if not ids:
        raise CorpusError("the store knows no corpus yet: give a folder, `miar refresh CORPUS --store ...`")
    roots: dict[str, str] = {}
    for run in reversed(latest_runs(store, "refresh")):
        if run["corpus_id"] and run["config"].get("root"):
            roots[run["corpus_id"]] = run["config"]["root"]
    return [(corpus_id, roots.get(corpus_id)) for corpus_id in ids]


def without_unavailable(config: PipelineConfig) -> tuple[PipelineConfig, list[FeatureSet], dict[str, str]]:
    """The configuration with the extractors that can run, their descriptors, and why each of the others cannot.

    Raises:
        UnavailableError: an extractor is not to be had and the configuration says ``on_unavailable: fail``, or none is.
    """
    found: list[FeatureSet] = []
    able: list[ExtractorConfig] = []
    unavailable: dict[str, str] = {}
    for extractor in config.extractors:
        try:
            found.append(feature_set_of(extractor))
            able.append(extractor)
        except UnavailableError as error:
            if config.on_unavailable == "fail":
                raise
            unavailable[extractor.extractor] = str(error)
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
) -> RefreshPlan:
    """Find out what is new, stale, failed and gone. Commits nothing but what a killed run had already finished.

    ``root``: where the corpus is; ``None``: the imported corpus ``corpus_id``, whose words alone are at hand.

    Raises:
        CorpusError, UnavailableError: see :func:`list_corpus`, :func:`catalogue.compare`,
            :func:`without_unavailable`.
    """
    config, feature_sets, unavailable = without_unavailable(config)
    if root is not None:
        changes, corpus_id = _read_corpus(store, config, root, corpus_id)
    else:
        assert corpus_id is not None
        changes = _imported_corpus(store, corpus_id)
    plan = RefreshPlan(
        run_id=new_run_id("refresh"),
        corpus_id=corpus_id,
        root=root,
        config=config,
        feature_sets=feature_sets,
        unavailable=unavailable,
        changes=changes,
        shards=[],
    )
    wants: defaultdict[str, set[str]] = defaultdict(set)
    for feature_set in feature_sets:
        for clip_id in _stale(store, plan, feature_set, retry_failed):
            wants[clip_id].add(feature_set.table)
    plan.shards = cut_shards(changes.live, wants, config.execution, feature_sets)
    return plan


def _read_corpus(
    store: Store, config: PipelineConfig, root: str, corpus_id: str | None
) -> tuple[CatalogueChanges, str]:
    corpus = config.corpus if corpus_id is None else config.corpus.model_copy(update={"corpus_id": corpus_id})
    corpus_id = corpus.corpus_id or default_corpus_id(root)
    known = catalogue.known_clips(store, corpus_id)
    corpus = corpus.model_copy(update={"corpus_id": corpus_id})
    listing = list_corpus(root, corpus, catalogue.known_splits(known))
    return catalogue.compare(store, listing, known, config.corpus.max_lost_share), corpus_id


def default_corpus_id(root: str) -> str:
    """The name of the folder: it stays the same wherever the corpus is mounted."""
    if "://" in root:
        return root.rstrip("/").rsplit("/", 1)[-1]
    return Path(root).resolve().name


def _imported_corpus(store: Store, corpus_id: str) -> CatalogueChanges:
    known = catalogue.known_clips(store, corpus_id)
    return CatalogueChanges(live={key: row for key, row in known.items() if row["state"] == "live"})


def _stale(store: Store, plan: RefreshPlan, feature_set: FeatureSet, retry_failed: bool) -> list[str]:
    """Clip ids whose row in this feature set is absent or was made from other input."""
    hash_name = "text_hash" if feature_set.modality is Modality.TEXT else "media_hash"
    inputs = {
        clip_id: row[hash_name]
        for clip_id, row in plan.changes.live.items()
        if row[hash_name] is not None and not (plan.root is None and feature_set.modality is not Modality.TEXT)
    }
    table = store.table(feature_spec(feature_set))
    done = _done(table, plan.corpus_id, inputs)
    stale = [clip_id for clip_id in inputs if clip_id not in done]
    if stale and (orphans := table.orphans()):
        wanted = {"clip_id": stale, "input_hash": [inputs[clip_id] for clip_id in stale]}
        plan.adopted += table.register(orphans, wanted=pa.table(wanted)).rows_added
        done = _done(table, plan.corpus_id, inputs)
        stale = [clip_id for clip_id in stale if clip_id not in done]
    plan.up_to_date[feature_set.table] = len(done)
    plan.known_missing[feature_set.table] = sum(status == Status.MISSING for status in done.values())
    attempts = _attempts(store, plan.corpus_id, feature_set, inputs)
    hopeless = {clip_id for clip_id, count in attempts.items() if count >= MAX_ATTEMPTS and not retry_failed}
    stale = [clip_id for clip_id in stale if clip_id not in hopeless]
    plan.given_up += len(hopeless)
    plan.retried += sum(clip_id in attempts for clip_id in stale)
    plan.wanted[feature_set.table] = len(stale)
    return stale


def _done(table: Any, corpus_id: str, inputs: Mapping[str, str]) -> dict[str, str]:
    """clip_id -> status of the rows that were made from these inputs."""
    columns = ["clip_id", "input_hash", "status"]
    rows = table.read(columns=columns, filter=pc.field("corpus_id") == corpus_id)
    return {
        clip_id: status
        for clip_id, input_hash, status in zip(*(rows[name].to_pylist() for name in columns), strict=True)
        if inputs.get(clip_id) == input_hash
    }


def _attempts(store: Store, corpus_id: str, feature_set: FeatureSet, inputs: Mapping[str, str]) -> dict[str, int]:
    """clip_id -> how often it failed on the input that it has now."""
    chosen = (pc.field("corpus_id") == corpus_id) & (pc.field("config_hash") == feature_set.config_hash)
    rows = store.table(FAILURES).read(columns=["clip_id", "input_hash", "attempts"], filter=chosen).to_pylist()
    return {row["clip_id"]: row["attempts"] for row in rows if inputs.get(row["clip_id"]) == row["input_hash"]}


def cut_shards(
    live: Mapping[str, Mapping[str, Any]],
    wants: Mapping[str, set[str]],
    execution: ExecutionConfig,
    feature_sets: Sequence[FeatureSet],
) -> list[Shard]:
    """Cut the work into shards of whole files: about ``shard_seconds`` each, fewer where there is little to do.

    The cut, and so each shard's name, depends on the work alone, not on the order it was found in.
    """
    modality = {feature_set.table: feature_set.modality for feature_set in feature_sets}
    files: defaultdict[str, list[ClipRequest]] = defaultdict(list)
    cost: defaultdict[str, float] = defaultdict(float)
    clips_of_file: defaultdict[str, int] = defaultdict(int)
    for row in live.values():
        clips_of_file[row["path"]] += 1
    for clip_id in sorted(wants):
        row = live[clip_id]
        files[row["path"]].append(
            ClipRequest(
                clip_id=clip_id,
                path=row["path"],
                start_ms=row["start_ms"],
                end_ms=row["end_ms"],
                text=row["text"],
                wants=frozenset(wants[clip_id]),
            )
        )
        modalities = {modality[table] for table in wants[clip_id]}
        cost[row["path"]] += _seconds(row, modalities, clips_of_file[row["path"]])
    limit = min(
        execution.shard_seconds,
        max(sum(cost.values()) / (execution.workers * SHARDS_PER_WORKER), 1.0),
    )
    return [make_shard(group, live) for group in _packed(files, cost, limit, execution.shard_clips)]


def _seconds(row: Mapping[str, Any], modalities: set[Modality], clips_of_file: int) -> float:
    if row["end_ms"] is not None:
        length = max(0, row["end_ms"] - row["start_ms"]) / 1000
    else:
        length = (row["media_size"] or 0) / ASSUMED_BYTES_PER_SECOND / clips_of_file
    rate = sum(SECONDS_PER_MEDIA_SECOND[modality] for modality in modalities)
    return SECONDS_PER_CLIP + length * (rate + DECODE_SECONDS_PER_MEDIA_SECOND * bool(rate))


def _packed(
    files: Mapping[str, list[ClipRequest]], cost: Mapping[str, float], limit: float, most_clips: int
) -> Iterable[list[ClipRequest]]:
    group: list[ClipRequest] = []
    seconds = 0.0
    for path in sorted(files):
        if group and (seconds + cost[path] > limit or len(group) + len(files[path]) > most_clips):
            yield group
            group, seconds = [], 0.0
        group.extend(files[path])
        seconds += cost[path]
    if group:
        yield group
