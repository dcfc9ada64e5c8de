"""Which feature sets are current, and what their tables are called."""

from typing import Any

from miar.descriptors import active, newest_active, table_of
from miar.features.contract import FeatureSet, Modality


def row(extractor: str, modality: str, created_at: int, state: str = "active") -> dict[str, Any]:
    return {
        "extractor": extractor,
        "config_hash": "h",
        "modality": modality,
        "created_at": created_at,
        "state": state,
    }


def test_the_newest_active_one_with_a_table_counts() -> None:
    rows = [
        row("new", "audio", 3),
        row("old", "audio", 1),
        row("retired", "audio", 9, "retired"),
        row("gone", "audio", 8),
        row("words", "text", 2),
    ]
    tables = {table_of(one) for one in rows if one["extractor"] != "gone"}
    assert [one["extractor"] for one in active(rows, tables)] == ["new", "words", "old"]
    assert {name: one["extractor"] for name, one in newest_active(rows, tables).items()} == {
        "audio": "new",
        "text": "words",
    }
    assert newest_active(rows, ()) == {}


def test_a_feature_set_and_its_descriptor_name_one_table() -> None:
    described = FeatureSet("opensmile", Modality.AUDIO, ("loudness",), 100.0)
    assert table_of({"extractor": "opensmile", "config_hash": described.config_hash}) == described.table
