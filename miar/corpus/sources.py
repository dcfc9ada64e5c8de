"""Where a corpus lies: find its files, fingerprint one, open one. A local folder, or any URL that fsspec can
open."""

import hashlib
import os
import posixpath
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from miar.corpus.model import CorpusProblem, Source
from miar.corpus.paths import escape_path, extension_of, is_url, unescape_path
from miar.errors import CorpusError
from miar.media.decode import MediaFile

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

_VIDEO = "mp4 mov mkv avi webm m4v mpg mpeg mts m2ts ts wmv flv 3gp ogv"
_AUDIO = "wav flac mp3 ogg oga m4a opus aac aif aiff wma amr au caf"
VIDEO_EXTENSIONS = frozenset(_VIDEO.split())
AUDIO_EXTENSIONS = frozenset(_AUDIO.split())
MEDIA_EXTENSIONS = VIDEO_EXTENSIONS | AUDIO_EXTENSIONS

_BLOCK_BYTES = 1 << 20
_ETAG_KEYS = ("ETag", "etag", "e_tag", "md5Hash", "content_md5")
_MTIME_KEYS = ("LastModified", "last_modified", "mtime", "updated", "created")


@dataclass
class Files:
    """Every file under a root that is not hidden, by its path as the file system spells it, in sorted
    order."""

    found: dict[str, Source] = field(default_factory=dict)
    problems: list[CorpusProblem] = field(default_factory=list)


def is_media(path: str) -> bool:
    return extension_of(path) in MEDIA_EXTENSIONS


def local_root(root: str) -> str | None:
    """The folder that ``root`` names on this machine; ``None`` for an object store."""
    if root.startswith(("file://", "local://")):
        return _filesystem(root)[1]
    return None if is_url(root) else os.path.abspath(root)


def check_folder(folder: str) -> None:
    """Complain about a corpus folder that cannot be one, before anything is made for it.

    Raises:
        CorpusError: it does not exist, or is a file.
    """
    if not os.path.lexists(folder):
        raise CorpusError(f"the corpus {escape_path(folder)} does not exist")
    if not os.path.isdir(folder):
        raise CorpusError(f"the corpus {escape_path(folder)} is a file; name the folder that holds it")


def find_files(root: str, *, follow_outside_links: bool) -> Files:
    """One listing of everything under ``root``.

    Raises:
        CorpusError: it does not exist, is a file, or cannot be listed.
    """
    folder = local_root(root)
    files = _Walk(folder, follow_outside_links).run() if folder is not None else _list_remote(root)
    files.found = dict(sorted(files.found.items()))
    return files


def fingerprint(root: str, source: Source) -> str:
    """What a file's content is known by: blake2b over its bytes, read in blocks, or an object store's own
    tag.

    Raises:
        MediaError: the file cannot be read.
    """
    from miar.media.errors import MediaError, MediaProblem
    from miar.media.opening import open_regular

    if source.etag is not None:
        return f"etag:{source.etag}:{source.size}"
    digest = hashlib.blake2b(digest_size=16)
    opened = open_source(root, source.path)
    try:
        with open_regular(os.fspath(opened)) if isinstance(opened, (str, os.PathLike)) else opened as file:
            while block := file.read(_BLOCK_BYTES):
                digest.update(block)
    except OSError as error:
        raise MediaError(MediaProblem.UNREADABLE, f"{source.path} cannot be read: {error}") from error
    return f"blake2b:{digest.hexdigest()}"


def open_source(root: str, path: str) -> MediaFile:
    """What :func:`miar.media.decode.decode_spans` and ``open`` take: a local path, or an open binary file.

    Raises:
        MediaError: the object store does not give the file.
    """
    from miar.media.errors import MediaError, MediaProblem

    name = unescape_path(path)
    folder = local_root(root)
    if folder is not None:
        return os.path.join(folder, *name.split("/"))
    filesystem, base = _filesystem(root)
    try:
        return cast(BinaryIO, filesystem.open(posixpath.join(base, name), "rb"))
    except FileNotFoundError as error:
        raise MediaError(MediaProblem.VANISHED, f"{path} is no longer there") from error
    except PermissionError as error:
        raise MediaError(MediaProblem.PERMISSION_DENIED, f"no permission to read {path}") from error
    except OSError as error:
        raise MediaError(MediaProblem.UNREADABLE, f"{path} cannot be read: {error}") from error


def read_bytes(root: str, source: Source) -> bytes:
    """A small file (table, transcript) as a whole.

    Raises:
        OSError: it cannot be read.
    """
    opened = open_source(root, source.path)
    with open(opened, "rb") if isinstance(opened, (str, os.PathLike)) else opened as file:
        return file.read()


_OBJECT_STORES = ("s3", "s3a", "gs", "gcs", "az", "abfs", "abfss")


def _filesystem(root: str) -> tuple["AbstractFileSystem", str]:
    import fsspec
    from obstore.fsspec import register

    # The client that feature stores use too: one set of credentials and endpoints for both.
    register(_OBJECT_STORES)
    try:
        return fsspec.core.url_to_fs(root)
    except (ValueError, ImportError) as error:
        raise CorpusError(f"cannot open {root}: {error}") from error


class _Walk:
    """A local folder, without recursion, each real folder once, links looked at twice."""

    def __init__(self, root: str, follow_outside_links: bool) -> None:
        self._root = root
        self._real_root = os.path.realpath(root)
        self._follow_outside = follow_outside_links
        self._seen: set[tuple[int, int]] = set()
        self._files = Files()

    def run(self) -> Files:
        check_folder(self._root)
        try:
            os.scandir(self._root).close()
        except OSError as error:
            raise CorpusError(f"cannot list the corpus {escape_path(self._root)}: {error.strerror}") from error
        folders, linked = [""], []
        while folders or linked:  # real folders first, so that a file is known by its own path, not by a link's
            folder = folders.pop() if folders else linked.pop(0)
            folders_here, linked_here = self._list(folder)
            folders += folders_here
            linked += linked_here
        return self._files

    def _list(self, folder: str) -> tuple[list[str], list[str]]:
        real, linked = [], []
        full = os.path.join(self._root, folder) if folder else self._root
        try:
            status = os.stat(full)
            if (status.st_dev, status.st_ino) in self._seen:
                self._report(folder, "link_loop", "a link to a folder that is listed already; not followed")
                return [], []
            self._seen.add((status.st_dev, status.st_ino))
            entries = sorted(os.scandir(full), key=lambda entry: entry.name)
        except OSError as error:
            self._report(folder, "unreadable_folder", f"the folder cannot be listed: {error.strerror}")
            return [], []
        for entry in entries:
            if entry.name.startswith("."):
                continue
            path = f"{folder}/{entry.name}" if folder else entry.name
            if self._take(entry, path):
                (linked if entry.is_symlink() else real).append(path)
        return real, linked

    def _take(self, entry: os.DirEntry[str], path: str) -> bool:
        """Keep a file, report what cannot be one; True for a folder to look into."""
        if entry.is_symlink() and not self._is_allowed_link(entry, path):
            return False
        try:
            status = entry.stat()
        except OSError as error:
            self._report(path, "unreadable_file", f"cannot be looked at: {error.strerror}")
            return False
        if stat.S_ISDIR(status.st_mode):
            if is_media(path):
                self._report(path, "not_a_file", "a folder with the name of a media file")
            return True
        if stat.S_ISREG(status.st_mode):
            known = escape_path(path)
            self._files.found[path] = Source(known, status.st_size, status.st_mtime_ns, is_media(path))
        elif is_media(path):
            self._report(path, "not_a_file", "neither a file nor a folder (a pipe, socket or device)")
        return False

    def _is_allowed_link(self, entry: os.DirEntry[str], path: str) -> bool:
        try:
            target = os.path.realpath(entry.path, strict=True)
        except OSError:
            self._report(path, "dangling_link", "a link that leads nowhere")
            return False
        if self._follow_outside or os.path.commonpath([target, self._real_root]) == self._real_root:
            return True
        message = "a link that leaves the corpus root; set follow_outside_links to allow it"
        self._report(path, "outside_link", message)
        return False

    def _report(self, path: str, error: str, message: str) -> None:
        self._files.problems.append(CorpusProblem(escape_path(path), error, message))


def _list_remote(root: str) -> Files:
    from obstore.exceptions import BaseError

    filesystem, base = _filesystem(root)
    try:
        if not filesystem.exists(base):
            raise CorpusError(f"the corpus {root} does not exist")
        if filesystem.isfile(base):
            raise CorpusError(f"the corpus {root} is a file; name the folder that holds it")
        details = filesystem.find(base, detail=True)
    except (OSError, BaseError) as error:
        # A client's errors go on for pages of its own insides.
        raise CorpusError(f"cannot list the corpus {root}: {str(error).splitlines()[0][:300]}") from error
    files = Files()
    for full, info in dict(details).items():
        path = posixpath.relpath(full.strip("/"), base.strip("/") or ".")
        if not any(part.startswith(".") for part in path.split("/")):
            files.found[path] = _remote_source(path, info)
    return files


def _remote_source(path: str, info: dict[str, Any]) -> Source:
    etag = next((str(info[key]).strip('"') for key in _ETAG_KEYS if info.get(key)), None)
    times: Iterator[Any] = (info[key] for key in _MTIME_KEYS if info.get(key))
    return Source(escape_path(path), int(info.get("size") or 0), _mtime_ns(next(times, None)), is_media(path), etag)


def _mtime_ns(value: Any) -> int:
    if isinstance(value, datetime):
        return round(value.timestamp() * 1_000_000) * 1000
    return round(value * 1e9) if isinstance(value, (int, float)) else 0
