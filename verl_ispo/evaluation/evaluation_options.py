"""The options of ``verl-ispo eval``, and what is refused before anything is read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from verl_ispo.user_error import UserError


@dataclass(frozen=True)
class EvaluationOptions:
    """The options of ``verl-ispo eval``; its ``--help`` says what each is."""

    model: str
    benchmarks: tuple[Path, ...]
    out: Path
    n: int
    temperature: float
    top_p: float
    max_new_tokens: int
    context_tokens: int | None
    seed: int
    reward_function: str
    sampler: str
    tensor_parallel_size: int
    base_model: str | None
    method: str | None
    training_seed: int | None
    replicas: int | None = None
    server: str | None = None
    raw_prompts: bool = False
    """Whether prompts are the text of the last message alone, without a chat template."""
    server_prompts: str = "token-ids"
    served_model: str | None = None
    concurrency: int = 64
    request_timeout_s: float = 1800.0
    vllm_args: tuple[str, ...] = ()
    template: str | None = None


def check_options(options: EvaluationOptions) -> None:
    """Refuse values that no evaluation can have.

    Raises:
        UserError: naming the option, its value, and what to give.
    """
    if not options.benchmarks:
        raise UserError("--benchmarks: give at least one parquet file")
    for name, value, least in (
        ("--n", options.n, 0),
        ("--max-new-tokens", options.max_new_tokens, 1),
        ("--context-tokens", options.context_tokens, 2),
        ("--tensor-parallel-size", options.tensor_parallel_size, 1),
        ("--seed", options.seed, 0),
        ("--replicas", options.replicas, 1),
        ("--concurrency", options.concurrency, 1),
    ):
        if value is not None and value < least:
            raise UserError(f"{name} {value}: give {least} or more")
    if not 0.0 < options.temperature < float("inf"):
        raise UserError(f"--temperature {options.temperature}: give a number above 0; greedy is always run as well")
    if not 0.0 < options.top_p <= 1.0:
        raise UserError(f"--top-p {options.top_p}: give a number above 0 and up to 1")
    if not 0.0 < options.request_timeout_s < float("inf"):
        raise UserError(f"--request-timeout-s {options.request_timeout_s}: give a number of seconds above 0")
    if options.server is not None:
        if options.replicas is not None:
            raise UserError("--replicas and --server: a server has its own replicas; give one of the two")
        if options.vllm_args:
            raise UserError("--vllm-args and --server: the server has its own arguments; give one of the two")
        if options.sampler != "auto":
            raise UserError(f"--sampler {options.sampler} and --server: the server samples; leave --sampler out")
