"""The unit of work: whole source files that one worker process takes in one go, and what came of them."""

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from miar.config import PipelineConfig, parse_config
from miar.features.contract import FeatureSet, Modality
from miar.features.requests import ClipRequest
from miar.hashing import stable_key

_IDENTITY = ("corpus_id", "source_id", "media_hash", "text_hash")


@dataclass(frozen=True)
class Shard:
    """Clips of whole files, and what each clip's rows must carry."""

    name: str
    """Depends on the clips, their input and what is wanted of them alone: the same work has the same name."""
    clips: tuple[ClipRequest, ...]
    identities: dict[str, dict[str, str | None]]
    """clip_id -> corpus_id, source_id, media_hash, text_hash."""

    @property
    def paths(self) -> list[str]:
        return list(dict.fromkeys(clip.path for clip in self.clips))

    def input_hash(self, clip_id: str, modality: Modality) -> str:
        """What ``clip_id``'s features of ``modality`` are made from."""
        name = "text_hash" if modality is Modality.TEXT else "media_hash"
        value = self.identities[clip_id][name]
        assert value is not None, "the plan asks only for what a clip has"
        return value

    def halves(self) -> list["Shard"]:
        """The same work in two pieces: half of the files, or the first and the second half of the one file there is.

        None where it is one clip.
        """
        if len(self.clips) == 1:
            return []
        order = {path: number for number, path in enumerate(self.paths)}
        clips = sorted(self.clips, key=lambda clip: (order[clip.path], clip.start_ms))
        middle = len(clips) // 2
        if len(order) > 1:
            first = set(self.paths[: len(order) // 2])
            middle = sum(clip.path in first for clip in clips)
        return [make_shard(piece, self.identities) for piece in (clips[:middle], clips[middle:])]

    def share_of(self, piece: "Shard") -> float:
        """How much of this work ``piece`` is: by time, or by number where clips go to the end of their file."""
        lengths = {clip: max(0, (clip.end_ms or 0) - clip.start_ms) for clip in self.clips}
        if any(clip.end_ms is None for clip in self.clips) or not any(lengths.values()):
            return len(piece.clips) / len(self.clips)
        return sum(lengths[clip] for clip in piece.clips) / sum(lengths.values())

    def without(self, is_done: Callable[[str, str], bool]) -> "Shard | None":
        """The shard without the rows for which ``is_done(clip_id, table)``: itself where there are none, ``None`` where
        nothing is left."""
        clips = [
            replace(clip, wants=frozenset(table for table in clip.wants if not is_done(clip.clip_id, table)))
            for clip in self.clips
        ]
        if clips == list(self.clips):
            return self
        left = [clip for clip in clips if clip.wants]
        return make_shard(left, self.identities) if left else None

    def save(self, folder: Path) -> Path:
        clips = [{**asdict(clip), "wants": sorted(clip.wants)} for clip in self.clips]
        tree = {"name": self.name, "clips": clips, "identities": self.identities}
        path = folder / f"{self.name}.json"
        path.write_text(json.dumps(tree), encoding="ascii")
        return path

    @classmethod
    def load(cls, path: Path) -> "Shard":
        tree = json.loads(path.read_text(encoding="ascii"))
        clips = [ClipRequest(**{**clip, "wants": frozenset(clip["wants"])}) for clip in tree["clips"]]
        return cls(tree["name"], tuple(clips), tree["identities"])


def names_of(feature_sets: Sequence[FeatureSet]) -> dict[str, str]:
    """Feature table -> what its rows are counted under: its extractor, and which of them where a run has several."""
    often = Counter(one.extractor for one in feature_sets)
    return {
        one.table: one.extractor if often[one.extractor] == 1 else f"{one.extractor}/{one.config_hash}"
        for one in feature_sets
    }


def make_shard(clips: Sequence[ClipRequest], rows: Mapping[str, Mapping[str, Any]]) -> Shard:
    """A shard of these clips; ``rows`` holds at least their catalogue rows."""
    identities = {clip.clip_id: {name: rows[clip.clip_id][name] for name in _IDENTITY} for clip in clips}
    work = sorted([clip.clip_id, identities[clip.clip_id], sorted(clip.wants)] for clip in clips)
    return Shard(stable_key(work), tuple(clips), identities)


@dataclass(frozen=True)
class Job:
    """What every shard of a run shares; written once, read by each worker process."""

    store: str
    run_id: str
    corpus_id: str
    root: str | None
    config: PipelineConfig
    feature_sets: tuple[FeatureSet, ...]
    versions: dict[str, int | None]
    """Feature table -> its version when the plan was made."""

    def save(self, folder: Path) -> Path:
        tree = {
            "store": self.store,
            "run_id": self.run_id,
            "corpus_id": self.corpus_id,
            "root": self.root,
            "config": self.config.model_dump(mode="json"),
            "feature_sets": [asdict(feature_set) for feature_set in self.feature_sets],
            "versions": self.versions,
        }
        path = folder / "job.json"
        path.write_text(json.dumps(tree), encoding="ascii")
        return path

    @classmethod
    def load(cls, path: Path) -> "Job":
        tree = json.loads(path.read_text(encoding="ascii"))
        return cls(
            tree["store"],
            tree["run_id"],
            tree["corpus_id"],
            tree["root"],
            parse_config(tree["config"], origin=str(path)),
            tuple(FeatureSet.from_json(one) for one in tree["feature_sets"]),
            tree["versions"],
        )


@dataclass
class ShardOutcome:
    """What a worker leaves behind: staged files, and what could not be done. Small enough for a task result."""

    shard: str
    clips: int
    files: dict[str, str] = field(default_factory=dict)
    """Feature table -> name of the staged shard file."""
    failures: list[dict[str, Any]] = field(default_factory=list)
    counts: dict[str, dict[str, int]] = field(default_factory=dict)
    """Name of the feature set (:func:`names_of`) -> status or missing reason -> clips."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Where the time went: decode, text, audio, face, write."""

    def add(self, other: "ShardOutcome") -> None:
        """Count another shard's outcome into this one; staged files and failures are left with their own shard."""
        self.clips += other.clips
        for extractor, counts in other.counts.items():
            mine = self.counts.setdefault(extractor, {})
            for status, count in counts.items():
                mine[status] = mine.get(status, 0) + count
        for name, seconds in other.seconds.items():
            self.seconds[name] = self.seconds.get(name, 0.0) + seconds
