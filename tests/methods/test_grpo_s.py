"""GRPO-S (arXiv 2508.04349): sequence rewards, the registered estimator, the registered loss and the preset.

The advantage: a group by hand; random batches against loops in float64; GRPO's own numbers where it is normalized
together (ours) and entropies are equal; on one-token responses it is GTPO.

The loss: by hand; against loops; verl's ``vanilla`` on one-token responses (its dual clip, which GRPO-S does not
have, set out of reach); the gradient against finite differences in float64, away from the bounds; loss and gradient
add up over micro-batches, and average over workers, to those of the whole batch, in every aggregation mode.

Not exercised: the trainer (entropies, the order of calls), the effect on training.
"""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from verl.trainer.ppo.core_algos import (
    compute_policy_loss_vanilla,
    get_adv_estimator_fn,
    get_policy_loss_fn,
)
from verl.workers.config import ActorConfig

import verl_ispo
from tests.examples import examples
from tests.methods.gtpo_reference import BATCHES, SETTINGS, EntropyRollout, reference_advantage, tensors
from tests.methods.test_gtpo import MIXED, estimator_inputs, grpo, rollout
from verl_ispo.methods.clipped_loss import clipped_surrogate_loss
from verl_ispo.methods.grpo_s import GRPOSConfig, grpo_s_advantage, sequence_ratio
from verl_ispo.methods.gtpo import GTPOConfig, gtpo_advantage
from verl_ispo.signals.checks import NonFiniteSignalError
from verl_ispo.trainer.hand_over import handed_over
from verl_ispo.trainer.method_adapter import MissingSignalsError

compute_grpo_s_advantage = get_adv_estimator_fn("grpo_s")
compute_grpo_s_policy_loss = get_policy_loss_fn("grpo_s")

LOSS_AGG_MODES = ["token-mean", "token-sum", "seq-mean-token-sum", "seq-mean-token-mean", "seq-mean-token-sum-norm"]


def advantage(batch: list[EntropyRollout], by_std: bool = True, **config: Any) -> torch.Tensor:
    return grpo_s_advantage(**tensors(batch), config=GRPOSConfig(**config), normalize_by_std=by_std)


def test_advantage_by_hand() -> None:
    """Correct: mean entropies 1.5 and 3, so 1 + 0.2/3 and 1 + 0.4/3. Incorrect: 1 and 0.5, the same with a minus sign.

    Two values are one std over sqrt(2) from their mean; the hole in the last rollout counts for nothing.
    """
    half = 1 / math.sqrt(2)
    assert advantage(MIXED).tolist() == pytest.approx([-half, half, half, -half], abs=1e-4)
    third = 0.1 / 3
    assert advantage(MIXED, by_std=False).tolist() == pytest.approx([-third, third, third, -third], abs=1e-8)


@given(BATCHES, SETTINGS, st.booleans())
@settings(max_examples=examples(150))
def test_advantage_against_loops(batch: list[EntropyRollout], config: dict[str, Any], by_std: bool) -> None:
    found = advantage(batch, by_std, **config)
    expected = [own.get(0, 0.0) for own in reference_advantage(batch, by_sequence=True, by_std=by_std, **config)]
    assert torch.isfinite(found).all()
    # The mean entropies are float32.
    assert found.tolist() == pytest.approx(expected, rel=1e-3, abs=1e-3)


@given(BATCHES, SETTINGS, st.integers(0, 3), st.sampled_from([0.0, math.nan, math.inf, -1e30]))
@settings(max_examples=examples(50))
def test_padding_and_what_it_holds(
    batch: list[EntropyRollout], config: dict[str, Any], padding: int, junk: float
) -> None:
    expected = advantage(batch, **config)
    assert torch.equal(grpo_s_advantage(**tensors(batch, padding, junk), config=GRPOSConfig(**config)), expected)
    with_empty_row = advantage([*batch, EntropyRollout("padding", False, (), ())], **config)
    assert torch.equal(with_empty_row[:-1], expected)
    assert with_empty_row[-1] == 0


@given(BATCHES, SETTINGS)
@settings(max_examples=examples(50))
def test_one_token_responses_are_gtpo_but_for_the_count_of_samples(
    batch: list[EntropyRollout], config: dict[str, Any]
) -> None:
    """With one token per rollout, tokens and rollouts are the same samples."""
    batch = [dataclasses.replace(one, entropy=one.entropy[:1], written=one.written[:1]) for one in batch]
    expected = gtpo_advantage(**tensors(batch, padding=1), config=GTPOConfig(**config)).sum(dim=-1)
    torch.testing.assert_close(advantage(batch, **config), expected, rtol=0, atol=1e-9)


def test_limits() -> None:
    equal = [rollout(True, 0.5, 0.5), rollout(True, 0.5, 0.5), rollout(False, 0.5, 0.5)]
    assert not advantage(equal).any()
    together = advantage(equal, normalization="together")
    torch.testing.assert_close(together, grpo(equal, [1.1, 1.1, -1.1])[:, 0], rtol=0, atol=1e-9)
    wrong = [rollout(False, 1.0), rollout(False, 2.0)]
    assert not advantage(wrong).any()
    assert advantage(wrong, all_wrong_groups="paper").abs().max() > 0.5
    assert advantage([rollout(True, 1.0), rollout(True, 2.0)]).abs().max() > 0.5
    assert not advantage([rollout(True, 1.0)]).any()
    below, zero = ([rollout(False, h, 1.0), rollout(True, h), rollout(True, 1.0)] for h in (-1e-8, 0.0))
    assert torch.equal(advantage(below), advantage(zero))
    with pytest.raises(NonFiniteSignalError, match="row 0, position 1"):
        advantage([rollout(True, 1.0, math.inf)])


def test_estimator() -> None:
    estimator = get_adv_estimator_fn("grpo_s")
    assert estimator.__module__ == "verl_ispo.trainer.method_adapter"
    signals, arguments = estimator_inputs(MIXED)
    with pytest.raises(MissingSignalsError, match="grpo_s"):
        estimator(**arguments)
    chosen = {"normalization": "together", "entropy_weight": 0.5}
    with handed_over(signals):
        plain, returns = estimator(**arguments)
        section = OmegaConf.create({"grpo_s": chosen, "norm_adv_by_std_in_grpo": False})
        configured, _ = estimator(**arguments, config=section)
        with pytest.raises(ValueError, match=r"'alpha' \(under algorithm\.grpo_s\)"):
            estimator(**arguments, config=OmegaConf.create({"grpo_s": {"alpha": 1}}))
    mask = arguments["response_mask"]
    assert plain.dtype == torch.float32
    assert torch.equal(plain, returns)
    assert torch.equal(plain, advantage(MIXED).float().unsqueeze(-1) * mask)
    assert torch.equal(configured, advantage(MIXED, by_std=False, **chosen).float().unsqueeze(-1) * mask)


def test_preset_repeats_the_defaults() -> None:
    text = (Path(verl_ispo.__file__).parent / "config/method/grpo_s.yaml").read_text()
    assert text.startswith("# @package _global_\n")
    preset = yaml.safe_load(text)
    assert preset == {
        "algorithm": {"adv_estimator": "grpo_s", "grpo_s": dataclasses.asdict(GRPOSConfig())},
        "actor_rollout_ref": {
            "actor": {"policy_loss": {"loss_mode": "grpo_s"}, "loss_agg_mode": "seq-mean-token-mean"}
        },
    }


def actor(**fields: Any) -> ActorConfig:
    bounds = {"clip_ratio_low": 0.2, "clip_ratio_high": 0.28}
    return ActorConfig(strategy="fsdp2", rollout_n=8, ppo_micro_batch_size_per_gpu=1, **(bounds | fields))


@st.composite
def minibatches(draw: st.DrawFn, width: int = 5, with_weights: bool = True) -> dict[str, torch.Tensor | None]:
    """Eight rows in float64, the first with tokens; one advantage per row; log-ratios mostly small, some beyond 20."""
    rows = 8

    def tensor(elements: st.SearchStrategy[float], columns: int = width) -> torch.Tensor:
        values = draw(st.lists(elements, min_size=rows * columns, max_size=rows * columns))
        return torch.tensor(values, dtype=torch.float64).reshape(rows, columns)

    old_log_prob = tensor(st.integers(-64, 0).map(lambda count: count / 16))
    near, far = st.integers(-13, 13).map(lambda count: count / 16), st.sampled_from([-25.0, -20.0, 5.0, 25.0])
    response_mask = tensor(st.sampled_from([1.0, 1.0, 0.0])).bool()
    response_mask[0, 0] = True
    weights = st.sampled_from([None, tensor(st.sampled_from([0.0, 0.5, 2.0]))]) if with_weights else st.none()
    return {
        "old_log_prob": old_log_prob,
        "log_prob": old_log_prob + tensor(st.one_of(near, near, near, far)),
        "advantages": tensor(st.sampled_from([-2.0, -0.5, 0.0, 0.5, 2.0]), 1) * response_mask,
        "response_mask": response_mask,
        "rollout_is_weights": draw(weights),
    }


def evaluate(loss_fn: Any, batch: dict[str, torch.Tensor | None], config: ActorConfig, mode: str) -> tuple:
    """Loss, gradient at the log-probs, metrics."""
    log_prob = batch["log_prob"].clone().requires_grad_()
    loss, metrics = loss_fn(**{**batch, "log_prob": log_prob}, config=config, loss_agg_mode=mode)
    loss.backward()
    return loss.detach(), log_prob.grad, metrics


def test_verl_finds_the_loss_by_name() -> None:
    assert get_policy_loss_fn("grpo_s") is compute_grpo_s_policy_loss


def test_loss_by_hand() -> None:
    """Ratios (1 + 1.2) / 2 = 1.1, free; (1 + 2) / 2 = 1.5, clipped to 1.28; 0.5 with A < 0, clipped to 0.8."""
    ratio = torch.tensor([[1.0, 1.2, 9.0], [1.0, 2.0, 9.0], [0.5, 9.0, 9.0]], dtype=torch.float64)
    mask = torch.tensor([[1, 1, 0], [1, 1, 0], [1, 0, 0]]).bool()
    batch = {
        "old_log_prob": torch.zeros(3, 3, dtype=torch.float64),
        "log_prob": ratio.log(),
        "advantages": torch.tensor([[1.0], [2.0], [-1.0]], dtype=torch.float64) * mask,
        "response_mask": mask,
    }
    loss, gradient, metrics = evaluate(compute_grpo_s_policy_loss, batch, actor(), "seq-mean-token-mean")
    assert loss.item() == pytest.approx((-1.1 - 2.56 + 0.8) / 3)
    # dL/dlog p_t = -A r_t / length / sequences
    assert gradient[0].tolist() == pytest.approx([-1 / 6, -1.2 / 6, 0.0])
    assert not gradient[1:].any()
    assert metrics["actor/pg_clipfrac"] == pytest.approx(3 / 5)
    assert metrics["actor/ppo_kl"] == pytest.approx(-(math.log(1.2) + math.log(2) + math.log(0.5)) / 5)
    token_mean, _, _ = evaluate(compute_grpo_s_policy_loss, batch, actor(), "token-mean")
    assert token_mean.item() == pytest.approx((-2 * 1.1 - 2 * 2.56 + 0.8) / 5)


@given(minibatches())
@settings(max_examples=examples(150))
def test_loss_against_loops(batch: dict[str, torch.Tensor | None]) -> None:
    loss, gradient, metrics = evaluate(compute_grpo_s_policy_loss, batch, actor(), "token-sum")
    total, clipped, divergence = 0.0, 0, 0.0
    tokens = batch["response_mask"].sum().item()
    for row in range(8):
        positions = batch["response_mask"][row].nonzero().flatten().tolist()
        log_ratios = [(batch["log_prob"][row, t] - batch["old_log_prob"][row, t]).item() for t in positions]
        log_ratios = [min(20.0, max(-20.0, value)) for value in log_ratios]
        if not positions:
            continue
        ratio = sum(math.exp(value) for value in log_ratios) / len(positions)
        row_advantage = batch["advantages"][row, positions[0]].item()
        bounded = min(1.28, max(0.8, ratio))
        row_loss = -min(row_advantage * ratio, row_advantage * bounded)
        weights = batch["rollout_is_weights"]
        total += sum(row_loss * (1.0 if weights is None else weights[row, t].item()) for t in positions)
        clipped += len(positions) * (row_advantage * bounded < row_advantage * ratio)
        divergence -= sum(log_ratios)
    assert loss.item() == pytest.approx(total, rel=1e-9, abs=1e-9)
    assert torch.isfinite(gradient).all()
    assert metrics["actor/pg_clipfrac"] == pytest.approx(clipped / tokens, abs=1e-6)
    assert metrics["actor/ppo_kl"] == pytest.approx(divergence / tokens, rel=1e-6, abs=1e-6)


@given(minibatches(width=1), st.sampled_from(LOSS_AGG_MODES))
@settings(max_examples=examples(100))
def test_one_token_responses_are_vanilla(batch: dict[str, torch.Tensor | None], mode: str) -> None:
    config = actor(clip_ratio_c=1e9)  # beyond exp(20), verl's own bound on the ratio
    loss, gradient, metrics = evaluate(compute_grpo_s_policy_loss, batch, config, mode)
    expected = evaluate(compute_policy_loss_vanilla, batch, config, mode)
    torch.testing.assert_close(loss, expected[0], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(gradient, expected[1], rtol=1e-12, atol=1e-12)
    for name in metrics:
        assert metrics[name] == pytest.approx(expected[2][name], abs=1e-6)


@given(minibatches(), st.sampled_from(LOSS_AGG_MODES), st.randoms(use_true_random=False))
@settings(max_examples=examples(75))
def test_micro_batches_and_workers(batch: dict[str, torch.Tensor | None], mode: str, random: Any) -> None:
    """verl adds gradients over micro-batches and averages them over workers; numbers of the global batch divide."""
    scale = {"batch_num_tokens": batch["response_mask"].sum().item(), "global_batch_size": 8, "loss_scale_factor": None}

    def part(rows: list[int], workers: int) -> tuple[torch.Tensor, torch.Tensor]:
        config = actor()
        config.global_batch_info.update(scale, dp_size=workers)
        some = {name: None if value is None else value[rows] for name, value in batch.items()}
        return evaluate(compute_grpo_s_policy_loss, some, config, mode)[:2]

    whole_loss, whole_gradient = part(list(range(8)), 1)
    order = random.sample(range(8), 8)
    for workers in (1, 2):
        for micro_batches in (2, 4, 8):
            size = 8 // micro_batches
            chunks = [order[start : start + size] for start in range(0, 8, size)]
            parts = [part(rows, workers) for rows in chunks]
            loss = sum(loss for loss, _ in parts) / workers
            gradient = torch.zeros_like(whole_gradient)
            for rows, (_, some) in zip(chunks, parts, strict=True):
                gradient[rows] = some / workers
            torch.testing.assert_close(loss, whole_loss, rtol=1e-9, atol=1e-12)
            torch.testing.assert_close(gradient, whole_gradient, rtol=1e-9, atol=1e-12)


@given(minibatches(with_weights=False), st.sampled_from(LOSS_AGG_MODES))
@settings(max_examples=examples(30))
def test_gradient_against_finite_differences(batch: dict[str, torch.Tensor | None], mode: str) -> None:
    log_ratio = 0.1 * (batch["log_prob"] - batch["old_log_prob"]).clamp(-5, 5)
    ratio = sequence_ratio(log_ratio, batch["response_mask"])
    # A row at a kink gets an advantage of 0, under which the kink is no kink.
    smooth = ((ratio - 0.8).abs() > 1e-3) & ((ratio - 1.28).abs() > 1e-3)
    batch = {**batch, "advantages": batch["advantages"] * smooth.unsqueeze(-1)}

    def loss(log_prob: torch.Tensor) -> torch.Tensor:
        return compute_grpo_s_policy_loss(**{**batch, "log_prob": log_prob}, config=actor(), loss_agg_mode=mode)[0]

    log_prob = (batch["old_log_prob"] + log_ratio).requires_grad_()
    assert torch.autograd.gradcheck(loss, log_prob, eps=1e-6, atol=1e-6)


def test_surrogate_where_both_branches_are_equal_is_not_clipped() -> None:
    loss, clipped = clipped_surrogate_loss(torch.tensor([1.0, 2.0, 2.0]), torch.tensor([1.0, 0.0, -1.0]), 0.2, 0.28)
    assert loss.tolist() == [-1.0, 0.0, 2.0]
    assert not clipped.any()


def test_ratio_takes_no_gradient_from_behind_the_mask() -> None:
    log_ratio = torch.tensor([[0.0, math.inf, math.nan]], requires_grad=True)
    ratio = sequence_ratio(log_ratio, torch.tensor([[True, False, False]]))
    ratio.sum().backward()
    assert ratio.tolist() == [1.0]
    assert log_ratio.grad.tolist() == [[1.0, 0.0, 0.0]]


def test_junk_behind_the_mask_and_empty_rows_stay_out() -> None:
    mask = torch.tensor([[True, False], [False, False]])
    batch = {
        "old_log_prob": torch.zeros(2, 2),
        "log_prob": torch.tensor([[0.1, math.inf], [math.nan, -math.inf]]),
        "advantages": torch.tensor([[1.0, math.nan], [0.0, 0.0]]),
        "response_mask": mask,
    }
    config = actor()
    config.global_batch_info.update(dp_size=1, batch_num_tokens=1, global_batch_size=2, loss_scale_factor=None)
    for mode in LOSS_AGG_MODES:
        loss, gradient, metrics = evaluate(compute_grpo_s_policy_loss, batch, config, mode)
        assert torch.isfinite(loss)
        assert gradient[mask].item() != 0
        assert not gradient[~mask].any()
        assert metrics["actor/ppo_kl"] == pytest.approx(-0.1)
