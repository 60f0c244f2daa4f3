"""The file that names the latest checkpoint, after a crash in the moment of its writing.

verl empties ``latest_checkpointed_iteration.txt`` and then writes the step into it. A machine that dies in between, or
before the disk has the text, leaves an empty file, and every later start fails to read a number from it.
"""

from __future__ import annotations

import re
from pathlib import Path

from verl_ispo.atomic_file import write_text

TRACKER_FILE = "latest_checkpointed_iteration.txt"
# The last file of a checkpoint that verl writes before it names it.
LAST_FILE = "data.pt"


def mend_tracker(folder: Path) -> int | None:
    """Write the newest complete step into a tracker that holds no number.

    Args:
        folder (`Path`): ``trainer.default_local_dir``.

    Returns:
        `int` or `None`: the step that was written; `None` where nothing had to be done.
    """
    tracker = folder / TRACKER_FILE
    if not tracker.exists() or tracker.read_text(errors="replace").strip().isdigit():
        return None
    complete = [
        int(match[1])
        for path in folder.glob("global_step_*")
        if (match := re.fullmatch(r"global_step_(\d+)", path.name))
        and (path / "actor").is_dir()
        and (path / LAST_FILE).is_file()
        and (path / LAST_FILE).stat().st_size > 0
    ]
    if not complete:
        tracker.unlink()
        return 0
    write_text(tracker, str(max(complete)))
    return max(complete)
