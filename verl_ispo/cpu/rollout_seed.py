"""One random stream per rollout: verl's single-turn agent loop with a seed in its sampling parameters."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from verl.experimental.agent_loop.agent_loop import AgentLoopOutput, register
from verl.experimental.agent_loop.single_turn_agent_loop import SingleTurnAgentLoop

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
        return await super().run({**sampling_params, "seed": seed}, **kwargs)
