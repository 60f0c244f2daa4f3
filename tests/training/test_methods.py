"""Methods that need more of the trainer than an estimator's name, on verl's trainer, two steps each.

- PREPO draws candidates, scores them and keeps a window: easy ones at first, hard ones at the end.
- DAPO's groups all have correct and incorrect rollouts, and its length penalty needs its buffer to fit.
- ProGRPO and GRPO-S get entropies, verdicts and prompt log-probs (GTPO takes what GRPO-S takes); without ISPO's signals
  being watched there is neither a reference pass nor an ``ispo/`` metric.
- A contradiction ends the run before a model is loaded.

Not exercised: GTPO, whether a method learns (examples/tiny_study.sh), and the methods that are a setting of verl's
alone.
"""

from __future__ import annotations

import pytest

from tests.training.conftest import Train, TrainingRun

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


@pytest.mark.parametrize("method", ["progrpo", "grpo_s"])
def test_signals_reach_the_estimator(method: str, train: Train) -> None:
    """On mixed groups, which verl's filter brings: in others these methods have no gradient here."""
    mixed = ("algorithm.filter_groups.enable=true", "algorithm.filter_groups.metric=acc")
    run = finished(train(f"method={method}", "trainer.v1.ispo.watch_signals=false", *mixed, *TWO_STEPS))
    for step in run.steps.values():
        assert not [name for name in step if name.startswith("ispo/")]
        assert "timing_s/ref" not in step
        assert step["actor/grad_norm"] > 0


@pytest.mark.volume  # trainer/test_refusals calls the refusal
def test_a_contradiction_ends_the_run_at_once(train: Train) -> None:
    run = train("method=grpo_s", "actor_rollout_ref.actor.policy_loss.loss_mode=vanilla", *TWO_STEPS)
    assert run.exit_status != 0
    assert "contradict each other" in run.output
    assert not run.steps
