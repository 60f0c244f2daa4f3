"""The folder of a run's checkpoints: what verl does not do for a run that was killed and started again.

- `repair_tracker`: verl empties ``latest_checkpointed_iteration.txt`` and then writes the step into it. A machine that
  dies in between, or before the text is on the disk, leaves an empty file, in which no later start finds a number.
- `remove_older`: verl counts the checkpoints to keep from zero at each start, so every restart would leave some
  (https://github.com/verl-project/verl/issues/7395, of its SFT trainer).
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from verl_ispo.atomic_file import write_text

TRACKER_FILE = "latest_checkpointed_iteration.txt"
# The last file that verl writes of a checkpoint before it names the checkpoint as the latest.
LAST_FILE = "data.pt"


def repair_tracker(folder: Path) -> int | None:
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
        step
        for step, path in _steps(folder).items()
        if (path / LAST_FILE).is_file() and (path / LAST_FILE).stat().st_size > 0
    ]
    if not complete:
        tracker.unlink()
        return 0
    write_text(tracker, str(max(complete)))
    return max(complete)


def remove_older(folder: Path, step: int, keep: int) -> None:
    """Remove weights and optimizer of all but the newest ``keep`` checkpoints up to ``step``, as verl does of its own.

    Args:
        folder (`Path`): ``trainer.default_local_dir``.
        step (`int`): the step that was saved last; later ones, of a run that was set back by hand, are kept.
        keep (`int`): ``trainer.max_actor_ckpt_to_keep``.
    """
    until = sorted(found for found in _steps(folder) if found <= step)
    for old in until[: max(0, len(until) - keep)]:
        shutil.rmtree(_steps(folder)[old] / "actor", ignore_errors=True)


def _steps(folder: Path) -> dict[int, Path]:
    """Checkpoints that have an actor, complete or not, by step."""
    matches = ((re.fullmatch(r"global_step_(\d+)", path.name), path) for path in folder.glob("global_step_*"))
    return {int(match[1]): path for match, path in matches if match and (path / "actor").is_dir()}
