"""ProGRPO's advantage, from the estimator that verl calls down to c(x).

Checked: agreement with plain loops in float64, written from the rule alone; hand-computed cases; that only prompts with
something to say about a rollout move it (order of rows, padding, what masks hide, the rest of the batch); the limits in
which it is bitwise GRPO; what all-wrong groups, all-right groups, groups of one, padding rows and prompts of one
token get; that the default weight turns no sign in a mixed group; refusals; the preset.

Not exercised: that it trains like the paper's (its constant a is not known to us), and the trainer that provides the
prompts' log-probs.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import DictConfig, OmegaConf
from verl import DataProto
from verl.trainer.ppo.core_algos import compute_grpo_outcome_advantage, get_adv_estimator_fn
from verl.trainer.ppo.v1.utils import compute_advantage_for_multi_trajectories

import verl_ispo
from tests.composed import composed
from tests.examples import examples
from tests.methods.references.progrpo import term
from verl_ispo.config import UnknownISPOKeyError
from verl_ispo.methods.progrpo import ProGRPOConfig, low_probability_confidence
from verl_ispo.signals.checks import NonFiniteSignalError, SignalShapeError
from verl_ispo.trainer.hand_over import KnownOfBatch, handed_over
from verl_ispo.trainer.method_adapter import MissingSignalsError

compute_progrpo_advantage = get_adv_estimator_fn("progrpo")

PRESET = Path(verl_ispo.__file__).parent / "config" / "method" / "progrpo.yaml"


@dataclasses.dataclass(frozen=True)
class Row:
    """One rollout: log-probs of its tokens, of which the policy wrote some, and of its prompt but for the first."""

    group: str
    correct: bool
    score: float
    log_prob: tuple[float, ...]
    written: tuple[bool, ...]
    prompt: tuple[float, ...]


def row(group: str, correct: bool, response: Sequence[float], prompt: Sequence[float]) -> Row:
    """From probabilities; every token written, 0/1 score."""
    return Row(
        group,
        correct,
        float(correct),
        tuple(map(math.log, response)),
        (True,) * len(response),
        (*map(math.log, prompt),),
    )


PADDING_ROW = Row("padding", False, 0.0, (), (), ())


@st.composite
def rows(draw: st.DrawFn) -> Row:
    # Multiples of 1/16 are exact, so that equal log-probs are frequent and sums do not depend on their order.
    log_prob = st.integers(-96, 0).map(lambda count: count / 16)
    response = draw(st.lists(log_prob, max_size=12))
    correct = draw(st.booleans())
    return Row(
        group=draw(st.sampled_from("abc")),
        correct=correct,
        score=draw(st.sampled_from([float(correct), 2.0 * correct - 1, 0.5])),
        log_prob=tuple(response),
        written=tuple(draw(st.lists(st.booleans(), min_size=len(response), max_size=len(response)))),
        prompt=tuple(draw(st.lists(log_prob, max_size=12))),
    )


batches = st.lists(rows(), min_size=1, max_size=10)
configs = st.builds(
    ProGRPOConfig,
    confidence_weight=st.sampled_from([0.0, 0.1, 1.0, 3.0]),
    low_probability_fraction=st.sampled_from([0.01, 0.07, 0.2, 0.3, 0.5, 1.0]),
    all_right_groups=st.sampled_from(["keep", "skip"]),
)


def arguments(batch: Sequence[Row], padding: int = 0, junk: float = 0.0) -> tuple[dict[str, Any], KnownOfBatch]:
    """What verl hands to the estimator, and the signals; ``junk`` wherever a mask is false."""
    width = max(len(one.log_prob) for one in batch) + 1 + padding
    prompt_width = max(len(one.prompt) for one in batch) + padding
    log_prob, response_mask = torch.full((len(batch), width), junk), torch.zeros(len(batch), width, dtype=torch.long)
    prompt_log_prob = torch.full((len(batch), prompt_width), junk)
    prompt_mask = torch.zeros(len(batch), prompt_width, dtype=torch.bool)
    rewards = torch.zeros(len(batch), width)
    for number, one in enumerate(batch):
        rewards[number, max(len(one.log_prob) - 1, 0)] = one.score
        for position, (value, written) in enumerate(zip(one.log_prob, one.written, strict=True)):
            if written:
                log_prob[number, position], response_mask[number, position] = value, 1
        for position, value in enumerate(one.prompt):
            prompt_log_prob[number, position], prompt_mask[number, position] = value, True
    index = np.array([one.group for one in batch], dtype=object)
    signals = KnownOfBatch(
        correct=torch.tensor([one.correct for one in batch]),
        log_prob=log_prob,
        entropy=torch.full_like(log_prob, junk),
        prompt_log_prob=prompt_log_prob,
        prompt_mask=prompt_mask,
    )
    return {"token_level_rewards": rewards, "response_mask": response_mask, "index": index}, signals


def algorithm(config: ProGRPOConfig, normalize_by_std: bool = True) -> DictConfig:
    return OmegaConf.create({"norm_adv_by_std_in_grpo": normalize_by_std, "progrpo": dataclasses.asdict(config)})


def advantages_of(
    batch: Sequence[Row],
    config: ProGRPOConfig = ProGRPOConfig(),  # noqa: B008 - frozen
    normalize_by_std: bool = True,
    **layout: Any,
) -> torch.Tensor:
    given_by_verl, signals = arguments(batch, **layout)
    with handed_over(signals):
        advantages, returns = compute_progrpo_advantage(**given_by_verl, config=algorithm(config, normalize_by_std))
    assert torch.equal(advantages, returns)
    assert torch.isfinite(advantages).all()
    return advantages


def grpo_of(batch: Sequence[Row], normalize_by_std: bool = True) -> torch.Tensor:
    return compute_grpo_outcome_advantage(**arguments(batch)[0], norm_adv_by_std_in_grpo=normalize_by_std)[0]


def rollout_advantages(advantages: torch.Tensor) -> list[float]:
    """One number per rollout, from its first token."""
    return advantages[:, 0].tolist()


def reference_advantage(batch: Sequence[Row], number: int, config: ProGRPOConfig, normalize_by_std: bool) -> float:
    """The rule, for one rollout."""
    one = batch[number]
    group = [other for other in batch if other.group == one.group]
    advantage = one.score
    std = 1.0
    if len(group) > 1:
        advantage -= statistics.fmean(other.score for other in group)
        std = statistics.stdev(other.score for other in group)
    if normalize_by_std:
        advantage /= std + 1e-6
    response = [value for value, written in zip(one.log_prob, one.written, strict=True) if written]
    return advantage + term(response, one.prompt, [other.correct for other in group], config)


def test_verl_finds_it_by_name() -> None:
    assert get_adv_estimator_fn("progrpo").__module__ == "verl_ispo.trainer.method_adapter"


@given(batches, configs, st.booleans())
@settings(max_examples=examples(200))
def test_the_loop_reference(batch: list[Row], config: ProGRPOConfig, normalize_by_std: bool) -> None:
    advantages = advantages_of(batch, config, normalize_by_std)
    for number, one in enumerate(batch):
        expected = reference_advantage(batch, number, config, normalize_by_std)
        for position in range(advantages.shape[1]):
            written = position < len(one.written) and one.written[position]
            assert advantages[number, position].item() == pytest.approx(
                expected if written else 0.0, rel=1e-5, abs=1e-5
            )


def test_a_worked_example() -> None:
    """Responses of 5 tokens: 1 of them counts. A prompt of 6: 2 count. A is +-0.7071.

    c(q) = sqrt(0.5 * 0.08) = 0.2; c(o) = 0.25 and 0.6.
    """
    prompt = [0.9, 0.5, 1.0, 0.7, 0.08, 0.6]
    batch = [row("q", True, [0.9, 0.25, 1.0, 0.5, 0.5], prompt), row("q", False, [1.0, 0.6, 0.6, 0.7, 0.9], prompt)]
    found = rollout_advantages(advantages_of(batch, ProGRPOConfig(confidence_weight=0.1)))
    assert found == pytest.approx([0.70710 + 0.1 * (0.2 - 0.25), -0.70710 + 0.1 * (0.2 - 0.6)], abs=1e-5)


@pytest.mark.parametrize(
    ("tokens", "counted"), [(1, 1), (4, 1), (5, 1), (6, 2), (10, 2), (11, 3), (100, 20), (101, 21)]
)
def test_confidence_counts_the_fifth_rounded_up(tokens: int, counted: int) -> None:
    """Log-probs -1, -2, ... -tokens in no order: the mean of the lowest `counted` is known."""
    log_prob = -1.0 - torch.randperm(tokens, generator=torch.Generator().manual_seed(0)).float().unsqueeze(0) / 100
    expected = math.exp(-1.0 - (tokens - 1 - (counted - 1) / 2) / 100)
    found = low_probability_confidence(log_prob, torch.ones(1, tokens, dtype=torch.bool), 0.2)
    assert found.item() == pytest.approx(expected, rel=1e-6)


def test_confidence_with_ties_and_without_tokens() -> None:
    tied = torch.tensor([[-0.5, -0.5, -0.5, -0.25, -0.5, -0.125]])
    assert low_probability_confidence(tied, torch.ones_like(tied).bool(), 0.5).item() == pytest.approx(math.exp(-0.5))
    assert low_probability_confidence(tied, torch.zeros_like(tied).bool(), 0.5).item() == 1.0
    assert low_probability_confidence(tied[:, :0], torch.zeros(1, 0, dtype=torch.bool), 0.5).item() == 1.0


@given(batches, configs, st.integers(0, 4), st.sampled_from([math.nan, math.inf, -math.inf, 1e30]))
@settings(max_examples=examples(75))
def test_padding_and_what_masks_hide(batch: list[Row], config: ProGRPOConfig, padding: int, junk: float) -> None:
    one, other = advantages_of(batch, config), advantages_of(batch, config, padding=padding, junk=junk)
    assert torch.equal(one, other[:, : one.shape[1]])
    assert not other[:, one.shape[1] :].any()


@given(batches, configs, st.randoms(use_true_random=False))
@settings(max_examples=examples(75))
def test_order_of_rows(batch: list[Row], config: ProGRPOConfig, random: Any) -> None:
    order = list(range(len(batch)))
    random.shuffle(order)
    shuffled = advantages_of([batch[number] for number in order], config)
    torch.testing.assert_close(shuffled, advantages_of(batch, config)[order], rtol=1e-5, atol=1e-5)


@given(batches, configs, st.integers(1, 3))
@settings(max_examples=examples(50))
def test_padding_rows_are_zero_and_change_nothing(batch: list[Row], config: ProGRPOConfig, count: int) -> None:
    padding_rows = [dataclasses.replace(PADDING_ROW, group=f"padding-{number}") for number in range(count)]
    found = advantages_of([*batch, *padding_rows], config)
    assert torch.equal(found[: len(batch)], advantages_of(batch, config))
    assert not found[len(batch) :].any()


@given(batches, st.booleans())
@settings(max_examples=examples(75))
def test_weight_0_is_grpo_to_the_bit(batch: list[Row], normalize_by_std: bool) -> None:
    found = advantages_of(batch, ProGRPOConfig(confidence_weight=0.0), normalize_by_std)
    assert torch.equal(found, grpo_of(batch, normalize_by_std))


@given(batches, configs, st.randoms(use_true_random=False))
@settings(max_examples=examples(75))
def test_equal_confidences_are_grpo_to_the_bit(batch: list[Row], config: ProGRPOConfig, random: Any) -> None:
    """Each prompt has its response's log-probs, in another order."""
    same = []
    for one in batch:
        written = [value for value, is_written in zip(one.log_prob, one.written, strict=True) if is_written]
        random.shuffle(written)
        same.append(dataclasses.replace(one, prompt=tuple(written)))
    assert torch.equal(advantages_of(same, config), grpo_of(same))


def test_weight_0_through_verls_own_dispatch() -> None:
    batch = [row("q", True, [0.5, 0.1], [0.3]), row("q", False, [0.5], [0.3]), row("r", True, [0.2], [0.3, 0.4])]
    given_by_verl, signals = arguments(batch)
    found = {}
    for estimator in ("grpo", "progrpo"):
        data = DataProto.from_dict(
            tensors={name: given_by_verl[name].clone() for name in ("token_level_rewards", "response_mask")},
            non_tensors={"uid": given_by_verl["index"]},
        )
        with handed_over(signals):
            data = compute_advantage_for_multi_trajectories(
                data,
                batch_keys=["q_0_0", "q_1_0", "r_0_0"],
                adv_estimator=estimator,
                config=algorithm(ProGRPOConfig(confidence_weight=0.0)),
            )
        found[estimator] = data.batch["advantages"]
    assert torch.equal(found["grpo"], found["progrpo"])
    assert found["grpo"].any()


def test_all_wrong_groups_get_nothing() -> None:
    batch = [row("q", False, [0.9], [0.1]), row("q", False, [0.1], [0.1])]
    assert rollout_advantages(advantages_of(batch)) == [0.0, 0.0]


def test_all_right_groups_get_the_term_alone_or_nothing() -> None:
    batch = [row("q", True, [0.9], [0.4]), row("q", True, [0.1], [0.4])]
    kept = advantages_of(batch, ProGRPOConfig(confidence_weight=0.1, all_right_groups="keep"))
    assert rollout_advantages(kept) == pytest.approx([-0.05, 0.03])
    skipped = advantages_of(batch, ProGRPOConfig(confidence_weight=0.1, all_right_groups="skip"))
    assert rollout_advantages(skipped) == [0.0, 0.0]


def test_skip_leaves_mixed_groups_alone() -> None:
    batch = [row("q", True, [0.9], [0.4]), row("q", False, [0.1], [0.4])]
    keep, skip = (advantages_of(batch, ProGRPOConfig(all_right_groups=mode)) for mode in ("keep", "skip"))
    assert torch.equal(keep, skip)
    assert not torch.equal(keep, grpo_of(batch))


def test_groups_of_one() -> None:
    """verl's GRPO keeps the score of a group of one; incorrect: 0, correct: 1 and the term."""
    batch = [row("wrong", False, [0.9], [0.4]), row("right", True, [0.9], [0.4])]
    found = advantages_of(batch, ProGRPOConfig(confidence_weight=0.1))
    assert rollout_advantages(found) == pytest.approx([0.0, 1.0 - 0.05], abs=2e-6)


def test_wrong_goes_by_the_verdict_and_not_by_the_score() -> None:
    """Scores -1 and +1 sum to 0, and shaped scores are not 0 in an all-wrong group."""
    mixed = [row("q", True, [0.9], [0.4]), dataclasses.replace(row("q", False, [0.1], [0.4]), score=-1.0)]
    assert rollout_advantages(advantages_of(mixed)) == pytest.approx([0.7071 - 0.05, -0.7071 + 0.03], abs=1e-4)
    shaped = [dataclasses.replace(row("q", False, [value], [0.4]), score=value) for value in (0.9, 0.1)]
    assert torch.equal(advantages_of(shaped), grpo_of(shaped))


def test_a_prompt_of_one_token_leaves_the_term_out() -> None:
    batch = [row("q", True, [0.9], []), row("q", False, [0.1], [])]
    assert torch.equal(advantages_of(batch), grpo_of(batch))


@given(
    st.integers(2, 40).flatmap(lambda size: st.tuples(st.just(size), st.integers(1, size - 1))),
    st.floats(-200, 0),
    st.lists(st.floats(-200, 0), min_size=40, max_size=40),
)
@settings(max_examples=examples(75))
def test_the_default_weight_turns_no_sign_in_a_mixed_group(
    sizes: tuple[int, int], prompt: float, responses: list[float]
) -> None:
    size, right = sizes
    batch = [
        Row("q", number < right, float(number < right), (responses[number],), (True,), (prompt,))
        for number in range(size)
    ]
    for number, advantage in enumerate(rollout_advantages(advantages_of(batch))):
        assert (advantage > 0) == (number < right)


def test_the_less_sure_of_two_right_rollouts_gains() -> None:
    prompt = [0.5, 0.5]
    batch = [row("q", True, [0.9], prompt), row("q", True, [0.3], prompt), row("q", False, [0.5], prompt)]
    sure, unsure, _ = rollout_advantages(advantages_of(batch))
    assert unsure > sure > 0


def test_hopeless_tokens_stay_finite() -> None:
    batch = [Row("q", True, 1.0, (-1e4,), (True,), (0.0,)), Row("q", False, 0.0, (0.0,), (True,), (-1e30,))]
    found = rollout_advantages(advantages_of(batch, ProGRPOConfig(confidence_weight=0.1)))
    assert found == pytest.approx([0.7071 + 0.1, -0.7071 - 0.1], abs=1e-4)


def test_it_is_detached() -> None:
    given_by_verl, signals = arguments([row("q", True, [0.5], [0.4]), row("q", False, [0.5], [0.4])])
    with handed_over(dataclasses.replace(signals, log_prob=signals.log_prob.requires_grad_())):
        assert not compute_progrpo_advantage(**given_by_verl)[0].requires_grad


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("field", ["log_prob", "prompt_log_prob"])
def test_a_number_that_is_none_is_named(field: str, bad: float) -> None:
    given_by_verl, signals = arguments([row("q", True, [0.5], [0.5]), row("q", False, [0.5, 0.5], [0.5, 0.5])])
    values = getattr(signals, field).clone()
    values[1, 1] = bad
    with (
        handed_over(dataclasses.replace(signals, **{field: values})),
        pytest.raises(NonFiniteSignalError, match=rf"^{field} is {bad} at row 1, position 1"),
    ):
        compute_progrpo_advantage(**given_by_verl)


@pytest.mark.parametrize("field", ["log_prob", "prompt_log_prob", "prompt_mask"])
def test_signals_of_another_shape_are_refused(field: str) -> None:
    given_by_verl, signals = arguments([row("q", True, [0.5], [0.5]), row("q", False, [0.5], [0.5])])
    shorter = dataclasses.replace(signals, **{field: getattr(signals, field)[:1]})
    with handed_over(shorter), pytest.raises(SignalShapeError, match=rf" {field} \(1, "):
        compute_progrpo_advantage(**given_by_verl)


def test_without_signals_it_names_the_modes() -> None:
    with pytest.raises(MissingSignalsError, match=r"adv_estimator=progrpo.*ispo_sync"):
        compute_progrpo_advantage(**arguments([row("q", True, [0.5], [0.5])])[0])


@pytest.mark.parametrize("config", [None, OmegaConf.create({}), OmegaConf.create({"progrpo": None})])
def test_a_missing_section_means_the_defaults(config: DictConfig | None) -> None:
    batch = [row("q", True, [0.9], [0.4]), row("q", False, [0.1], [0.4])]
    given_by_verl, signals = arguments(batch)
    with handed_over(signals):
        found, _ = compute_progrpo_advantage(**given_by_verl, config=config)
    assert torch.equal(found, advantages_of(batch, ProGRPOConfig()))


@pytest.mark.parametrize(
    ("key", "value", "allowed"),
    [
        *[("confidence_weight", bad, "[0, inf)") for bad in (-0.1, math.nan, math.inf, "0.1", None, True)],
        *[("low_probability_fraction", bad, "(0, 1]") for bad in (0.0, 1.01, 20, math.nan, "0.2", None, True)],
        *[("all_right_groups", bad, "['keep', 'skip']") for bad in ("Keep", "", "off", None, 1)],
    ],
)
def test_a_value_out_of_range_is_named(key: str, value: Any, allowed: str) -> None:
    with pytest.raises(ValueError, match=rf"algorithm\.progrpo\.{key}") as caught:
        ProGRPOConfig.from_mapping({key: value})
    assert allowed in str(caught.value)
    assert repr(value) in str(caught.value)


def test_an_unknown_key_names_the_nearest() -> None:
    with pytest.raises(UnknownISPOKeyError, match=r"'alpha_weight' \(under algorithm\.progrpo\).*confidence_weight"):
        ProGRPOConfig.from_mapping({"alpha_weight": 0.3})


def test_the_preset_says_the_defaults_and_explains_each_key() -> None:
    lines = PRESET.read_text().splitlines()
    assert lines[0] == "# @package _global_"
    written = yaml.safe_load("\n".join(lines))
    assert written == {"algorithm": {"adv_estimator": "progrpo", "progrpo": dataclasses.asdict(ProGRPOConfig())}}
    for number, line in enumerate(lines):
        if ": " in line and not line.lstrip().startswith("#"):
            assert lines[number - 1].lstrip().startswith("# "), line


@pytest.mark.parametrize("name", ["ispo_trainer", "ispo_megatron_trainer"])
def test_the_preset_composes_onto_the_shared_base(name: str) -> None:
    config = composed("method=progrpo", "algorithm.progrpo.confidence_weight=0.3", name=name)
    assert config.algorithm.adv_estimator == "progrpo"
    assert ProGRPOConfig.from_mapping(config.algorithm.progrpo) == ProGRPOConfig(confidence_weight=0.3)
    actor = config.actor_rollout_ref.actor
    assert (actor.clip_ratio_low, actor.clip_ratio_high, actor.loss_agg_mode) == (0.2, 0.28, "token-mean")
    assert config.algorithm.norm_adv_by_std_in_grpo is True
