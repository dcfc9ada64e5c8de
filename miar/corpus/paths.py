"""Paths within a corpus: how they are written down, and which are refused.

A path is kept relative to the corpus root, with forward slashes, and has to survive Parquet, which knows
UTF-8 only. A file name that is not UTF-8 is therefore escaped, reversibly: each byte that does not decode is
written ``%XX`` (upper-case hex, ``%80`` to ``%FF``), and a ``%`` that would read like such an escape, or like
``%25``, becomes ``%25``. Every other name stands as it is, with its spaces, quotes, newlines and emoji.
"""

import posixpath
import re

_UNDECODED = re.compile("[\udc80-\udcff]")
_AMBIGUOUS = re.compile("%(?=25|[89A-F][0-9A-F])")
_ESCAPE = re.compile("%(25|[89A-F][0-9A-F])")
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


def escape_path(path: str) -> str:
    """A path as the file system gives it (surrogate escapes) -> as it stands in tables."""
    if path.isascii() and "%" not in path:
        return path
    return _UNDECODED.sub(lambda byte: f"%{ord(byte[0]) - 0xDC00:02X}", _AMBIGUOUS.sub("%25", path))


def unescape_path(path: str) -> str:
    """The inverse of :func:`escape_path`."""

    def original(escape: re.Match[str]) -> str:
        return "%" if escape[1] == "25" else chr(0xDC00 + int(escape[1], 16))

    return _ESCAPE.sub(original, path)


def stem_of(path: str) -> str:
    """A path without its last extension."""
    return posixpath.splitext(path)[0]


def extension_of(path: str) -> str:
    """The last extension in lower case, without its dot."""
    return posixpath.splitext(path)[1][1:].lower()


def is_url(path: str) -> bool:
    return _URL.match(path) is not None


def inside_root(path: str) -> str | None:
    """A path that a table names, normalised; ``None`` where it is absolute or leads out of the root."""
    normal = posixpath.normpath(path)
    if not path or normal in (".", "..") or normal.startswith(("/", "../")) or re.match(r"[A-Za-z]:\\", path):
        return None
    return normal
