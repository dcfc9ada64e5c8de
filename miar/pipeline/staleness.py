"""Which clips lack a row in a feature set that was made from what they are now."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from miar.corpus.columns import NOWHERE, mask, positions, same, taken, whole
from miar.features.contract import FeatureSet, Modality, Status
from miar.pipeline.rows import feature_spec
from storage import FAILURES, KeyedTable, Store
from storage.arrow import pc

AT_ONCE = 2
"""Feature sets that are looked at together: more would only hold more keys in memory."""


@dataclass
class Staleness:
    """What one feature set lacks of the live clips."""

    stale: np.ndarray
    """(n_clips,) booleans: no row that was made from what the clip is now."""
    attempts: np.ndarray
    """(n_clips,) how often each failed on the input that it has now."""
    up_to_date: int
    missing: int
    """How many of those say that the clip has no such modality."""
    version: int | None
    """The table's version that was looked at."""
    adopted: int
    """Rows that another run had finished, and that only had to be registered: it was killed, or is not there yet."""
    mended: pa.Table
    """Keys of failures of clips that have their row by now: whoever made it was killed before taking them away."""


def find_stale(
    store: Store, corpus_id: str, live: pa.Table, feature_sets: Sequence[FeatureSet], *, has_media: bool, adopt: bool
) -> dict[str, Staleness]:
    """For each feature table, what it lacks.

    Args:
        live: the corpus's rows of ``clips``, live ones only.
        has_media: whether there are files to extract from, or only the words that the store itself holds.
        adopt: whether rows that a killed run had finished may be committed.
    """

    def look(feature_set: FeatureSet) -> Staleness:
        return _FeatureSetKeys(store, corpus_id, live, feature_set, has_media).find(adopt)

    # Reading and matching keys release the GIL.
    with ThreadPoolExecutor(AT_ONCE) as pool:
        found = dict(zip((one.table for one in feature_sets), pool.map(look, feature_sets), strict=True))
    mended = [one.mended for one in found.values() if one.mended.num_rows]
    if adopt and mended:
        store.table(FAILURES).merge(FAILURES.schema.empty_table(), delete_keys=pa.concat_tables(mended))
    return found


class _FeatureSetKeys:
    """The keys of one feature set beside those of the live clips."""

    def __init__(self, store: Store, corpus_id: str, live: pa.Table, feature_set: FeatureSet, has_media: bool) -> None:
        is_text = feature_set.modality is Modality.TEXT
        self._table: KeyedTable = store.table(feature_spec(feature_set))
        self._failures = store.table(FAILURES)
        self._of_corpus = pc.field("corpus_id") == corpus_id
        self._of_set = pc.field("config_hash") == feature_set.config_hash
        self._ids = whole(live["clip_id"])
        self._input = whole(live["text_hash" if is_text else "media_hash"])
        """(n_clips,) what each row has to be made from; null where there is nothing to make it from."""
        if not (has_media or is_text):
            self._input = pa.nulls(len(self._ids), pa.string())

    def find(self, adopt: bool) -> Staleness:
        # The version first: what is committed meanwhile is then seen to be new.
        version, adopted = self._table.version(), 0
        made, missing = self._made()
        stale = mask(pc.is_valid(self._input)) & ~made
        if adopt and stale.any():
            done = self._table.adopt(wanted=self._wanted(stale))
            if done.files_added:
                version, adopted = self._table.version(), done.rows_added
                made, missing = self._made()
                stale &= ~made
        attempts, mended = self._failed(made)
        return Staleness(stale, attempts, int(made.sum()), missing, version, adopted, mended)

    def _made(self) -> tuple[np.ndarray, int]:
        """(n_clips,) booleans: rows that were made from what a clip is now; and how many of those say ``missing``."""
        rows = self._table.read(["clip_id", "input_hash", "status"], self._of_corpus)
        at, current = self._matched(rows)
        made = np.zeros(len(self._ids), bool)
        made[at[current]] = True
        return made, int((current & mask(pc.equal(rows["status"], Status.MISSING.value))).sum())

    def _failed(self, made: np.ndarray) -> tuple[np.ndarray, pa.Table]:
        """(n_clips,) how often each failed on what it is now; and the keys of failures of clips that are ``made``."""
        rows = self._failures.read([*FAILURES.key, "input_hash", "attempts"], self._of_corpus & self._of_set)
        at, current = self._matched(rows)
        is_mended = np.append(made, False)[at]  # nothing is made of a clip that is not live
        current &= ~is_mended
        attempts = np.zeros(len(self._ids), np.int64)
        attempts[at[current]] = np.asarray(rows["attempts"])[current]
        return attempts, rows.select(list(FAILURES.key)).filter(pa.array(is_mended))

    def _matched(self, rows: pa.Table) -> tuple[np.ndarray, np.ndarray]:
        """(n_rows,) the clip of each row, :data:`NOWHERE` where it is not live; and whether it has the clip's input."""
        if not rows.num_rows:
            return np.zeros(0, np.int64), np.zeros(0, bool)
        at = positions(whole(rows["clip_id"]), self._ids, distinct=True)
        return at, (at != NOWHERE) & same(whole(rows["input_hash"]), taken(self._input, at))

    def _wanted(self, stale: np.ndarray) -> pa.Table:
        chosen = pa.array(stale)
        return pa.table({"clip_id": self._ids.filter(chosen), "input_hash": self._input.filter(chosen)})
