"""The direction in which each preset's loss and advantage push, by finite differences in float64.

In general: a sign, a detached factor or a clip bound that is exchanged leaves a training that runs, logs and learns the
opposite or nothing. So nothing here is taken from the code under test.

- The loss that verl calls for a preset, with the preset's composed config: autograd's gradient at the log-probs against
  central differences of the objective as its paper writes it, in loops over numbers (`OBJECTIVES`). Where the paper
  keeps a factor constant (CISPO's weight), the objective keeps its value of the point.
- Which way a token's log-prob moves, for each sign of the advantage on each side of the clip range (`PUSHES`).
- The advantage that verl calls for a preset: central differences in what the method says it rewards (`REWARDED_BY`).

A loss or an estimator that a preset uses or this project registers needs a row in these tables, or a reference under
tests/methods/references, whose slope test_against_references.py holds against the gradient.

Not exercised: verl's losses and estimators that no preset uses; float32; the rollout-correction weights
(test_prepo_weighted_loss.py); ISPO's composite reward, which is the reward here (tests/signals).
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import DictConfig, OmegaConf
from verl.trainer.ppo.core_algos import get_adv_estimator_fn, get_policy_loss_fn
from verl.utils.config import omega_conf_to_dataclass
from verl.workers.config import ActorConfig

from tests.composed import composed
from tests.methods.preset_settings import reference_of
from verl_ispo.method_presets import method_names, read_preset
from verl_ispo.methods.registry import methods
from verl_ispo.trainer.hand_over import KnownOfBatch, handed_over

STEP = 1e-6

# --- losses ---------------------------------------------------------------------------------------------------------


@cache
def presets_of_losses() -> dict[str, str]:
    """For each preset the first one with the same settings of the actor, whose config is composed."""
    first: dict[str, str] = {}
    chosen = {}
    for name in method_names():
        changes = {key: value for key, value in read_preset(name).changes.items() if key.startswith("actor_rollout")}
        chosen[name] = first.setdefault(json.dumps(changes, sort_keys=True, default=str), name)
    return chosen


@cache
def actor_of(preset: str) -> ActorConfig:
    """The actor's config as a worker has it, with what verl notes in it before it calls the loss."""
    config = omega_conf_to_dataclass(composed(f"method={preset}").actor_rollout_ref.actor)
    config.global_batch_info["loss_scale_factor"] = config.loss_scale_factor
    return config


def loss_of(preset: str) -> str:
    """Name of the policy loss that a preset trains with."""
    return read_preset(preset).changes.get("actor_rollout_ref.actor.policy_loss.loss_mode", "vanilla")


RATIOS = (0.3, 0.7, 0.79, 0.9, 0.9999, 1.0001, 1.1, 1.27, 1.35, 2.9, 3.2)
"""On both sides of every bound of every preset, and on none of them."""


def mini_batch(seed: int) -> dict[str, torch.Tensor]:
    """Five rollouts of up to six tokens, one of them without any, a hole inside another; one advantage per rollout."""
    generator = torch.Generator().manual_seed(seed)
    mask = (torch.arange(6) < torch.tensor([6, 3, 5, 1, 0]).unsqueeze(-1)).double()
    mask[0, 2] = 0
    ratio = torch.tensor(RATIOS, dtype=torch.float64)[torch.randint(len(RATIOS), mask.shape, generator=generator)]
    if seed % 2:  # ratios near 1, so that sequences fall on both sides of GSPO's narrow range too
        ratio = 1 + (ratio - 1) / 1000
    old_log_prob = -torch.rand(mask.shape, generator=generator, dtype=torch.float64) - 0.1
    advantage = torch.randn(5, 1, generator=generator, dtype=torch.float64)
    return {
        "old_log_prob": old_log_prob,
        "log_prob": old_log_prob + ratio.log(),
        "advantages": advantage.expand(mask.shape) * mask,
        "response_mask": mask,
    }


def gradient_of_loss(preset: str, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Autograd's, of the loss that verl looks up, `(batch, length)` float64."""
    config = actor_of(preset)
    log_prob = batch["log_prob"].clone().requires_grad_()
    given = {**batch, "log_prob": log_prob, "response_mask": batch["response_mask"].bool()}
    loss_of = get_policy_loss_fn(config.policy_loss.loss_mode)
    loss, _ = loss_of(**given, loss_agg_mode=config.loss_agg_mode, config=config)
    loss.backward()
    return log_prob.grad


Rows = list[list[float]]
"""One list per rollout, its unmasked tokens alone."""


def clipped(advantage: float, ratio: float, config: ActorConfig) -> float:
    """-min(A r, A clip(r)), PPO's surrogate."""
    inside = min(max(ratio, 1 - config.clip_ratio_low), 1 + config.clip_ratio_high)
    return -min(advantage * ratio, advantage * inside)


def dual_clipped(advantage: float, ratio: float, config: ActorConfig) -> float:
    """PPO's surrogate, for A < 0 not above -A c (arXiv 1912.09729)."""
    loss = clipped(advantage, ratio, config)
    return min(loss, -advantage * config.clip_ratio_c) if advantage < 0 else loss


def per_token(ratios: Rows, _at_point: Rows, advantages: Rows, _log_probs: Rows, config: ActorConfig) -> Rows:
    """PPO's and so GRPO's: each token by its own ratio."""
    rows = zip(advantages, ratios, strict=True)
    return [[dual_clipped(a, r, config) for a, r in zip(*row, strict=True)] for row in rows]


def gspo(ratios: Rows, _at_point: Rows, advantages: Rows, _log_probs: Rows, config: ActorConfig) -> Rows:
    """arXiv 2507.18071, eq. 5 and 7: s_i is the geometric mean of the token ratios."""
    means = [math.exp(sum(map(math.log, row)) / max(1, len(row))) for row in ratios]
    return [[clipped(a, s, config) for a in row] for row, s in zip(advantages, means, strict=True)]


def grpo_s(ratios: Rows, _at_point: Rows, advantages: Rows, _log_probs: Rows, config: ActorConfig) -> Rows:
    """arXiv 2508.04349: s_i is the mean of the token ratios."""
    means = [sum(row) / max(1, len(row)) for row in ratios]
    return [[clipped(a, s, config) for a in row] for row, s in zip(advantages, means, strict=True)]


def cispo(_ratios: Rows, at_point: Rows, advantages: Rows, log_probs: Rows, config: ActorConfig) -> Rows:
    """arXiv 2506.13585, eq. 4: sg(clip(r)) A log p."""
    low, high = 1 - config.clip_ratio_low, 1 + config.clip_ratio_high
    rows = zip(at_point, advantages, log_probs, strict=True)
    return [[-min(max(r, low), high) * a * p for r, a, p in zip(*row, strict=True)] for row in rows]


def sapo(ratios: Rows, _at_point: Rows, advantages: Rows, _log_probs: Rows, config: ActorConfig) -> Rows:
    """arXiv 2511.20347: a soft gate on the ratio, 4 / tau sigmoid(tau (r - 1)), in place of a clip."""

    def gate(ratio: float, tau: float) -> float:
        return 4 / tau / (1 + math.exp(-tau * (ratio - 1)))

    rows = zip(advantages, ratios, strict=True)
    return [
        [-a * gate(r, config.tau_pos if a > 0 else config.tau_neg) for a, r in zip(*row, strict=True)] for row in rows
    ]


OBJECTIVES: dict[str, Callable[[Rows, Rows, Rows, Rows, ActorConfig], Rows]] = {
    "vanilla": per_token,
    "ispo": per_token,
    "gspo": gspo,
    "grpo_s": grpo_s,
    "cispo": cispo,
    "sapo": sapo,
}
"""Losses of tokens, from ratios, ratios at the point, advantages and log-probs, by the loss's name."""
WITH_ROW = [name for name in method_names() if loss_of(name) in OBJECTIVES]
LOSSES = sorted({presets_of_losses()[name] for name in WITH_ROW})


def mean_of(losses: Rows, config: ActorConfig) -> float:
    """The mean that the preset takes, over rollouts that have tokens."""
    rows = [row for row in losses if row]
    return {
        "token-mean": lambda: sum(map(sum, rows)) / sum(map(len, rows)),
        "seq-mean-token-mean": lambda: sum(sum(row) / len(row) for row in rows) / len(rows),
        "seq-mean-token-sum": lambda: sum(map(sum, rows)) / len(rows),
        "seq-mean-token-sum-norm": lambda: sum(map(sum, rows)) / len(rows) / config.loss_scale_factor,
    }[config.loss_agg_mode]()


def central_differences(preset: str, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Of the paper's objective at each log-prob, `(batch, length)` float64."""
    config, mask = actor_of(preset), batch["response_mask"].bool()
    objective = OBJECTIVES[config.policy_loss.loss_mode]

    def rows(values: torch.Tensor) -> Rows:
        return [row[kept].tolist() for row, kept in zip(values, mask, strict=True)]

    def value(log_prob: torch.Tensor) -> float:
        ratios = (rows((which - batch["old_log_prob"]).exp()) for which in (log_prob, batch["log_prob"]))
        return mean_of(objective(*ratios, rows(batch["advantages"]), rows(log_prob), config), config)

    gradient = torch.zeros_like(batch["log_prob"])
    for place in mask.nonzero().tolist():
        step = torch.zeros_like(gradient)
        step[tuple(place)] = STEP
        difference = value(batch["log_prob"] + step) - value(batch["log_prob"] - step)
        gradient[tuple(place)] = difference / (2 * STEP)
    return gradient


def test_every_loss_of_ours_and_of_a_preset_has_an_objective_or_a_reference() -> None:
    ours = {method.name for method in methods().values() if method.brings_a_loss}
    used = {loss_of(name) for name in method_names()} | ours
    assert set(OBJECTIVES) == set(PUSHES) <= used
    assert [name for name in used - set(OBJECTIVES) if not hasattr(reference_of(name), "token_loss")] == []


@pytest.mark.parametrize("preset", LOSSES)
@pytest.mark.parametrize("seed", range(4))
def test_the_gradient_is_that_of_the_papers_objective(preset: str, seed: int) -> None:
    batch = mini_batch(seed)
    found = gradient_of_loss(preset, batch)
    torch.testing.assert_close(found, central_differences(preset, batch), rtol=1e-6, atol=1e-8)
    assert (found[batch["response_mask"] == 0] == 0).all(), "a masked token is not pushed"
    assert found.abs().max() > 0


UP, DOWN, STAYS = 1, -1, 0
INSIDE, BELOW, ABOVE, FAR_ABOVE = "inside", "below", "above", "far above"
CLIPPED = {
    INSIDE: (UP, DOWN),
    BELOW: (UP, STAYS),
    ABOVE: (STAYS, DOWN),
}
PUSHES = {
    # beyond the dual clip an A < 0 pushes no more
    "vanilla": CLIPPED | {FAR_ABOVE: (STAYS, STAYS)},
    "ispo": CLIPPED | {FAR_ABOVE: (STAYS, STAYS)},
    "gspo": CLIPPED | {FAR_ABOVE: (STAYS, DOWN)},
    "grpo_s": CLIPPED | {FAR_ABOVE: (STAYS, DOWN)},
    # the weight is clipped, and no token loses its gradient
    "cispo": dict.fromkeys((INSIDE, BELOW, ABOVE, FAR_ABOVE), (UP, DOWN)),
    "sapo": dict.fromkeys((INSIDE, BELOW, ABOVE, FAR_ABOVE), (UP, DOWN)),
}
"""Where the log-prob moves for A > 0 and for A < 0, by the position of the token's (or the sequence's) ratio."""


@pytest.mark.parametrize("preset", sorted(WITH_ROW))
@pytest.mark.parametrize("where", [INSIDE, BELOW, ABOVE, FAR_ABOVE])
def test_a_token_moves_as_its_advantage_says(preset: str, where: str) -> None:
    preset = presets_of_losses()[preset]
    config = actor_of(preset)
    ratio = {
        INSIDE: 1 + config.clip_ratio_high / 2,
        BELOW: max(1 - config.clip_ratio_low, 0.1) - 0.05,
        ABOVE: 1 + config.clip_ratio_high + 0.05,
        FAR_ABOVE: config.clip_ratio_c + 0.05,
    }[where]
    old_log_prob = torch.full((2, 3), -2.0, dtype=torch.float64)
    batch = {
        "old_log_prob": old_log_prob,
        "log_prob": old_log_prob + math.log(ratio),
        "advantages": torch.tensor([[0.7] * 3, [-0.7] * 3], dtype=torch.float64),
        "response_mask": torch.ones(2, 3),
    }
    moves = -gradient_of_loss(preset, batch).sign()
    expected = torch.tensor(PUSHES[config.policy_loss.loss_mode][where], dtype=torch.float64)
    assert torch.equal(moves, expected.unsqueeze(-1).expand(2, 3))


# --- advantages -----------------------------------------------------------------------------------------------------

GROUPS = np.array([*"aaaabbbbc"], dtype=object)
CORRECT = torch.tensor([True, True, False, False, True, False, False, False, False])
"""Two mixed groups of four; the last row only pads the batch."""
LENGTHS = torch.tensor([5, 3, 4, 2, 5, 1, 3, 4, 0])
ROLLOUTS = range(8)


def algorithm_of(preset: str) -> DictConfig:
    """The section ``algorithm`` of a preset: the base's, with the preset's changes."""
    changes = {key: value for key, value in read_preset(preset).changes.items() if key.startswith("algorithm.")}
    base = OmegaConf.create({"algorithm": composed("method=grpo").algorithm})
    OmegaConf.set_struct(base, False)
    for key, value in changes.items():
        OmegaConf.update(base, key, value)
    return base.algorithm


def values_of_batch(seed: int) -> dict[str, torch.Tensor]:
    """What estimators read, in float64; scores differ in every group, and are higher where the verdict is positive."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> torch.Tensor:
        return torch.rand(*shape, generator=generator, dtype=torch.float64)

    return {
        "score": CORRECT.double() + draw(9) / 4,
        "entropy": 0.5 + draw(9, 5),
        "log_prob": -0.5 - draw(9, 5),
        "prompt_log_prob": -0.5 - draw(9, 3),
    }


def advantages(algorithm: DictConfig, values: dict[str, torch.Tensor], correct: torch.Tensor = CORRECT) -> torch.Tensor:
    """Of every rollout: the mean over its tokens of what verl's look-up gives, `(8,)` float64."""
    mask = (torch.arange(5) < LENGTHS.unsqueeze(-1)).double()
    rewards = torch.zeros(9, 5, dtype=torch.float64)
    rewards[torch.arange(9), (LENGTHS - 1).clamp(min=0)] = values["score"] * (LENGTHS > 0)
    known = KnownOfBatch(
        correct=correct,
        log_prob=values["log_prob"],
        entropy=values["entropy"],
        prompt_log_prob=values["prompt_log_prob"],
        prompt_mask=torch.ones(9, 3, dtype=torch.bool),
    )
    given: dict[str, Any] = {"token_level_rewards": rewards, "response_mask": mask, "index": GROUPS}
    if algorithm.adv_estimator == "grpo":  # verl hands this one its switch beside the config
        given["norm_adv_by_std_in_grpo"] = algorithm.norm_adv_by_std_in_grpo
    with handed_over(known):
        found, _ = get_adv_estimator_fn(algorithm.adv_estimator)(**given, config=algorithm)
    assert (found[8] == 0).all(), "a padding row has no advantage"
    return ((found * mask).sum(dim=-1) / LENGTHS.clamp(min=1))[:8]


def slopes(
    algorithm: DictConfig, values: dict[str, torch.Tensor], name: str, rollout: int, step: float = 1e-5
) -> torch.Tensor:
    """Central differences of all advantages as one value of one rollout is raised, on all its tokens; `(8,)`."""
    moved = []
    for sign in (1, -1):
        raised = values[name].clone()
        raised[rollout] += sign * step
        moved.append(advantages(algorithm, {**values, name: raised}))
    return (moved[0] - moved[1]) / (2 * step)


def of_group_baseline(algorithm: DictConfig, values: dict[str, torch.Tensor]) -> None:
    """A higher reward raises the own advantage, at the cost of the rest of the group together, and nobody else's."""
    for rollout in ROLLOUTS:
        slope = slopes(algorithm, values, "score", rollout)
        same_group = torch.tensor(GROUPS[:8] == GROUPS[rollout])
        assert slope[rollout] > 1e-3
        rest = slope[same_group].sum() - slope[rollout]
        assert rest < -1e-3
        assert (slope[~same_group].abs() < 1e-9).all()


def of_weighted_group_baseline(algorithm: DictConfig, values: dict[str, torch.Tensor]) -> None:
    """PREPO: as the group's baseline; and surer rollouts, of lower entropy, count less, for better and worse."""
    of_group_baseline(algorithm, {**values, "entropy": torch.ones_like(values["entropy"])})
    base = advantages(algorithm, values)
    for rollout in ROLLOUTS:
        assert slopes(algorithm, values, "entropy", rollout)[rollout] * base[rollout] > 0


def of_baseline_with_confidence(algorithm: DictConfig, values: dict[str, torch.Tensor]) -> None:
    """ProGRPO: as the group's baseline; less where the policy is sure of the response, more where of the prompt."""
    of_group_baseline(algorithm, values)
    for rollout in ROLLOUTS:
        assert slopes(algorithm, values, "log_prob", rollout)[rollout] < 0
        assert slopes(algorithm, values, "prompt_log_prob", rollout)[rollout] > 0


def of_batch_baseline(algorithm: DictConfig, values: dict[str, torch.Tensor]) -> None:
    """REINFORCE++, also with a group baseline: a higher reward raises the own advantage at the cost of all others."""
    for rollout in ROLLOUTS:
        slope = slopes(algorithm, values, "score", rollout) * LENGTHS[:8]
        assert slope[rollout] > 1e-3
        assert slope.sum() - slope[rollout] < -1e-3


def of_verdict(algorithm: DictConfig, values: dict[str, torch.Tensor]) -> None:
    """Sign: the verdict alone, up where it is positive; neither the score nor another rollout has a say."""
    base = advantages(algorithm, values)
    assert torch.equal(base > 0, CORRECT[:8])
    for rollout in ROLLOUTS:
        assert (slopes(algorithm, values, "score", rollout) == 0).all()
        turned = CORRECT.clone()
        turned[rollout] = ~turned[rollout]
        change = advantages(algorithm, values, turned) - base
        assert change[rollout] * (1 if turned[rollout] else -1) > 0
        assert (change[torch.arange(8) != rollout] == 0).all()


def of_entropy(algorithm: DictConfig, values: dict[str, torch.Tensor]) -> None:
    """GTPO and GRPO-S: of rollouts with one verdict in a group the less sure ones gain, and the score has no say.

    With correct and incorrect normalized together (ours) a positive verdict raises the own advantage.
    """
    # a group's only correct or incorrect rollout has nothing to be compared with
    for rollout in (0, 1, 2, 3, 5, 6, 7):
        assert (slopes(algorithm, values, "score", rollout) == 0).all()
        assert slopes(algorithm, values, "entropy", rollout)[rollout] >= -1e-9
    some = [slopes(algorithm, values, "entropy", rollout)[rollout] for rollout in (5, 6, 7)]
    assert max(some) > 1e-3
    together = OmegaConf.merge(algorithm, {algorithm.adv_estimator: {"normalization": "together"}})
    base = advantages(together, values)
    for rollout in (0, 1, 2, 3):
        turned = CORRECT.clone()
        turned[rollout] = ~turned[rollout]
        change = advantages(together, values, turned)[rollout] - base[rollout]
        assert change * (1 if turned[rollout] else -1) > 0


REWARDED_BY: dict[str, Callable[[DictConfig, dict[str, torch.Tensor]], None]] = {
    "grpo": of_group_baseline,
    "ispo": of_group_baseline,
    "rloo": of_group_baseline,
    "prepo": of_weighted_group_baseline,
    "progrpo": of_baseline_with_confidence,
    "reinforce_plus_plus": of_batch_baseline,
    "reinforce_plus_plus_baseline": of_batch_baseline,
    "sign": of_verdict,
    "gtpo": of_entropy,
    "grpo_s": of_entropy,
}
"""What an estimator says it rewards, by its name."""


def estimator_of(preset: str) -> str:
    return read_preset(preset).changes.get("algorithm.adv_estimator", "grpo")


def test_every_estimator_of_ours_and_of_a_preset_says_what_it_rewards_or_has_a_reference() -> None:
    used = {estimator_of(name) for name in method_names()} | set(methods())
    assert set(REWARDED_BY) <= used
    assert [name for name in used - set(REWARDED_BY) if reference_of(name) is None] == []


@pytest.mark.parametrize("preset", [name for name in method_names() if estimator_of(name) in REWARDED_BY])
def test_an_advantage_rises_with_what_the_method_rewards(preset: str) -> None:
    algorithm = algorithm_of(preset)
    for seed in range(2):
        REWARDED_BY[algorithm.adv_estimator](algorithm, values_of_batch(seed))


@pytest.mark.parametrize("sequence", [(1, 0, 0, 0), (0, 0, 0, 1), (1, 1, 0, 1)])
def test_the_slope_of_grpo_is_the_one_by_hand(sequence: Sequence[int]) -> None:
    """dA_i / dR_i = (1 - 1/n - A_i^2 / (n - 1)) / s; a group of four with distinct rewards near the given outcomes."""
    algorithm = algorithm_of("grpo")
    values = values_of_batch(0)
    values["score"][:4] = torch.tensor(sequence, dtype=torch.float64) + torch.tensor([0.0, 0.1, 0.02, 0.05])
    std, found = values["score"][:4].std(), advantages(algorithm, values)
    for rollout in range(4):
        expected = (1 - 1 / 4 - found[rollout] ** 2 / 3) / std
        slope = slopes(algorithm, values, "score", rollout)[rollout]
        assert slope.item() == pytest.approx(expected.item(), abs=1e-4)
