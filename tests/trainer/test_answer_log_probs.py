"""log p(A | Q) and log p(A | Q, T) where T ends before the rollout's trace does: rows, forward, and what is read of it.

What goes wrong in general: a row has another context or other ids than the method says, a log-prob is read at another
row or position than it belongs to, or the rows of a batch depend on how it is shared out.

Derivation: prompt + T + lead-in + A, put together by hand for one rollout from the text of its parts, run alone and
unpadded in float64. It is compared with the library's rows, run as verl's workers run them (`test_ablated_rows`).

Not exercised: verl's engines and transfer queue (tests/training trains with these settings, in both passes).
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tensordict import TensorDict
from transformers import Qwen2ForCausalLM

from tests.trainer.test_ablated_rows import TEXTS, model, tail_log_probs, token_ids  # noqa: F401 - a fixture
from verl_ispo.config.ispo_config import ANSWER_SPANS, ISPOConfig
from verl_ispo.signals.answer_span import ScoredAnswers, find_answer_spans, find_scored_answers
from verl_ispo.signals.conditional_ifd import conditional_ifd
from verl_ispo.trainer import merged_forward
from verl_ispo.trainer.ablated_forward import ablated_answer_log_probs, ablated_rows, answer_log_probs, answer_rows

# Prompt, response, and by `answer_span`: T up to the first statement, or None where there is none; lead-in; A.
ROLLOUTS: list[tuple[list[str], list[str], dict[str, tuple[list[str] | None, list[str], list[str]]]]] = [
    (
        ["x", "so "],
        ["x", " 4", "= \\boxed", "{4", "}", ""],  # a token of trace and lead-in, one of lead-in and content
        {
            "content": (["x"], ["= \\boxed"], ["{4"]),
            "marked": (["x"], [], ["= \\boxed", "{4", "}"]),
            "sentence": (None, [], ["x", " 4", "= \\boxed", "{4", "}"]),
        },
    ),
    (
        ["7"],
        ["so ", "7", "\n", "so ", "\\boxed{", "7", "}"],
        {
            "content": (["so "], ["\\boxed{"], ["7"]),
            "marked": (["so "], [], ["\\boxed{", "7", "}"]),
            "sentence": (["so "], [], ["so ", "\\boxed{", "7", "}"]),
        },
    ),
    (
        ["x"],
        ["7", "\n", "so ", "\\boxed{", "7", "}"],  # the very first token says it
        {
            "content": ([], ["\\boxed{"], ["7"]),
            "marked": ([], [], ["\\boxed{", "7", "}"]),
            "sentence": ([], [], ["so ", "\\boxed{", "7", "}"]),
        },
    ),
    (
        ["x"],
        ["7", "7", "so ", "\nAnswer:", " 4", "2", "\n"],  # 42 is not said by 77
        {
            "content": (None, ["\nAnswer:"], [" 4", "2"]),
            "marked": (None, [], ["\nAnswer:", " 4", "2"]),
            "sentence": (None, [], ["\nAnswer:", " 4", "2"]),
        },
    ),
    (["7", "so "], ["x", "7", "\\boxed{", "7"], dict.fromkeys(ANSWER_SPANS, (None, [], []))),  # no answer
    (["7"], [], dict.fromkeys(ANSWER_SPANS, (None, [], []))),  # an empty response
]
PROMPTS = [token_ids(prompt) for prompt, _, _ in ROLLOUTS]
RESPONSES = [token_ids(response) for _, response, _ in ROLLOUTS]


def scored(answer_span: str, trace_end: str = "first_statement", rows: list[int] | None = None) -> ScoredAnswers:
    responses = RESPONSES if rows is None else [RESPONSES[row] for row in rows]
    config = ISPOConfig(answer_span=answer_span, trace_end=trace_end)
    return find_scored_answers([response.tolist() for response in responses], TEXTS.__getitem__, config)


def by_hand(exact: Qwen2ForCausalLM, context: list[str], answer: list[str], temperature: float) -> list[float]:
    """Log-probs of an answer's tokens behind a context, in float64."""
    ids, start = token_ids([*context, *answer]), len(context)
    with torch.no_grad():
        logits = exact(input_ids=ids.unsqueeze(0)).logits[0] / temperature
    rows = logits[start - 1 : -1].log_softmax(-1)
    return rows.gather(1, ids[start:, None])[:, 0].tolist()


@pytest.fixture(scope="module")
def exact(model: Qwen2ForCausalLM) -> Qwen2ForCausalLM:  # noqa: F811
    double = Qwen2ForCausalLM(model.config).double().eval()
    double.load_state_dict(model.state_dict())
    return double


@pytest.mark.parametrize("answer_span", ANSWER_SPANS)
@pytest.mark.parametrize("shares", [1, 2, 3, 6])
def test_both_log_probs_are_those_of_an_independent_forward(
    model: Qwen2ForCausalLM,  # noqa: F811
    exact: Qwen2ForCausalLM,
    answer_span: str,
    shares: int,
) -> None:
    answers = scored(answer_span)
    rows = answer_rows(PROMPTS, RESPONSES, answers, shares)
    assert len(rows) == 2 * len(ROLLOUTS)
    ablated, given = answer_log_probs(tail_log_probs(model, rows, 0.7), answers, shares)
    assert given is not None
    for row, (prompt, _, expected) in enumerate(ROLLOUTS):
        trace, lead_in, answer = expected[answer_span]
        assert bool(answers.stated[row]) == (trace is not None)
        padding = [0.0] * (ablated.shape[1] - len(answer))
        without = by_hand(exact, [*prompt, *lead_in], answer, 0.7) if answer else []
        assert ablated[row].tolist() == pytest.approx(without + padding, abs=1e-5)
        cut = by_hand(exact, [*prompt, *trace, *lead_in], answer, 0.7) if trace is not None else [0.0] * len(answer)
        assert given[row].tolist() == pytest.approx(cut + padding, abs=1e-5)
        if trace == []:  # nothing is left of T: both contexts are one, so IFD is 0
            mask = torch.arange(ablated.shape[1]) < len(answer)
            assert conditional_ifd(given[row], ablated[row], mask).item() == pytest.approx(0, abs=1e-6)


def test_each_share_has_its_own_rollouts_rows_one_kind_behind_the_other() -> None:
    answers = scored("content")
    for shares in (1, 2, 3):
        rows = answer_rows(PROMPTS, RESPONSES, answers, shares)
        size = len(ROLLOUTS) // shares
        for share in range(shares):
            own = range(share * size, (share + 1) * size)
            first = 2 * share * size
            for place, rollout in enumerate(own):
                assert torch.equal(rows["prompts"][first + place], PROMPTS[rollout])
                # a rollout whose trace is whole needs no second row, and its stand-in is short
                head = PROMPTS[rollout] if answers.stated[rollout] else PROMPTS[rollout][:1]
                assert torch.equal(rows["prompts"][first + size + place], head)
                if not answers.stated[rollout]:
                    assert len(rows["input_ids"][first + size + place]) == 2


@pytest.mark.parametrize("answer_span", ANSWER_SPANS)
def test_the_order_of_the_batch_changes_no_row(model: Qwen2ForCausalLM, answer_span: str) -> None:  # noqa: F811
    results = []
    for order in (list(range(len(ROLLOUTS))), [4, 2, 5, 0, 3, 1]):
        answers = scored(answer_span, rows=order)
        rows = answer_rows([PROMPTS[row] for row in order], [RESPONSES[row] for row in order], answers, shares=2)
        found = answer_log_probs(tail_log_probs(model, rows, 1.0), answers, shares=2)
        results.append([values[torch.tensor(order).argsort()] for values in found])
    for left, right in zip(*results, strict=True):
        torch.testing.assert_close(left, right, rtol=0, atol=1e-6)


def test_where_no_trace_is_cut_there_are_the_ablated_rows_alone(model: Qwen2ForCausalLM) -> None:  # noqa: F811
    """With the defaults rows and values are bitwise those of `ablated_rows`; also where no trace states its answer."""
    spans = find_answer_spans([response.tolist() for response in RESPONSES], TEXTS.__getitem__)
    for answers, chosen in ((scored("content", "lead_in"), slice(None)), (scored("content", rows=[3, 4]), slice(3, 5))):
        expected_rows = ablated_rows(PROMPTS[chosen], RESPONSES[chosen], spans.rows(chosen))
        rows = answer_rows(PROMPTS[chosen], RESPONSES[chosen], answers, shares=2)
        for name in expected_rows.keys():  # noqa: SIM118 - a TensorDict iterates over rows
            assert torch.equal(rows[name].values(), expected_rows[name].values())
            assert torch.equal(rows[name].offsets(), expected_rows[name].offsets())
        values = tail_log_probs(model, rows, 1.0)
        ablated, given = answer_log_probs(values, answers, shares=2)
        assert given is None
        assert torch.equal(ablated, ablated_answer_log_probs(values, spans.rows(chosen)))


@pytest.mark.parametrize("answer_span", ANSWER_SPANS)
@pytest.mark.parametrize("shares", [1, 2, 3])
def test_in_the_merged_pass_they_are_the_same(
    model: Qwen2ForCausalLM,  # noqa: F811
    answer_span: str,
    shares: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each rank's share holds its rollouts, then their rows; what is taken back is in the order of the rows."""
    stored: dict[str, Any] = {}

    def put(keys: list[str], partition_id: str, fields: TensorDict, tags: list[dict]) -> None:
        stored.update(
            {key: {name: fields[name][row] for name in ("prompts", "responses")} for row, key in enumerate(keys)}
        )
        assert all(not fields["response_mask"][row].any() for row in range(len(keys)))

    def get(keys: list[str], partition_id: str, select_fields: list[str]) -> dict[str, torch.Tensor]:
        values = [stored[key]["old_log_probs"] for key in keys]
        return {"old_log_probs": torch.nested.as_nested_tensor(values, layout=torch.jagged)}

    queue = SimpleNamespace(
        kv_batch_put=put, kv_batch_get=get, kv_clear=lambda keys, partition_id: [stored.pop(key) for key in keys]
    )
    monkeypatch.setattr(merged_forward, "tq", queue)
    monkeypatch.setattr(merged_forward, "KVBatchMeta", lambda **fields: SimpleNamespace(**fields))

    class Batch(SimpleNamespace):
        def __len__(self) -> int:
            return len(self.keys)

    names = [f"rollout{row}" for row in range(len(ROLLOUTS))]
    batch = Batch(keys=names, tags=[{} for _ in names], partition_id="train", extra_info={})
    answers = scored(answer_span)
    rows = answer_rows(PROMPTS, RESPONSES, answers, shares)
    values = tail_log_probs(model, rows, 1.0)
    merged, keys = merged_forward.put_ablated_rows(batch, rows, shares)
    for row, key in enumerate(keys):
        stored[key]["old_log_probs"] = values[row]
    size = 3 * len(ROLLOUTS) // shares
    assert len(merged.keys) == size * shares
    for rank in range(shares):
        share = merged.keys[rank * size : (rank + 1) * size]
        assert share[: size // 3] == names[rank * size // 3 : (rank + 1) * size // 3]
        prompts = [tuple(stored[key]["prompts"].tolist()) for key in share[size // 3 : 2 * size // 3]]
        assert prompts == [tuple(prompt.tolist()) for prompt in PROMPTS[rank * size // 3 : (rank + 1) * size // 3]]
    taken = answer_log_probs(merged_forward.take_ablated_log_probs(batch, keys), answers, shares)
    for left, right in zip(taken, answer_log_probs(values, answers, shares), strict=True):
        assert torch.equal(left, right)
    assert not stored
