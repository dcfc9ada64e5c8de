"""MIAR's own cache folder, and checksums of large files remembered in it."""

import hashlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any


def cache_dir() -> Path:
    """``$XDG_CACHE_HOME/miar``, by default ``~/.cache/miar``: downloads and small facts worth remembering."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "miar"


def sha256_of(path: Path) -> str:
    """The file's sha256 as hex digits, remembered by (path, size, modification time)."""
    real = path.resolve()
    state = real.stat()
    key = f"{real}\n{state.st_size}\n{state.st_mtime_ns}"
    name = f"sha256/{hashlib.sha256(key.encode('utf-8', 'surrogateescape')).hexdigest()[:32]}.json"
    known = recall(name)
    if isinstance(known, str):
        return known
    with real.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    remember(name, digest)
    return digest


def recall(name: str) -> Any | None:
    """What :func:`remember` kept under ``name``; ``None`` where there is nothing readable."""
    try:
        return json.loads((cache_dir() / name).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def remember(name: str, value: Any) -> None:
    """Keep a JSON value under ``name``, atomically. A cache that cannot be written is no error, only slower."""
    target = cache_dir() / name
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, part = tempfile.mkstemp(dir=target.parent, prefix=".part.")
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            json.dump(value, stream)
        Path(part).replace(target)
    except OSError:
        return
