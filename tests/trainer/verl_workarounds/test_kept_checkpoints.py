"""The checkpoint folder of a run that was killed: the note of the latest one, and how many are kept over all starts.

Derivation: verl's `find_latest_ckpt_path` turns the note into a number; ``data.pt`` is written after the actor and
before the note; verl removes the ``actor`` folder of old checkpoints. Not exercised: disks that lose whole files.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from verl.utils.checkpoint.checkpoint_manager import find_latest_ckpt_path

from verl_ispo.trainer.verl_workarounds.checkpoint_notes import TRACKER_FILE, remove_older, repair_tracker


def checkpoint(folder: Path, step: int, *, whole: bool = True) -> Path:
    """A checkpoint, or what is left when a run is killed while writing it."""
    path = folder / f"global_step_{step}"
    (path / "actor").mkdir(parents=True)
    (path / "data.pt").write_bytes(b"state" if whole else b"")
    return path


def test_a_note_that_a_crash_left_empty_names_the_newest_whole_checkpoint(tmp_path: Path) -> None:
    checkpoint(tmp_path, 9)
    newest = checkpoint(tmp_path, 10)
    checkpoint(tmp_path, 11, whole=False)
    (tmp_path / TRACKER_FILE).write_text("")
    with pytest.raises(ValueError, match="invalid literal"):
        find_latest_ckpt_path(str(tmp_path))

    assert repair_tracker(tmp_path) == 10
    assert find_latest_ckpt_path(str(tmp_path)) == str(newest)


def test_a_note_that_verl_can_read_is_left_alone(tmp_path: Path) -> None:
    assert repair_tracker(tmp_path) is None
    assert not (tmp_path / TRACKER_FILE).exists()
    checkpoint(tmp_path, 9)
    checkpoint(tmp_path, 10)
    (tmp_path / TRACKER_FILE).write_text("9")
    assert repair_tracker(tmp_path) is None
    assert (tmp_path / TRACKER_FILE).read_text() == "9"


def test_without_a_whole_checkpoint_the_run_starts_from_the_beginning(tmp_path: Path) -> None:
    checkpoint(tmp_path, 1, whole=False)
    (tmp_path / TRACKER_FILE).write_text("")
    assert repair_tracker(tmp_path) == 0
    assert find_latest_ckpt_path(str(tmp_path)) is None


def test_as_many_are_kept_over_several_starts_as_in_one(tmp_path: Path) -> None:
    for step in (50, 100, 150, 1000):
        checkpoint(tmp_path, step)
    remove_older(tmp_path, step=150, keep=2)
    left = sorted(path.parent.name for path in tmp_path.glob("*/actor"))
    assert left == ["global_step_100", "global_step_1000", "global_step_150"], "1000 is of a run that was set back"
    assert (tmp_path / "global_step_50/data.pt").exists()
    remove_older(tmp_path, step=150, keep=5)
    assert len(list(tmp_path.glob("*/actor"))) == 3
