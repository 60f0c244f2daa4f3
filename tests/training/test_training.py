"""verl's own trainer on a CPU, in forks of one process (`verl_ispo.cpu.fork_server`), as behind the launcher.

What is checked, and where it comes from:
- a training of three steps logs ISPO's metrics, keeps verl's (score = outcome, reward = composite), and has no
  critical token at step 1, where policy and reference are the same model;
- resumed from the checkpoint of step 2 it repeats step 3 of the undisturbed run;
- with both weights 0 it is verl's stock GRPO (up to the order of sums: the stock trainer's rows come in random order;
  the tests of the estimator and the loss show it bitwise);
- two workers (gloo, FSDP2, a rollout server each) log the same as one, since each rollout has its own seed,
  and the ablated rows give the same in the old-log-prob pass (two workers) as in a separate pass (one);
- the two asynchronous modes train, both with traces that end at the first statement of the answer: the colocated one
  with packed sequences, dynamic batch sizes and the merged pass, the separate one with the old weights swapped in
  around the ablated forward;
- what must not be trained on stops the run with the reason, before anything is written.

Not exercised here: GPUs, vLLM and SGLang, Megatron, several nodes, LoRA, sequence parallelism.
"""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from tests.training.conftest import TinyTask, Train, TrainingRun

pytestmark = pytest.mark.trainer

# Wall-clock figures and those of the machine differ between runs of the same training.
UNREPEATABLE = ("timing", "perf/", "actor/perf", "throughput", "mfu")


def comparable(metrics: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in metrics.items() if not any(part in name for part in UNREPEATABLE)}


def assert_same_metrics(found: dict[str, float], expected: dict[str, float], tolerance: float) -> None:
    found, expected = comparable(found), comparable(expected)
    assert found.keys() == expected.keys()
    different = {
        name: (found[name], expected[name])
        for name in expected
        if not math.isclose(found[name], expected[name], rel_tol=tolerance, abs_tol=tolerance)
    }
    assert not different


def test_training_is_measured(whole: TrainingRun):
    assert sorted(whole.steps) == [1, 2, 3]
    for metrics in whole.steps.values():
        assert metrics["critic/score/mean"] == pytest.approx(metrics["ispo/reward/outcome/mean"])
        assert metrics["critic/rewards/mean"] == pytest.approx(metrics["ispo/reward/composite/mean"])
        assert metrics["ispo/reward/ifd/std"] > 0
        assert metrics["timing_s/ispo_ablated_log_prob"] > 0
        assert 0 < metrics["ispo/tokens/ablated"] < metrics["ispo/tokens/old_log_prob"]
        assert "kl_loss" not in metrics
        assert "actor/kl_loss" not in metrics
    assert whole.steps[1]["ispo/critical_fraction/drift"] == 0
    assert whole.steps[1]["ispo/reward/token/std"] == 0
    assert whole.steps[3]["ispo/critical_fraction/drift"] > 0


def test_resumed_it_repeats_the_undisturbed_step(resumed: TrainingRun, whole: TrainingRun):
    assert sorted(resumed.steps) == [3]
    # the dump is timed, and nothing else is different
    assert_same_metrics(resumed.steps[3], whole.steps[3], tolerance=1e-5)


def test_two_workers_with_one_pass_see_what_one_worker_with_two_passes_sees(
    two_workers: TrainingRun, whole: TrainingRun
):
    assert "timing_s/ispo_ablated_log_prob" not in two_workers.steps[1]
    shared = [
        name
        for name in comparable(whole.steps[1])
        # verl averages a micro-batch's clip and KL shares over micro-batches and ranks, whose make-up differs.
        if name.startswith(("ispo/", "critic/")) or name in ("actor/entropy", "actor/pg_loss", "actor/grad_norm")
    ]
    assert len(shared) >= 40
    for name in shared:
        assert two_workers.steps[1][name] == pytest.approx(whole.steps[1][name], rel=1e-4, abs=1e-5), name


def test_with_both_weights_zero_it_is_verls_grpo(train: Train):
    whole_batch = "actor_rollout_ref.actor.ppo_mini_batch_size=4"
    stock = train(
        whole_batch,
        "algorithm.adv_estimator=grpo",
        "trainer.v1.trainer_mode=sync",
        "actor_rollout_ref.actor.policy_loss.loss_mode=vanilla",
        "trainer.total_training_steps=2",
    )
    zero = train(
        whole_batch,
        "algorithm.ispo.ifd_weight=0",
        "algorithm.ispo.token_weight=0",
        "trainer.total_training_steps=2",
    )
    assert stock.exit_status == zero.exit_status == 0, zero.output[-3000:]
    for step, metrics in stock.steps.items():
        same = {name: zero.steps[step][name] for name in metrics if name in zero.steps[step]}
        assert same.keys() == metrics.keys()
        assert_same_metrics(same, metrics, tolerance=1e-4)


@pytest.mark.parametrize(
    "overrides",
    [
        [
            "trainer.v1.trainer_mode=ispo_colocate_async",
            "trainer.v1.ispo.ablated_pass=merged",
            # a third row per rollout in that pass
            "algorithm.ispo.answer_span=marked",
            "algorithm.ispo.trace_end=first_statement",
            # packed sequences and micro-batches by tokens, the defaults on a GPU
            "actor_rollout_ref.model.use_remove_padding=true",
            "actor_rollout_ref.actor.use_dynamic_bsz=true",
            "actor_rollout_ref.actor.ppo_max_token_len_per_gpu=512",
        ],
        [
            "trainer.v1.trainer_mode=ispo_separate_async",
            "trainer.v1.separate_async.parameter_sync_step=2",
            "algorithm.ispo.trace_end=first_statement",
            "actor_rollout_ref.rollout.nnodes=1",
            "actor_rollout_ref.rollout.n_gpus_per_node=1",
            "actor_rollout_ref.rollout.checkpoint_engine.backend=ray_mailbox",
        ],
    ],
    ids=["colocate_async", "separate_async"],
)
def test_asynchronous_modes_train(train: Train, overrides: list[str]):
    """At the first step all rollouts are of the weights that old log-probs are of, in the second mini-batch as well."""
    probabilities = "actor_rollout_ref.rollout.calculate_log_probs=true"
    run = train(*overrides, probabilities, "trainer.total_training_steps=2")
    assert run.exit_status == 0, run.output[-3000:]
    assert sorted(run.steps) == [1, 2]
    assert run.steps[1]["training/off_policy/trajectory_staleness_worst/max"] == 0
    assert run.steps[1]["training/rollout_probs_diff_max"] < 1e-4
    assert run.steps[2]["ispo/reward/ifd/std"] > 0
    assert run.steps[2]["ispo/answer_stated_rate"] > 0
    assert run.steps[2]["ispo/trace_length_to_statement"] < run.steps[2]["ispo/trace_length"]
    assert run.steps[2]["critic/score/mean"] == pytest.approx(run.steps[2]["ispo/reward/outcome/mean"])


@pytest.mark.volume  # test_advantage calls the refusal
def test_ispo_under_a_stock_mode_is_refused(train: Train):
    run = train("trainer.v1.trainer_mode=sync", "trainer.total_training_steps=1", "trainer.save_freq=1")
    assert run.exit_status != 0
    assert "Set trainer.v1.trainer_mode to one of ispo_sync, ispo_colocate_async, ispo_separate_async" in run.output
    assert not run.steps
    assert not run.checkpoints.exists()


@pytest.mark.volume  # test_outcome calls the refusal
def test_a_scorer_that_does_not_say_right_from_wrong_is_refused(train: Train, tmp_path: Path):
    scorer = tmp_path / "shaped_scorer.py"
    scorer.write_text("def compute_score(**_):\n    return 0.3\n")
    run = train(f"reward.custom_reward_function.path={scorer}", "trainer.total_training_steps=1")
    assert run.exit_status != 0
    assert "do not tell correct from incorrect" in run.output
    assert not run.steps


def test_nan_in_the_policy_is_named_with_step_and_row(train: Train, tiny_task: TinyTask, tmp_path: Path):
    broken = tmp_path / "broken"
    shutil.copytree(tiny_task.model, broken)
    weights = load_file(broken / "model.safetensors")
    weights["model.norm.weight"] = weights["model.norm.weight"].fill_(float("nan"))
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
    run = train("trainer.total_training_steps=1", "trainer.save_freq=1", model=broken)
    assert run.exit_status != 0
    assert "step 1, rollout" in run.output
    assert "log_prob is nan at row 0, position 0" in run.output
    assert not run.steps
    assert not run.checkpoints.exists()
