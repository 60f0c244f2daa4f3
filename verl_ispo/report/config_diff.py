"""Which settings differ between runs, from their config snapshots."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from verl_ispo.report.loaded_run import Run

# A run's folder and name differ between any two runs and say nothing about the method.
_PLACE = re.compile(r"(_dir|_path|_files|experiment_name|\.name_or_path|log_file)$|^hydra\.")
_SECRET = re.compile(r"token$|secret|password|api_?key|credential", re.IGNORECASE)
ABSENT = "(not set)"


@dataclass(frozen=True)
class Difference:
    """A key and its value in each run that has a config, in order."""

    key: str
    values: list[str]
    is_place: bool


def config_differences(runs: Sequence[Run]) -> list[Difference]:
    """Keys whose values are not the same in all runs that have a config; paths and names last."""
    keys = sorted({key for run in runs for key in run.config})
    differing = []
    for key in keys:
        values = [_in_words(key, run.config[key]) if key in run.config else ABSENT for run in runs]
        if len(set(values)) > 1:
            differing.append(Difference(key, values, bool(_PLACE.search(key))))
    return sorted(differing, key=lambda difference: (difference.is_place, difference.key))


def _in_words(key: str, value: Any) -> str:
    if isinstance(value, str) and value and _SECRET.search(key):
        return "(masked)"
    return value if isinstance(value, str) else json.dumps(value, default=str)
