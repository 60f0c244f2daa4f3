"""``RolloutDumpConfig``: what the trainer writes down for the report, and the split of ``algorithm.ispo`` in two."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from verl_ispo.config.ispo_config import SECTION, ISPOConfig
from verl_ispo.config.section import refuse_unknown_keys


@dataclass(frozen=True)
class RolloutDumpConfig:
    """Settings of the rollout dump (ours), the keys ``dump_*`` of ``algorithm.ispo``.

    Args:
        dump_dir (`str`, *optional*):
            Folder to write to; made if it is not there. `None` switches the dump off.
        dump_every (`int`, *optional*, defaults to `10`):
            Steps between two dumps of whole rollouts, at least 1. The first step is always dumped.
        dump_groups (`int`, *optional*, defaults to `4`):
            Prompts whose rollouts are dumped at such a step, at least 1.

    Raises:
        ValueError: a value outside its range; the message names key, value and range.
    """

    dump_dir: str | None = None
    dump_every: int = 10
    dump_groups: int = 4

    def __post_init__(self) -> None:
        if self.dump_dir is not None and not (isinstance(self.dump_dir, str) and self.dump_dir.strip()):
            raise ValueError(f"algorithm.ispo.dump_dir must be a folder or null, got {self.dump_dir!r}")
        for name in ("dump_every", "dump_groups"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f"algorithm.ispo.{name} must be a whole number of at least 1, got {value!r}")

    def dumps_rollouts_at(self, step: int) -> bool:
        """Whether whole rollouts are dumped at this step (counted from 1), beside the outcomes of every step."""
        return step == 1 or step % self.dump_every == 0


def split_ispo_settings(settings: Mapping[str, Any] | None) -> tuple[ISPOConfig, RolloutDumpConfig]:
    """The maths and the dump out of Hydra's ``algorithm.ispo``; `None` gives the defaults.

    Raises:
        UnknownISPOKeyError: a key of neither; the message names the nearest one of both.
        ValueError: a value outside its range.
    """
    given = {str(key): value for key, value in (settings or {}).items()}
    dump_keys = [field.name for field in fields(RolloutDumpConfig)]
    refuse_unknown_keys(given, [field.name for field in fields(ISPOConfig)] + dump_keys, SECTION)
    dump_settings = {key: given.pop(key) for key in dump_keys if key in given}
    return ISPOConfig.from_mapping(given), RolloutDumpConfig(**dump_settings)
