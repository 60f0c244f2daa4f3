"""Batched autoregressive sampling with a KV cache, one random stream per sequence."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from transformers import DynamicCache, PreTrainedModel


@dataclass(frozen=True)
class SampleRequest:
    """One sequence to continue.

    Attributes:
        prompt_ids: context, at least one token.
        max_new_tokens: most tokens that are added.
        temperature: softmax temperature; 0 is greedy.
        top_k: keep the k likeliest tokens; -1 keeps all.
        top_p: keep the smallest set of likeliest tokens with this much probability.
        seed: the sequence's random stream, below 2**64.
    """

    prompt_ids: tuple[int, ...]
    max_new_tokens: int
    temperature: float = 1.0
    top_k: int = -1
    top_p: float = 1.0
    seed: int = 0


@dataclass
class Sample:
    """A continuation: token ids, their log-probs under the (tempered, filtered) policy, and why it ended.

    `model_log_probs` are those at temperature 1 without a filter, where `sample_batch` was asked for them.
    """

    token_ids: list[int] = field(default_factory=list)
    log_probs: list[float] = field(default_factory=list)
    model_log_probs: list[float] = field(default_factory=list)
    stop_reason: str = "length"


def uniform_stream(seed: int, length: int) -> np.ndarray:
    """``length`` uniforms in [0, 1), one for each absolute position of a sequence.

    The draw at a position depends on the seed and the position alone, so neither the batch a sequence runs in nor a
    pause in between (a partial rollout is sent again with what it has so far) changes the sample.
    """
    return np.random.Generator(np.random.Philox(key=seed)).random(length)


@torch.no_grad()
def sample_batch(
    model: PreTrainedModel,
    requests: Sequence[SampleRequest],
    eos_token_ids: Sequence[int],
    should_stop: Callable[[], bool] = lambda: False,
    with_model_log_probs: bool = False,
) -> list[Sample]:
    """Continue every request, all in one left-padded batch.

    Equal prompts are read once. Run the model in float64 where a sample must not depend on the batch around it: in
    float32, another order of summation moves probabilities by about 1e-7, which changes about one draw in a million.

    Args:
        model (`PreTrainedModel`): a causal language model in eval mode.
        requests (`Sequence[SampleRequest]`): what to continue.
        eos_token_ids (`Sequence[int]`): tokens that end a sequence; they are part of the sample.
        should_stop (`Callable`, *optional*): called before every token; `True` ends all open sequences as `"aborted"`.
        with_model_log_probs (`bool`, *optional*, defaults to `False`): whether to give `Sample.model_log_probs`.

    Returns:
        `list[Sample]`, in the order of the requests.
    """
    samples = [Sample() for _ in requests]
    eos = set(eos_token_ids)
    lengths = [len(request.prompt_ids) for request in requests]
    uniforms = [
        uniform_stream(request.seed, length + request.max_new_tokens)
        for request, length in zip(requests, lengths, strict=True)
    ]

    rows = [index for index, request in enumerate(requests) if request.max_new_tokens > 0]
    if not rows:
        return samples
    prompts = list(dict.fromkeys(requests[row].prompt_ids for row in rows))
    width = max(map(len, prompts))
    input_ids = torch.zeros(len(prompts), width, dtype=torch.long)
    attention_mask = torch.zeros(len(prompts), width, dtype=torch.long)
    for index, prompt in enumerate(prompts):
        input_ids[index, width - len(prompt) :] = torch.tensor(prompt)
        attention_mask[index, width - len(prompt) :] = 1
    position_ids = (attention_mask.cumsum(-1) - 1).clamp(min=0)
    cache = DynamicCache()
    index_of = {prompt: index for index, prompt in enumerate(prompts)}
    prompt_of_row = torch.tensor([index_of[requests[row].prompt_ids] for row in rows])
    is_prompt = True

    while rows:
        if should_stop():
            for row in rows:
                samples[row].stop_reason = "aborted"
            break
        logits = model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        ).logits[:, -1, :]
        if is_prompt:
            is_prompt = False
            cache.batch_select_indices(prompt_of_row)
            logits, attention_mask = logits[prompt_of_row], attention_mask[prompt_of_row]
            position_ids = position_ids[prompt_of_row]
        draws = [uniforms[row][lengths[row] + len(samples[row].token_ids)] for row in rows]
        tokens, log_probs = _draw(logits, [requests[row] for row in rows], draws)

        if with_model_log_probs:
            at_temperature_one = torch.log_softmax(logits.double(), dim=-1).gather(-1, tokens.unsqueeze(-1))
            for row, log_prob in zip(rows, at_temperature_one.squeeze(-1).tolist(), strict=True):
                samples[row].model_log_probs.append(log_prob)
        keep = []
        for index, (row, token, log_prob) in enumerate(zip(rows, tokens.tolist(), log_probs.tolist(), strict=True)):
            sample = samples[row]
            sample.token_ids.append(token)
            sample.log_probs.append(log_prob)
            if token in eos:
                sample.stop_reason = "completed"
            elif len(sample.token_ids) < requests[row].max_new_tokens:
                keep.append(index)
        if len(keep) < len(rows):
            kept = torch.tensor(keep, dtype=torch.long)
            if keep:
                cache.batch_select_indices(kept)
            tokens, attention_mask, position_ids = tokens[kept], attention_mask[kept], position_ids[kept]
            rows = [rows[index] for index in keep]
        input_ids = tokens.unsqueeze(-1)
        attention_mask = torch.cat([attention_mask, torch.ones(len(rows), 1, dtype=torch.long)], dim=-1)
        position_ids = position_ids[:, -1:] + 1
    return samples


def _draw(
    logits: torch.Tensor, requests: Sequence[SampleRequest], draws: Sequence[float]
) -> tuple[torch.Tensor, torch.Tensor]:
    """One inverse-CDF draw per row: `(rows,)` token ids and `(rows,)` log-probs, float64."""
    logits = logits.double()
    greedy = torch.tensor([request.temperature <= 0 for request in requests])
    temperature = torch.tensor(
        [request.temperature if request.temperature > 0 else 1.0 for request in requests], dtype=torch.float64
    )
    log_probs = torch.log_softmax(logits / temperature.unsqueeze(-1), dim=-1)
    for index, request in enumerate(requests):
        if request.top_k > 0 or request.top_p < 1.0:
            log_probs[index] = _filtered(log_probs[index], request.top_k, request.top_p)

    cumulative = log_probs.exp().cumsum(dim=-1)
    # Scaled to the last sum, which is not exactly 1 because of rounding, so that no draw can fall past the end.
    thresholds = torch.tensor(draws, dtype=torch.float64).unsqueeze(-1) * cumulative[:, -1:]
    sampled = torch.searchsorted(cumulative, thresholds, right=True).squeeze(-1).clamp(max=logits.shape[-1] - 1)
    tokens = torch.where(greedy, logits.argmax(dim=-1), sampled)
    return tokens, log_probs.gather(-1, tokens.unsqueeze(-1)).squeeze(-1)


def _filtered(log_probs: torch.Tensor, top_k: int, top_p: float) -> torch.Tensor:
    """Top-k, then top-p, renormalized, for one row of shape `(vocabulary,)`."""
    order = log_probs.argsort(descending=True, stable=True)
    kept = order[: top_k if top_k > 0 else None]
    if top_p < 1.0:
        before = log_probs[kept].exp().cumsum(0) - log_probs[kept].exp()
        kept = kept[before < top_p]
    filtered = torch.full_like(log_probs, -math.inf)
    filtered[kept] = torch.log_softmax(log_probs[kept], dim=-1)
    return filtered
