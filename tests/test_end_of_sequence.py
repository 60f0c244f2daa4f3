"""Every token that ends a sequence counts, whoever names it: the tokenizer, or the model's generation config."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from verl_ispo.end_of_sequence import end_of_sequence_ids
from verl_ispo.signals.answer_span import AnswerSpans
from verl_ispo.signals.critical_tokens import outside_the_answer


@pytest.mark.parametrize(
    ("tokenizer_id", "configured", "ids"),
    [
        (2, None, [2]),
        (None, None, []),
        (2, 2, [2]),
        (151643, [151645, 151643], [151643, 151645]),  # Qwen2.5-Instruct
        (128009, [128001, 128008, 128009], [128001, 128008, 128009]),  # Llama 3
        (None, 7, [7]),
    ],
)
def test_ids(tokenizer_id: int | None, configured: int | list[int] | None, ids: list[int]) -> None:
    assert end_of_sequence_ids(tokenizer_id, SimpleNamespace(eos_token_id=configured)) == ids


def test_a_model_without_a_generation_config_has_its_tokenizers_id() -> None:
    assert end_of_sequence_ids(2) == [2]


def test_none_of_them_is_outside_the_answer() -> None:
    """With the tokenizer's id alone, a chat model's end of turn could be chosen as a critical token."""
    ids = torch.tensor([[5, 6, 7, 8, 9], [5, 8, 9, 0, 0]])
    spans = AnswerSpans(torch.tensor([1, 0]), torch.tensor([1, 0]), torch.tensor([3, 0]))
    outside = outside_the_answer(ids, spans, [8, 9])
    assert outside.tolist() == [[True, False, False, False, False], [True, False, False, True, True]]
    assert outside_the_answer(ids, spans, []).tolist()[1] == [True] * 5
