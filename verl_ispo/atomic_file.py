"""Files that appear under their name only when they are complete."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def atomic_file(path: Path, mode: int = 0o644) -> Iterator[BinaryIO]:
    """Open a temporary file beside ``path``; it gets the name, on the disk, when the block ends without an error.

    Args:
        path (`Path`): its folder is made where it is missing.
        mode (`int`, *optional*, defaults to `0o644`): its permissions; nobody else can read it before it has its name.

    Raises:
        OSError: it cannot be written; what stood there before still does. The error names ``path``, which that of a
            full disk does not do by itself.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, mode)  # mkstemp's 0600 would hide the file from other users of a shared folder
        os.replace(temporary, path)
        sync_folder(path.parent)
    except BaseException as error:
        Path(temporary).unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename is None:
            error.filename = str(path)
        raise


def write_text(path: Path, text: str | Iterable[str], mode: int = 0o644) -> None:
    """Write UTF-8 text atomically; an iterable's parts are written one after the other, never all in memory."""
    with atomic_file(path, mode) as file:
        for part in [text] if isinstance(text, str) else text:
            file.write(part.encode("utf-8"))


def sync_folder(folder: Path) -> None:
    """Flush a folder's entries, so that a rename or a new file survives a crash."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
