"""Reading a store's rows without the pipeline, to check what the pipeline says."""

from collections import Counter
from pathlib import Path
from typing import Any

from deltalake import DeltaTable

CLIPS = 40
"""Of the corpus that the tests share."""


def live_rows(store: Path, table: str) -> list[dict[str, Any]]:
    """Every row of the live files of one table, read through the log alone."""
    return DeltaTable(str(store / table)).to_pyarrow_table().to_pylist()


def feature_tables(store: Path) -> dict[str, str]:
    """Extractor -> table, from the folders that hold a log."""
    logs = sorted(store.glob("features/*/*/_delta_log"))
    return {path.parent.parent.name: str(path.parent.relative_to(store)) for path in logs}


def live_clips(store: Path) -> set[str]:
    return {row["clip_id"] for row in live_rows(store, "clips") if row["state"] == "live"}


def assert_each_clip_once(store: Path, extractors: tuple[str, ...] = ("text", "opensmile", "mediapipe")) -> None:
    """Every live clip has exactly one row in every feature table, or a failure that says why it has none."""
    clips = live_clips(store)
    failed = {(row["clip_id"], row["stage"]) for row in live_rows(store, "failures")} if _exists(store) else set()
    tables = feature_tables(store)
    for extractor in extractors:
        counts = Counter(row["clip_id"] for row in live_rows(store, tables[extractor]))
        assert not [clip for clip, count in counts.items() if count > 1], extractor
        missing = {clip for clip in clips - counts.keys() if (clip, extractor) not in failed}
        assert not missing, (extractor, missing)


def _exists(store: Path) -> bool:
    return (store / "failures" / "_delta_log").is_dir()
