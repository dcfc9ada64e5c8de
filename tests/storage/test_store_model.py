"""Any sequence of additions, changes, removals, failures, retries, adoptions, merged files, vacuums and snapshots
against a plain dictionary.
"""

import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from storage import FAILURES, MergeResult, Store, feature_table, receipts

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
        self.failures = self.store.table(FAILURES)
        self.live: dict[str, str] = {}
        self.staged: dict[str, dict[str, str]] = {}
        self.failed: dict[str, int] = {}
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

    @rule(clip=clips)
    def fail(self, clip: str) -> None:
        """As a refresh records it: once more on the same clip counts up."""
        self.failed[clip] = self.failed.get(clip, 0) + 1
        row = dict.fromkeys(FAILURES.schema.names) | {"corpus_id": "corpus", "path": f"{clip}.mp4", "clip_id": clip}
        row |= {"stage": "face", "config_hash": "feed", "attempts": self.failed[clip]}
        self.failures.merge(pa.Table.from_pylist([row], schema=FAILURES.schema))

    @rule(clip=clips, input_hash=st.sampled_from(["1", "2", "3"]), handle=st.integers(0, 1))
    def retry(self, clip: str, input_hash: str, handle: int) -> None:
        """A shard of one clip, registered at once, and its failure taken away."""
        shard = self.handles[handle].stage(rows({clip: input_hash}), run_id="retry", name=f"{clip}{input_hash}")
        self.staged[shard] = {clip: input_hash}
        self._register([shard], {clip: input_hash}, handle)
        key = {"corpus_id": "corpus", "path": f"{clip}.mp4", "clip_id": clip, "stage": "face", "config_hash": "feed"}
        nothing = FAILURES.schema.empty_table()
        done = self.failures.merge(nothing, delete_keys=pa.Table.from_pylist([key]))
        assert done.rows_deleted == (self.failed.pop(clip, None) is not None)

    @rule()
    def compact(self) -> None:
        files = len(self.handles[0].file_uris())
        self.store.maintain()
        assert len(self.handles[0].file_uris()) == min(files, 1)

    @rule()
    def vacuum(self) -> None:
        """Nothing is in hand any more, and nobody reads what was replaced."""
        self.store._files.discard(receipts.FOLDER)
        self.store.maintain(retention_days=0.0)
        present = {path.name for path in Path(self.handles[0].path).glob("*.parquet")}
        needed = set(self.store.snapshots.pinned().get(SPEC.name, set()))
        needed |= {Path(uri).name for uri in self.handles[0].file_uris()}
        assert present == needed
        self.staged = {shard: content for shard, content in self.staged.items() if shard in present}

    @rule()
    def take_snapshot(self) -> None:
        self.pinned[self.store.snapshots.take().id] = dict(self.live)

    @precondition(lambda self: self.pinned)
    @rule(data=st.data())
    def remove_snapshot(self, data: st.DataObject) -> None:
        doomed = data.draw(st.sampled_from(sorted(self.pinned)))
        self.store.snapshots.remove(doomed)
        del self.pinned[doomed]

    @rule()
    def verify(self) -> None:
        kinds = {finding.kind for finding in self.store.verify(repair=True).findings}
        assert kinds <= {"clip unknown", "descriptor"}, kinds

    @invariant()
    def the_live_rows_are_the_dictionary(self) -> None:
        for table in self.handles:
            assert table.read().sort_by("clip_id").equals(rows(dict(sorted(self.live.items()))))
            assert table.count() == len(self.live)
            assert sum(pq.read_metadata(uri).num_rows for uri in table.file_uris()) == len(self.live)

    @invariant()
    def every_failure_is_counted(self) -> None:
        found = self.failures.read(["clip_id", "attempts"])
        assert dict(zip(*found.to_pydict().values(), strict=True)) == self.failed

    @invariant()
    def snapshots_stay_what_they_were(self) -> None:
        for snapshot_id, content in self.pinned.items():
            snapshot = self.store.snapshots.open(snapshot_id)
            if content or SPEC.name in snapshot.tables():
                assert snapshot.read(SPEC.name).sort_by("clip_id").equals(rows(dict(sorted(content.items()))))


@pytest.mark.parametrize(("examples", "steps"), [(15, 12), pytest.param(100, 40, marks=pytest.mark.slow)])
def test_the_store_behaves_like_a_dictionary(examples: int, steps: int) -> None:
    run_state_machine_as_test(
        StoreAgainstDict,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow],
        ),
    )
