"""What a checkpoint's training took, from the metrics beside it, as an evaluation records it in its manifest.

verl logs tokens, seconds and tokens per second and device of each step, so seconds times devices of a step are
``perf/total_num_tokens / perf/throughput``. What verl counts into a step's time counts here; starts,
and steps that were trained again after a kill, do not.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from verl_ispo.runs.checkpoint_folder import LATEST_STEP_FILE
from verl_ispo.runs.metric_log import ATTEMPT_PATTERN, read_metric_log
from verl_ispo.user_error import UserError

TOKENS, SECONDS, THROUGHPUT = "perf/total_num_tokens", "perf/time_per_step", "perf/throughput"
SETTINGS_FILE = "trained_settings.json"
"""Where ``verl-ispo train`` keeps the run's settings (`verl_ispo.launch.run_config`)."""


def training_cost(model: str, step: int | None) -> dict[str, Any] | None:
    """Cost of the training up to a checkpoint.

    Args:
        model (`str`): folder of a run's checkpoints, one of its ``global_step_N``, or that one's ``actor``.
        step (`int`, *optional*): of the checkpoint; `None` where the model is not one.

    Returns:
        `dict`: ``steps`` up to the checkpoint, ``recorded_steps`` of them with metrics, their ``seconds``,
        ``device_seconds`` (times GPUs, or times worker processes on a CPU), ``tokens`` of prompts and responses, and
        ``device`` (``cuda``, ``cpu``; `None` where the run does not say). `None` if the run has no metrics.
    """
    run = None if step is None else _run_folder(Path(model).expanduser())
    if run is None:
        return None
    try:
        log = read_metric_log(run)
    except UserError:
        return None
    rows = [
        (metrics[SECONDS], metrics[TOKENS], metrics[TOKENS] / metrics[THROUGHPUT])
        for number, metrics in log.steps.items()
        if number <= step and all(metrics.get(name, 0.0) > 0 for name in (TOKENS, SECONDS, THROUGHPUT))
    ]
    rows = [row for row in rows if all(map(math.isfinite, row))]
    if not rows:
        return None
    seconds, tokens, device_seconds = (sum(values) for values in zip(*rows, strict=True))
    return {
        "steps": step,
        "recorded_steps": len(rows),
        "seconds": round(seconds, 3),
        "device_seconds": round(device_seconds, 3),
        "tokens": int(tokens),
        "device": _device(run),
    }


def _run_folder(model: Path) -> Path | None:
    """The folder with the metrics: that of the checkpoints, or the one above it."""
    model = model.resolve()
    nearby = (model, *model.parents[:2])  # of global_step_N/actor too
    checkpoints = next((path for path in nearby if (path / LATEST_STEP_FILE).is_file()), None)
    if checkpoints is None:
        return None
    return next((path for path in (checkpoints, checkpoints.parent) if any(path.glob(ATTEMPT_PATTERN))), None)


def _device(run: Path) -> str | None:
    try:
        found = json.loads((run / SETTINGS_FILE).read_text(encoding="utf-8"))["trainer.device"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return found if isinstance(found, str) else None
