"""The tables of a store, or of a snapshot of it, through one door: for everything that takes data out."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
from pyarrow.compute import Expression

from miar.descriptors import newest_active, table_of
from miar.errors import UserError
from miar.features.contract import Modality
from miar.pipeline.rows import described_spec
from storage import (
    CLIPS,
    FAILURES,
    FEATURE_SETS,
    LABELS,
    RUNS,
    SCORES,
    Snapshot,
    Store,
    TableSpec,
)
from storage.arrow import pc

PLAIN_TABLES: dict[str, TableSpec] = {spec.name: spec for spec in (CLIPS, LABELS, SCORES, FAILURES, RUNS, FEATURE_SETS)}

ROWS = 16_384
"""Rows held at once of tables of plain values."""
SEQUENCE_ROWS = 256
SEQUENCE_BYTES = 8 * 2**20
"""Of sequences, whichever comes first; the scanner reads several such batches ahead."""


class View:
    """Reads tables."""

    def __init__(self, store: Store, snapshot: Snapshot | None = None) -> None:
        """``snapshot``: read this instead of the store's present state."""
        self._store = store
        self._snapshot = snapshot
        if snapshot is not None:
            self.names = snapshot.tables()
            self.descriptors: Sequence[Mapping[str, Any]] = snapshot.feature_sets
        else:
            self.names = [*PLAIN_TABLES, *store.feature_tables()]
            self.descriptors = store.table(FEATURE_SETS).read().to_pylist()

    def full_name(self, table: str) -> str:
        """Resolve ``features/<extractor>`` to the newest active configuration's table.

        Raises:
            UserError: there is no such table; the text lists those there are.
        """
        if table in self.names:
            return table
        candidates = [
            (each["state"] == "active", each["created_at"], name)
            for each in self.descriptors
            if each["extractor"] == table.removeprefix("features/") and (name := table_of(each)) in self.names
        ]
        if table.startswith("features/") and candidates:
            return max(candidates)[2]
        short = sorted({name.rpartition("/")[0] for name in self.names if name.startswith("features/")})
        there = ", ".join([*(name for name in self.names if not name.startswith("features/")), *short])
        raise UserError(f"no table {table!r} to export; there are {there or 'none yet'}")

    def descriptor(self, name: str) -> Mapping[str, Any]:
        """What ``feature_sets`` says of a feature table.

        Raises:
            UserError: nothing.
        """
        for each in self.descriptors:
            if table_of(each) == name:
                return each
        raise UserError(f"the store has no descriptor for {name!r}; run `miar refresh` to write it again")

    def chosen_features(self, tables: Sequence[str]) -> dict[str, Mapping[str, Any]]:
        """Feature table -> its descriptor: those named, or the newest active one of each modality.

        Raises:
            UserError: a name that is no feature table, or there is none at all.
        """
        if tables:
            names = [self.full_name(table) for table in tables]
            if plain := [name for name in names if not name.startswith("features/")]:
                raise UserError(f"{plain[0]} is no feature table; name features/NAME")
            return {name: self.descriptor(name) for name in names}
        newest = newest_active(self.descriptors, self.names)
        if not newest:
            raise UserError("there are no features to export; run `miar refresh` or `miar import` first")
        return {table_of(newest[kind]): newest[kind] for kind in Modality if kind in newest}

    def spec(self, name: str) -> TableSpec:
        """The columns of a table."""
        if name in PLAIN_TABLES:
            return PLAIN_TABLES[name]
        return described_spec(self.descriptor(name))

    def read(self, name: str, columns: Sequence[str] | None = None, filter: Expression | None = None) -> pa.Table:
        """The rows of a table; none where a snapshot does not hold it."""
        if self._snapshot is None:
            return self._store.table(self.spec(name)).read(columns, filter)
        if name not in self.names:
            schema = self.spec(name).schema
            return pa.schema([schema.field(each) for each in columns or schema.names]).empty_table()
        return self._snapshot.read(name, columns, filter)

    def batches(
        self, name: str, columns: Sequence[str] | None = None, filter: Expression | None = None
    ) -> Iterator[pa.RecordBatch]:
        """The same, a bounded number of rows at a time."""
        rows = self._sequences_at_once(name) if name.startswith("features/") else ROWS
        if self._snapshot is None:
            return self._store.table(self.spec(name)).batches(columns, filter, rows)
        return self._snapshot.batches(name, columns, filter, rows)

    def _sequences_at_once(self, name: str) -> int:
        frames = self.read(name, ["n_frames"])["n_frames"]
        row_bytes = 4 * len(self.descriptor(name)["columns"]) * (pc.mean(frames).as_py() or 0)
        return max(1, min(SEQUENCE_ROWS, int(SEQUENCE_BYTES // max(1, row_bytes))))


def live_clips(view: View, corpus_id: str | None) -> pa.Table:
    """The live clips of one corpus, or of all, by corpus, video and segment.

    Raises:
        UserError: there is none.
    """
    wanted = pc.field("state") == "live"
    if corpus_id is not None:
        wanted &= pc.field("corpus_id") == corpus_id
    clips = view.read("clips", filter=wanted)
    if not clips.num_rows:
        corpora = sorted(pc.unique(view.read("clips", ["corpus_id"])["corpus_id"]).to_pylist())
        raise UserError(f"there are no clips to export; corpora in the store: {', '.join(corpora) or 'none yet'}")
    return clips.sort_by([(name, "ascending") for name in ("corpus_id", "video_id", "segment", "clip_id")])


def labels_by_name(view: View, clips: Sequence[str]) -> dict[str, list[float | str | None]]:
    """Label name -> a value (number or class) per clip; ``None`` where the clip has no such label."""
    place = {clip: index for index, clip in enumerate(clips)}
    found: dict[str, list[float | str | None]] = {}
    for row in view.read("labels", ["clip_id", "name", "value", "category"]).to_pylist():
        if row["clip_id"] in place:
            values = found.setdefault(row["name"], [None] * len(clips))
            values[place[row["clip_id"]]] = row["category"] if row["value"] is None else row["value"]
    return dict(sorted(found.items()))
