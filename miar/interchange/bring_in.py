"""The one way in: what a file says of clips, labels and features, compared with the store and written where it differs.

- The user's own clip id stays beside every row as ``source_id``; the store's ``clip_id`` is derived from it, so
  the same file always means the same clips.
- An import states what it knows and nothing else: where the file lacks a column, the store's value stays.
- A second import of the same file writes nothing, and nothing is written if anything is refused.
- A feature set is known by its extractor name and columns, not by the file it came from: a model trained on one
  file can score another that was prepared alike. The file and its checksum stand in the run's row.
"""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from miar.corpus.model import clip_id
from miar.errors import UserError
from miar.interchange.blocks import IncomingFeature
from miar.interchange.import_clips import clip_rows, known_clips
from miar.interchange.import_features import FeatureChanges, FeatureCounts, feature_changes, write_features
from miar.interchange.import_labels import read_label
from miar.pipeline.runs import new_run_id, recorded_run
from storage import CLIPS, LABELS, Store


@dataclass
class Incoming:
    """What a reader made of a file."""

    corpus_id: str
    table: pa.Table
    """A row per clip, every clip once: the id, whichever of ``CLIP_COLUMNS`` the file has, and the labels' columns."""
    id_column: str
    labels: Mapping[str, str]
    """Name of the label in the store -> column of the table."""
    features: Sequence[IncomingFeature]
    """Their blocks are in the order of the table's rows."""
    config: Mapping[str, Any]
    """For the run's row: the files with their checksums, and what was asked for."""
    warnings: list[str] = field(default_factory=list)


@dataclass
class ImportResult:
    """What an import found and wrote."""

    corpus_id: str
    run_id: str | None = None
    """``None`` when the store already held all of it."""
    clips: int = 0
    """Clips in the file."""
    clips_written: int = 0
    labels: dict[str, int] = field(default_factory=dict)
    """Label name -> clips of the file that have it."""
    labels_written: int = 0
    labels_removed: int = 0
    """Labels that an earlier import gave to a clip of this file and that the file no longer gives."""
    features: dict[str, FeatureCounts] = field(default_factory=dict)
    """Feature table -> counts."""
    warnings: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """The same, JSON-able."""
        return asdict(self)

    def __str__(self) -> str:
        """A few lines for a person: what the file holds, what of it was new, and the warnings."""
        held = [f"{self.clips} clips", *(f"{n} labels {name!r}" for name, n in self.labels.items())]
        written = f"written: {self.clips_written} clips, {self.labels_written} labels"
        lines = [f"{self.corpus_id}: {', '.join(held)}"]
        for table, counts in self.features.items():
            missing = "".join(f", {n} missing ({reason})" for reason, n in counts.missing.items())
            lines.append(f"{table}: {counts.ok} clips{missing}")
            written += f", {counts.written} rows of {table.split('/')[1]}"
        lines.append("the store held all of it already" if self.run_id is None else written)
        return "\n".join([*lines, *(f"warning: {warning}" for warning in self.warnings)])


@dataclass
class _Plan:
    """Rows that differ from the store's, ready to be written."""

    sources: list[str]
    clip_ids: list[str]
    """Of all clips of the file, changed or not."""
    clips: list[dict[str, Any]]
    labels: list[dict[str, Any]]
    removed_labels: list[tuple[str, str]]
    features: list[FeatureChanges]

    @property
    def is_empty(self) -> bool:
        wanted = any(each.is_new or each.changed.any() for each in self.features)
        return not (self.clips or self.labels or self.removed_labels or wanted)


def bring_in(store: Store, incoming: Incoming) -> ImportResult:
    """Write what the store does not hold yet.

    Raises:
        UserError: the file cannot be used; the text names the column or the clip and says what to do.
    """
    check_feature_names([feature.name for feature in incoming.features])
    result = ImportResult(incoming.corpus_id, warnings=list(incoming.warnings))
    plan = _plan(store, incoming, result)
    if not plan.is_empty:
        _write(store, plan, result, incoming.config)
    return result


def check_feature_names(names: Sequence[str]) -> None:
    """Raise a :class:`UserError` where a name stands twice or cannot name a table."""
    for name, times in Counter(names).items():
        if times > 1:
            raise UserError(f"two features are named {name!r}; give each its own name")
        if not name.replace("_", "").replace("-", "").replace(".", "").isalnum() or name.startswith("."):
            raise UserError(f"{name!r} cannot name a feature set; use letters, digits, '_', '-' and '.'")


def described_files(name: Path, files: Sequence[Path]) -> dict[str, str]:
    """What was read and one checksum over all of it, for the run's row."""
    digest = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return {"file": str(name), "sha256": digest.hexdigest()}


def _plan(store: Store, incoming: Incoming, result: ImportResult) -> _Plan:
    table = incoming.table
    sources: list[str] = table.column(incoming.id_column).to_pylist()
    clips = [clip_id(result.corpus_id, source, 0, None) for source in sources]
    known = known_clips(store, result.corpus_id)
    _check_same_kind_of_corpus(known, result.corpus_id)
    result.clips = len(clips)
    rows = clip_rows(table, sources, clips, known, result.corpus_id)
    changed = [row for row in rows if _differs(known.get(row["clip_id"]), row)]
    new_labels, removed = _label_changes(store, table, sources, clips, incoming.labels, result)
    features = []
    for feature in incoming.features:
        changes = feature_changes(store, feature, result.corpus_id, clips, sources)
        result.features[changes.feature_set.table] = changes.counts
        result.warnings += changes.warnings
        features.append(changes)
    return _Plan(sources, clips, changed, new_labels, removed, features)


def _check_same_kind_of_corpus(known: Mapping[str, Mapping[str, Any]], corpus_id: str) -> None:
    if any(row["path"] != row["source_id"] for row in known.values()):
        raise UserError(
            f"the store's corpus {corpus_id!r} was read from files, not imported; give it another corpus id"
        )


def _differs(before: Mapping[str, Any] | None, row: Mapping[str, Any]) -> bool:
    return before is None or any(before[name] != value for name, value in row.items())


def _label_changes(
    store: Store,
    table: pa.Table,
    sources: Sequence[str],
    clips: Sequence[str],
    labels: Mapping[str, str],
    result: ImportResult,
) -> tuple[list[dict[str, Any]], list[tuple[str, str]]]:
    """Labels to write, and (clip_id, name) of those to remove."""
    chosen = (pc.field("corpus_id") == result.corpus_id) & pc.field("name").isin(pa.array(labels, pa.string()))
    stored = {(row["clip_id"], row["name"]): row for row in store.table(LABELS).read(filter=chosen).to_pylist()}
    wanted: dict[tuple[str, str], dict[str, Any]] = {}
    for name, column in labels.items():
        label = read_label(table.column(column), column, sources)
        result.labels[name] = len(label.targets)
        result.warnings += [f"label {name!r}: {warning}" for warning in label.warnings]
        for row, (value, category) in label.targets.items():
            wanted[clips[row], name] = {
                "clip_id": clips[row],
                "name": name,
                "corpus_id": result.corpus_id,
                "source_id": sources[row],
                "value": value,
                "category": category,
            }
    in_file = set(clips)
    removed = [key for key in stored if key[0] in in_file and key not in wanted]
    return [row for key, row in wanted.items() if stored.get(key) != row], removed


def _write(store: Store, plan: _Plan, result: ImportResult, config: Mapping[str, Any]) -> None:
    run_id = new_run_id("import")
    now = datetime.now(UTC)
    with recorded_run(store, "import", run_id=run_id, corpus_id=result.corpus_id, config=config) as recorded:
        if plan.clips:
            stamp = {"updated_at": now, "run_id": run_id}
            rows = pa.Table.from_pylist([row | stamp for row in plan.clips], schema=CLIPS.schema)
            store.table(CLIPS).merge(rows)
        if plan.labels or plan.removed_labels:
            store.table(LABELS).merge(
                pa.Table.from_pylist(plan.labels, schema=LABELS.schema),
                delete_keys=_label_keys(plan.removed_labels),
            )
        for changes in plan.features:
            write_features(store, changes, result.corpus_id, plan.clip_ids, plan.sources, run_id)
        result.run_id = run_id
        result.clips_written = len(plan.clips)
        result.labels_written = len(plan.labels)
        result.labels_removed = len(plan.removed_labels)
        recorded |= result.as_dict()


def _label_keys(keys: Sequence[tuple[str, str]]) -> pa.Table | None:
    if not keys:
        return None
    return pa.table({"clip_id": [clip for clip, _ in keys], "name": [name for _, name in keys]})
