"""The tiny base model: a Qwen2 decoder of 0.7 M parameters (0.64 M of them in its layers), initialized from a seed."""

from __future__ import annotations

import torch
from transformers import Qwen2Config, Qwen2ForCausalLM, Qwen2Tokenizer


def build_config(tokenizer: Qwen2Tokenizer, max_positions: int = 256) -> Qwen2Config:
    """Shape of the model: width 128, 3 layers, 4 heads, feed-forward 384.

    The vocabulary is exactly the tokenizer's: a padded row would be a token that the policy can sample but nothing can
    decode. The output embedding is untied, as in Qwen2.5-7B: verl then initializes all ranks but the first on the meta
    device, shards the embedding and the head on their own under FSDP2, and writes no aliased key into a checkpoint.

    Args:
        tokenizer (`Qwen2Tokenizer`): gives the vocabulary's size and the special tokens' ids.
        max_positions (`int`, *optional*, defaults to `256`): longest sequence, in tokens.
    """
    return Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=max_positions,
        tie_word_embeddings=False,
        initializer_range=0.05,  # what torch's own nn.Linear has at this width; 0.02 is meant for wider models
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def build_model(tokenizer: Qwen2Tokenizer, seed: int, max_positions: int = 256) -> Qwen2ForCausalLM:
    """Initialize the model in float32 from a seed, without touching the caller's random state."""
    config = build_config(tokenizer, max_positions)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Qwen2ForCausalLM(config)
    return model.float()
