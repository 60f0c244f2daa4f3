"""log p(A | Q): the rows that the trainer sends to verl's forward, and what it reads from the answer.

The expectation is built without the library's row and slicing code: prompt + lead-in + A, put together by hand for
one rollout, run alone and unpadded in float64, log-softmax of the logits at temperature 1 and at 0.7, the answer's
positions picked by hand. It is compared with the library's rows, run as verl's workers run them: one right-padded
batch in float32, log-probs by verl's own function with labels rolled by one, returned as one nested value per token of
prompt and tail. Both agree to 1e-5.

Tokens here have texts of several characters, so that lead-in and content share tokens with their neighbours.

Not exercised: verl's engines themselves and the dispatch over workers (the trainer tests), vision models (refused).
"""

from __future__ import annotations

import pytest
import torch
from tensordict import TensorDict
from transformers import Qwen2Config, Qwen2ForCausalLM
from verl.utils import tensordict_utils as tu
from verl.utils.torch_functional import logprobs_from_logits
from verl.workers.utils.padding import response_from_nested

from verl_ispo.signals.answer_span import AnswerSpans, find_answer_spans
from verl_ispo.trainer.ablated_forward import ablated_answer_log_probs, ablated_rows
from verl_ispo.trainer.forward_rows import with_forward_settings

TEXTS = [
    "",
    "x",
    "7",
    "so ",
    "= \\boxed",
    "{4",
    "2}.",
    "\\boxed",
    "{",
    "}",
    "\\boxed{7}",
    "\nAnswer:",
    " 4",
    "2",
    "\n",
    "\\boxed{",
]
IDS = {text: token for token, text in enumerate(TEXTS)}
END = IDS[""]

# Prompt, then (trace, lead-in, A, rest) as the method cuts the response.
ROLLOUTS = [
    (["x"], (["so ", "x"], ["\\boxed", "{"], ["7"], ["}", ""])),
    (
        ["x", "7", "so "],
        (["7"], ["= \\boxed"], ["{4", "2}."], ["x"]),
    ),  # lead-in and A share tokens with their neighbours
    (["so "], (["x", "x", "7"], [], ["\\boxed{7}"], [])),  # one token holds lead-in and A
    (["x", "x"], ([], ["\\boxed{"], ["7", "7", "x", "7"], ["}"])),  # no trace
    (["x"], (["so ", "7"], ["\nAnswer:"], [" 4", "2"], ["\n", "x", ""])),
    (["7", "so "], (["x", "7", "\\boxed{", "7", "7"], [], [], [])),  # cut off: no answer
    (["7"], ([], [], [], [])),  # an empty response
]


def token_ids(texts: list[str]) -> torch.Tensor:
    return torch.tensor([IDS[text] for text in texts], dtype=torch.long)


PROMPTS = [token_ids(prompt) for prompt, _ in ROLLOUTS]
RESPONSES = [token_ids([token for part in parts for token in part]) for _, parts in ROLLOUTS]


@pytest.fixture(scope="module")
def model() -> Qwen2ForCausalLM:
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=len(TEXTS),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        initializer_range=0.3,
    )
    return Qwen2ForCausalLM(config).eval()


@pytest.fixture(scope="module")
def spans() -> AnswerSpans:
    return find_answer_spans([response.tolist() for response in RESPONSES], TEXTS.__getitem__)


@torch.no_grad()
def as_verls_workers_do(model: Qwen2ForCausalLM, rows: TensorDict, temperature: float) -> torch.Tensor:
    """Log-probs of `rows`, nested: at each token that of the next one; at a row's last token, anything."""
    input_ids, position_ids = (rows[name].to_padded_tensor(0) for name in ("input_ids", "position_ids"))
    lengths = rows["input_ids"].offsets().diff()
    attention_mask = (torch.arange(input_ids.shape[1]) < lengths.unsqueeze(-1)).long()
    logits = model(input_ids=input_ids, attention_mask=attention_mask, position_ids=position_ids).logits / temperature
    log_probs = logprobs_from_logits(logits, input_ids.roll(-1, dims=1))
    return torch.nested.as_nested_tensor(
        [row[:length] for row, length in zip(log_probs, lengths.tolist(), strict=True)], layout=torch.jagged
    )


def tail_log_probs(model: Qwen2ForCausalLM, rows: TensorDict, temperature: float) -> torch.Tensor:
    return response_from_nested(as_verls_workers_do(model, rows, temperature), rows["response_mask"])


def test_rows_are_in_the_form_that_verls_forward_takes(spans: AnswerSpans) -> None:
    rows = with_forward_settings(ablated_rows(PROMPTS, RESPONSES, spans), temperature=0.7)
    assert len(rows) == len(ROLLOUTS)  # one for each, so that divisibility is inherited
    for row, (prompt, (_, lead_in, answer, _)) in enumerate(ROLLOUTS):
        tail = rows["responses"][row]
        if answer:
            assert tail.tolist() == token_ids([*lead_in, *answer]).tolist()
        assert rows["prompts"][row].tolist() == token_ids(prompt).tolist()
        assert rows["input_ids"][row].tolist() == [*rows["prompts"][row].tolist(), *tail.tolist()]
        assert rows["position_ids"][row].tolist() == list(range(len(prompt) + len(tail)))
        assert rows["response_mask"][row].tolist() == rows["loss_mask"][row].tolist() == [1] * len(tail)
    assert tu.get_non_tensor_data(rows, "temperature", default=None) == 0.7
    assert tu.get_non_tensor_data(rows, "compute_loss", default=None) is False
    assert tu.get_non_tensor_data(rows, "calculate_entropy", default=None) is False


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_answer_log_probs_are_those_of_an_independent_forward(
    model: Qwen2ForCausalLM, spans: AnswerSpans, temperature: float
) -> None:
    rows = ablated_rows(PROMPTS, RESPONSES, spans)
    found = ablated_answer_log_probs(tail_log_probs(model, rows, temperature), spans)
    assert found.dtype == torch.float32
    assert found.shape == (len(ROLLOUTS), max(len(answer) for _, (_, _, answer, _) in ROLLOUTS))

    exact = Qwen2ForCausalLM(model.config).double().eval()
    exact.load_state_dict(model.state_dict())
    for row, (prompt, (_, lead_in, answer, _)) in enumerate(ROLLOUTS):
        context, answer_ids = token_ids([*prompt, *lead_in]), token_ids(answer)
        with torch.no_grad():
            logits = exact(input_ids=torch.cat([context, answer_ids]).unsqueeze(0)).logits[0] / temperature
        # The logits before a token say how likely it is: A's first token follows the last one of prompt and lead-in.
        expected = [
            logits[len(context) - 1 + index].log_softmax(-1)[token].item()
            for index, token in enumerate(answer_ids.tolist())
        ]
        padding = [0.0] * (found.shape[1] - len(expected))
        assert found[row].tolist() == pytest.approx(expected + padding, abs=1e-5)


def test_the_trace_is_out(model: Qwen2ForCausalLM, spans: AnswerSpans) -> None:
    """Another trace before the same lead-in and answer changes neither rows nor log-probs."""
    (_, (trace, *rest)), span = ROLLOUTS[0], slice(0, 1)
    other = token_ids([token for part in (["7", "so "], *rest) for token in part])
    one_span = AnswerSpans(spans.lead_in_start[span], spans.start[span], spans.end[span])
    log_probs = [
        ablated_answer_log_probs(tail_log_probs(model, rows, 1.0), one_span)
        for rows in (ablated_rows(PROMPTS[span], [response], one_span) for response in (RESPONSES[0], other))
    ]
    assert len(trace) == 2
    assert torch.equal(*log_probs)


def test_without_any_answer_there_is_one_column_of_zeros(model: Qwen2ForCausalLM) -> None:
    nothing = torch.zeros(2, dtype=torch.long)
    spans = AnswerSpans(nothing, nothing, nothing)
    rows = ablated_rows(PROMPTS[:2], RESPONSES[:2], spans)
    found = ablated_answer_log_probs(tail_log_probs(model, rows, 1.0), spans)
    assert found.tolist() == [[0.0], [0.0]]
