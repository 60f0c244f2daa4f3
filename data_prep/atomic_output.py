"""Files that appear whole or not at all, and one preparation of an output at a time.

All files of one output are written under temporary names in the output folder, flushed to the disk, and renamed
together at the end, the parquet last. A killed run leaves temporary files behind; the next run for that output
holds the lock, so no other process is writing them, and removes them.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from verl_ispo.process_lock import take_lock
from verl_ispo.user_error import UserError

_REASONS = {
    errno.ENOSPC: "no space left on the device; free some, or choose another --local_save_dir",
    errno.EDQUOT: "the disk quota is used up; free some, or choose another --local_save_dir",
    errno.EACCES: "no permission to write; choose another --local_save_dir",
    errno.EPERM: "no permission to write; choose another --local_save_dir",
    errno.EROFS: "the file system is read-only; choose another --local_save_dir",
}


@dataclass
class OutputFiles:
    """The files of one output, while they are being written.

    Attributes:
        folder (`Path`): where they will be.
        name (`str`): the start of their names.
    """

    folder: Path
    name: str
    _open: dict[str, IO[bytes]] = field(default_factory=dict)

    def create(self, ending: str) -> IO[bytes]:
        """A new file that will be called ``NAME.ENDING`` once everything is complete."""
        if self.final(ending).is_dir():
            raise UserError(f"{self.final(ending)}: a folder is where the file should be; move it away")
        file = self._temporary(ending).open("wb")
        self._open[ending] = file
        return file

    def write_text(self, ending: str, text: str) -> None:
        """Writes a whole small file."""
        self.create(ending).write(text.encode("utf-8"))

    def scratch(self, ending: str) -> Path:
        """A path for a file that is needed only while preparing; it never gets a final name."""
        return self._temporary(f"scratch.{ending}")

    def final(self, ending: str) -> Path:
        """The path that the file will have."""
        return self.folder / f"{self.name}.{ending}"

    def temporary(self, ending: str) -> Path:
        """The path that a file has before it is published."""
        return self._temporary(ending)

    def publish(self) -> None:
        """Flushes all files to the disk and gives them their names, in the order of creation with the parquet last."""
        for file in self._open.values():
            file.flush()
            os.fsync(file.fileno())
            file.close()
        for ending in sorted(self._open, key=lambda ending: ending == "parquet"):
            os.replace(self._temporary(ending), self.final(ending))
        self._open.clear()
        descriptor = os.open(self.folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def remove_temporaries(self) -> None:
        """Closes and deletes all files without a final name, of this run and of killed runs."""
        for file in self._open.values():
            with contextlib.suppress(OSError):
                file.close()
        self._open.clear()
        for path in self.folder.glob(f".{self.name}.*.tmp"):
            path.unlink(missing_ok=True)

    def _temporary(self, ending: str) -> Path:
        return self.folder / f".{self.name}.{ending}.tmp"


@contextlib.contextmanager
def exclusive_output(folder: Path, name: str) -> Iterator[OutputFiles]:
    """The files of the output `name` in `folder`, created if needed; no other process can prepare it meanwhile.

    Files that were not published when the block ends are deleted.

    Raises:
        UserError: if the folder cannot be used, another preparation holds the lock, or the disk is full.
    """
    folder = folder.expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = take_lock(
            folder / f".{name}.lock", folder / f"{name}.parquet", "preparing it", "choose another --local_save_dir"
        )
    except (FileExistsError, NotADirectoryError) as error:
        raise UserError(f"--local_save_dir {folder}: a file is where the folder should be; move it away") from error
    except OSError as error:
        raise _output_error(folder, error) from error
    output = OutputFiles(folder, name)
    with lock:
        try:
            output.remove_temporaries()
            yield output
        except OSError as error:
            raise _output_error(folder, error) from error
        finally:
            output.remove_temporaries()


def _output_error(folder: Path, error: OSError) -> UserError:
    reason = _REASONS.get(error.errno or 0, str(error))
    return UserError(f"--local_save_dir {folder}: {reason}. Nothing was changed there")
