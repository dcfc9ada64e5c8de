"""Importing tables of clips: what a second import changes."""

from pathlib import Path

import numpy as np
import pytest
from made_tables import base_table, clips_by_source, features, rows_of, run_base, versions, write

from miar.features.contract import Modality
from miar.interchange.import_columns import FeatureColumn
from miar.interchange.import_table import import_table
from storage import CLIPS, LABELS, Store


def test_the_same_import_twice_changes_nothing(store: Store, tmp_path: Path) -> None:
    first = run_base(store, tmp_path, base_table())
    before = versions(store)
    second = run_base(store, tmp_path, base_table())
    assert versions(store) == before
    assert first.run_id is not None
    assert second.run_id is None
    assert "held all of it" in str(second)


def test_exactly_what_changed_is_written(store: Store, tmp_path: Path) -> None:
    run_base(store, tmp_path, base_table())
    changed = base_table() | {"text": ["one", "zwei", None], "y": [None, None, 3.5]}
    changed["v"] = [[1.0, 2.0], [3.0, 4.5], [5.0, 6.0]]
    result = run_base(store, tmp_path, changed)
    (counts,) = result.features.values()
    assert (result.clips_written, result.labels_written, result.labels_removed, counts.written) == (1, 1, 1, 2)
    assert {row["source_id"]: row["value"] for row in rows_of(store, LABELS)} == {"c": 3.5}
    assert features(store, "sound")[1]["c"]["matrix"].tolist() == [[5, 6]]
    assert clips_by_source(store)["b"]["text"] == "zwei"
    assert store.table(CLIPS).count() == 3


def test_clips_without_a_split_are_given_one_by_video_and_keep_it(store: Store, tmp_path: Path) -> None:
    n = 200
    videos = [f"v{index // 4}" for index in range(n)]
    columns = {"clip_id": [f"c{index}" for index in range(n)], "video_id": videos, "y": np.arange(n, dtype=float)}
    path = write(tmp_path, columns)
    import_table(store, path, labels={"y": "y"})
    splits = {name: row["split"] for name, row in clips_by_source(store).items()}
    by_video = {(video, splits[clip]) for clip, video in zip(columns["clip_id"], videos, strict=True)}
    assert len(by_video) == len(set(videos)), "no video falls into two splits"
    counts = [list(splits.values()).count(name) for name in ("train", "valid", "test")]
    assert counts == pytest.approx([0.7 * n, 0.15 * n, 0.15 * n], abs=4)
    assert import_table(store, path, labels={"y": "y"}).run_id is None
    more = write(tmp_path, {"clip_id": ["late", "c0"], "video_id": ["v3", "v0"], "y": [1.0, 0.0]})
    import_table(store, more, labels={"y": "y"})
    assert clips_by_source(store)["late"]["split"] == splits["c12"]


def test_a_second_table_adds_to_the_first(store: Store, tmp_path: Path) -> None:
    """Features in a file of their own leave words, videos, splits and labels as they are."""
    run_base(store, tmp_path, base_table())
    before = clips_by_source(store)
    path = write(tmp_path, {"clip_id": ["c", "a"], "f": [[1.0], [2.0]]}, "faces.parquet")
    import_table(store, path, corpus_id="mine", labels={}, features=[FeatureColumn(Modality.FACE, "face", "f")])
    assert clips_by_source(store) == before
    assert store.table(LABELS).count() == 2
    assert set(features(store, "face")[1]) == {"a", "c"}


def test_a_row_that_repeats_is_left_out_with_a_warning(store: Store, tmp_path: Path) -> None:
    columns = {name: [*values, values[0]] for name, values in base_table().items()}
    result = run_base(store, tmp_path, columns)
    assert result.clips == 3
    assert "rows that repeat a clip word for word and were left out: 1" in result.warnings[0]
