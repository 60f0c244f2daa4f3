r"""The reward function where verl calls it: loaded by verl, in the thread pool of its reward manager, in a Ray actor.

verl's own loader, reward manager and validation metrics are used, with a byte tokenizer of a few lines that the test
trains itself, since none can be fetched.

Not exercised: a training run; the trainer's tests have one.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest

import verl_ispo.grading.reward_function as reward_function

pytestmark = pytest.mark.trainer

RESPONSES = [
    (r"The answer is \boxed{42}.", "42", "correct"),
    (r"The answer is \boxed{41}.", "42", "wrong"),
    (r"The answer is \boxed{\sqrt{1/n}}.", r"\frac{1}{\sqrt{n}}", "correct"),
    (r"The answer is \boxed{|x|}.", "x+2", "wrong"),
    ("I do not know.", "42", "no_answer"),
    (r"\boxed{\sum_{k=1}^{99999} k! \cdot x}", "2x", "timeout"),
    (r"\boxed{9^{9^{9^{9}}}}", "42", "error"),
]


def reward_config(path: str, **kwargs):
    from omegaconf import OmegaConf

    function = {"path": path, "name": "compute_score", "reward_kwargs": kwargs}
    return OmegaConf.create({"reward": {"custom_reward_function": function}})


@pytest.fixture(scope="module")
def tokenizer():
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = {symbol: index for index, symbol in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    byte_level = Tokenizer(models.BPE(vocab=alphabet, merges=[]))
    byte_level.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    byte_level.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=byte_level)


def batch_of_one(tokenizer, response: str, gold: str):
    import torch
    from verl import DataProto

    ids = torch.tensor([tokenizer.encode(response)])
    return DataProto.from_dict(
        tensors={"responses": ids, "attention_mask": torch.ones_like(ids)},
        non_tensors={
            "data_source": np.array(["test"], dtype=object),
            "reward_model": np.array([{"ground_truth": gold, "style": "rule"}], dtype=object),
            "extra_info": np.array([{"tolerance": "", "unit": "", "multiple_answers": False}], dtype=object),
        },
    )


@pytest.mark.parametrize("path", ["pkg://verl_ispo.grading.reward_function", reward_function.__file__])
def test_verl_loads_it_by_package_and_by_path(path):
    from verl.trainer.ppo.reward import get_custom_reward_fn

    score = get_custom_reward_fn(reward_config(path, timeout_s=1.0, path_metrics=True))
    result = score(data_source="test", solution_str=r"\boxed{42}", ground_truth="42", extra_info={"num_turns": None})
    assert result["score"] == 1.0
    assert (result["path_exact"], result["path_symbolic"]) == (1.0, 0.0)


def test_the_reward_manager_grades_concurrently_and_verl_averages_the_paths(tokenizer):
    from verl.experimental.reward_loop.reward_manager.naive import NaiveRewardManager
    from verl.trainer.ppo.metric_utils import process_validation_metrics
    from verl.trainer.ppo.reward import get_custom_reward_fn

    config = reward_config("pkg://verl_ispo.grading.reward_function", timeout_s=3.0, path_metrics=True)

    async def grade_all():
        manager = NaiveRewardManager(config, tokenizer, get_custom_reward_fn(config))
        manager.loop = asyncio.get_running_loop()
        rows = [manager.run_single(batch_of_one(tokenizer, text, gold)) for text, gold, _ in RESPONSES * 2]
        return await asyncio.gather(*rows)

    outputs = asyncio.run(grade_all())
    expected = [status for _, _, status in RESPONSES * 2]
    infos = [output["reward_extra_info"] for output in outputs]
    assert [info["status"] for info in infos] == expected
    assert [output["reward_score"] for output in outputs] == [float(status == "correct") for status in expected]
    assert len({frozenset(info) for info in infos}) == 1, "verl needs the same keys in every row"

    columns = {key: [info[key] for info in infos] for key in infos[0]}
    metrics = process_validation_metrics(["test"] * len(infos), [str(i) for i in range(len(infos))], columns)["test"]
    assert metrics["acc"]["mean@1"] == pytest.approx(expected.count("correct") / len(expected))
    assert metrics["status_timeout"]["mean@1"] == pytest.approx(1 / 7)
    assert metrics["status_error"]["mean@1"] == pytest.approx(1 / 7)
    assert metrics["path_symbolic"]["mean@1"] == pytest.approx(3 / 7)
    assert "status" not in metrics, "strings are left out of the averages"


def test_it_works_in_ray_actors_and_leaves_nothing_when_one_is_killed():
    import ray

    ray.init(num_cpus=2, include_dashboard=False, logging_level="ERROR")
    try:

        @ray.remote(num_cpus=0, max_concurrency=8)
        class Grader:
            def grade(self, text: str, gold: str) -> str:
                return reward_function.compute_score("ray", text, gold, timeout_s=3.0)["status"]

            def pids(self) -> list[int]:
                from verl_ispo.grading import worker_pool

                pools = worker_pool._pools.by_settings.values()
                return [pool._server.pid for pool in pools] + [worker.pid for pool in pools for worker in pool._idle]

        graders = [Grader.remote() for _ in range(2)]
        calls = [(grader, text, gold, status) for grader in graders for text, gold, status in RESPONSES * 2]
        statuses = ray.get([grader.grade.remote(text, gold) for grader, text, gold, _ in calls])
        assert statuses == [status for *_, status in calls]
        ray.get([grader.grade.remote(*RESPONSES[2][:2]) for grader in graders])  # so that each has an idle worker
        pids = [pid for grader in graders for pid in ray.get(grader.pids.remote())]
        assert len(pids) >= 4
        hanging, gold, _ = RESPONSES[5]
        for grader in graders:
            grader.grade.remote(hanging, gold)
            ray.kill(grader)
        assert wait_until_gone(pids)
    finally:
        ray.shutdown()


def wait_until_gone(pids: list[int]) -> bool:
    import time

    def alive(pid: int) -> bool:
        try:
            return Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rsplit(")", 1)[1].split()[0] != "Z"
        except OSError:
            return False

    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and any(map(alive, pids)):
        time.sleep(0.1)
    return not any(map(alive, pids))
