"""``ISPOTrainerConfig``: settings of the trainer around the maths, the keys of ``trainer.v1.ispo`` (all ours)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from verl_ispo.config.section import check_choice, check_number, from_section

SECTION = "trainer.v1.ispo"
ABLATED_PASSES = ("separate", "merged")


@dataclass(frozen=True)
class ISPOTrainerConfig:
    """Settings of ISPO's trainer modes; none of them changes what a step computes.

    Args:
        watch_signals (`bool`, *optional*, defaults to `True`):
            Compute and log ISPO's signals under other estimators too (one short forward, one reference forward).
        ablated_pass (`str`, *optional*, defaults to `"separate"`):
            Where the answers without their traces are scored: in a forward of their own (`"separate"`), or in the
            old-log-prob pass (`"merged"`), which gathers sharded weights once for both.
        poll_interval_s (`float`, *optional*):
            Seconds between two polls of the replay buffer for finished rollouts. `None` keeps verl's 2.
        repeatable_order (`bool`, *optional*, defaults to `False`):
            Put a batch's rows into an order that a second run repeats; verl's depends on random ids and on arrival.
        keep_over_starts (`bool`, *optional*, defaults to `False`):
            Count ``trainer.max_actor_ckpt_to_keep`` over all starts of a run, where verl starts over at each one.
        budget_tokens (`float`, *optional*):
            End after the first step at which the run has spent so many tokens of rollouts, above 0. `None`: no limit.
        budget_gpu_hours (`float`, *optional*):
            The same for the hours of its steps times the GPUs, above 0.
        dump_dir (`str`, *optional*):
            Folder of the rollout dump that ``verl-ispo report`` reads; created if missing. `None`: no dump.
        dump_every (`int`, *optional*, defaults to `10`):
            Steps between two dumps of whole rollouts, at least 1. The first step is always dumped.
        dump_groups (`int`, *optional*, defaults to `4`):
            Prompts whose rollouts are dumped at these steps, at least 1.

    Raises:
        UnknownISPOKeyError: a key that is not listed above; the message names the nearest one.
        ValueError: a value outside its range; the message names key, value and range.
    """

    watch_signals: bool = True
    ablated_pass: str = "separate"
    poll_interval_s: float | None = None
    repeatable_order: bool = False
    keep_over_starts: bool = False
    budget_tokens: float | None = None
    budget_gpu_hours: float | None = None
    dump_dir: str | None = None
    dump_every: int = 10
    dump_groups: int = 4

    def __post_init__(self) -> None:
        for name in ("watch_signals", "repeatable_order", "keep_over_starts"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{SECTION}.{name} must be true or false, got {getattr(self, name)!r}")
        check_choice(f"{SECTION}.ablated_pass", self.ablated_pass, ABLATED_PASSES)
        for name in ("poll_interval_s", "budget_tokens", "budget_gpu_hours"):
            if getattr(self, name) is not None:
                check_number(f"{SECTION}.{name}", getattr(self, name), low=0.0, low_open=True)
        if self.dump_dir is not None and not (isinstance(self.dump_dir, str) and self.dump_dir.strip()):
            raise ValueError(f"{SECTION}.dump_dir must be a folder or null, got {self.dump_dir!r}")
        for name in ("dump_every", "dump_groups"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f"{SECTION}.{name} must be a whole number of at least 1, got {value!r}")

    @classmethod
    def from_mapping(cls, settings: Mapping[str, Any] | None) -> ISPOTrainerConfig:
        """Build from Hydra's ``trainer.v1.ispo``; `None` gives the defaults."""
        return from_section(cls, SECTION, settings)

    def dumps_rollouts_at(self, step: int) -> bool:
        """Whether whole rollouts are dumped at this step (counted from 1), beside the outcomes of every step."""
        return step == 1 or step % self.dump_every == 0
