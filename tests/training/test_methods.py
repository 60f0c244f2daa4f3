"""Methods that need more of the trainer than an estimator's name, on verl's trainer, two steps each.

- PREPO draws candidates, scores them and keeps a window: easy ones at first, hard ones at the end.
- DAPO's groups all have correct and incorrect rollouts, and its length penalty needs its buffer to fit.
- ProGRPO and GRPO-S get entropies, verdicts and prompt log-probs (GTPO takes what GRPO-S takes); without ISPO's signals
  being watched there is neither a reference pass nor an ``ispo/`` metric.
- ISPO with the gain of the ground truth scores it behind the traces of groups without a correct rollout, in a forward
  of its own, on two workers: the dumped gains are those of the starting model on each text alone.
- GRPO-VPS scores the ground truth behind each segment, in a forward of its own, on one worker and on two: the dumped
  advantages are those of the starting model's probabilities on each text alone. Without ISPO's signals being watched
  it trains too.
- A contradiction ends the run before a model is loaded.

Not exercised: GTPO, whether a method learns (examples/tiny_study.sh), and the methods that are a setting of verl's
alone.
"""

from __future__ import annotations

import json
import math
import statistics
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.training.conftest import TinyTask, Train, TrainingRun
from verl_ispo.methods.grpo_vps import GRPOVPSConfig, segment_ends
from verl_ispo.methods.method import CutRequest

pytestmark = pytest.mark.trainer
TWO_STEPS = ("trainer.total_training_steps=2", "trainer.val_before_train=false", "trainer.test_freq=-1")


def finished(run: TrainingRun) -> TrainingRun:
    assert run.exit_status == 0, run.output[-3000:]
    assert set(run.steps) == {1, 2}
    return run


def test_prepo_trains_on_harder_prompts_as_it_goes(train: Train) -> None:
    """Of 20 candidates the first step keeps ranks 8 to 11, the last one the four hardest."""
    run = finished(train("method=prepo", *TWO_STEPS))
    last = run.steps[2]
    assert last["prepo/perplexity/kept"] > last["prepo/perplexity/candidates"]
    assert last["prepo/perplexity/kept"] > run.steps[1]["prepo/perplexity/kept"]


def test_dapo_trains_on_mixed_groups_alone(train: Train) -> None:
    run = finished(train("method=dapo", "reward.reward_kwargs.overlong_buffer_cfg.len=9", *TWO_STEPS))
    for step in run.steps.values():
        assert step["ispo/advantage_share/mixed"] == pytest.approx(1.0)


@pytest.mark.parametrize(
    "method",
    [pytest.param("progrpo", marks=pytest.mark.volume), "grpo_s", pytest.param("grpo_vps", marks=pytest.mark.volume)],
)
def test_signals_reach_the_estimator(method: str, train: Train) -> None:
    """On mixed groups, which verl's filter brings: in others these methods have no gradient here."""
    mixed = ("algorithm.filter_groups.enable=true", "algorithm.filter_groups.metric=acc")
    run = finished(train(f"method={method}", "trainer.v1.ispo.watch_signals=false", *mixed, *TWO_STEPS))
    for step in run.steps.values():
        assert not [name for name in step if name.startswith("ispo/")]
        assert "timing_s/ref" not in step
        assert step["actor/grad_norm"] > 0


@torch.no_grad()
def mean_log_prob(model: torch.nn.Module, head: list[int], tail: list[int]) -> float:
    log_probs = model(torch.tensor([head + tail])).logits[0].log_softmax(-1)
    return statistics.fmean(log_probs[len(head) - 1 + at, token].item() for at, token in enumerate(tail))


def test_the_gain_of_the_ground_truth(train: Train, tiny_task: TinyTask, tmp_path: Path) -> None:
    workers = ("trainer.n_gpus_per_node=2", "trainer.v1.ispo.ablated_pass=merged")
    dump = (f"trainer.v1.ispo.dump_dir={tmp_path}", "trainer.v1.ispo.dump_groups=4")
    run = finished(train("method=ispo_right_answer", *workers, *dump, *TWO_STEPS))
    tokenizer = AutoTokenizer.from_pretrained(tiny_task.model)
    model = AutoModelForCausalLM.from_pretrained(tiny_task.model, dtype=torch.float32).eval()
    lines = (tmp_path / "rollouts/step_000001_0.jsonl").read_text().splitlines()
    gains: list[float] = []
    for group in map(json.loads, lines):
        prompt = tokenizer.encode(group["prompt_text"], add_special_tokens=False)
        key = tokenizer.encode(group["ground_truth"], add_special_tokens=False)
        for rollout in group["rollouts"]:
            start, is_scored = rollout["answer_start"], rollout["right_answer_gain"] is not None
            assert is_scored == (group["outcome"] == "all_wrong" and start is not None)
            if is_scored:
                response, lead_in = rollout["token_ids"], rollout["token_ids"][rollout["lead_in_start"] : start]
                expected = mean_log_prob(model, prompt + response[:start], key)
                expected -= mean_log_prob(model, prompt + lead_in, key)
                assert rollout["right_answer_gain"] == pytest.approx(expected, abs=1e-3)
                assert rollout["parts"]["ifd"] == pytest.approx(0.5 * rollout["right_answer_gain"], abs=1e-5)
                gains.append(rollout["right_answer_gain"])
    assert gains
    assert run.steps[1]["ispo/right_answer_gain/mean"] == pytest.approx(statistics.fmean(gains), abs=1e-4)
    for step in run.steps.values():
        assert step["ispo/right_answer_served_rate"] > 0
        assert step["timing_s/ispo_right_answer"] > 0
        assert step["ispo/tokens/right_answer"] > 0
        assert "timing_s/ispo_ablated_log_prob" not in step


@pytest.mark.parametrize("workers", [pytest.param(1, marks=pytest.mark.volume), 2])
def test_the_probability_of_the_ground_truth_behind_parts_of_a_response(
    workers: int, train: Train, tiny_task: TinyTask, tmp_path: Path
) -> None:
    """The dump has each rollout's mean advantage over tokens: R - mean R, and the segments' progress by length."""
    config = GRPOVPSConfig(cut_points_per_segment=1, entropy_percentile=0.8)
    segments = ("algorithm.grpo_vps.cut_points_per_segment=1", "algorithm.grpo_vps.entropy_percentile=0.8")
    dump = (f"trainer.v1.ispo.dump_dir={tmp_path}", "trainer.v1.ispo.dump_groups=4")
    run = finished(train("method=grpo_vps", f"trainer.n_gpus_per_node={workers}", *segments, *dump, *TWO_STEPS))
    tokenizer = AutoTokenizer.from_pretrained(tiny_task.model)
    model = AutoModelForCausalLM.from_pretrained(tiny_task.model, dtype=torch.float32).eval()
    lead_in = tokenizer.encode(config.lead_in, add_special_tokens=False)
    cuts: list[int] = []
    for group in map(json.loads, (tmp_path / "rollouts/step_000001_0.jsonl").read_text().splitlines()):
        prompt = tokenizer.encode(group["prompt_text"], add_special_tokens=False)
        key = tokenizer.encode(group["ground_truth"], add_special_tokens=False)
        mean_outcome = statistics.fmean(rollout["correct"] for rollout in group["rollouts"])
        for rollout in group["rollouts"]:
            response, start = rollout["token_ids"], rollout["lead_in_start"]
            trace_length = len(response) if start is None else start
            ends = segment_ends(CutRequest(torch.tensor(rollout["entropy"]), [], trace_length), config)
            probability = [
                math.exp(len(key) * mean_log_prob(model, prompt + response[:cut] + lead_in, key)) for cut in [0, *ends]
            ]
            progress = sum(
                (end - begin) * (after - before)
                for (begin, end), (before, after) in zip(pairwise([0, *ends]), pairwise(probability), strict=True)
            )
            expected = rollout["correct"] - mean_outcome + 1.2 * progress / len(response)
            assert rollout["advantage"] == pytest.approx(expected, abs=1e-3)
            cuts.append(len(ends))
    assert max(cuts) > 1
    assert run.steps[1]["grpo_vps/prefix_scores/cuts"] == pytest.approx(statistics.fmean(cuts))
    for step in run.steps.values():
        assert step["grpo_vps/prefix_scores/rate"] == 1
        assert step["grpo_vps/prefix_scores/too_long"] == 0
        assert step["grpo_vps/tokens/prefix_scores"] > 0
        assert step["timing_s/prefix_scores"] > 0
        assert step["actor/grad_norm"] > 0


@pytest.mark.volume  # trainer/test_refusals calls the refusal
def test_a_contradiction_ends_the_run_at_once(train: Train) -> None:
    run = train("method=grpo_s", "actor_rollout_ref.actor.policy_loss.loss_mode=vanilla", *TWO_STEPS)
    assert run.exit_status != 0
    assert "contradict each other" in run.output
    assert not run.steps
