"""Where verl's loggers write, and what makes the starts of a run one run there: environment variables that they read.

======================  ==========================================================================================
tensorboard             OUT/tensorboard; a later start goes on in the same curves
wandb                   OUT/wandb; one run over all starts. W&B takes each step once, so the steps that a later start
                        repeats keep their first values
swanlab                 OUT/swanlab; one run over all starts
mlflow                  OUT/mlflow.db; a run for each start, of one name: it resumes only a run that exists already
file                    OUT/metrics.N.jsonl for each start (`verl_ispo.launch.run_folder`)
trackio, clearml        places of their own; no run of trackio is resumed, and of clearml the last one of that name
======================  ==========================================================================================

A variable that the user has set stays as it is.
"""

from __future__ import annotations

import secrets
import string
from collections.abc import Collection, Mapping
from pathlib import Path

from verl_ispo.atomic_file import write_text

RUN_ID_FILE = "run_id"
RUN_ID_CHARS = 21
"""SwanLab's length of an id; W&B takes any."""


def logger_variables(folder: Path, loggers: Collection[str], environment: Mapping[str, str]) -> dict[str, str]:
    """The variables to add for the loggers of a run.

    Args:
        folder (`Path`): of the run.
        loggers (`Collection[str]`): verl's names, ``trainer.logger``.
        environment (`Mapping[str, str]`): the training's, whose own values win.
    """
    wanted: dict[str, str] = {}
    if "tensorboard" in loggers:
        wanted["TENSORBOARD_DIR"] = str(folder / "tensorboard")
    if "wandb" in loggers:
        wanted |= {"WANDB_DIR": str(folder), "WANDB_RUN_ID": run_id(folder), "WANDB_RESUME": "allow"}
    if "swanlab" in loggers:
        wanted |= {
            "SWANLAB_LOG_DIR": str(folder / "swanlab"),
            "SWANLAB_RUN_ID": run_id(folder),
            "SWANLAB_RESUME": "allow",
        }
    if "mlflow" in loggers:
        wanted["MLFLOW_TRACKING_URI"] = f"sqlite:///{folder / 'mlflow.db'}"
    return {name: value for name, value in wanted.items() if not environment.get(name)}


def run_id(folder: Path) -> str:
    """The run's id at its loggers, made at its first start and kept in its folder."""
    file = folder / RUN_ID_FILE
    kept = file.read_text(encoding="utf-8").strip() if file.exists() else ""
    if not kept:
        kept = "".join(secrets.choice(string.ascii_lowercase + string.digits) for _ in range(RUN_ID_CHARS))
        write_text(file, f"{kept}\n")
    return kept
