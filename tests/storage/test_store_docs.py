"""The examples of docs/store.md, run as they stand, on a store with a replaced row and an orphan."""

import re
from pathlib import Path

import pytest

from storage import LABELS, Store, TableSpec

PAGE = (Path(__file__).parents[2] / "docs" / "store.md").read_text(encoding="utf-8")
EXAMPLES = [one for one in re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL) if "miar" not in one]
"""Those about clips with features are run in ``tests/miar/data/test_reading_docs.py``."""
LIVE = {"a": 2.0, "b": -1.0}


@pytest.fixture
def filled(store: Store, spec: TableSpec, features, wanted, labels) -> str:
    table = store.table(LABELS)
    table.merge(labels({("a", "sentiment"): 1.0, ("b", "sentiment"): -1.0}))
    table.merge(labels({("a", "sentiment"): 2.0}))
    (Path(table.path) / "orphan.parquet").write_bytes(Path(table.file_uris()[0]).read_bytes())
    assert table.orphans() == ["orphan.parquet"]
    shards = store.table(spec)
    shards.register([shards.stage(features({"a": "1", "b": "1"}), run_id="r", name="s")], wanted=wanted({"b": "1"}))
    return store.uri


def run(example: str, store: str) -> dict:
    names: dict = {"store": store}
    exec(compile(example, "docs/store.md", "exec"), names)
    return names


def test_the_page_has_examples() -> None:
    assert len(EXAMPLES) == 9


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda text: re.findall(r"\w+", text)[1] + str(len(text)))
def test_an_example_runs_and_sees_the_live_rows(example: str, filled: str) -> None:
    names = run(example, filled)
    if "frame" in names:
        frame = names["frame"]
        assert dict(zip(frame["clip_id"], frame["value"], strict=True)) == LIVE
    elif "before" in names:
        assert dict(zip(names["before"].clip_id, names["before"].value, strict=True)) == {"a": 1.0, "b": -1.0}
    elif "rows" in names:
        rows = (
            names["rows"] if isinstance(names["rows"], list) else [tuple(r.values()) for r in names["rows"].to_pylist()]
        )
        assert rows == [("a", 2.0)]
    elif "sequence" in names:
        assert names["first"].clip_id == "b"
        assert names["sequence"].shape[0] == names["first"].n_frames
    else:
        assert names["labels"].num_rows == 2


def test_every_column_stands_on_the_page() -> None:
    import storage

    for spec in (storage.CLIPS, LABELS, storage.FEATURE_SETS, storage.SCORES, storage.RUNS, storage.FAILURES):
        row = next(line for line in PAGE.splitlines() if line.startswith(f"| `{spec.name}` |"))
        words = set(re.findall(r"\w+", row))
        assert set(spec.schema.names) <= words, set(spec.schema.names) - words
        assert set(re.findall(r"\*\*(\w+)\*\*", row)) == set(spec.key)
