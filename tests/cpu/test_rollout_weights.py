"""What the CPU rollout server is sent: whole weights. An adapter alone is refused with the key to set.

Not exercised: the transfer itself (the trainer tests).
"""

from __future__ import annotations

import asyncio

import pytest

from verl_ispo.cpu.rollout import CPURollout


def test_an_adapter_is_refused() -> None:
    rollout = object.__new__(CPURollout)
    with pytest.raises(NotImplementedError, match=r"lora\.merge=true"):
        asyncio.run(rollout.update_weights(iter(()), peft_config={"r": 8}))
