"""Packed attention by row equals each row alone.

What is checked: a model with ``attn_implementation=torch_varlen`` on rows packed into one sequence gives the logits and
the gradients of the same model with transformers' own attention on each row alone, in float64, with fewer key-value
heads than heads. Not exercised: the CUDA kernel itself, which `scripts/gpu/run_all.sh` compares on a GPU.
"""

import pytest
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from verl_ispo import varlen_attention

ROWS = (5, 1, 9)


def model(implementation: str) -> Qwen2ForCausalLM:
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=31,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        attn_implementation=implementation,
    )
    return Qwen2ForCausalLM(config).double()


def packed(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(0, 31, (1, sum(ROWS)), generator=generator)
    return tokens, torch.cat([torch.arange(length) for length in ROWS]).unsqueeze(0)


def test_a_packed_sequence_gives_each_rows_own_logits_and_gradients():
    tokens, positions = packed()
    together, alone = model(varlen_attention.NAME), model("sdpa")
    logits = together(tokens, position_ids=positions, use_cache=False).logits[0]
    expected = torch.cat([alone(row.unsqueeze(0), use_cache=False).logits[0] for row in tokens[0].split(list(ROWS))])
    torch.testing.assert_close(logits, expected)

    logits.logsumexp(-1).sum().backward()
    expected.logsumexp(-1).sum().backward()
    for ours, theirs in zip(together.parameters(), alone.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad)


def test_row_starts_are_those_of_the_batch_in_hand():
    starts, longest = varlen_attention.row_starts(packed()[1])
    assert (starts.tolist(), longest) == ([0, 5, 6, 15], 9)
    assert starts.dtype == torch.int32

    network = model(varlen_attention.NAME)
    tokens, positions = packed()
    first = network(tokens, position_ids=positions, use_cache=False).logits
    one_row = network(tokens, position_ids=torch.arange(15).unsqueeze(0), use_cache=False).logits
    again = network(tokens, position_ids=positions, use_cache=False).logits
    assert not torch.allclose(first[0, 5], one_row[0, 5])
    torch.testing.assert_close(first, again)


def test_padded_rows_are_refused_with_the_remedy():
    tokens = torch.zeros(2, 4, dtype=torch.long)
    with pytest.raises(ValueError, match="use_remove_padding=true"):
        model(varlen_attention.NAME)(tokens, attention_mask=torch.tensor([[1, 1, 1, 1], [0, 1, 1, 1]]))
