"""A training through verl's main with the rollout dump on, and the report made from its folder.

Derivation: the dump must agree with verl's own log of the same step: correct rollouts, mean outcome, the
number of groups without a spread. The report must find the run folder complete.

Not exercised: other modes than the synchronous one, several local updates per step, clusters, a folder that cannot be
written (see `tests/report/test_rollout_dump.py`).
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.training.conftest import TrainingRun
from verl_ispo.report import build
from verl_ispo.runs.rollout_dump.reader import dumped_steps, read_groups, read_outcomes

pytestmark = pytest.mark.trainer


def test_the_dump_tells_what_the_log_tells(whole: TrainingRun, capsys: pytest.CaptureFixture[str], tmp_path: Path):
    run, dump = whole, whole.folder / "dump"
    assert dumped_steps(dump) == [1, 2]
    outcomes, gaps = read_outcomes(dump)
    assert not gaps
    for step, metrics in run.steps.items():
        at_step = [outcome for outcome in outcomes if outcome.step == step]
        rollouts = sum(outcome.rollouts for outcome in at_step)
        assert len(at_step) == 4
        assert rollouts == 16
        assert sum(outcome.right for outcome in at_step) / rollouts == pytest.approx(metrics["critic/score/mean"])
        flat = sum(outcome.right in (0, outcome.rollouts) for outcome in at_step)
        assert flat / 4 == pytest.approx(metrics["ispo/zero_adv_rate/outcome"])
        assert metrics["timing_s/ispo_dump"] > 0
    for step in (1, 2):
        groups, gaps = read_groups(dump, step)
        assert not gaps
        assert len(groups) == 3
        for group in groups:
            assert group.prompt_text.endswith("=")
            first, second = group.prompt_text.removesuffix("=").split("+")
            assert group.ground_truth == f"{int(first) + int(second)}.0"
            for rollout in group.rollouts:
                assert len(rollout.token_texts) <= 48
                assert rollout.composite == pytest.approx(sum(rollout.parts.values()), abs=1e-5)
                assert not (step == 1 and rollout.drift_filter)
                if rollout.answer is not None:
                    _, start, end = rollout.answer
                    assert rollout.answer_log_prob == rollout.log_prob[start:end]
    description = json.loads((dump / "run.json").read_text())
    assert description["versions"]["verl"]
    assert description["config"]["trainer"]["v1"]["ispo"]["dump_every"] == 2
    assert "ray_kwargs" not in description["config"]

    assert build.run([str(run.folder)], tmp_path / "report") == 0
    assert "gap:" not in capsys.readouterr().out
