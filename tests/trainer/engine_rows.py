"""The rows that engines are compared on. Tokens are bytes, as in the tiny task's tokenizer. Imports no verl."""

from __future__ import annotations

from pathlib import Path

import torch

PROMPTS = ["2+3=", "10-4=", "7*6=", "what is 1+1? "]
RESPONSES = ["two and three: \\boxed{5}.", "\\boxed{6}", "6*7=42, so \\boxed{42}", "I do not know"]
ADVANTAGES = [1.0, -0.5, 0.25, -0.75]
TEMPERATURE = 0.7


def log_probs_in_transformers(folder: Path) -> torch.Tensor:
    """One value per response token, row after row, by the model in a Hugging Face folder, in float32."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    found = []
    for prompt, response in zip(PROMPTS, RESPONSES, strict=True):
        tokens, begin = torch.tensor(list((prompt + response).encode())), len(prompt.encode())
        with torch.no_grad():
            log_probs = (model(tokens[None]).logits[0] / TEMPERATURE).log_softmax(-1)
        found.append(log_probs[begin - 1 : -1].gather(1, tokens[begin:, None])[:, 0])
    return torch.cat(found)
