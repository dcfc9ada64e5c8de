"""What the report shows, read from the store into small frames. Nothing here draws."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from miar.errors import UserError
from miar.features.contract import Modality
from miar.pipeline.rows import described_spec
from miar.pipeline.runs import latest_runs
from storage import CLIPS, FAILURES, FEATURE_SETS, LABELS, SCORES, Store

Frame = Any
"""A pandas frame or series. pandas is imported by whoever makes one, and its own hints do not survive indexing."""

MODALITIES = tuple(modality.value for modality in Modality)


@dataclass(frozen=True)
class Coverage:
    """How far one feature set covers the live clips of the corpora it is kept for."""

    modality: str
    extractor: str
    config_hash: str
    clips: int
    ok: int
    missing: dict[str, int]
    """Reason -> clips."""
    failed: dict[str, int]
    """Error -> clips."""

    @property
    def waiting(self) -> int:
        """Clips that no refresh has looked at yet."""
        return max(0, self.clips - self.ok - sum(self.missing.values()) - sum(self.failed.values()))


@dataclass(frozen=True)
class Failure:
    """One thing that went wrong; clips of one file with one and the same problem stand together."""

    path: str
    stage: str
    error: str
    message: str
    clips: int
    """0 when it is about the file as a whole."""


@dataclass
class Scores:
    """The scores of one model, beside the true values."""

    model_id: str
    label: str
    frame: Frame
    """One row per clip: the columns of ``scores`` plus ``start_ms``, ``path``, ``truth`` (number or NaN) and
    ``true_category``."""
    snapshots: list[str]
    """Those that were scored, the newest last."""
    other_models: list[str]

    @property
    def scored(self) -> Frame:
        return self.frame[self.frame["status"] == "scored"]

    @property
    def not_scored(self) -> dict[str, int]:
        """Reason -> clips."""
        rest = self.frame[self.frame["status"] != "scored"]
        return dict(Counter(rest["reason"].fillna("unknown")))

    @property
    def is_numeric(self) -> bool:
        """Whether the label is a number. For classes ``prediction`` is the probability of the likeliest one."""
        return bool(self.frame["category"].isna().all())


@dataclass
class ReportData:
    """Everything that the page is made of."""

    store: str
    corpora: list[dict[str, Any]]
    """``corpus_id``, ``clips``, ``videos``, ``splits`` (split -> clips) of each corpus."""
    coverage: list[Coverage]
    failures: list[Failure]
    scores: Scores | None
    evaluation: dict[str, Any] | None
    """The newest ``evaluate`` run of the model, ``result`` parsed."""
    training: dict[str, Any] | None
    """The ``train`` run that made the model; ``None`` where the store has no such run."""
    runs: list[dict[str, Any]]
    warnings: list[str] = field(default_factory=list)

    @property
    def n_clips(self) -> int:
        return sum(corpus["clips"] for corpus in self.corpora)

    @property
    def n_failures(self) -> int:
        return sum(max(1, failure.clips) for failure in self.failures)


def gather(store: Store, model_id: str | None = None) -> ReportData:
    """Read what the report needs.

    Args:
        model_id: whose scores to show; default: the model that scored last.

    Raises:
        UserError: the store has no scores of that model; the text names the models there are.
    """
    clips = store.table(CLIPS).read(
        columns=["clip_id", "corpus_id", "video_id", "path", "start_ms", "split"],
        filter=pc.field("state") == "live",
    )
    runs = latest_runs(store)
    failures = store.table(FAILURES).read().to_pylist()
    scores = read_scores(store, clips, model_id)
    return ReportData(
        store=store.uri,
        corpora=_corpora(clips),
        coverage=read_coverage(store, clips, failures),
        failures=group_failures(failures),
        scores=scores,
        evaluation=_evaluation(runs, scores.model_id if scores else model_id),
        training=next(_of_model(runs, "train", scores.model_id), None) if scores else None,
        runs=runs,
        warnings=_warnings(runs),
    )


def _corpora(clips: pa.Table) -> list[dict[str, Any]]:
    frame = clips.select(["corpus_id", "video_id", "split"]).to_pandas()
    return [
        {
            "corpus_id": corpus_id,
            "clips": len(rows),
            "videos": rows["video_id"].nunique(),
            "splits": rows["split"].fillna("no split").value_counts().to_dict(),
        }
        for corpus_id, rows in frame.groupby("corpus_id", sort=True)
    ]


# --- What went in -----------------------------------------------------------------------------------------


def read_coverage(store: Store, clips: pa.Table, failures: Sequence[Mapping[str, Any]]) -> list[Coverage]:
    """One :class:`Coverage` per active feature set, in the order of modalities."""
    live: dict[str, str] = dict(zip(*_columns(clips, "clip_id", "corpus_id"), strict=True))
    per_corpus = Counter(live.values())
    descriptors = store.table(FEATURE_SETS).read(filter=pc.field("state") == "active").to_pylist()
    result = []
    for each in sorted(descriptors, key=lambda row: (MODALITIES.index(row["modality"]), row["extractor"])):
        key = (each["extractor"], each["config_hash"])
        failed = {
            row["clip_id"]: row["error"]
            for row in failures
            if (row["stage"], row["config_hash"]) == key and row["clip_id"] in live
        }
        status = _statuses(store, each, live, failed)
        corpora = {live[clip] for clip in (*status, *failed)}
        states = Counter(status.values())
        result.append(
            Coverage(
                modality=each["modality"],
                extractor=each["extractor"],
                config_hash=each["config_hash"],
                clips=sum(per_corpus[corpus] for corpus in corpora),
                ok=states.pop(None, 0),
                missing={str(reason): n for reason, n in states.most_common()},
                failed=dict(Counter(failed.values()).most_common()),
            )
        )
    return result


def _statuses(
    store: Store, descriptor: Mapping[str, Any], live: Mapping[str, str], failed: Mapping[str, str]
) -> dict[str, str | None]:
    """Live clip -> ``None`` for ok, the reason for missing. A clip that failed later counts as failed."""
    rows = store.table(described_spec(descriptor)).read(columns=["clip_id", "status", "reason"])
    return {
        clip: None if status == "ok" else reason or "unknown"
        for clip, status, reason in zip(*_columns(rows, "clip_id", "status", "reason"), strict=True)
        if clip in live and clip not in failed
    }


def _columns(table: pa.Table, *names: str) -> list[list[Any]]:
    return [table[name].to_pylist() for name in names]


def group_failures(rows: Sequence[Mapping[str, Any]]) -> list[Failure]:
    """Failures by file and problem, files first that lose most clips."""
    clips: Counter[tuple[str, str, str, str]] = Counter()
    for row in rows:
        key = (row["path"], row["stage"], row["error"] or "", row["message"] or "")
        clips[key] += 1 if row["clip_id"] else 0
    return [Failure(*key, clips=n) for key, n in sorted(clips.items(), key=lambda item: (-item[1], item[0]))]


def _warnings(runs: Sequence[Mapping[str, Any]]) -> list[str]:
    """What the newest run of each kind and corpus warned of, and the runs that failed."""
    warnings: list[str] = []
    seen: set[tuple[str, str | None]] = set()
    for run in runs:
        key = (run["kind"], run["corpus_id"])
        if key in seen:
            continue
        seen.add(key)
        where = f"{run['kind']} of {run['corpus_id']}" if run["corpus_id"] else run["kind"]
        if run["state"] == "failed":
            warnings.append(f"The last {where} failed: {run['message'] or 'no message'}")
        given = run["result"].get("warnings", []) if isinstance(run["result"], dict) else []
        warnings += [f"{where}: {warning}" for warning in given if isinstance(warning, str)]
    return warnings


# --- Scores -----------------------------------------------------------------------------------------------


def read_scores(store: Store, clips: pa.Table, model_id: str | None) -> Scores | None:
    """The scores of one model for live clips, joined with their true values; ``None`` when there are none."""
    heads = store.table(SCORES).read(columns=["model_id", "scored_at"])
    if heads.num_rows == 0:
        if model_id is not None:
            raise UserError(f"the store has no scores of model {model_id!r}; run `miar score` first")
        return None
    newest = heads.group_by("model_id").aggregate([("scored_at", "max")]).sort_by("scored_at_max")
    models: list[str] = newest["model_id"].to_pylist()
    if model_id is not None and model_id not in models:
        raise UserError(f"the store has no scores of model {model_id!r}; it has {', '.join(models)}")
    chosen = model_id or models[-1]
    rows = store.table(SCORES).read(filter=pc.field("model_id") == chosen).to_pandas()
    label = str(rows["label"].iloc[0])
    frame = rows.merge(
        clips.select(["clip_id", "path", "start_ms"]).to_pandas(), on="clip_id", how="inner", validate="1:1"
    ).merge(_truth(store, label), on="clip_id", how="left", validate="1:1")
    if frame.empty:
        return None
    return Scores(
        model_id=chosen,
        label=label,
        frame=frame.sort_values(["corpus_id", "video_id", "start_ms", "segment"], ignore_index=True),
        snapshots=rows.sort_values("scored_at", kind="stable")["snapshot_id"]
        .dropna()
        .drop_duplicates(keep="last")
        .tolist(),
        other_models=[each for each in models if each != chosen],
    )


def _truth(store: Store, label: str) -> Frame:
    rows = store.table(LABELS).read(columns=["clip_id", "value", "category"], filter=pc.field("name") == label)
    return rows.rename_columns(["clip_id", "truth", "true_category"]).to_pandas()


def _evaluation(runs: Sequence[dict[str, Any]], model_id: str | None) -> dict[str, Any] | None:
    """The newest finished evaluation of the model; that of the test split where there are several."""
    mine = list(_of_model(runs, "evaluate", model_id))
    return next((run for run in mine if run["result"].get("split") == "test"), mine[0] if mine else None)


def _of_model(runs: Sequence[dict[str, Any]], kind: str, model_id: str | None) -> Iterator[dict[str, Any]]:
    """The finished runs of a kind that were about a model, the newest first."""
    for run in runs:
        is_mine = model_id is None or run["result"].get("model_id") == model_id
        if is_mine and run["kind"] == kind and run["state"] == "completed":
            yield run


def read_texts(store: Store, clip_ids: Sequence[str]) -> dict[str, str]:
    """The words of some clips."""
    chosen = pc.field("clip_id").isin(pa.array(clip_ids, pa.string()))
    rows = store.table(CLIPS).read(columns=["clip_id", "text"], filter=chosen)
    return {clip: text for clip, text in zip(*_columns(rows, "clip_id", "text"), strict=True) if text}


# --- Samples ----------------------------------------------------------------------------------------------


def sample(frame: Frame, most: int) -> Frame:
    """At most ``most`` rows, the same ones every time, in their order."""
    if len(frame) <= most:
        return frame
    chosen = np.random.default_rng(0).choice(len(frame), most, replace=False)
    return frame.iloc[np.sort(chosen)]


def disagreement(frame: Frame) -> Frame:
    """How much the modalities of a clip pull against each other: sum of |c_m| minus |sum of c_m|."""
    parts = frame[[f"contribution_{modality}" for modality in MODALITIES]].fillna(0.0)
    return parts.abs().sum(axis=1) - parts.sum(axis=1).abs()
