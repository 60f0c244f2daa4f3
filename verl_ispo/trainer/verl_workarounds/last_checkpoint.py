"""The last step that was trained is saved, whatever ends the training.

verl saves the step that it knows beforehand to be the last, ``trainer.total_training_steps``. Where the data end first
(``trainer.total_epochs``), the steps since the last multiple of ``save_freq`` are lost
(https://github.com/verl-project/verl/pull/7516); and it knows no way to be asked to end.
"""

from __future__ import annotations

from pathlib import Path

from verl.trainer.ppo.v1.trainer_base import PPOTrainer

from verl_ispo.runs.checkpoint_folder import forget_stop, is_asked_to_stop


def end_with_the_data(trainer: PPOTrainer) -> None:
    """Let verl's last step be the one after which its loop ends, for whichever reason; the schedules stay as set."""
    of_data = trainer.steps_per_epoch * int(trainer.config.trainer.total_epochs)
    trainer.total_training_steps = min(trainer.total_training_steps, of_data)


def saves_to_end(trainer: PPOTrainer) -> bool:
    """Let verl's loop end after the present step if that was asked for (`ask_to_stop`).

    Returns:
        `bool`: whether this step is to be saved here, because verl's loop would not.
    """
    folder = Path(trainer.config.trainer.default_local_dir)
    if not is_asked_to_stop(folder):
        return False
    forget_stop(folder)
    is_last = trainer.global_steps >= trainer.total_training_steps
    trainer.total_training_steps = min(trainer.total_training_steps, trainer.global_steps)
    save_freq = trainer.config.trainer.save_freq
    return save_freq > 0 and not is_last and trainer.global_steps % save_freq != 0
