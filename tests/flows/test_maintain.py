"""The flow that looks after a store."""

from pathlib import Path

import pyarrow as pa
import pytest

from storage import LABELS, Store

pytestmark = pytest.mark.xdist_group("prefect")


def test_the_flow_merges_files_and_can_only_look(prefect_server: None, tmp_path: Path) -> None:
    from flows.maintain import maintain

    table = Store.create(tmp_path / "store").table(LABELS)
    for clip in "abc":
        row = dict.fromkeys(LABELS.schema.names) | {"clip_id": clip, "name": "mood", "value": 1.0}
        table.merge(pa.Table.from_pylist([row], schema=LABELS.schema))
    looked = maintain(str(tmp_path / "store"), dry_run=True)
    assert (looked["tables"][0]["merged"], len(table.file_uris())) == (3, 3)
    done = maintain(str(tmp_path / "store"), retention_days=0.0)
    assert (len(table.file_uris()), table.count()) == (1, 3)
    assert done["removed"] == {"replaced": 3}
    assert done["problems"] == []
