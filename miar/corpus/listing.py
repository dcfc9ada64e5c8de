"""One pass over a corpus: its files, its clips, their labels and splits, and what could not be used.

How a corpus is laid out stands in ``docs/corpora.md``.
"""

import posixpath
from collections.abc import Mapping

import numpy as np
import pyarrow as pa

from miar.config import CorpusConfig
from miar.corpus.columns import whole
from miar.corpus.labels import LabelBook
from miar.corpus.manifest import cut_by_manifest
from miar.corpus.model import CorpusListing, Remembered
from miar.corpus.pairing import Pairing
from miar.corpus.paths import escape_path, inside_root
from miar.corpus.segments import Cut, cut_files
from miar.corpus.sources import Files, find_files, local_root, read_bytes
from miar.corpus.splits import splits_of
from miar.corpus.tables import Table, read_table
from miar.corpus.words import Words
from miar.errors import CorpusError
from miar.media.errors import MediaError
from storage.arrow import pc


def list_corpus(
    root: str,
    config: CorpusConfig,
    known_splits: Mapping[str, str] | None = None,
    remembered: Remembered | None = None,
    segmenter: int | None = None,
) -> CorpusListing:
    """Read a corpus, once, without opening its media.

    Args:
        root: A local folder, or a URL that fsspec can open.
        config: How it is read.
        known_splits: Earlier assignments, which new files do not change: group, ``video_id``, ``speaker`` or
            ``clip_id`` -> ``train``, ``valid`` or ``test``.
        remembered: Transcripts as they were read before; those whose file is still as it was are not read again.
        segmenter: Number of what cuts the files, where ``segment_by`` is ``speech`` or ``windows``: what it found is
            read like a transcript, and the files that it has not cut yet are in the listing's ``unsegmented``.

    Raises:
        CorpusError: the corpus as a whole cannot be used: no such folder, nothing in it, a table without the columns
            it needs. What is wrong with single files is in the listing's ``problems``.
    """
    if config.needs_segmentation and segmenter is None:
        raise ValueError(f"who cuts the files by {config.segment_by}? Give the segmenter's number")
    files = find_files(root, follow_outside_links=config.follow_outside_links)
    corpus_id = config.corpus_id or corpus_name(root)
    manifest, manifest_path = _find_table(root, files, config.manifest, "manifest")
    labels, labels_path = _find_table(root, files, config.labels, "labels")
    pairing = Pairing(files, [path for path in (manifest_path, labels_path) if path])
    words = Words(root, files.found, remembered or Remembered())
    cut = _cut(corpus_id, pairing, words, config, manifest, segmenter)
    book = LabelBook(cut.clips)
    if manifest is not None and cut.manifest_rows is not None:
        book.add_rows(manifest, cut.manifest_rows, np.arange(len(cut.manifest_rows)))
    if labels is not None:
        book.add_table(labels)
    label_table = book.close()
    if not book.clips.num_rows and not cut.unsegmented:
        raise CorpusError(_nothing_usable(root, files, cut))
    splits = splits_of(book.clips, config.split, known_splits)
    clips = book.clips.set_column(book.clips.schema.get_field_index("split"), "split", splits)
    order = _in_order(clips)
    return CorpusListing(
        corpus_id=corpus_id,
        root=root,
        sources=pairing.sources,
        clip_table=clips if order is None else clips.take(pa.array(order)),
        label_table=label_table if order is None else _moved(label_table, order),
        problems=[*files.problems, *cut.problems, *book.problems],
        read=words.news(),
        unsegmented=[files.found[path] for path in cut.unsegmented],
    )


def _cut(
    corpus_id: str,
    pairing: Pairing,
    words: Words,
    config: CorpusConfig,
    manifest: Table | None,
    segmenter: int | None,
) -> Cut:
    if config.segment_by == "manifest" and manifest is None:
        raise CorpusError("clips are to be cut by a manifest, and there is no manifest.csv or manifest.parquet")
    if manifest is not None and config.segment_by in ("auto", "manifest"):
        return cut_by_manifest(corpus_id, pairing, words, manifest)
    return cut_files(corpus_id, pairing, words, config.segment_by, segmenter)


def _in_order(clips: pa.Table) -> np.ndarray | None:
    """(n_clips,) positions that sort the clips by path and time; ``None`` where they are sorted."""
    path = whole(clips["path"]).dictionary_encode()
    rank = np.argsort(np.argsort(np.array(path.dictionary.to_pylist(), object)))[np.asarray(path.indices)]
    end = np.asarray(pc.fill_null(whole(clips["end_ms"]), 0))
    order = np.lexsort((np.asarray(clips["segment"]), end, np.asarray(clips["start_ms"]), rank))
    return None if np.array_equal(order, np.arange(len(order))) else order


def _moved(labels: pa.Table, order: np.ndarray) -> pa.Table:
    """The labels of clips that were put into another order."""
    now = np.empty_like(order)
    now[order] = np.arange(len(order))
    return labels.set_column(0, "at", pa.array(now[np.asarray(labels["at"])]))


def _find_table(root: str, files: Files, wanted: str | None, default: str) -> tuple[Table | None, str | None]:
    """The table that the configuration names, or the one with the usual name at the root; and its path."""
    if wanted is not None:
        path = inside_root(wanted)
        if path not in files.found:
            raise CorpusError(f"no file {wanted} in the corpus {root}, which the configuration names as its {default}")
    else:
        path = next((name for name in (f"{default}.csv", f"{default}.parquet") if name in files.found), None)
    if path is None:
        return None, None
    try:
        return read_table(read_bytes(root, files.found[path]), path), path
    except (OSError, MediaError) as error:
        raise CorpusError(f"{path} cannot be read: {' '.join(str(error).split())}") from error


def corpus_name(root: str) -> str:
    """What a corpus is called where nobody says: as its folder, wherever that is mounted.

    A link gives its own name, whatever folder it leads to today.
    """
    folder = local_root(root)
    name = posixpath.basename((folder or root).replace("\\", "/").rstrip("/"))
    return escape_path(name) or "corpus"


def _nothing_usable(root: str, files: Files, cut: Cut) -> str:
    problems = [*files.problems, *cut.problems]
    why = f": {problems[0].path}: {problems[0].message}" if problems else ": no video, audio or transcript in it"
    return f"the corpus {escape_path(root)} holds nothing that can be used{why}"
