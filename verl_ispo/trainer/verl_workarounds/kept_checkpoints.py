"""How many checkpoints are kept over all starts of a run.

verl counts the checkpoints to keep from zero at each start, so every restart would leave some
(https://github.com/verl-project/verl/issues/7395, of its SFT trainer).
"""

from __future__ import annotations

import shutil
from pathlib import Path

from verl_ispo.runs.checkpoint_folder import checkpoints


def remove_older(folder: Path, step: int, keep: int) -> None:
    """Remove weights and optimizer of all but the newest ``keep`` checkpoints up to ``step``, as verl does of its own.

    Args:
        folder (`Path`): ``trainer.default_local_dir``.
        step (`int`): the step that was saved last; later ones, of a run that was set back by hand, are kept.
        keep (`int`): ``trainer.max_actor_ckpt_to_keep``.
    """
    found = checkpoints(folder)
    until = sorted(saved for saved in found if saved <= step)
    for old in until[: max(0, len(until) - keep)]:
        shutil.rmtree(found[old] / "actor", ignore_errors=True)
