"""Small files of a table merged into larger ones, by our own Remove + Add commit that keeps the encoding.

Notable: the commit says that no data changed. A merged file may still stand in the folder, and be offered again by a
job that knows its name: rows are judged by their keys, so that changes nothing.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa

from storage import log
from storage.commits import Committer, Guard
from storage.files import Files
from storage.schema import TableSpec
from storage.shards import FILE_ROWS, read_batches

TARGET_BYTES = 32 * 2**20
"""On disk. A change of one row rewrites its file, so merged files stay far below what reading alone would like."""


@dataclass(frozen=True)
class Group:
    """Files that are merged into one."""

    names: tuple[str, ...]
    size: int
    """Bytes on disk before."""


def groups(version: log.Version, target_bytes: int) -> list[Group]:
    """Which live files belong together: small ones, each with others of its corpus, so that readers still skip files.

    A group that is full is more than half of a target file, and so is small no longer: merging comes to an end.
    """
    found: list[Group] = []
    by_corpus: dict[object, list[tuple[str, int, int]]] = {}
    for file in version.live.sort_by("path").to_pylist() if version.live.num_rows else []:
        if file["size_bytes"] < target_bytes / 2 and file["num_records"] < FILE_ROWS / 2:
            corpus = (file.get("min.corpus_id"), file.get("max.corpus_id"))
            by_corpus.setdefault(corpus, []).append((file["path"], file["size_bytes"], file["num_records"]))
    for small in by_corpus.values():
        found += _packed(small, target_bytes)
    return found


def _packed(small: list[tuple[str, int, int]], target_bytes: int) -> Iterator[Group]:
    names: list[str] = []
    size = rows = 0
    for name, bytes_, records in small:
        if names and (size + bytes_ > target_bytes or rows + records > FILE_ROWS):
            if len(names) > 1:
                yield Group(tuple(names), size)
            names, size, rows = [], 0, 0
        names.append(name)
        size, rows = size + bytes_, rows + records
    if len(names) > 1:
        yield Group(tuple(names), size)


def compact(files: Files, spec: TableSpec, guard: Guard, target_bytes: int) -> int:
    """Merge until no two small files of a corpus are left; returns how many files were merged into others.

    Raises:
        CommitConflictError: others came between every time.
        StoreError: a live file cannot be read.
    """
    committer = Committer(files, spec, guard)
    merged = 0
    while planned := groups(log.load(files, spec), target_bytes):
        done = [group for group in planned if _merge(files, spec, committer, group)]
        merged += sum(len(group.names) for group in done)
        if not done:
            break
    return merged


def _merge(files: Files, spec: TableSpec, committer: Committer, group: Group) -> bool:
    def rows() -> Iterator[pa.RecordBatch]:
        for name in group.names:
            yield from read_batches(files, spec, name)

    return committer.rewrite(group.names, rows, data_change=False)
