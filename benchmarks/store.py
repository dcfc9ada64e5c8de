"""What the store costs beside bare pyarrow, on the same rows in the same encoding.

    python -m benchmarks store --megabytes 256 --rounds 5

Writing is :meth:`KeyedTable.stage` and :meth:`KeyedTable.register` (rows checked, file made durable, read back from
end to end, committed) against ``pyarrow.parquet`` with the same options and row groups; it is also compared with
pyarrow followed by the ``fsync`` that no durable write can do without. Reading is of the live rows through the log, and
of a snapshot in batches, against pyarrow on the same files.
"""

import argparse
import os
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from benchmarks.history import record
from benchmarks.interleave import machine, ratio, show, take_turns
from storage import Store, TableSpec, feature_table
from storage.shards import ROW_GROUP_BYTES, write_options
from storage.table import READ_BATCH_ROWS, KeyedTable

COLUMNS = 4 * 384
"""Four layers of a MiniLM encoder side by side, the widest rows that the default pipeline writes."""
TOKENS = (6, 30)
SHARD_CLIPS = 500
SPEC = feature_table(
    "features/text/0123456789abcdef", n_columns=COLUMNS, summary_columns=(), quality_columns=("quality_tokens",)
)


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="benchmarks store")
    parser.add_argument("--megabytes", type=int, default=256, help="of values, before compression")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args(arguments)
    shards = made_shards(options.megabytes)
    megabytes = sum(shard["values"].nbytes for shard in shards) / 1e6
    with tempfile.TemporaryDirectory() as folder:
        written = time_writing(shards, Path(folder), options.rounds)
        read = time_reading(shards, Path(folder), options.rounds)
    rates = {name: round(megabytes / median(seconds)) for name, seconds in {**written, **read}.items()}
    found = {
        "write": ratio(written, "pyarrow", "store"),
        "write_durable": ratio(written, "pyarrow + fsync", "store"),
        "read": ratio(read, "pyarrow read", "store read"),
        "batches": ratio(read, "pyarrow batches", "snapshot batches"),
    }
    show("store write against pyarrow", found["write"], 0.8, detail=_rates(rates, "store", "pyarrow"))
    show("store write against pyarrow + fsync", found["write_durable"], 0.8, detail=_rates(rates, "pyarrow + fsync"))
    show("store read against pyarrow", found["read"], 0.9, detail=_rates(rates, "store read", "pyarrow read"))
    show(
        "snapshot batches against pyarrow's",
        found["batches"],
        0.9,
        detail=_rates(rates, "snapshot batches", "pyarrow batches"),
    )
    record("store", {**machine(), "megabytes": round(megabytes), "ratios": found, "megabytes_per_s": rates})


def made_shards(megabytes: int) -> list[pa.Table]:
    """Shards of noise, which compresses no better than an encoder's hidden states do."""
    draw = np.random.default_rng(0)
    shards, size = [], 0
    while size < megabytes * 1e6:
        shards.append(_made_shard(draw, len(shards)))
        size += shards[-1]["values"].nbytes
    return shards


def _made_shard(draw: np.random.Generator, number: int) -> pa.Table:
    frames = draw.integers(*TOKENS, SHARD_CLIPS)
    values = draw.normal(size=int(frames.sum()) * COLUMNS).astype(np.float32)
    times = np.concatenate([np.arange(count, dtype=np.float32) for count in frames])
    ids = [f"{number:06d}-{clip:06d}" for clip in range(SHARD_CLIPS)]
    columns = {
        "clip_id": ids,
        "corpus_id": ["made"] * SHARD_CLIPS,
        "source_id": pa.nulls(SHARD_CLIPS, pa.string()),
        "input_hash": ids,
        "status": ["ok"] * SHARD_CLIPS,
        "reason": pa.nulls(SHARD_CLIPS, pa.string()),
        "n_frames": pa.array(frames, pa.int32()),
        "values": _lists(values, frames * COLUMNS),
        "times": _lists(times, frames),
        "pooled": _lists(values[: SHARD_CLIPS * 384], np.full(SHARD_CLIPS, 384)),
        "quality_tokens": pa.array(frames.astype(np.float32)),
        "run_id": ["run"] * SHARD_CLIPS,
        "extracted_at": [datetime.now(UTC)] * SHARD_CLIPS,
    }
    return pa.table(columns).cast(SPEC.schema)


def _lists(flat: np.ndarray, lengths: np.ndarray) -> pa.Array:
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(flat))


def time_writing(shards: list[pa.Table], folder: Path, rounds: int) -> dict[str, list[float]]:
    """Every round writes anew, after one that is not counted."""
    serial = iter(range(10**6))

    def bare(durable: bool) -> None:
        target = folder / f"bare-{next(serial)}"
        target.mkdir()
        for number, shard in enumerate(shards):
            write_bare(shard, SPEC, target / f"{number}.parquet", durable)

    ways = {
        "pyarrow": lambda: bare(durable=False),
        "store": lambda: write_store(shards, folder / f"store-{next(serial)}") and None,
        "pyarrow + fsync": lambda: bare(durable=True),
    }
    take_turns(ways, 1)
    return take_turns(ways, rounds)


def write_bare(shard: pa.Table, spec: TableSpec, path: Path, durable: bool) -> None:
    """The row groups are as large as the store's, so that both write the same bytes."""
    rows = max(1, ROW_GROUP_BYTES * shard.num_rows // shard.nbytes)
    pq.write_table(shard, path, row_group_size=rows, **write_options(spec))
    if durable:
        with path.open("rb") as file:
            os.fsync(file.fileno())


def write_store(shards: list[pa.Table], folder: Path) -> KeyedTable:
    """A store with these shards, each staged and then registered, as a refresh does it."""
    table = Store.create(str(folder)).table(SPEC)
    for number, shard in enumerate(shards):
        name = table.stage(shard, run_id="run", name=f"shard-{number}")
        table.register([name], wanted=shard.select(["clip_id", "input_hash"]))
    return table


def time_reading(shards: list[pa.Table], folder: Path, rounds: int) -> dict[str, list[float]]:
    """Of the very same files, which are in the page cache."""
    table = write_store(shards, folder / "read")
    snapshot = Store.open(str(folder / "read")).snapshots.take()
    files = table.file_uris()
    rows = sum(shard.num_rows for shard in shards)

    def expect(found: int) -> None:
        assert found == rows, f"{found} of {rows} rows were read"

    ways = {
        "pyarrow read": lambda: expect(pq.read_table(files).num_rows),
        "store read": lambda: expect(table.read().num_rows),
        "pyarrow batches": lambda: expect(
            sum(batch.num_rows for batch in ds.dataset(files).to_batches(batch_size=READ_BATCH_ROWS))
        ),
        "snapshot batches": lambda: expect(sum(batch.num_rows for batch in snapshot.batches(SPEC.name))),
    }
    take_turns(ways, 1)
    return take_turns(ways, rounds)


def _rates(rates: dict[str, int], *names: str) -> str:
    return ", ".join(f"{name} {rates[name]} MB/s" for name in names)
