"""Which tables a store holds, and what each must look like, told from the store itself."""

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from storage import log
from storage.arrow import readable
from storage.files import Files
from storage.schema import (
    CLIPS,
    FAILURES,
    FEATURE_SETS,
    LABELS,
    RUNS,
    SCORES,
    TRANSCRIPTS,
    WORDS,
    TableSpec,
    feature_table,
)

PLAIN_TABLES = (CLIPS, LABELS, FEATURE_SETS, SCORES, RUNS, FAILURES, TRANSCRIPTS, WORDS)
FEATURES = "features"


def feature_folders(files: Files) -> list[str]:
    """Folders of feature tables, sorted; one without a log holds only shards that were never registered."""
    return [
        f"{FEATURES}/{extractor}/{config_hash}"
        for extractor in files.entries(FEATURES)
        for config_hash in files.entries(f"{FEATURES}/{extractor}")
    ]


def table_folders(files: Files) -> list[str]:
    """Folders of all tables that anything was ever written for."""
    return [*(spec.name for spec in PLAIN_TABLES if files.entries(spec.name)), *feature_folders(files)]


def descriptors(files: Files) -> list[dict[str, Any]]:
    """The rows of ``feature_sets``.

    Raises:
        StoreError: the table cannot be read.
    """
    version = log.load(files, FEATURE_SETS)
    with readable(FEATURE_SETS.name):
        return log.dataset(files, FEATURE_SETS, version).to_table().to_pylist()


def descriptor_spec(descriptor: Mapping[str, Any]) -> TableSpec:
    """The feature table that a row of ``feature_sets`` describes."""
    return feature_table(
        f"{FEATURES}/{descriptor['extractor']}/{descriptor['config_hash']}",
        n_columns=len(descriptor["columns"] or ()),
        summary_columns=descriptor["summary_columns"] or (),
        quality_columns=descriptor["quality_columns"] or (),
        pooled_dim=descriptor["pooled_dim"] or None,
    )


def committed_tables(files: Files) -> list[str]:
    """Names of all tables that have had a commit."""
    return [name for name in table_folders(files) if log.exists(files, name)]


def spec_of(files: Files, name: str, described: Sequence[Mapping[str, Any]]) -> TableSpec:
    """What a table must look like; of a feature table that nobody described, what its log says.

    Raises:
        StoreError: the log of a feature table without a descriptor cannot be read.
    """
    known = {spec.name: spec for spec in (*PLAIN_TABLES, *map(descriptor_spec, described))}
    return known.get(name) or TableSpec(name, pa.schema(log.open_table(files, name).schema().to_arrow()), ("clip_id",))
