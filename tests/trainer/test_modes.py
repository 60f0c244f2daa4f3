"""The trainer modes as verl sees them, and the pieces of them that need no running trainer.

- All three are registered, under names of their own, each over verl's own mode.
- The mixin is between verl's mode class and `PPOTrainer`: only there do its hooks run inside the mode's own (the
  swap to the old weights of `PPOTrainerSeparateAsync`).
- The composite is on the last token that the policy wrote, and a rollout's advantage is read at the first.
- Groups count one output per session; a further one is refused.

Not exercised: everything that needs workers (the trainer tests).
"""

from __future__ import annotations

import pytest
import torch
from omegaconf import OmegaConf
from transfer_queue import KVBatchMeta
from verl.trainer.ppo.v1.trainer_base import PPOTrainer, get_trainer_cls
from verl.trainer.ppo.v1.trainer_colocate_async import PPOTrainerColocateAsync
from verl.trainer.ppo.v1.trainer_separate_async import PPOTrainerSeparateAsync
from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync

from verl_ispo.trainer.ispo_trainer import ISPOTrainerMixin, masked_mean, setting_for_now
from verl_ispo.trainer.refusals import UnsupportedSettingError
from verl_ispo.trainer.step_batch import StepBatch, on_last_token, step_batch

BASES = {
    "ispo_sync": PPOTrainerSync,
    "ispo_colocate_async": PPOTrainerColocateAsync,
    "ispo_separate_async": PPOTrainerSeparateAsync,
}


@pytest.mark.parametrize(("name", "base"), BASES.items())
def test_registered_with_the_mixin_inside_verls_mode(name: str, base: type) -> None:
    trainer = get_trainer_cls(name)
    order = trainer.__mro__
    assert order.index(base) < order.index(ISPOTrainerMixin) < order.index(PPOTrainer)
    assert get_trainer_cls(trainer.verl_mode) is base


def nested(*rows: list[int]) -> torch.Tensor:
    return torch.nested.as_nested_tensor([torch.tensor(row) for row in rows], layout=torch.jagged)


def test_the_reward_sits_on_the_last_written_token() -> None:
    """Also behind a hole (a tool's output), before masked trailing tokens, and nowhere in a row without a token."""
    response_mask = nested([1, 1, 1], [1, 0, 1, 0], [0, 0], [1])
    rewards = on_last_token(torch.tensor([0.5, -2.0, 3.0, 1.0]), response_mask)
    assert [row.tolist() for row in rewards.unbind()] == [[0, 0, 0.5], [0, 0, -2.0, 0], [0, 0], [1.0]]


def test_a_rollouts_advantage_is_the_mean_over_its_written_tokens() -> None:
    values = nested([5, 6], [0, 7], [9]).float()
    assert masked_mean(values, nested([1, 1], [0, 1], [0])).tolist() == [5.5, 7.0, 0.0]
    tenth = torch.nested.as_nested_tensor([torch.full((7,), 0.1)], layout=torch.jagged)
    assert masked_mean(tenth, nested([1] * 7)).tolist() == tenth.values()[:1].tolist()


def test_a_further_output_of_a_session_is_refused() -> None:
    def read(*keys: str) -> StepBatch:
        return step_batch(KVBatchMeta(keys=list(keys), tags=[{}] * len(keys), partition_id="train"), {})

    keys = ("prompt-a_0_0", "prompt-a_1_0", "prompt_with_underscores_3_0")
    assert read(*keys).keys == keys
    with pytest.raises(UnsupportedSettingError, match="prompt-a_1_1"):
        read("prompt-a_0_0", "prompt-a_1_1")


def test_a_setting_is_put_back_even_after_an_error() -> None:
    config = OmegaConf.create({"trainer_mode": "ispo_sync"})
    with setting_for_now(config, "trainer_mode", "sync"):
        assert config.trainer_mode == "sync"
    with pytest.raises(ZeroDivisionError), setting_for_now(config, "trainer_mode", "sync"):
        raise ZeroDivisionError
    assert config.trainer_mode == "ispo_sync"
