"""What the files of a corpus hold, told without reading those that are as they were."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa

from miar.corpus.columns import NOWHERE, mask, positions, replaced, taken, whole
from miar.corpus.model import CorpusListing, CorpusProblem, Source
from miar.corpus.sources import fingerprint
from miar.media.errors import MediaError
from storage.arrow import pc

SOURCE_COLUMNS = pa.schema([("media_size", pa.int64()), ("media_mtime_ns", pa.int64()), ("fingerprint", pa.string())])


def fingerprinted_sources(listing: CorpusListing, known: pa.Table) -> tuple[pa.Table, list[CorpusProblem]]:
    """Path, size, time and content hash of each file; one of a size and time that the store knows is not read again."""
    sources = list(listing.sources.values())
    path = pa.array([source.path for source in sources], pa.string())
    size = np.array([source.size for source in sources], np.int64)
    mtime = np.array([source.mtime_ns for source in sources], np.int64)
    prints = taken(whole(known["fingerprint"]), _unchanged_since(known, path, size, mtime))
    is_read = mask(pc.is_null(prints)) & np.array([source.is_media for source in sources], bool)
    to_read = np.flatnonzero(is_read)
    found, problems = _fingerprints(listing.root, [sources[at] for at in to_read.tolist()])
    prints = replaced(prints, to_read, found)
    columns = [path, pa.array(size), pa.array(mtime), prints]
    return pa.Table.from_arrays(columns, names=["path", *SOURCE_COLUMNS.names]), problems


def _unchanged_since(known: pa.Table, path: pa.Array, size: np.ndarray, mtime: np.ndarray) -> np.ndarray:
    """(n_files,) a row of ``known`` that was made from the file as it is now; :data:`NOWHERE` where there is none."""
    rows = np.full(len(path), NOWHERE)
    file = positions(whole(known["path"]), path, distinct=True)
    stamped = (file >= 0) & mask(pc.is_valid(known["fingerprint"]))
    candidates = np.flatnonzero(stamped)
    file = file[candidates]
    as_before = (
        (np.asarray(known["media_size"])[candidates] == size[file])
        & (np.asarray(known["media_mtime_ns"])[candidates] == mtime[file])
        & (mtime[file] != 0)
    )
    rows[file[as_before]] = candidates[as_before]
    return rows


def _fingerprints(root: str, sources: list[Source]) -> tuple[list[str | None], list[CorpusProblem]]:
    """Content hashes, null where a file cannot be read."""

    def read(source: Source) -> str | CorpusProblem:
        try:
            return fingerprint(root, source)
        except MediaError as error:
            return CorpusProblem(source.path, "unreadable_file", f"{error}: check the file and its permissions")

    # Hashing releases the GIL, and reading waits on the disk: a few threads keep both busy.
    with ThreadPoolExecutor(max_workers=4) as pool:
        answers = list(pool.map(read, sources))
    problems = [answer for answer in answers if isinstance(answer, CorpusProblem)]
    return [None if isinstance(answer, CorpusProblem) else answer for answer in answers], problems
