"""The registered policy loss ``ispo``: bitwise verl's ``vanilla``, value and gradient, and correct metrics beside it.

The added numbers are checked against loops over tokens, and the share of tokens without a gradient against autograd
itself: it is the share of unmasked tokens whose log-prob receives a gradient of exactly 0. By the surrogate max(-A r,
-A clip(r)) that is where A = 0, where r is beyond the bound on the side that A pushes to, beyond the dual clip for A
< 0, where verl's clamp of the log-ratio to +-20 acts, and where the rollout-correction weight is 0.

Ratios are kept off the bounds themselves, where the gradient of a maximum is a matter of convention.

Not exercised: the aggregation of these metrics over micro-batches and workers, which is verl's.
"""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from verl.trainer.ppo.core_algos import compute_policy_loss_vanilla, get_policy_loss_fn
from verl.workers.config import ActorConfig

from tests.examples import examples

compute_ispo_policy_loss = get_policy_loss_fn("ispo")

LOSS_AGG_MODES = ["token-mean", "token-sum", "seq-mean-token-sum", "seq-mean-token-mean", "seq-mean-token-sum-norm"]
OURS = {
    "actor/zero_grad_frac",
    "actor/pg_clipfrac/positive_adv",
    "actor/pg_clipfrac/negative_adv",
    "actor/ppo_kl/positive_adv",
    "actor/ppo_kl/negative_adv",
}


def actor(**settings: Any) -> ActorConfig:
    return ActorConfig(strategy="fsdp2", rollout_n=8, ppo_micro_batch_size_per_gpu=1, **settings)


PAPER = actor(clip_ratio_low=0.2, clip_ratio_high=0.28)


@st.composite
def minibatches(draw: st.DrawFn) -> dict[str, torch.Tensor | None]:
    """At least one unmasked token; log-ratios mostly small, some beyond every bound; advantages of each sign and 0."""
    rows, width = draw(st.integers(1, 4)), draw(st.integers(1, 6))

    def tensor(elements: st.SearchStrategy[float]) -> torch.Tensor:
        values = draw(st.lists(elements, min_size=rows * width, max_size=rows * width))
        return torch.tensor(values).reshape(rows, width)

    old_log_prob = tensor(st.integers(-64, 0).map(lambda count: count / 16))
    near, far = (
        st.integers(-24, 24).map(lambda count: count / 16),
        st.sampled_from([-25.0, -20.0, -5.0, 5.0, 20.0, 25.0]),
    )
    response_mask = tensor(st.booleans()).bool()
    response_mask[draw(st.integers(0, rows - 1)), draw(st.integers(0, width - 1))] = True
    return {
        "old_log_prob": old_log_prob,
        "log_prob": old_log_prob + tensor(st.one_of(near, near, far)),
        "advantages": tensor(st.sampled_from([-2.0, -0.5, 0.0, 0.5, 2.0])),
        "response_mask": response_mask,
        "rollout_is_weights": draw(st.sampled_from([None, tensor(st.sampled_from([0.0, 0.5, 2.0]))])),
    }


def evaluate(
    loss_fn: Any, batch: dict[str, torch.Tensor | None], **settings: Any
) -> tuple[torch.Tensor, torch.Tensor, dict]:
    """Loss, gradient at the log-probs, metrics."""
    log_prob = batch["log_prob"].clone().requires_grad_()
    loss, metrics = loss_fn(**{**batch, "log_prob": log_prob}, **settings)
    loss.backward()
    return loss.detach(), log_prob.grad, metrics


def test_verl_finds_it_by_name() -> None:
    assert compute_ispo_policy_loss.__module__ == "verl_ispo.trainer.method_adapter"


@given(
    minibatches(),
    st.sampled_from(LOSS_AGG_MODES),
    st.sampled_from([(0.2, 0.28), (0.2, 0.2), (0.1, 0.5), (None, None)]),
    st.sampled_from([1.5, 3.0]),
)
@settings(max_examples=examples(150))
def test_value_gradient_and_metrics_of_vanilla_to_the_bit(
    batch: dict[str, torch.Tensor | None], mode: str, bounds: tuple[float, float], dual_clip: float
) -> None:
    config = actor(clip_ratio_low=bounds[0], clip_ratio_high=bounds[1], clip_ratio_c=dual_clip)
    loss, gradient, metrics = evaluate(compute_ispo_policy_loss, batch, loss_agg_mode=mode, config=config)
    expected = evaluate(compute_policy_loss_vanilla, batch, loss_agg_mode=mode, config=config)
    assert torch.equal(loss, expected[0])
    assert torch.equal(gradient, expected[1])
    assert {name: metrics[name] for name in expected[2]} == expected[2]
    assert set(metrics) - set(expected[2]) == OURS


@given(minibatches())
@settings(max_examples=examples(150))
def test_zero_gradient_share_is_autograds(batch: dict[str, torch.Tensor | None]) -> None:
    _, gradient, metrics = evaluate(compute_ispo_policy_loss, batch, loss_agg_mode="token-sum", config=PAPER)
    on_response = gradient[batch["response_mask"]]
    assert metrics["actor/zero_grad_frac"] == pytest.approx((on_response == 0).float().mean().item(), abs=1e-6)


@given(minibatches())
@settings(max_examples=examples(150))
def test_clip_fraction_and_kl_by_sign_of_the_advantage(batch: dict[str, torch.Tensor | None]) -> None:
    _, _, metrics = evaluate(compute_ispo_policy_loss, batch, config=PAPER)
    clipped, divergence = {1: 0.0, -1: 0.0}, {1: 0.0, -1: 0.0}
    tokens = [tuple(position) for position in batch["response_mask"].nonzero().tolist()]
    for position in tokens:
        advantage = batch["advantages"][position].item()
        log_ratio = min(20.0, max(-20.0, (batch["log_prob"][position] - batch["old_log_prob"][position]).item()))
        ratio = math.exp(log_ratio)
        if advantage:
            sign = 1 if advantage > 0 else -1
            beyond = ratio > 1.28 if advantage > 0 else ratio < 0.8 or ratio > 3.0
            clipped[sign] += beyond / len(tokens)
            divergence[sign] += -log_ratio / len(tokens)
    for name, sign in (("positive", 1), ("negative", -1)):
        assert metrics[f"actor/pg_clipfrac/{name}_adv"] == pytest.approx(clipped[sign], abs=1e-5)
        assert metrics[f"actor/ppo_kl/{name}_adv"] == pytest.approx(divergence[sign], abs=1e-5)
    # Both parts together are what verl reports: its two clip fractions, and its KL where no advantage is 0.
    together = metrics["actor/pg_clipfrac/positive_adv"] + metrics["actor/pg_clipfrac/negative_adv"]
    assert together == pytest.approx(metrics["actor/pg_clipfrac"] + metrics["actor/pg_clipfrac_lower"], abs=1e-5)


def test_a_worked_example() -> None:
    """Four tokens, bounds [0.8, 1.28]: clipped above with A > 0, free with A > 0, clipped below with A < 0, A = 0."""
    ratio = torch.tensor([[1.5, 0.5, 0.5, 1.0]])
    batch = {
        "old_log_prob": torch.zeros(1, 4),
        "log_prob": ratio.log(),
        "advantages": torch.tensor([[1.0, 1.0, -1.0, 0.0]]),
        "response_mask": torch.ones(1, 4, dtype=torch.bool),
    }
    loss, gradient, metrics = evaluate(compute_ispo_policy_loss, batch, config=PAPER)
    assert loss.item() == pytest.approx((-1.28 - 0.5 + 0.8 + 0.0) / 4)
    assert (gradient != 0).tolist() == [[False, True, False, False]]
    assert metrics["actor/zero_grad_frac"] == 0.75
    assert metrics["actor/pg_clipfrac/positive_adv"] == metrics["actor/pg_clipfrac/negative_adv"] == 0.25
    assert metrics["actor/ppo_kl/positive_adv"] == pytest.approx((-math.log(1.5) - math.log(0.5)) / 4)


def test_junk_behind_the_mask_is_not_counted() -> None:
    batch = {
        "old_log_prob": torch.zeros(1, 2),
        "log_prob": torch.zeros(1, 2),
        "advantages": torch.tensor([[1.0, 0.0]]),
        "response_mask": torch.tensor([[True, False]]),
    }
    _, _, metrics = evaluate(compute_ispo_policy_loss, batch, config=PAPER)
    assert metrics["actor/zero_grad_frac"] == 0


def test_a_microbatch_without_tokens_has_finite_metrics() -> None:
    """A row that rollout correction has rejected as a whole."""
    batch = {name: torch.zeros(1, 2) for name in ("old_log_prob", "log_prob", "advantages")}
    _, metrics = compute_ispo_policy_loss(**batch, response_mask=torch.zeros(1, 2, dtype=torch.bool), config=PAPER)
    assert {name: metrics[name] for name in OURS} == dict.fromkeys(OURS, 0.0)
