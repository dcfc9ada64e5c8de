"""The examples of docs/store.md that read clips, run as they stand."""

import re
from pathlib import Path

import numpy as np
import pytest

from miar.data.reading import SnapshotReader
from miar.data.selection import Selection
from storage import Snapshot, Store

PAGE = (Path(__file__).parents[3] / "docs" / "store.md").read_text(encoding="utf-8")
READING, ELSEWHERE, HUGGING, EPOCHS, ALIGNED = (
    one for one in re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL) if "miar" in one
)


def run(example: str, store: Store) -> dict:
    names: dict = {"store": store.uri}
    exec(compile(example, "docs/store.md", "exec"), names)
    return names


def test_reading(made: Snapshot, made_store: Store) -> None:
    names = run(READING, made_store)
    assert 0 < len(names["dataset"]) < len(SnapshotReader(made).load(Selection(splits=["train"])))
    assert set(names["dataset"].splits) == {"train"}


def test_every_library_sees_every_clip(made: Snapshot, made_store: Store) -> None:
    names = run(ELSEWHERE, made_store)
    ids = sorted(SnapshotReader(made).load().clip_ids)
    assert sorted(names["table"]["clip_id"].to_pylist()) == ids
    assert sorted(names["pandas_frame"].clip_id) == ids
    assert sorted(names["polars_frame"]["clip_id"].to_list()) == ids
    assert sum(count for _, count in names["counts"]) == len(ids)
    assert 0 < len(names["batch"]) <= 32


def test_hugging_face(made: Snapshot, made_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path)
    hugging = run(HUGGING, made_store)["hugging"]
    rows = {row["clip_id"]: row for part in SnapshotReader(made, label="sentiment").rows() for row in part.to_pylist()}
    assert sorted(hugging["clip_id"]) == sorted(rows)
    for row in hugging:
        np.testing.assert_array_equal(row["text"] or [], rows[row["clip_id"]]["text"] or [])
        assert row["split"] == rows[row["clip_id"]]["split"]


def test_epochs(made: Snapshot, made_store: Store) -> None:
    names = run(EPOCHS, made_store)
    assert sorted(clip for batch in names["seen"] for clip in batch) == sorted(SnapshotReader(made).load().clip_ids)
    assert names["seen"] == [batch.clip_ids for batch in names["reader"].epochs(batch_size=4, seed=1).batches()]


def test_common_steps(made: Snapshot, made_store: Store) -> None:
    names = run(ALIGNED, made_store)
    assert not names["by_word"].lengths.any()  # nobody said when the words are said
    assert {name: one.shape[:2] for name, one in names["values"].items()} == {
        name: (len(SnapshotReader(made)), 50) for name in ("text", "audio", "face")
    }
    assert names["present"]["audio"].any()
