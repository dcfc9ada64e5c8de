"""Verification across files: every key once in its table, every feature row's clip known.

Memory is bounded: keys are taken a share at a time (by a hash of the key), with one reading of the key columns for each
share.
"""

import zlib
from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np
import pyarrow as pa

from storage.arrow import pc
from storage.commits import Guard
from storage.file_checks import TableCheck
from storage.files import Files
from storage.findings import Finding
from storage.keys import identity
from storage.repair import Repair
from storage.schema import CLIPS, TableSpec
from storage.shards import open_shard

SHARE_ROWS = 2_000_000
"""Keys held in memory at once, at about 100 bytes each."""


def check_keys(files: Files, guard: Guard, checks: Sequence[TableCheck]) -> Iterator[Finding]:
    """What is wrong with the keys of the files that can be read."""
    shares = max(1, -(-max((check.rows for check in checks), default=0) // SHARE_ROWS))
    clips = next((check for check in checks if check.spec.name == CLIPS.name), None)
    for share in range(shares):
        known = None if clips is None else _keys(files, clips, share, shares)["id"].combine_chunks()
        for check in checks:
            keys = _keys(files, check, share, shares)
            yield from _doubled(files, guard, check, keys)
            if check.spec.name.startswith("features/"):
                yield from _unknown(check.spec, keys, known if known is not None else pa.array([], pa.string()))


def _keys(files: Files, check: TableCheck, share: int, shares: int) -> pa.Table:
    """``id`` and ``file`` (its number) of one share of a table's rows."""
    parts = [pa.table({"id": pa.array([], pa.string()), "file": pa.array([], pa.int32())})]
    for number, name in enumerate(check.readable):
        with open_shard(files, f"{check.spec.name}/{name}") as shard:
            ids = identity(shard.read(list(check.spec.key)), check.spec.key).drop_null()
        if shares > 1:
            ids = ids.filter(pa.array(_share_of(ids, shares) == share))
        parts.append(pa.table({"id": ids, "file": pa.repeat(pa.scalar(number, pa.int32()), len(ids))}))
    return pa.concat_tables(parts)


def _share_of(ids: pa.ChunkedArray, shares: int) -> np.ndarray:
    return np.fromiter((zlib.crc32(id_.encode()) % shares for id_ in ids.to_pylist()), dtype=np.int64, count=len(ids))


def _doubled(files: Files, guard: Guard, check: TableCheck, keys: pa.Table) -> Iterator[Finding]:
    counts = pc.value_counts(keys["id"])
    twice = counts.field("values").filter(pc.greater(counts.field("counts"), 1))
    if not len(twice):
        return
    holders = pc.unique(keys["file"].filter(pc.is_in(keys["id"], value_set=twice))).to_pylist()
    names = [check.readable[number] for number in holders]
    more = f" and {len(names) - 2} more" if len(names) > 2 else ""
    yield Finding(
        "keys doubled",
        check.spec.name,
        f"{len(twice)} keys stand more than once, the first is {twice[0]}; in {', '.join(names[:2])}{more}",
        "`--repair` keeps the row made from what the clip is now"
        if check.spec.n_columns is not None
        else "`--repair` keeps one where the rows are equal; where they differ, write the right one again",
        partial(Repair(files, check.spec, guard).keep_one, twice, names),
    )


def _unknown(spec: TableSpec, keys: pa.Table, known: pa.Array) -> Iterator[Finding]:
    strangers = keys["id"].filter(pc.invert(pc.is_in(keys["id"], value_set=known)))
    if len(strangers):
        yield Finding(
            "clip unknown",
            spec.name,
            f"{len(strangers)} rows are of clips that the table clips does not have, the first is {strangers[0]}",
            "refresh or import their corpus, which puts its clips back",
        )
