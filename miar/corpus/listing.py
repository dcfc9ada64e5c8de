"""One pass over a corpus: its files, its clips, their labels and splits, and what could not be used.

How a corpus is laid out stands in ``docs/corpora.md``.
"""

import posixpath
from collections.abc import Mapping

from miar.config import CorpusConfig
from miar.corpus.labels import LabelBook
from miar.corpus.model import CorpusListing
from miar.corpus.paths import escape_path, inside_root
from miar.corpus.segments import Cut, Cutter
from miar.corpus.sources import Files, find_files, fingerprint, local_root, open_source, read_bytes
from miar.corpus.splits import assign_splits
from miar.corpus.tables import Table, read_table
from miar.errors import CorpusError
from miar.media.errors import MediaError

__all__ = ["fingerprint", "list_corpus", "open_source"]


def list_corpus(root: str, config: CorpusConfig, known_splits: Mapping[str, str] | None = None) -> CorpusListing:
    """Read a corpus, once, without opening its media.

    Args:
        root: A local folder, or a URL that fsspec can open.
        config: How it is read.
        known_splits: Earlier assignments, which new files do not change: group, ``video_id``, ``speaker`` or
            ``clip_id`` -> ``train``, ``valid`` or ``test``.

    Raises:
        CorpusError: the corpus as a whole cannot be used: no such folder, nothing in it, a table without the
        columns
            it needs. What is wrong with single files is in the listing's ``problems``.
    """
    files = find_files(root, follow_outside_links=config.follow_outside_links)
    corpus_id = config.corpus_id or _folder_name(root)
    manifest, manifest_path = _find_table(root, files, config.manifest, "manifest")
    labels, labels_path = _find_table(root, files, config.labels, "labels")
    tables = [path for path in (manifest_path, labels_path) if path]
    cutter = Cutter(root, corpus_id, files, config, tables)
    cut = _cut(cutter, config, manifest)
    book = LabelBook(cut.clips)
    if manifest is not None and cut.manifest_rows:
        book.add_rows(manifest, [[] if at is None else [at] for at in cut.manifest_rows])
    if labels is not None:
        book.add_table(labels)
    book.close()
    if not book.clips:
        raise CorpusError(_nothing_usable(root, files, cut))
    clips = assign_splits(book.clips, config.split, known_splits)
    return CorpusListing(
        corpus_id=corpus_id,
        root=root,
        sources=cutter.sources,
        clips=sorted(clips, key=lambda clip: (clip.path, clip.start_ms, clip.end_ms or 0, clip.segment)),
        labels=book.labels(),
        problems=[*files.problems, *cut.problems, *book.problems],
    )


def _cut(cutter: Cutter, config: CorpusConfig, manifest: Table | None) -> Cut:
    if config.segment_by == "manifest" and manifest is None:
        raise CorpusError("clips are to be cut by a manifest, and there is no manifest.csv or manifest.parquet")
    if manifest is not None and config.segment_by in ("auto", "manifest"):
        return cutter.by_manifest(manifest)
    return cutter.by_files()


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


def _folder_name(root: str) -> str:
    folder = local_root(root)
    name = posixpath.basename((folder or root).replace("\\", "/").rstrip("/"))
    return escape_path(name) or "corpus"


def _nothing_usable(root: str, files: Files, cut: Cut) -> str:
    problems = [*files.problems, *cut.problems]
    why = f": {problems[0].path}: {problems[0].message}" if problems else ": no video, audio or transcript in it"
    return f"the corpus {escape_path(root)} holds nothing that can be used{why}"
