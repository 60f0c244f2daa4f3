"""scripts/gpu/bench_step.sh from beginning to end on the CPU: random model, training, metrics, table.

Two steps of ISPO with a small random model. Not exercised: a GPU, vLLM, and the figures, which mean nothing here.
"""

from __future__ import annotations

import csv
import runpy
from pathlib import Path

import pytest

from tests.scripts.launchers import SCRIPTS, launch
from verl_ispo.runs.metric_log import read_metric_log

SAME_METRICS = runpy.run_path(str(SCRIPTS / "gpu/same_metrics.py"))
SMALL = "hidden_size=32 intermediate_size=64 num_hidden_layers=2 num_attention_heads=4 num_key_value_heads=2"
STEP = {"LENGTHS": "64", "VARIANTS": "ispo:separate", "STEPS": "2", "WARMUP": "0", "PROMPTS": "4", "ROLLOUT": "cpu"}
# 16 rows per mini-batch, 32 per step
MICRO_BATCHES = (
    "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=16",
    "actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu=32",
)

pytestmark = pytest.mark.trainer


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bench_step")
    model = f"--rows 16 --prompt-bytes 128 --box-every 16 --size {SMALL} vocab_size=2048"
    run = launch("gpu/bench_step.sh", *MICRO_BATCHES, cwd=folder, OUT="out", RANDOM_MODEL=model, timeout_s=900, **STEP)
    assert run.returncode == 0, run.stdout[-4000:] + run.stderr
    assert "64 new tokens, 4 prompts x 8 rollouts" in run.stdout
    return folder / "out"


def test_the_metrics_are_those_that_a_gpu_run_is_compared_with(
    out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = SAME_METRICS["NAMES"].read_text().split()
    assert read_metric_log(out / "64/ispo-separate").names() == names
    assert SAME_METRICS["main"]([str(out / "64/ispo-separate")]) == 0
    more = tmp_path / "names.txt"
    more.write_text("\n".join([*names[1:], "ispo/of_tomorrow"]))
    capsys.readouterr()
    assert SAME_METRICS["main"]([str(out / "64/ispo-separate"), "--names", str(more)]) == 1
    assert capsys.readouterr().out.splitlines()[:2] == ["missing: ispo/of_tomorrow", f"only here: {names[0]}"]


def test_the_random_models_answers_give_the_extra_pass_its_work(out: Path) -> None:
    for step in read_metric_log(out / "64/ispo-separate").steps.values():
        assert step["ispo/answer_missing_rate"] < 0.5
        # a row is a prompt of 64 to 192 bytes, and the answer behind it
        assert 32 * 64 < step["ispo/tokens/ablated"] < step["ispo/tokens/old_log_prob"]
        assert step["response_length/mean"] > 60


def test_the_table_has_every_part_of_a_real_step(out: Path) -> None:
    rows = {row["what"]: row for row in csv.DictReader((out / "step-64.csv").open())}
    parts = {"gen", "old_log_prob", "ispo_answer_span", "ref", "adv", "ispo_reward", "update_actor", "update_weights"}
    assert parts <= rows.keys()
    outer = [float(row["value"]) for row in rows.values() if row["share_of_step"] and not row["inside"]]
    *added, step = outer
    assert sum(added) == pytest.approx(step, rel=0.2), "parts add up to the step, up to the order of the medians"
    assert float(rows["actor/perf/max_memory_allocated_gb"]["value"]) > 0
    assert "| **step** |" in (out / "step-64.md").read_text()
