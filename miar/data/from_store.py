"""The shorthand for reading a snapshot whole; :mod:`miar.data.reading` does it."""

from collections.abc import Mapping, Sequence

from miar.data.dataset import ClipDataset
from miar.data.reading import SnapshotReader
from miar.data.selection import Selection
from storage import Snapshot


def load_dataset(
    snapshot: Snapshot,
    *,
    label: str | None,
    feature_sets: Mapping[str, str] | None = None,
    splits: Sequence[str] | None = None,
    clip_ids: Sequence[str] | None = None,
    labelled_only: bool = False,
) -> ClipDataset:
    """Read live clips with their features and one label, ordered by corpus, video and segment.

    Args:
        label, feature_sets: see :class:`SnapshotReader`.
        splits, clip_ids, labelled_only: see :class:`Selection`.

    Raises:
        UserError: the snapshot holds no features, or no label of that name; the text names those it holds.
        StoreError: the snapshot cannot be read.
    """
    reader = SnapshotReader(snapshot, label=label, feature_sets=feature_sets)
    return reader.load(Selection(splits=splits, clip_ids=clip_ids, labelled=labelled_only))
