"""Write a file or a folder so that it is either whole or as it was before."""

import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from miar.errors import UserError


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """An empty file beside ``path`` that takes its place when the body succeeds; its folder is made if need be.

    Raises:
        UserError: ``path`` is a folder or cannot be written, or the disk is full.
    """
    if path.is_dir():
        raise UserError(f"{path} is a folder; give the name of a file")
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.touch()
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from error
    try:
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        # The body also reads: a file that it misses is no fault of `path`.
        if error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
            raise UserError(f"cannot write {path}: {error.strerror}; make room and try again") from error
        raise
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """An empty folder beside ``path`` that takes its place when the body succeeds.

    Raises:
        UserError: ``path`` is there already and not an empty folder, cannot be written, or the disk is full.
    """
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise UserError(f"{path} is there already; name a new or an empty folder")
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        temporary.mkdir(parents=True)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from error
    try:
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
            raise UserError(f"cannot write {path}: {error.strerror}; make room and try again") from error
        raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
