"""What a run trains, as its whole composed config says: kept in its folder, and compared at each later start.

::

    OUT/trained_settings.json   the settings that decide what is trained, of the first start or of the last change
    OUT/changes.jsonl           one line per change that was asked for: step, start, each key's old and new value

Places of output, the number of steps, loggers, frequencies, and how Ray and the queue are set up may differ between
starts. Everything else may not, unless the launcher is told so (CHANGE=1): a run that goes on with other settings is
neither the old run nor the new one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from verl_ispo.atomic_file import write_text
from verl_ispo.preflight.composition import override_key
from verl_ispo.user_error import UserError

SETTINGS_FILE = "trained_settings.json"
CHANGES_FILE = "changes.jsonl"

MAY_DIFFER = (
    # how long, how often, what is kept
    "trainer.total_training_steps",
    "trainer.total_epochs",
    "trainer.save_freq",
    "trainer.test_freq",
    "trainer.max_actor_ckpt_to_keep",
    "trainer.max_critic_ckpt_to_keep",
    "trainer.val_before_train",
    "trainer.val_only",
    "trainer.resume_mode",
    "trainer.resume_from_path",
    "trainer.v1.ispo.keep_over_starts",
    "trainer.v1.ispo.budget_tokens",
    "trainer.v1.ispo.budget_gpu_hours",
    # where, and what is shown
    "trainer.default_local_dir",
    "trainer.logger",
    "trainer.log_val_generations",
    "trainer.rollout_data_dir",
    "trainer.validation_data_dir",
    "trainer.v1.ispo.dump_dir",
    "trainer.v1.ispo.dump_every",
    "trainer.v1.ispo.dump_groups",
    "trainer.v1.ispo.poll_interval_s",
    # how the processes are run
    "ray_kwargs",
    "transfer_queue",
    "global_profiler",
    "data.dataloader_num_workers",
)
"""Keys, and with them the keys below, in which two starts of one run may differ."""

NAMES_OF_RUNS = ("project_name", "experiment_name")
"""verl repeats these in several sections."""

DIGEST_CHARS = 6
MAX_SHOWN = 12
"""A refusal shows this many keys, and the number of the others."""


@dataclass(frozen=True)
class Difference:
    """A key with the value of the run and that of this start, as JSON text; ``absent`` where a side has no such key."""

    key: str
    before: str
    now: str

    def __str__(self) -> str:
        return f"{self.key}: {self.before} -> {self.now}"


def trained_settings(config: DictConfig) -> dict[str, Any]:
    """The settings that decide what is trained, by dotted key, as plain values.

    Args:
        config (`DictConfig`): the composed config of a start.
    """
    settings: dict[str, Any] = {}
    _collect(config, "", settings)
    return settings


def _collect(node: DictConfig, prefix: str, settings: dict[str, Any]) -> None:
    for name in node:
        key = f"{prefix}{name}"
        if _may_differ(key):
            continue
        try:
            value = node[name]
        except OmegaConfBaseException:  # mandatory and not given, or a reference to what is not there
            value = OmegaConf.to_container(node, resolve=False).get(name)
        if isinstance(value, DictConfig):
            _collect(value, f"{key}.", settings)
        else:
            settings[key] = OmegaConf.to_container(value, resolve=True) if isinstance(value, ListConfig) else value


def arguments_digest(arguments: Sequence[str]) -> str:
    """A short name for the overrides that decide what is trained, ``""`` where there are none.

    So that the default folder of a run is another one for another value: a loop over a key makes as many runs.

    Args:
        arguments (`Sequence[str]`): Hydra overrides of a command line, in any order.
    """
    matter = sorted({argument for argument in arguments if not _may_differ(override_key(argument))})
    return hashlib.sha256("\n".join(matter).encode()).hexdigest()[:DIGEST_CHARS] if matter else ""


def _may_differ(key: str) -> bool:
    if key.rpartition(".")[2] in NAMES_OF_RUNS:
        return True
    return any(key == other or key.startswith(f"{other}.") for other in MAY_DIFFER)


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[Difference]:
    """The keys whose values differ, in the order of the alphabet."""
    return [
        Difference(key, _shown(before, key), _shown(now, key))
        for key in sorted(before.keys() | now.keys())
        if _shown(before, key) != _shown(now, key)
    ]


def _shown(settings: Mapping[str, Any], key: str) -> str:
    return json.dumps(settings[key], ensure_ascii=False, default=str) if key in settings else "absent"


def check_config(folder: Path, config: DictConfig, change: bool, start: int, step: int) -> None:
    """Keep the config of a run's first start, and refuse a later start that would train something else.

    Args:
        folder (`Path`): of the run.
        config (`DictConfig`): composed config of this start.
        change (`bool`): go on with other settings, and note the change.
        start (`int`): number of this start.
        step (`int`): step from which it resumes; 0 for a start from the beginning.

    Raises:
        UserError: the settings differ, with each key and both values, and no change was asked for.
    """
    kept, settings = folder / SETTINGS_FILE, trained_settings(config)
    if kept.exists():
        changed = differences(json.loads(kept.read_text(encoding="utf-8")), settings)
        if not changed:
            return
        if not change:
            shown = "".join(f"\n  {difference}" for difference in changed[:MAX_SHOWN])
            more = f"\n  and {len(changed) - MAX_SHOWN} more" if len(changed) > MAX_SHOWN else ""
            raise UserError(
                f"{folder} contains a run with other settings, from which this one would resume:{shown}{more}\n"
                "Set another OUT (--out), or the same settings; CHANGE=1 (--change) goes on with the new ones and "
                f"notes the change in {CHANGES_FILE}"
            )
        _note_change(folder, changed, start, step)
    write_text(kept, json.dumps(settings, indent=1, ensure_ascii=False, default=str, sort_keys=True) + "\n")


def _note_change(folder: Path, changed: list[Difference], start: int, step: int) -> None:
    entry = {"step": step, "start": start, "changed": {one.key: [one.before, one.now] for one in changed}}
    file = folder / CHANGES_FILE
    noted = file.read_text(encoding="utf-8") if file.exists() else ""
    write_text(file, noted + json.dumps(entry, ensure_ascii=False) + "\n")
