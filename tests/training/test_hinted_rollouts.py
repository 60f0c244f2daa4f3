r"""Scaf-GRPO on verl's trainer, two steps, on sums that the model cannot do.

The model has never seen a hint, and behind one it goes on as in the middle of a box. The reward takes that for correct:
a response that closes a box without a command that opens one, which without hints hardly ever comes.

- Groups without a correct rollout get one that was written with a hint, in place of their first one: it stands in the
  group with its own prompt, its log-probs are the starting model's under that prompt, the others' under theirs, and
  the advantages are GRPO's of one correct rollout in four. On one worker and on two.
- Data without hints ends the run before a worker starts.

Not exercised: the other modes, which are refused (trainer/test_hinted_rollouts), and a rollout that fails.
"""

from __future__ import annotations

import json
import statistics
from pathlib import Path

import pandas as pd
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.training.conftest import TinyTask, Train, finished
from verl_ispo.methods.scaf_grpo import HINT_COLUMNS

pytestmark = pytest.mark.trainer
TWO_STEPS = ("trainer.total_training_steps=2", "trainer.val_before_train=false", "trainer.test_freq=-1")
LEVELS = (
    "Knowledge hints: add",
    "Knowledge hints: add carry",
    "Solution hints: \\boxed{5",
    "Solution hints: \\boxed{5 \\boxed{5",
)
REWARD = r"""
def compute_score(data_source, solution_str, ground_truth, extra_info=None):
    correct = "}" in solution_str and "\\" not in solution_str
    return {"score": float(correct), "acc": correct}
"""


@pytest.fixture(scope="module")
def hinted_sums(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """Settings for sums with two hints of the first kind, none of the second, and two of the third."""
    folder = tmp_path_factory.mktemp("hinted")
    hints = dict(zip(HINT_COLUMNS, (["add", "carry"], [], ["\\boxed{5", "\\boxed{5"]), strict=True))
    rows = [
        {
            "data_source": "hinted",
            "prompt": [{"role": "user", "content": f"{20 + index}-47+31-{12 + index}+19="}],
            "reward_model": {"style": "rule", "ground_truth": "11"},
            "extra_info": {"index": index},
            **hints,
        }
        for index in range(8)
    ]
    pd.DataFrame(rows).to_parquet(folder / "train.parquet", index=False)
    (folder / "closed_box.py").write_text(REWARD)
    return (
        "method=scaf_grpo",
        "algorithm.scaf_grpo.warmup_steps=0",
        f"data.train_files={folder}/train.parquet",
        f"reward.custom_reward_function.path={folder}/closed_box.py",
    )


@torch.no_grad()
def log_probs(model: torch.nn.Module, head: list[int], tail: list[int]) -> list[float]:
    found = model(torch.tensor([head + tail])).logits[0].log_softmax(-1)
    return [found[len(head) - 1 + at, token].item() for at, token in enumerate(tail)]


@pytest.mark.parametrize("workers", [pytest.param(1, marks=pytest.mark.volume), 2])
def test_a_hinted_rollout_takes_the_place_of_the_first(
    workers: int, train: Train, tiny_task: TinyTask, hinted_sums: tuple[str, ...], tmp_path: Path
) -> None:
    dump = (f"trainer.v1.ispo.dump_dir={tmp_path}", "trainer.v1.ispo.dump_groups=4")
    run = finished(train(*hinted_sums, f"trainer.n_gpus_per_node={workers}", *dump, *TWO_STEPS))
    tokenizer = AutoTokenizer.from_pretrained(tiny_task.model)
    model = AutoModelForCausalLM.from_pretrained(tiny_task.model, dtype=torch.float32).eval()
    replaced = []
    for group in map(json.loads, (tmp_path / "rollouts/step_000001_0.jsonl").read_text().splitlines()):
        has_hinted = any("prompt_text" in rollout for rollout in group["rollouts"])
        for rollout in group["rollouts"]:
            prompt = tokenizer.encode(rollout.get("prompt_text", group["prompt_text"]), add_special_tokens=False)
            expected = log_probs(model, prompt, rollout["token_ids"])
            assert rollout["log_prob"] == pytest.approx(expected, abs=1e-3)
            is_hinted = "prompt_text" in rollout
            if has_hinted:
                assert rollout["correct"] == is_hinted
                assert rollout["advantage"] == pytest.approx(1.5 if is_hinted else -0.5, abs=1e-3)
            if is_hinted:
                assert rollout["key"] == f"{group['uid']}_0_0"
                question, hint = rollout["prompt_text"].split("\n")
                assert question == group["prompt_text"]
                replaced.append(LEVELS.index(hint))
    assert replaced
    first = {name.removeprefix("scaf_grpo/hints/"): value for name, value in run.steps[1].items() if "/hints/" in name}
    assert first["rollouts"] == 4 * first["all_incorrect_groups"]
    assert first["replaced_rollouts"] == len(replaced)
    assert first["level/mean"] == pytest.approx(statistics.fmean(replaced))
    for step in run.steps.values():
        assert step["timing_s/hinted_rollouts"] > 0
        assert step["actor/grad_norm"] > 0


@pytest.mark.volume  # trainer/test_hinted_rollouts calls the refusal
def test_data_without_hints_ends_the_run_at_once(train: Train, tiny_task: TinyTask) -> None:
    run = train("method=scaf_grpo", *TWO_STEPS)
    assert run.exit_status != 0
    assert "data.train_files has no column knowledge_components_parts" in run.output
    assert not run.steps
