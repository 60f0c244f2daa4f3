"""PREPO (arXiv 2511.00794): easy prompts first, and more weight on rollouts of high entropy.

Source: detailed notes by others; the paper exists in more than one version. The authors' own summary also says that
prompts go from low to high perplexity and that rollouts are weighted by their mean token entropy; the window's formula
and the share of 20 % are from the notes alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from verl_ispo.config.section import check_number, from_section
from verl_ispo.methods.method import Contradiction, Lookup, Method, MethodBatch, Need, PromptChoice
from verl_ispo.signals.checks import check_finite, check_same_shape
from verl_ispo.signals.masked import masked_row_mean

SECTION = "algorithm.prepo"


@dataclass(frozen=True)
class PREPOConfig:
    """Settings of PREPO, the keys of ``algorithm.prepo``.

    Args:
        keep_fraction (`float`, *optional*, defaults to `0.2`):
            K / B: the share of the candidate prompts that a step trains on. In (0, 1]; `1` trains on all of them. From
            notes.

    Raises:
        ValueError: a value outside its range; the message names key, value and range.
    """

    keep_fraction: float = 0.2

    def __post_init__(self) -> None:
        check_number(f"{SECTION}.keep_fraction", self.keep_fraction, low=0, high=1, low_open=True)

    @classmethod
    def from_mapping(cls, settings: Mapping[str, Any] | None) -> PREPOConfig:
        """Build from Hydra's ``algorithm.prepo``; `None` gives the defaults, an unknown key is an error."""
        return from_section(cls, SECTION, settings)


def prompt_perplexity(prompt_log_prob: torch.Tensor, prompt_mask: torch.Tensor) -> torch.Tensor:
    """P = exp(-mean log p(prompt tokens)), under the current policy (arXiv 2511.00794).

    Args:
        prompt_log_prob (`torch.Tensor` of shape `(prompts, prompt_length)`): of the prompt's tokens but the first,
            which has none.
        prompt_mask (`torch.Tensor` of shape `(prompts, prompt_length)`): 1 where there is such a token.

    Returns:
        `torch.Tensor` of shape `(prompts,)`, float64 and finite; 1 for a prompt without any log-prob (ours).

    Raises:
        SignalShapeError: shapes that do not fit.
        NonFiniteSignalError: NaN or infinity where the mask is true, with row and position.
    """
    check_same_shape(tuple(prompt_mask.shape), prompt_log_prob=prompt_log_prob)
    prompt_mask = prompt_mask.bool()
    check_finite(prompt_mask, prompt_log_prob=prompt_log_prob)
    mean = masked_row_mean(prompt_log_prob, prompt_mask).double()
    return (-mean).exp().clamp(max=torch.finfo(torch.float64).max)


def scheduled_window(candidates: int, keep: int, progress: float) -> range:
    """Ranks [floor(rho (B - K)), floor(rho (B - K)) + K) of the candidates, rho in [0, 1] (arXiv 2511.00794, notes).

    Args:
        candidates (`int`): B.
        keep (`int`): K.
        progress (`float`): rho = step / total steps; clipped to [0, 1].

    Returns:
        `range` of length `keep`, within `range(candidates)`.

    Raises:
        ValueError: `keep` outside [1, candidates], or a `progress` that is no finite number.
    """
    if not 1 <= keep <= candidates:
        raise ValueError(f"cannot keep {keep} of {candidates} candidate prompts: keep must be in [1, {candidates}]")
    if not math.isfinite(progress):
        raise ValueError(f"progress must be a finite number, step / total steps, got {progress!r}")
    rho = min(max(progress, 0.0), 1.0)
    # 1e-9 undoes the rounding of products such as 0.29 * 100 = 28.999999999999996.
    start = math.floor(rho * (candidates - keep) + 1e-9)
    return range(start, start + keep)


def select_prompts(perplexity: torch.Tensor, keep: int, progress: float) -> torch.Tensor:
    """The candidates inside the window, by perplexity ascending: easy prompts at the start (arXiv 2511.00794).

    Args:
        perplexity (`torch.Tensor` of shape `(candidates,)`): of `prompt_perplexity`.
        keep (`int`): K.
        progress (`float`): step / total steps; clipped to [0, 1].

    Returns:
        `torch.Tensor` of shape `(keep,)`, int64: indices of the chosen candidates, easiest first, ties by position.

    Raises:
        ValueError: see `scheduled_window`.
        NonFiniteSignalError: a perplexity that is NaN or infinite.
    """
    window = scheduled_window(perplexity.shape[0], keep, progress)
    check_finite(torch.ones_like(perplexity, dtype=torch.bool), perplexity=perplexity)
    return perplexity.argsort(stable=True)[window.start : window.stop]


@torch.no_grad()
def relative_entropy_weight(entropy: torch.Tensor, response_mask: torch.Tensor) -> torch.Tensor:
    """w_i = mean token entropy of rollout i / its mean over rollouts (arXiv 2511.00794).

    The mean runs over the rollouts of the whole batch (ours: the notes do not say whether batch or group), so it has to
    be computed before the batch is split into micro-batches.

    Args:
        entropy (`torch.Tensor` of shape `(batch, response_length)`): of the next-token distribution, nats.
        response_mask (`torch.Tensor` of shape `(batch, response_length)`): 1 where the policy wrote the token.

    Returns:
        `torch.Tensor` of shape `(batch,)`, float32, at least 0 and detached. The mean over rows with tokens is 1. A row
        without tokens has 1 and does not enter the mean; if all entropies are 0 every weight is 1 (both ours).

    Raises:
        SignalShapeError: shapes that do not fit.
        NonFiniteSignalError: NaN or infinity where the mask is true, with row and position.
    """
    check_same_shape(tuple(response_mask.shape), entropy=entropy)
    response_mask = response_mask.bool()
    check_finite(response_mask, entropy=entropy)
    # Rounding can leave an entropy slightly below 0, and a negative weight would flip the advantage's sign.
    rollout_entropy = masked_row_mean(entropy.clamp(min=0), response_mask).double()
    has_tokens = response_mask.any(dim=-1)
    mean = rollout_entropy.sum() / has_tokens.sum().clamp(min=1)
    weight = torch.where(has_tokens & (mean > 0), rollout_entropy / mean, 1.0)
    return weight.to(torch.float32)


def prepo_advantage(batch: MethodBatch, config: PREPOConfig) -> torch.Tensor:
    """w_i A, A being verl's own GRPO, `(batch, response_length)`.

    In PREPO w_i multiplies the clipped loss. It is not negative, and the clipped surrogate, dual clip included, is
    positively homogeneous in A. So multiplying the advantage is the same, and verl's losses stay as they are.
    """
    return relative_entropy_weight(batch.entropy, batch.response_mask).unsqueeze(-1) * batch.grpo_advantage


def contradictions(setting: Lookup) -> Iterator[Contradiction]:
    """Settings under which the chosen prompts would not be the ones that are trained on."""
    estimator, filter_key, mode = "algorithm.adv_estimator", "algorithm.filter_groups.enable", "trainer.v1.trainer_mode"
    if setting(filter_key):
        yield Contradiction(
            estimator,
            filter_key,
            "PREPO chooses a step's prompts beforehand, and refilled ones would not be chosen",
            f"Set {filter_key}=false.",
        )
    if setting(mode) not in ("ispo_sync", None):
        yield Contradiction(
            estimator,
            mode,
            "PREPO scores a step's candidates with the policy that answers them, which asynchronous modes do not have",
            f"Set {mode}=ispo_sync.",
        )


METHOD = Method(
    name="prepo",
    advantage=prepo_advantage,
    needs=frozenset({Need.ENTROPY, Need.GRPO_ADVANTAGE}),
    settings=PREPOConfig.from_mapping,
    prompt_choice=PromptChoice(
        keep_fraction=lambda config: config.keep_fraction,
        score=prompt_perplexity,
        score_name="perplexity",
        choose=select_prompts,
    ),
    contradictions=contradictions,
)
