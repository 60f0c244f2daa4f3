"""A resumed run is one curve in tensorboard.

A start that resumes at step 51 logs the steps after 50 again. Tensorboard draws both, as a line that runs back, unless
an event says that the run was started again there; torch's writer has an option for it, which verl does not pass on
(https://github.com/tensorflow/tensorboard/issues/3732 is of that kind).
"""

from __future__ import annotations

from verl.trainer.ppo.v1.trainer_base import PPOTrainer


def mark_restart(trainer: PPOTrainer) -> None:
    """Let tensorboard forget what earlier starts logged from the present step on; call it before the first step."""
    adapter = trainer.logger.logger.get("tensorboard")
    if adapter is None or trainer.global_steps <= 1:
        return
    from tensorboard.compat.proto.event_pb2 import Event, SessionLog

    # the two events of torch's SummaryWriter(purge_step=...)
    events = adapter.writer.file_writer
    events.add_event(Event(file_version="brain.Event:2"), step=trainer.global_steps)
    events.add_event(Event(session_log=SessionLog(status=SessionLog.START)), step=trainer.global_steps)
