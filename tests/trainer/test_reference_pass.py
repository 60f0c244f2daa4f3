"""When the reference policy is not asked: where nothing reads it, and before a run's first update.

What goes wrong in general: a pass is saved whose numbers are not known, and drift is taken to be 0 where the policy has
moved: after a resume, in a later local update of a step, with an adapter, or where a KL term reads the log-probs too.

Derivation of the second saving: before the first update policy and reference are one model. So the same model's
log-probs are computed as the two passes do, in micro-batches of other sizes: what they differ by is rounding, far below
any drift threshold. It is not always 0, so the saving is not bitwise: it gives the drift that is meant.

Not exercised: bfloat16 on a GPU, where the rounding is larger, and was counted as drift before.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from transformers import Qwen2Config, Qwen2ForCausalLM

from tests.composed import composed
from verl_ispo.config.ispo_config import ISPOConfig
from verl_ispo.config.signal_use import reads_reference
from verl_ispo.trainer.modes import ISPOTrainerSync


@pytest.mark.parametrize(
    ("overrides", "reads"),
    [
        ((), True),
        (("algorithm.ispo.token_weight=0",), True),  # its metrics are watched
        (("algorithm.ispo.token_weight=0", "trainer.v1.ispo.watch_signals=false"), False),
        (("algorithm.ispo.token_weight=0", "trainer.v1.ispo.watch_signals=false", "trainer.v1.ispo.dump_dir=d"), True),
        (("trainer.v1.ispo.watch_signals=false",), True),  # the token term reads it
        (("method=grpo",), True),
        (("method=grpo", "trainer.v1.ispo.watch_signals=false"), False),
    ],
)
def test_who_reads_the_reference(overrides: tuple[str, ...], reads: bool) -> None:
    assert reads_reference(composed(*overrides)) is reads


FIRST: dict[str, Any] = {
    "global_steps": 1,
    "local_trigger_step": 0,
    "_verl_reads_reference": False,
    "_needs": frozenset(),
    "ref_in_actor": False,
    "config": OmegaConf.create({"trainer": {"resume_mode": "auto"}}),
}


@pytest.mark.parametrize(
    ("changed", "saved"),
    [
        ({}, True),
        ({"global_steps": 2}, False),  # also the first step after a resume
        ({"local_trigger_step": 1}, False),  # a later update of the same step
        ({"_verl_reads_reference": True}, False),  # a KL term
        ({"ref_in_actor": True}, False),  # LoRA
        ({"config": OmegaConf.create({"trainer": {"resume_mode": "resume_path"}})}, False),
        ({"config": composed("actor_rollout_ref.actor.fsdp_config.qat.enable=true")}, False),
    ],
)
def test_only_the_first_update_of_a_run_saves_the_pass(changed: dict[str, Any], saved: bool) -> None:
    assert ISPOTrainerSync._reference_is_the_policy(SimpleNamespace(**{**FIRST, **changed})) is saved


def test_before_the_first_update_drift_is_rounding() -> None:
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=300, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, tie_word_embeddings=False,
    )  # fmt: skip
    model = Qwen2ForCausalLM(config).eval()
    for parameter in model.parameters():
        parameter.data.mul_(4.0)  # a peaked distribution, as of a trained model
    ids = torch.randint(0, 300, (8, 40))

    @torch.no_grad()
    def log_probs(rows: torch.Tensor) -> torch.Tensor:
        logits = model(rows).logits[:, :-1]
        return logits.log_softmax(-1).gather(-1, rows[:, 1:].unsqueeze(-1)).squeeze(-1)

    policy, reference = log_probs(ids), torch.cat([log_probs(row) for row in ids.split(1)])
    assert float(policy.std()) > 1
    assert float((policy - reference).abs().max()) < ISPOConfig().drift_threshold / 1000
