"""Any sequence of merges, shards, adoptions and snapshots against a plain dictionary."""

import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from storage import LABELS, MergeResult, Store, feature_table

SPEC = feature_table("features/face/feed", n_columns=2, summary_columns=["mean"], quality_columns=[])
clips = st.sampled_from(["a", "b", "c", "d", "e"])
hashes = st.dictionaries(clips, st.sampled_from(["1", "2", "3"]), max_size=5)


def rows(content: dict[str, str]) -> pa.Table:
    """What an extractor would give: it depends on clip and input alone."""
    made = []
    for clip, input_hash in content.items():
        ok, frames = input_hash != "3", int(input_hash)
        row = dict.fromkeys(SPEC.schema.names) | {"clip_id": clip, "input_hash": input_hash}
        row |= {"status": "ok", "n_frames": frames} if ok else {"status": "missing"}
        if ok:
            row |= {"values": [float(ord(clip))] * 2 * frames, "times": [0.0] * frames, "mean": float(frames)}
        made.append(row)
    return pa.Table.from_pylist(made, schema=SPEC.schema)


def keyed(content: dict[str, str]) -> pa.Table:
    return pa.table(
        {"clip_id": list(content), "input_hash": list(content.values())},
        schema=pa.schema([("clip_id", pa.string()), ("input_hash", pa.string())]),
    )


class StoreAgainstDict(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.store = Store.create(Path(self.folder.name) / "store")
        self.handles = [self.store.table(SPEC), Store.open(self.store.uri).table(SPEC)]
        self.labels = self.store.table(LABELS)
        self.live: dict[str, str] = {}
        self.staged: dict[str, dict[str, str]] = {}
        self.values: dict[str, float] = {}
        self.pinned: dict[str, dict[str, str]] = {}

    def teardown(self) -> None:
        self.folder.cleanup()

    @rule(content=hashes.filter(bool), handle=st.integers(0, 1))
    def stage(self, content: dict[str, str], handle: int) -> None:
        name = "-".join(f"{clip}{content[clip]}" for clip in sorted(content))
        shard = self.handles[handle].stage(rows(content), run_id="run", name=name)
        self.staged[shard] = content

    @rule(data=st.data(), wanted=hashes, handle=st.integers(0, 1))
    def register(self, data: st.DataObject, wanted: dict[str, str], handle: int) -> None:
        shards = data.draw(st.lists(st.sampled_from(sorted(self.staged)), unique=True)) if self.staged else []
        self._register(shards, wanted, handle)

    @rule(wanted=hashes, handle=st.integers(0, 1))
    def adopt_orphans(self, wanted: dict[str, str], handle: int) -> None:
        self._register(self.handles[handle].orphans(), wanted, handle)

    def _register(self, shards: list[str], wanted: dict[str, str], handle: int) -> None:
        offered = {pair for shard in shards for pair in self.staged.get(shard, {}).items()}
        new = {clip: h for clip, h in wanted.items() if (clip, h) in offered and self.live.get(clip) != h}
        before = self.handles[handle].version()
        result = self.handles[handle].register(shards, wanted=keyed(wanted))
        assert result.rows_added == len(new.keys() - self.live.keys())
        assert result.rows_replaced == len(new.keys() & self.live.keys())
        assert result.files_added + result.files_ignored == len(shards)
        assert (self.handles[handle].version() != before) == bool(new)
        self.live |= new

    @rule(doomed=st.sets(clips), content=hashes, handle=st.integers(0, 1))
    def merge(self, doomed: set[str], content: dict[str, str], handle: int) -> None:
        doomed = doomed - content.keys()
        same = {clip for clip, h in content.items() if self.live.get(clip) == h}
        expected = MergeResult(
            rows_added=len(content.keys() - self.live.keys()),
            rows_replaced=len((content.keys() & self.live.keys()) - same),
            rows_deleted=len(doomed & self.live.keys()),
            rows_unchanged=len(same),
        )
        keys = pa.table({"clip_id": pa.array(sorted(doomed), pa.string())})
        assert self.handles[handle].merge(rows(content), delete_keys=keys) == expected
        self.live = {clip: h for clip, h in (self.live | content).items() if clip not in doomed}

    @rule()
    def take_snapshot(self) -> None:
        self.pinned[self.store.snapshots.take().id] = dict(self.live)

    @invariant()
    def the_live_rows_are_the_dictionary(self) -> None:
        for table in self.handles:
            assert table.read().sort_by("clip_id").equals(rows(dict(sorted(self.live.items()))))
            assert table.count() == len(self.live)
            assert sum(pq.read_metadata(uri).num_rows for uri in table.file_uris()) == len(self.live)

    @invariant()
    def snapshots_stay_what_they_were(self) -> None:
        for snapshot_id, content in self.pinned.items():
            snapshot = self.store.snapshots.open(snapshot_id)
            if content or SPEC.name in snapshot.tables():
                assert snapshot.read(SPEC.name).sort_by("clip_id").equals(rows(dict(sorted(content.items()))))


def test_the_store_behaves_like_a_dictionary() -> None:
    run_state_machine_as_test(
        StoreAgainstDict, settings=settings(max_examples=15, stateful_step_count=12, deadline=None)
    )
