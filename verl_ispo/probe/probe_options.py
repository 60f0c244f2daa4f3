"""The options of ``verl-ispo probe``, and what is refused before anything is read."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from verl_ispo.config.ispo_config import SECTION
from verl_ispo.evaluation.evaluation_options import EvaluationOptions
from verl_ispo.user_error import UserError


@dataclass(frozen=True)
class ProbeOptions:
    """The options of ``verl-ispo probe``; its ``--help`` says what each is."""

    model: str
    data: Path
    out: Path
    prompts: int
    rollouts: int
    max_new_tokens: int
    context_tokens: int | None
    temperature: float
    seed: int
    sampler: str
    tensor_parallel_size: int
    device: str
    dtype: str
    reward_function: str
    reference: str | None
    methods: tuple[str, ...]
    overrides: tuple[str, ...]

    def as_evaluation(self) -> EvaluationOptions:
        """The same model, data and sampling, for the sampler and the prompts of an evaluation."""
        return EvaluationOptions(
            model=self.model,
            benchmarks=(self.data,),
            out=self.out,
            n=self.rollouts,
            temperature=self.temperature,
            top_p=1.0,
            max_new_tokens=self.max_new_tokens,
            context_tokens=self.context_tokens,
            seed=self.seed,
            reward_function=self.reward_function,
            sampler=self.sampler,
            tensor_parallel_size=self.tensor_parallel_size,
            base_model=None,
            method=None,
            training_seed=None,
        )


def check_options(options: ProbeOptions) -> None:
    """Refuse values that no probe can have.

    Raises:
        UserError: naming the option, its value, and what to give.
    """
    for name, value, least in (
        ("--prompts", options.prompts, 1),
        ("--rollouts", options.rollouts, 2),
        ("--max-new-tokens", options.max_new_tokens, 1),
        ("--context-tokens", options.context_tokens, 2),
        ("--seed", options.seed, 0),
        ("--tensor-parallel-size", options.tensor_parallel_size, 1),
    ):
        if value is not None and value < least:
            raise UserError(f"{name} {value}: give {least} or more")
    if not (math.isfinite(options.temperature) and options.temperature > 0):
        raise UserError(f"--temperature {options.temperature}: give a number above 0, the training's")


def ispo_overrides(overrides: tuple[str, ...]) -> Mapping[str, Any]:
    """The settings of ``algorithm.ispo.KEY=VALUE`` overrides, by key; values are read as YAML, as Hydra does.

    Raises:
        UserError: an override of anything else, or one that cannot be read.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    settings: dict[str, Any] = {}
    for override in overrides:
        key, equals, _ = override.partition("=")
        name = key.lstrip("+").removeprefix(f"{SECTION}.")
        if not equals or not key.lstrip("+").startswith(f"{SECTION}.") or "." in name or not name:
            raise UserError(f"{override}: the probe takes overrides of the form {SECTION}.KEY=VALUE only")
        try:
            settings[name] = OmegaConf.from_dotlist([override.lstrip("+")]).algorithm.ispo[name]
        except (OmegaConfBaseException, ValueError) as error:
            raise UserError(f"{override}: not a setting ({str(error).splitlines()[0]})") from error
    return settings
