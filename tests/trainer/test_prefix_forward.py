r"""log p(ground truth | Q, first tokens of the response, lead-in): the texts, the forward and what a method is given.

What goes wrong in general: a cut is off by one; scores of one rollout or cut land on another; the prompt alone is
scored once for each rollout; a rollout that cannot be scored shifts those behind it.

Derivation: the stand-in for verl's workers of test_right_answer_forward runs the rows share by share on a small model
in float32. Log-probs and entropies are compared with forwards over each text alone, in float64, to 1e-5.

Not exercised: verl's engines (tests/training/test_methods.py).
"""

from __future__ import annotations

import pytest
import torch
from tensordict import TensorDict
from transformers import Qwen2Config, Qwen2ForCausalLM

from tests.trainer.test_ablated_rows import TEXTS, token_ids
from tests.trainer.test_right_answer_forward import Workers, encode, settings
from verl_ispo.signals.answer_span import AnswerSpans
from verl_ispo.signals.token_texts import TokenTexts
from verl_ispo.trainer.prefix_forward import behind_lead_in, cut_request, prefix_metrics, prefix_rows, prefix_scores
from verl_ispo.trainer.right_answer_forward import forward_over_tails

BOX = "\\boxed{"
# two rollouts of one prompt, a padding row, two prompts without a scored rollout, and a last one
PROMPTS = [token_ids(texts) for texts in (["x"], ["x"], ["x"], ["7", "x"], ["7"], ["so ", "7"])]
RESPONSES = [
    token_ids(texts)
    for texts in (["so ", "7", "x", "\\boxed{", "7", "}"], ["7", "7"], ["x"], ["x", "x"], ["x"] * 9, ["x", "7", "2"])
]
RIGHT_ANSWERS = ["7x", "7x", None, "", "7", "77"]
CUTS = [[2, 3], [2], [1], [1], [9], [1, 3]]


def rows_of(cuts: list[list[int]] = CUTS, max_length: int | None = 10):
    return prefix_rows(PROMPTS, RESPONSES, RIGHT_ANSWERS, cuts.__getitem__, BOX, encode, max_length)


def test_each_text_is_prompt_beginning_lead_in_and_ground_truth():
    rows = rows_of()
    texts = [
        ("".join(TEXTS[token] for token in head), "".join(TEXTS[token] for token in tail))
        for head, tail in zip(rows.heads, rows.tails, strict=True)
    ]
    assert texts == [
        ("x\\boxed{", "7x"),  # the prompt alone, once for both of its rollouts
        ("xso 7\\boxed{", "7x"),
        ("xso 7x\\boxed{", "7x"),
        ("x77\\boxed{", "7x"),
        ("so 7\\boxed{", "77"),
        ("so 7x\\boxed{", "77"),
        ("so 7x72\\boxed{", "77"),
    ]
    assert rows.texts == ((0, 1, 2), (0, 3), (), (), (), (4, 5, 6))
    assert rows.cuts == ((0, 2, 3), (0, 2), (), (), (), (0, 1, 3))
    assert rows.too_long == (False, False, False, False, True, False)  # 1 + 9 + 1 + 1 tokens


def test_a_token_that_joins_the_lead_in_with_the_answer_is_scored():
    assert behind_lead_in("= \\boxed{", "42", encode) == ([TEXTS.index("= \\boxed")], encode("{42"))


def test_the_lead_in_may_be_empty_and_never_takes_the_whole_answer():
    assert behind_lead_in("", "7x", encode) == ([], encode("7x"))
    assert behind_lead_in("7", "x", encode) == (encode("7"), encode("x"))
    assert behind_lead_in("x", "", encode) == ([], encode("x"))


@pytest.mark.parametrize("cuts", [[2, 2], [0, 1], [7]])
def test_cuts_that_do_not_rise_or_lie_outside_are_an_error(cuts: list[int]):
    with pytest.raises(ValueError, match=r"rollout 0: .* of 6 tokens; the numbers have to rise"):
        rows_of([cuts, *CUTS[1:]])


def test_the_metrics_count_tokens_and_rollouts():
    rows = rows_of()
    assert prefix_metrics("made_up", rows, rollouts=5) == {
        # prompts, beginnings and lead-ins: 2+4+5+4+3+4+6; ground truths: 4 x 2 and 3 x 2
        "made_up/tokens/prefix_scores": 28 + 14,
        "made_up/prefix_scores/rate": 3 / 5,
        "made_up/prefix_scores/too_long": 1,
        "made_up/prefix_scores/cuts": (2 + 1 + 2) / 3,
    }
    nothing = prefix_rows([], [], [], CUTS.__getitem__, BOX, encode)
    assert set(prefix_metrics("made_up", nothing, rollouts=0).values()) == {0}


class WorkersWithEntropy(Workers):
    """Gives entropies beside log-probs, where they are asked for."""

    def compute_log_prob(self, rows: TensorDict) -> dict[str, torch.Tensor]:
        output = super().compute_log_prob(rows)
        if not rows["calculate_entropy"]:
            return output
        entropies = []
        for ids in rows["input_ids"].unbind():
            with torch.no_grad():
                log_probs = (self.model(input_ids=ids.unsqueeze(0)).logits[0] / rows["temperature"]).log_softmax(-1)
            entropies.append(-(log_probs.exp() * log_probs).sum(-1))
        return {**output, "entropy": torch.nested.as_nested_tensor(entropies, layout=torch.jagged)}


@pytest.mark.parametrize(("workers", "micro_batch"), [(1, 4), (2, 1), (3, 2)])
def test_scores_are_those_of_forwards_over_each_text_alone(workers: int, micro_batch: int):
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=len(TEXTS), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, initializer_range=0.3,
    )  # fmt: skip
    model = Qwen2ForCausalLM(config).eval()
    rows = rows_of()
    group = WorkersWithEntropy(model, workers, micro_batch)
    found = forward_over_tails(
        group, settings(micro_batch=micro_batch), rows.heads, rows.tails, ["log_probs", "entropy"]
    )
    scores = prefix_scores(found["log_probs"], found["entropy"], rows)

    exact = model.double()

    def alone(head: list[str], tail: list[str]) -> tuple[float, float]:
        ids = token_ids([*head, *tail])
        with torch.no_grad():
            log_probs = (exact(input_ids=ids.unsqueeze(0)).logits[0] / 0.7).log_softmax(-1)[len(head) - 1 : -1]
        mean = log_probs.gather(-1, ids[len(head) :].unsqueeze(-1)).mean().item()
        return mean, -(log_probs.exp() * log_probs).sum(-1).mean().item()

    expected = [
        [alone(head, ["7", "x"]) for head in (["x", BOX], ["x", "so ", "7", BOX], ["x", "so ", "7", "x", BOX])],
        [alone(head, ["7", "x"]) for head in (["x", BOX], ["x", "7", "7", BOX])],
        [], [], [],
        [alone(["so ", "7", *begun, BOX], ["7", "7"]) for begun in ([], ["x"], ["x", "7", "2"])],
    ]  # fmt: skip
    assert scores.cuts.tolist() == [[0, 2, 3], [0, 2, 0], [0, 0, 0], [0, 0, 0], [0, 0, 0], [0, 1, 3]]
    assert scores.mask.tolist() == [[at < len(row) for at in range(3)] for row in expected]
    assert scores.tokens.tolist() == [2, 2, 0, 0, 0, 2]
    for values, which in ((scores.mean_log_prob, 0), (scores.mean_entropy, 1)):
        padded = [[*(one[which] for one in row), *[0.0] * (3 - len(row))] for row in expected]
        assert values.dtype == torch.float32
        torch.testing.assert_close(values.double(), torch.tensor(padded, dtype=torch.float64), rtol=0, atol=1e-5)


def test_nothing_to_score_runs_nothing():
    found = forward_over_tails(None, settings(), [], [], ["log_probs", "entropy"])
    scores = prefix_scores(found["log_probs"], found["entropy"], prefix_rows([], [], [], CUTS.__getitem__, BOX, encode))
    assert scores.cuts.shape == scores.mask.shape == scores.mean_log_prob.shape == (0, 1)


def test_a_method_sees_where_the_answer_is_opened():
    spans = AnswerSpans(torch.tensor([3, 0]), torch.tensor([4, 0]), torch.tensor([5, 0]))
    texts = TokenTexts(TEXTS.__getitem__)
    request = cut_request(torch.arange(6, dtype=torch.float16), RESPONSES[0], spans, 0, texts)
    assert (request.trace_length, request.entropy.dtype) == (3, torch.float32)
    assert request.token_texts == ["so ", "7", "x", "\\boxed{", "7", "}"]
    assert cut_request(torch.zeros(2), RESPONSES[1], spans, 1, texts).trace_length == 2  # no answer
