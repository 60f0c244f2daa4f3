"""How long the data last: verl ends a training at whichever comes first, its steps or its epochs, and says nothing."""

from __future__ import annotations

import math
from collections.abc import Iterator

from omegaconf import DictConfig

from verl_ispo.preflight.composition import setting
from verl_ispo.preflight.data_files import training_rows
from verl_ispo.preflight.finding import OK, PROBLEM, Finding

STEPS, EPOCHS, BATCH = "trainer.total_training_steps", "trainer.total_epochs", "data.train_batch_size"


def data_end(config: DictConfig, kept: int | None = None) -> tuple[int, str] | None:
    """The step after which the data end before the steps do, and why; `None` if they last, or it is not known.

    Args:
        config (`DictConfig`): the composed config.
        kept (`int`, *optional*): training rows that the length filter leaves; all of them where it is not given.
    """
    steps, rows = setting(config, STEPS), training_rows(config)
    if steps is None or rows is None:
        return None
    batch, epochs = setting(config, BATCH), setting(config, EPOCHS)
    left = rows if kept is None else min(rows, kept)
    per_epoch = left // batch
    if per_epoch * epochs >= steps or per_epoch == 0:  # an epoch without a step is a fault of its own
        return None
    which = f"{left} rows" if left == rows else f"{left} of {rows} rows, those within data.max_prompt_length,"
    return per_epoch * epochs, (
        f"{EPOCHS}={epochs} epochs of {which} are {per_epoch * epochs} steps of {BATCH}={batch}, fewer than "
        f"{STEPS}={steps}; set {EPOCHS}={math.ceil(steps / per_epoch)}"
    )


def check_training_length(config: DictConfig, kept: int | None) -> Iterator[Finding]:
    """Epochs against steps.

    Args:
        config (`DictConfig`): the composed config.
        kept (`int`, *optional*): as for `data_end`.
    """
    end = data_end(config, kept)
    if end is not None:
        last, why = end
        yield Finding(PROBLEM, EPOCHS, f"the training would end after step {last}, without an error: {why}")
        return
    rows, steps, batch = training_rows(config), setting(config, STEPS), setting(config, BATCH)
    if rows is None or rows < batch:
        return
    left = rows if kept is None else min(rows, kept)
    per_epoch, epochs = left // batch, setting(config, EPOCHS)
    if per_epoch == 0:
        return
    if steps is None:
        yield Finding(OK, EPOCHS, f"{epochs} epochs of {per_epoch} steps ({left} rows): {epochs * per_epoch} steps")
    else:
        yield Finding(OK, STEPS, f"{steps} steps, {steps / per_epoch:.1f} epochs of {left} rows")
