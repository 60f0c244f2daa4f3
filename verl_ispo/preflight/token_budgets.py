"""Micro-batches by tokens: each has to hold one full-length sequence (verl.utils.seqlen_balancing)."""

from __future__ import annotations

from collections.abc import Iterator

from omegaconf import DictConfig

from verl_ispo.preflight.composition import Parallelism, longest_sequence, runs_extra_forwards, setting
from verl_ispo.preflight.finding import NOTE, OK, PROBLEM, Finding

ACTOR, ROLLOUT, REF = "actor_rollout_ref.actor", "actor_rollout_ref.rollout", "actor_rollout_ref.ref"


def check_token_budgets(config: DictConfig, parallelism: Parallelism) -> Iterator[Finding]:
    """The budgets per GPU, summed over sequence-parallel ranks, against the longest sequence; and vLLM's own."""
    longest = longest_sequence(config)
    ranks = parallelism.ulysses * parallelism.context  # both engines pass it to verl as sp_size
    budgets = [
        (f"{ACTOR}.ppo_max_token_len_per_gpu", f"{ACTOR}.use_dynamic_bsz"),
        (f"{ROLLOUT}.log_prob_max_token_len_per_gpu", f"{ROLLOUT}.log_prob_use_dynamic_bsz"),
    ]
    if runs_extra_forwards(config):
        budgets.append((f"{REF}.log_prob_max_token_len_per_gpu", f"{REF}.log_prob_use_dynamic_bsz"))
    for key, switch in budgets:
        if not setting(config, switch, False):
            continue
        budget = setting(config, key, 0)
        together = f"{budget} x {ranks} sequence-parallel ranks" if ranks > 1 else str(budget)
        if budget * ranks < longest:
            yield Finding(
                PROBLEM,
                key,
                f"is {together} tokens, less than the longest prompt and response together ({longest}), so the "
                "first long "
                f"response stops the run; set {key}={-(-longest // ranks)} or more",
            )
        else:
            yield Finding(
                OK, key, f"{together} tokens, {budget * ranks // longest} full-length sequence(s) of {longest}"
            )
    yield from _check_engine_budget(config, longest)


def _check_engine_budget(config: DictConfig, longest: int) -> Iterator[Finding]:
    key, seqs_key = f"{ROLLOUT}.max_num_batched_tokens", f"{ROLLOUT}.max_num_seqs"
    budget, seqs = setting(config, key), setting(config, seqs_key)
    if setting(config, f"{ROLLOUT}.name") != "vllm" or budget is None:
        return
    if seqs is not None and budget < seqs:
        yield Finding(
            PROBLEM, key, f"is {budget}, less than {seqs_key}={seqs}, which vLLM refuses; set {key}={seqs} or more"
        )
    elif budget < longest and not setting(config, f"{ROLLOUT}.enable_chunked_prefill", True):
        yield Finding(
            NOTE,
            key,
            f"is {budget}, less than a full-length sequence ({longest}), and chunked prefill is off: verl raises it to "
            f"max_model_len. Set {ROLLOUT}.enable_chunked_prefill=true, or {key}={longest}",
        )
