"""What a run has spent on the steps behind a checkpoint, and a budget for it.

The file is in the checkpoint, so it counts over starts: a start that resumes goes on from what its checkpoint cost.
Steps that a kill took and that were trained again count once, as they do in the run's weights.

Counted are all tokens of rollouts, prompts and responses, with those that a method threw away (DAPO's groups of equal
outcomes, stale rollouts, more than was asked for); and the seconds of rollouts, forwards, updates and the copying of
weights to the rollout engine, times the GPUs (on a CPU, the workers). Not counted: start-up, validation, checkpoints.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from verl_ispo.atomic_file import write_text
from verl_ispo.runs.checkpoint_folder import noted_step

SPENT_FILE = "spent.json"
"""In a checkpoint's folder, next to verl's files."""


@dataclass(frozen=True)
class Spent:
    """What the steps of a run have cost.

    Attributes:
        tokens (`int`): of all rollouts.
        gpu_seconds (`float`): seconds times GPUs.
    """

    tokens: int = 0
    gpu_seconds: float = 0.0

    def __str__(self) -> str:
        return f"{self.tokens:,} tokens, {self.gpu_seconds / 3600:.4g} GPU hours"


@dataclass(frozen=True)
class Budget:
    """When a run ends besides its steps: at the first step at which one of these is spent.

    Attributes:
        tokens (`float`, *optional*), gpu_hours (`float`, *optional*): see `Spent`; `None` for no limit.
    """

    tokens: float | None = None
    gpu_hours: float | None = None

    @classmethod
    def of_section(cls, settings: Mapping[str, Any] | None) -> Budget:
        """From Hydra's ``trainer.v1.ispo``."""
        given = settings or {}
        return cls(given.get("budget_tokens"), given.get("budget_gpu_hours"))

    def is_spent(self, spent: Spent) -> bool:
        """Whether nothing is left; never without a limit."""
        hours = spent.gpu_seconds / 3600
        return spent.tokens >= (self.tokens or math.inf) or hours >= (self.gpu_hours or math.inf)

    def __str__(self) -> str:
        parts = [f"{self.tokens:,.0f} tokens"] if self.tokens else []
        parts += [f"{self.gpu_hours:g} GPU hours"] if self.gpu_hours else []
        return " or ".join(parts) or "no budget"


def write_spent(checkpoint: Path, spent: Spent) -> None:
    """Write it into a checkpoint's folder, which is made where it is missing."""
    write_text(checkpoint / SPENT_FILE, json.dumps(asdict(spent)) + "\n")


def read_spent(checkpoint: Path) -> Spent | None:
    """Read it from a checkpoint's folder; `None` where it is not there, as in a checkpoint of an earlier version."""
    file = checkpoint / SPENT_FILE
    return Spent(**json.loads(file.read_text(encoding="utf-8"))) if file.exists() else None


def latest_spent(checkpoints: Path) -> Spent | None:
    """What the checkpoint cost that a run resumes from; `None` where there is none."""
    step = noted_step(checkpoints)
    return None if step is None else read_spent(checkpoints / f"global_step_{step}")
