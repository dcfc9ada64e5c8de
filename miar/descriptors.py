"""Descriptors: the rows of ``feature_sets``, each of which says what one feature table holds. Imports nothing."""

from collections.abc import Collection, Iterable, Mapping
from typing import Any

Descriptor = Mapping[str, Any]
"""``extractor``, ``config_hash``, ``modality``, ``columns``, ``created_at``, ``state`` ..."""


def table_name(extractor: str, config_hash: str) -> str:
    """``features/<extractor>/<config_hash>``"""
    return f"features/{extractor}/{config_hash}"


def table_of(descriptor: Descriptor) -> str:
    """The name of the table that a descriptor is about."""
    return table_name(descriptor["extractor"], descriptor["config_hash"])


def active(descriptors: Iterable[Descriptor], tables: Collection[str]) -> list[Descriptor]:
    """The active ones whose table is one of ``tables``, the newest first."""
    rows = [row for row in descriptors if row["state"] == "active" and table_of(row) in tables]
    return sorted(rows, key=lambda row: row["created_at"], reverse=True)


def newest_active(descriptors: Iterable[Descriptor], tables: Collection[str]) -> dict[str, Descriptor]:
    """Modality -> the newest of them."""
    return {row["modality"]: row for row in reversed(active(descriptors, tables))}
