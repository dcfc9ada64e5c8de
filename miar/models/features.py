"""What a model knows about the features it reads, and how it refuses any others."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from miar.data.batches import MODALITIES
from miar.descriptors import Descriptor
from miar.errors import FeatureMismatchError

KEPT_FIELDS = (
    "extractor",
    "config_hash",
    "columns",
    "layers",
    "voiced_columns",
    "summary_columns",
    "rate_hz",
)
"""What of a descriptor a checkpoint keeps: its name, and what shapes the model."""
MIN_GROUP = 4
MAX_GROUPS = 8


@dataclass(frozen=True)
class FeatureShape:
    """The part of a descriptor that shapes an adapter."""

    columns: int
    """Width of a frame, all layers together."""
    layers: int
    """Encoder layers side by side in a frame; 1 where there is nothing to mix."""
    voiced: tuple[bool, ...]
    """Per column: whether it means nothing in unvoiced frames."""
    pitch: int | None
    """Column that is above 0 in voiced frames alone; ``None`` where no column needs it."""
    summary_columns: tuple[str, ...]

    @classmethod
    def of(cls, descriptor: Descriptor) -> "FeatureShape":
        columns = list(descriptor["columns"])
        voiced_names = list(descriptor.get("voiced_columns") or ())
        framewise = [name for name in voiced_names if name in columns]
        return cls(
            columns=len(columns),
            layers=int(descriptor.get("layers") or 1),
            voiced=tuple(name in framewise for name in columns),
            pitch=columns.index(framewise[0]) if framewise else None,
            summary_columns=tuple(descriptor.get("summary_columns") or ()),
        )


def kept_descriptor(descriptor: Descriptor) -> dict[str, Any]:
    """The fields of a descriptor that a checkpoint keeps."""
    return {name: descriptor[name] for name in KEPT_FIELDS if name in descriptor}


def feature_set_name(descriptor: Descriptor | None) -> str:
    """``extractor/config_hash``, as people read it."""
    return f"{descriptor['extractor']}/{descriptor['config_hash']}" if descriptor else "none"


def check_feature_sets(trained_on: Mapping[str, Descriptor], given: Mapping[str, Descriptor]) -> None:
    """Refuse features that a model was not trained on. A modality that is not given at all is merely absent.

    Raises:
        FeatureMismatchError: one line that names both feature sets of the first modality that differs.
    """
    for modality in MODALITIES:
        if modality not in given:
            continue
        wanted, offered = feature_set_name(trained_on.get(modality)), feature_set_name(given[modality])
        if wanted != offered:
            raise FeatureMismatchError(
                f"the model was trained on {modality} features {wanted} and cannot read {offered}: "
                "score a snapshot that holds its feature set, or train a model on this one"
            )


def summary_groups(names: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """Split named per-clip values into at most :data:`MAX_GROUPS` groups, one token each.

    Columns of the form ``<what>_<statistic>`` with few statistics (``AU12_mean``, ``AU12_max``) are grouped
    by the statistic; any others (the 88 functionals) by the family that their name begins with: ``F``,
    ``mfcc``, ``loudness`` ... Families with fewer than :data:`MIN_GROUP` columns, and those beyond the
    largest, form ``other``.
    """
    statistics = [name.rsplit("_", 1)[-1] if "_" in name else "" for name in names]
    by_statistic = len(set(statistics)) <= MAX_GROUPS and min(Counter(statistics).values(), default=0) >= MIN_GROUP
    keys = statistics if by_statistic else [_family(name) for name in names]
    sizes = Counter(keys)
    kept = {key for key, size in sizes.most_common(MAX_GROUPS - 1) if size >= MIN_GROUP}
    groups: dict[str, list[int]] = {}
    for index, key in enumerate(keys):
        groups.setdefault(key if by_statistic or key in kept else "other", []).append(index)
    return {key: tuple(indices) for key, indices in groups.items()}


def _family(name: str) -> str:
    found = re.match(r"[A-Za-z]+", name)
    return found.group() if found else "other"
