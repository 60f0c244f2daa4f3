"""Scaf-GRPO on verl's trainer, two steps, on hard sums whose hints are easy sums with the same answer.

- Groups without a correct rollout get one that was written with a hint, where a hint helps: the rollout's prompt is the
  hinted one, its log-probs are the starting model's under that prompt, and the group has GRPO's advantages of one
  correct rollout.
- It does so on one worker and on two. Before the first step with hints nothing is replaced.
- Data without hints ends the run before a worker starts.

Not exercised: the other modes, which are refused (trainer/test_refusals), and a rollout with a hint that fails.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
import torch

from tests.training.conftest import TinyTask, Train, finished
from verl_ispo.methods.scaf_grpo import HINT_COLUMNS

pytestmark = pytest.mark.trainer
TWO_STEPS = ("trainer.total_training_steps=2", "trainer.val_before_train=false", "trainer.test_freq=-1")
# verl's count of rollouts is 4
ADVANTAGES = [1.5, -0.5, -0.5, -0.5]


@pytest.fixture(scope="module")
def hard_sums(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sums of six numbers with an answer under ten, and twelve sums of two numbers with that answer as hints."""
    rows = []
    for index in range(16):
        answer = 3 + index % 7
        easy = [f"{1 + part % (answer - 1)}+{answer - 1 - part % (answer - 1)}=" for part in range(12)]
        question = f"{answer + 20 + index}-47+31-{index + 12}+{19}-{11}="
        assert eval(question[:-1]) == answer
        rows.append(
            {
                "data_source": "hard",
                "prompt": [{"role": "user", "content": question}],
                "reward_model": {"style": "rule", "ground_truth": str(answer)},
                "extra_info": {"index": index},
                **{column: easy[4 * kind : 4 * kind + 4] for kind, column in enumerate(HINT_COLUMNS)},
            }
        )
    path = tmp_path_factory.mktemp("hard") / "train.parquet"
    pd.DataFrame(rows).to_parquet(path, index=False)
    return path


@torch.no_grad()
def log_probs(model: torch.nn.Module, head: list[int], tail: list[int]) -> torch.Tensor:
    found = model(torch.tensor([head + tail])).logits[0].log_softmax(-1)
    return torch.stack([found[len(head) - 1 + at, token] for at, token in enumerate(tail)])


def test_a_hinted_rollout_takes_the_place_of_the_first(
    train: Train, tiny_task: TinyTask, hard_sums: Path, tmp_path: Path
) -> None:
    dump = (f"trainer.v1.ispo.dump_dir={tmp_path}", "trainer.v1.ispo.dump_groups=4")
    begins = ("method=scaf_grpo", "algorithm.scaf_grpo.warmup_steps=1", f"data.train_files={hard_sums}")
    run = finished(train(*begins, *dump, *TWO_STEPS))
    print({name: value for name, value in run.steps[2].items() if "scaf" in name})
    print((tmp_path / "rollouts/step_000001_0.jsonl").read_text()[:3000])
    print((tmp_path / "rollouts/step_000002_0.jsonl").read_text()[:3000])
    assert not [name for name in run.steps[1] if name.startswith("scaf_grpo/")]
