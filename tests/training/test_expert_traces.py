"""RL-PLUS on verl's trainer, two steps: a correct trace of the data beside three own rollouts, on two workers.

- Each group has four rollouts, the last of which is the trace with the end of sequence, graded by the reward function;
  its log-probs are the starting model's. The advantages are R less the mean of the three own rollouts.
- A prompt without a trace has four own rollouts.

Not exercised: data without the column, which is refused before a worker starts (trainer/test_expert_traces).
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

pytestmark = pytest.mark.trainer
TWO_STEPS = ("trainer.total_training_steps=2", "trainer.val_before_train=false", "trainer.test_freq=-1")


@torch.no_grad()
def log_probs(model: torch.nn.Module, head: list[int], tail: list[int]) -> list[float]:
    found = model(torch.tensor([head + tail])).logits[0].log_softmax(-1)
    return [found[len(head) - 1 + at, token].item() for at, token in enumerate(tail)]


@pytest.mark.volume  # trainer/test_expert_traces: the hook on made batches; test_hinted_rollouts: its place in the step
def test_a_trace_is_the_last_rollout_of_its_prompt(train: Train, tiny_task: TinyTask, tmp_path: Path) -> None:
    rows = [
        {
            "data_source": "traced",
            "prompt": [{"role": "user", "content": f"{first}+5="}],
            "reward_model": {"style": "rule", "ground_truth": str(first + 5)},
            "extra_info": {"index": index},
            # every fourth prompt has none
            "target": [] if index % 4 == 3 else [f"{first}+5={first + 5};\\boxed{{{first + 5}}}"],
        }
        for index, first in enumerate(range(10, 18))
    ]
    pd.DataFrame(rows).to_parquet(tmp_path / "train.parquet", index=False)
    settings = ("method=rl_plus", f"data.train_files={tmp_path}/train.parquet", "trainer.n_gpus_per_node=2")
    dump = (f"trainer.v1.ispo.dump_dir={tmp_path}", "trainer.v1.ispo.dump_groups=4", "trainer.v1.ispo.dump_every=1")
    run = finished(train(*settings, *dump, "data.shuffle=false", *TWO_STEPS))
    tokenizer = AutoTokenizer.from_pretrained(tiny_task.model)
    model = AutoModelForCausalLM.from_pretrained(tiny_task.model, dtype=torch.float32).eval()
    for step in (1, 2):
        groups = (tmp_path / f"rollouts/step_{step:06d}_0.jsonl").read_text().splitlines()
        assert len(groups) == 4
        for group in map(json.loads, groups):
            rollouts = {int(rollout["key"].split("_")[1]): rollout for rollout in group["rollouts"]}
            assert sorted(rollouts) == [0, 1, 2, 3]
            first, answer = int(group["prompt_text"].split("+")[0]), group["ground_truth"]
            has_trace = (first - 10) % 4 != 3
            own = [rollouts[session] for session in range(4 - has_trace)]
            mean = statistics.fmean(rollout["score"] for rollout in own)
            for rollout in rollouts.values():
                assert rollout["advantage"] == pytest.approx(rollout["score"] - mean, abs=1e-5)
            if has_trace:
                trace = rollouts[3]
                assert "".join(trace["token_texts"]) == f"{first}+5={answer};\\boxed{{{answer}}}<|im_end|>"
                assert trace["correct"]
                if step == 1:
                    prompt = tokenizer.encode(group["prompt_text"], add_special_tokens=False)
                    assert trace["log_prob"] == pytest.approx(log_probs(model, prompt, trace["token_ids"]), abs=1e-3)
        assert run.steps[step]["rl_plus/traces"] == 3
        assert run.steps[step]["timing_s/expert_traces"] > 0
        assert run.steps[step]["actor/grad_norm"] > 0
