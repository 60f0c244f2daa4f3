"""How many checkpoints are kept over all starts: verl removes the ``actor`` folder of old checkpoints, and so do we.

Not exercised: disks that lose whole files.
"""

from __future__ import annotations

from pathlib import Path

from verl_ispo.trainer.verl_workarounds.kept_checkpoints import remove_older


def checkpoint(folder: Path, step: int) -> None:
    path = folder / f"global_step_{step}"
    (path / "actor").mkdir(parents=True)
    (path / "data.pt").write_bytes(b"state")


def test_as_many_are_kept_over_several_starts_as_in_one(tmp_path: Path) -> None:
    for step in (50, 100, 150, 1000):
        checkpoint(tmp_path, step)
    remove_older(tmp_path, step=150, keep=2)
    left = sorted(path.parent.name for path in tmp_path.glob("*/actor"))
    assert left == ["global_step_100", "global_step_1000", "global_step_150"], "1000 is of a run that was set back"
    assert (tmp_path / "global_step_50/data.pt").exists()
    remove_older(tmp_path, step=150, keep=5)
    assert len(list(tmp_path.glob("*/actor"))) == 3
