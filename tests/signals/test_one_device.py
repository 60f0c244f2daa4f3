"""Reward, guards and advantage stay on the device of their inputs: no tensor of theirs is made on the CPU and mixed in.

The other device is a stand-in: tensors that compute on the CPU and refuse, as CUDA does, an operation together with a
tensor that is not of their kind (a single number is let through, as by CUDA). Not exercised: CUDA's numbers
(scripts/gpu/same_as_cpu.py).
"""

from __future__ import annotations

import runpy
from dataclasses import fields
from pathlib import Path

import pytest
import torch
from torch.utils._pytree import tree_flatten, tree_map

from verl_ispo.signals.composite import compute_ispo_reward
from verl_ispo.signals.groups import RolloutGroups, group_advantage, guarded_reward
from verl_ispo.signals.right_answer import RightAnswerScores
from verl_ispo.signals.running_ifd import RunningIFD

SAME_AS_CPU = runpy.run_path(str(Path(__file__).parents[2] / "scripts/gpu/same_as_cpu.py"))
PRESETS = SAME_AS_CPU["ispo_presets"]()


class Elsewhere(torch.Tensor):
    """A tensor of the other device; `inner` holds its numbers."""

    @staticmethod
    def __new__(cls, inner: torch.Tensor):
        tensor = torch.Tensor._make_wrapper_subclass(cls, inner.shape, dtype=inner.dtype, strides=inner.stride())
        tensor.inner = inner
        return tensor

    @classmethod
    def __torch_dispatch__(cls, function, types, arguments=(), keywords=None):
        given, _ = tree_flatten((arguments, keywords or {}))
        strangers = [value for value in given if isinstance(value, torch.Tensor) and not isinstance(value, cls)]
        if any(stranger.dim() for stranger in strangers):
            raise RuntimeError(f"{function}: a tensor of another device")

        def unwrapped(value):
            return value.inner if isinstance(value, cls) else value

        result = function(*tree_map(unwrapped, arguments), **tree_map(unwrapped, keywords or {}))
        return tree_map(lambda value: cls(value) if isinstance(value, torch.Tensor) else value, result)


@pytest.mark.parametrize("preset", PRESETS)
def test_all_of_it_stays_where_its_inputs_are(preset):
    config = PRESETS[preset]
    batch = SAME_AS_CPU["made_batch"](24, 20, True, 0)
    elsewhere = {name: Elsewhere(tensor) for name, tensor in batch.items()}
    on_cpu = RolloutGroups.from_labels([row // 8 for row in range(24)])
    groups = RolloutGroups(ids=Elsewhere(on_cpu.ids), count=on_cpu.count, size=Elsewhere(on_cpu.size))
    reward = compute_ispo_reward(**elsewhere, config=config, running_ifd=RunningIFD(right=0.4, wrong=0.9))
    scores = SAME_AS_CPU["made_right_answers"](24)
    right_answer = RightAnswerScores(*(Elsewhere(getattr(scores, field.name)) for field in fields(scores)))
    training_reward = guarded_reward(reward, elsewhere["correct"], groups, config, right_answer).total
    same_outcome = groups.all_wrong(elsewhere["correct"]) | groups.all_right(elsewhere["correct"])
    advantage = group_advantage(training_reward, groups, True, config.min_group_std, one_success_std_in=same_outcome)
    assert isinstance(advantage, Elsewhere)
    expected = SAME_AS_CPU["results"](batch, config, torch.device("cpu"))
    torch.testing.assert_close(training_reward.inner, expected["training_reward"], rtol=0, atol=0)


def test_the_stand_in_refuses_what_cuda_refuses():
    with pytest.raises(RuntimeError, match="another device"):
        Elsewhere(torch.ones(2)) + torch.ones(2)
    assert (Elsewhere(torch.ones(2)) + torch.tensor(1.0)).inner.tolist() == [2, 2]
