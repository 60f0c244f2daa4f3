"""One random stream per rollout, and the same batch around it at every repetition: verl's agent loop and its manager.

The loop gives every request a seed. Where one server gets all requests of a call, the manager also tells how many
there are (`ASKED_TOGETHER`), so that the server can wait for all and sort them: then a repeated run computes the same
sums, and the weights may be float32.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any
from uuid import uuid4

from tensordict import NonTensorData, TensorDict
from verl.experimental.agent_loop.agent_loop import AgentLoopOutput, register
from verl.experimental.agent_loop.single_turn_agent_loop import SingleTurnAgentLoop
from verl.trainer.ppo.v1.agent_loop_tq import AgentLoopManagerTQ

from verl_ispo.cpu.asked_together import ASKED_TOGETHER, samples_in_one_batch

SEEDED_AGENT_LOOP = "ispo_seeded_single_turn"


def rollout_seed(run_seed: int, step: int, prompt: Any, sample_number: int) -> int:
    """A seed below 2**63 from run seed, step, prompt and sample number, stable across processes and Python versions."""
    identity = json.dumps([run_seed, step, prompt, sample_number], sort_keys=True, default=str)
    return int.from_bytes(hashlib.blake2b(identity.encode(), digest_size=8).digest(), "little") >> 1


@register(SEEDED_AGENT_LOOP)
class SeededSingleTurnAgentLoop(SingleTurnAgentLoop):
    """Single-turn chat whose rollouts depend on (run seed, step, prompt, sample number) and the weights alone.

    Choose it with ``actor_rollout_ref.rollout.agent.default_agent_loop=ispo_seeded_single_turn``; the run seed is
    ``actor_rollout_ref.rollout.seed``.
    """

    async def run(self, sampling_params: dict[str, Any], **kwargs: Any) -> AgentLoopOutput:
        prompt = [str(kwargs.get("index")), list(kwargs["raw_prompt"])]
        seed = rollout_seed(self.rollout_config.seed, int(kwargs["global_steps"]), prompt, int(kwargs["session_id"]))
        together = kwargs.get(ASKED_TOGETHER)
        named = {} if together is None else {ASKED_TOGETHER: tuple(together)}
        return await super().run({**sampling_params, "seed": seed, **named}, **kwargs)


class CPUAgentLoopManager(AgentLoopManagerTQ):
    """verl's manager, which says with each request how many are asked for together.

    Choose it with ``actor_rollout_ref.rollout.agent.agent_loop_manager_class``.
    """

    def generate_sequences(self, prompts: TensorDict) -> None:
        if samples_in_one_batch(self.config):
            rollout = self.config.actor_rollout_ref.rollout
            of_each = rollout.val_kwargs.n if "validate" in prompts else rollout.n
            requests = sum(prompts["__rollout_n__"]) if "__rollout_n__" in prompts else len(prompts) * of_each
            prompts[ASKED_TOGETHER] = NonTensorData((uuid4().hex, int(requests)))
        super().generate_sequences(prompts)
