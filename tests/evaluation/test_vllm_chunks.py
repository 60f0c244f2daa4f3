"""What the vLLM sampler gives to the engine together: each request once, and never a greedy one beside a seeded one.

What goes wrong in general: a request that is left out or drawn twice, or one without a seed in a batch of seeded ones,
whose seeds vLLM then ignores on a CPU.
"""

from __future__ import annotations

from unittest.mock import patch

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.examples import examples
from verl_ispo.cpu.sampling import SampleRequest
from verl_ispo.evaluation import vllm_sampler


@given(temperatures=st.lists(st.sampled_from([0.0, 0.6, 1.0]), max_size=40), most=st.integers(1, 12))
@settings(max_examples=examples(50))
def test_each_request_once_and_seeded_ones_apart(temperatures: list[float], most: int) -> None:
    requests = [SampleRequest((1,), 4, temperature=temperature) for temperature in temperatures]
    with patch.object(vllm_sampler, "REQUESTS_AT_ONCE", most):
        chunks = list(vllm_sampler.chunks(requests))
    assert sorted(index for chunk in chunks for index in chunk) == list(range(len(requests)))
    for chunk in chunks:
        assert 0 < len(chunk) <= most
        assert len({temperatures[index] == 0 for index in chunk}) == 1
