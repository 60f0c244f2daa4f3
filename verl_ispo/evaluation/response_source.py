"""Where an evaluation's responses come from, resolved before anything is sampled."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from verl_ispo.evaluation.prompts import Prompts
from verl_ispo.evaluation.sampler import Sampler


@dataclass(frozen=True)
class ResponseSource:
    """A model behind a sampler, and what identifies both in the manifest.

    Attributes:
        prompts: what is sent.
        model: the manifest's ``model``: path, how the checkpoint was chosen, its step.
        model_sha256: digest of weights and tokenizer; `None` where a server has the weights.
        sampler: the manifest's ``sampler``: name, versions, and what it does not tell.
        load: loads the sampler.
        gpus: of all replicas together; 0 on a CPU, `None` where a server has them.
    """

    prompts: Prompts
    model: Mapping[str, Any]
    model_sha256: str | None
    sampler: Mapping[str, Any]
    load: Callable[[], Sampler]
    gpus: int | None = None
