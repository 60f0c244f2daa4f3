"""Sign advantage: A = 2 R - 1 on the verdict, whatever the group, the score and the std switch say.

Also the example of a method that is one Python file and one YAML file: what has to know it, knows it.

Not exercised: a training with it (it takes the path of every other method).
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf
from verl.trainer.ppo.core_algos import get_adv_estimator_fn

from verl_ispo.methods.sign import sign_advantage
from verl_ispo.trainer.hand_over import KnownOfBatch, handed_over
from verl_ispo.trainer.method_adapter import MissingSignalsError


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 2), st.integers(0, 5)), min_size=1), st.booleans())
def test_every_written_token_carries_the_sign_of_its_rollout(
    rollouts: list[tuple[bool, int, int]], normalize_by_std: bool
) -> None:
    correct = torch.tensor([verdict for verdict, _, _ in rollouts])
    response_mask = (torch.arange(6) < torch.tensor([length for _, _, length in rollouts]).unsqueeze(-1)).long()
    with handed_over(KnownOfBatch(correct=correct)):
        advantages, returns = get_adv_estimator_fn("sign")(
            token_level_rewards=torch.rand(len(rollouts), 6),  # a shaped score has no influence
            response_mask=response_mask,
            index=np.array([group for _, group, _ in rollouts]),
            config=OmegaConf.create({"norm_adv_by_std_in_grpo": normalize_by_std}),
        )
    expected = [[(1.0 if verdict else -1.0) * (t < length) for t in range(6)] for verdict, _, length in rollouts]
    assert advantages.tolist() == returns.tolist() == expected
    assert advantages.dtype == torch.float32


def test_no_group_is_without_a_gradient() -> None:
    assert sign_advantage(torch.tensor([False, False])).tolist() == [-1.0, -1.0]
    assert sign_advantage(torch.tensor([True, True])).tolist() == [1.0, 1.0]


def test_outside_of_an_ispo_trainer_mode_it_is_refused() -> None:
    with pytest.raises(MissingSignalsError, match=r"adv_estimator=sign needs the verifier's verdict.*ispo_sync"):
        get_adv_estimator_fn("sign")(torch.zeros(1, 1), torch.ones(1, 1), np.array(["q"]))
