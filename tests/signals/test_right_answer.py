r"""The gain of the correct answer in groups without a correct rollout: its texts, and what it does to the reward.

What goes wrong in general: the answer's tokens are not those that the tokenizer writes behind the lead-in, so that the
gain measures an odd spelling; a rollout that was not scored is paid more than one that was; a key that nobody can score
stops the step; a mixed group changes.

Derivation: texts are put together by hand for a tokenizer of few tokens, which joins as BPE does (longest match first);
rewards are compared with the other guards' where they have to agree. The reward's formula is checked by loops in
test_reference, its padding and order in test_properties, the forward in tests/trainer/test_right_answer_forward.py.

Not exercised: real tokenizers' own rules of joining.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from hypothesis import given, settings

from tests.examples import examples
from tests.signals.loop_reference import Rollout
from tests.signals.rollout_batches import batches, configs, library_guarded, library_reward, right_answer_scores
from verl_ispo import ISPOConfig
from verl_ispo.signals.answer_span import AnswerSpans, find_answer_spans
from verl_ispo.signals.checks import NonFiniteSignalError
from verl_ispo.signals.groups import RolloutGroups, guarded_reward
from verl_ispo.signals.right_answer import (
    MAX_RIGHT_ANSWER_TOKENS,
    RightAnswerRows,
    place_right_answer,
    right_answer_gain,
    right_answer_rows,
)
from verl_ispo.signals.right_answer import right_answer_scores as scores_of

TEXTS = ["so ", "\\boxed", "\\boxed{", "{", "{\\", "\\", "frac", "1", "2", "4", "}", " ", " 4", "Answer:", "\n", "x"]
IDS = {text: token for token, text in enumerate(TEXTS)}


def encode(text: str) -> list[int]:
    """Longest match first, `\\boxed` always by itself, as in a vocabulary where `{\\` is one token."""
    ids = []
    while text:
        known = [one for one in TEXTS if one != "\\boxed{" and text.startswith(one)]
        longest = max(known, key=len)
        ids.append(IDS[longest])
        text = text[len(longest) :]
    return ids


def decode(ids: list[int]) -> str:
    return "".join(TEXTS[token] for token in ids)


def ids_of(*texts: str) -> list[int]:
    return [IDS[text] for text in texts]


@pytest.mark.parametrize(
    ("lead_in", "first_of_answer", "right_answer", "opening", "tail"),
    [
        # the usual case: the rollout's own lead-in, and the answer as the tokenizer writes it
        (("\\boxed", "{"), "4", "12", ("\\boxed", "{"), ("1", "2")),
        # a lead-in that the tokenizer would write otherwise stays the rollout's
        (("\\boxed{",), "4", "12", ("\\boxed{",), ("1", "2")),
        # the brace is part of the wrong answer's first token, and belongs to the lead-in
        (("\\boxed",), "{\\", "12", ("\\boxed", "{"), ("1", "2")),
        # the brace joins with what follows, whatever the wrong answer began with
        (("\\boxed", "{"), "4", "\\frac12", ("\\boxed",), ("{\\", "frac", "1", "2")),
        (("\\boxed",), "{\\", "\\frac12", ("\\boxed",), ("{\\", "frac", "1", "2")),
        # a space in the first token
        (("\n", "Answer:"), " 4", "12", ("\n", "Answer:", " "), ("1", "2")),
        (("\n", "Answer:"), " 4", "4", ("\n", "Answer:"), (" 4",)),
        (("Answer:",), "1", "4", ("Answer:",), ("4",)),
        # no lead-in at all, and a brace that belongs to the answer
        ((), "4", "12", (), ("1", "2")),
        (("Answer:",), "{", "4", ("Answer:",), ("4",)),
    ],
)
def test_the_answer_is_spelt_as_the_tokenizer_spells_it_there(lead_in, first_of_answer, right_answer, opening, tail):
    placed = place_right_answer(ids_of(*lead_in), IDS[first_of_answer], right_answer, encode, decode)
    assert placed == (tuple(ids_of(*opening)), tuple(ids_of(*tail)))


PROMPT = torch.tensor(ids_of("x", "2"))
RESPONSES = [
    torch.tensor(ids_of("so ", "\\boxed", "{", "4", "}")),
    torch.tensor(ids_of("so ", "x", "\\boxed", "{", "2", "}", "x")),
    torch.tensor(ids_of("\\boxed", "{", "4", "}")),  # no trace
    torch.tensor(ids_of("so ", "\\boxed", "{", "2", "}")),  # another answer after the first one's trace
    torch.tensor(ids_of("so ", "x")),  # no answer
    torch.tensor([], dtype=torch.long),
]
SPANS = find_answer_spans([response.tolist() for response in RESPONSES], TEXTS.__getitem__)


def rows_of(right_answers: list[str | None], **settings_: Any) -> RightAnswerRows:
    return right_answer_rows([PROMPT] * len(RESPONSES), RESPONSES, SPANS, right_answers, encode, decode, **settings_)


def test_each_rollout_has_its_text_and_equal_texts_are_scored_once():
    rows = rows_of(["12"] * 6)
    assert rows.given_trace == (0, 2, 1, 0, -1, -1)
    assert rows.ablated == (1, 1, 1, 1, -1, -1)
    lead_in = ids_of("\\boxed", "{")
    expected = [ids_of("so "), [], ids_of("so ", "x")]
    assert [head.tolist() for head in rows.heads] == [PROMPT.tolist() + trace + lead_in for trace in expected]
    assert [tail.tolist() for tail in rows.tails] == [ids_of("1", "2")] * 3


def test_a_trace_that_is_cut_short_leaves_the_lead_in():
    """T may end before it states the rollout's own answer."""
    rows = rows_of(["12"] * 6, trace_end=torch.tensor([1, 1, 0, 0, 0, 0]))
    assert rows.given_trace == (0, 0, 1, 1, -1, -1)
    assert rows.ablated == (1, 1, 1, 1, -1, -1)


def test_who_is_not_scored():
    """Nothing asked; an empty key; one of too many tokens, or characters; a text beyond the longest of the training."""
    longest, too_long = "1" * MAX_RIGHT_ANSWER_TOKENS, "1" * (MAX_RIGHT_ANSWER_TOKENS + 1)
    rows = rows_of([None, "", longest, too_long, "12", "12"])
    assert [index >= 0 for index in rows.given_trace] == [False, False, True, False, False, False]
    assert rows.too_long == (False, False, False, True, False, False)
    assert rows_of(["{\\" * 10_000] * 6).too_long == (True,) * 6
    bounded = rows_of(["12"] * 6, max_length=7)
    assert bounded.given_trace == (0, -1, 1, 0, -1, -1)
    assert not any(bounded.too_long)


def test_scores_are_each_rollouts_own_and_follow_the_order_of_rows():
    right_answers = ["12", "1", None, "4", "12", "12"]

    def scored(order: list[int]) -> torch.Tensor:
        spans = AnswerSpans(*(getattr(SPANS, name)[order] for name in ("lead_in_start", "start", "end")))
        rows = right_answer_rows(
            [PROMPT] * len(order),
            [RESPONSES[row] for row in order],
            spans,
            [right_answers[row] for row in order],
            encode,
            decode,
        )
        # any function of the text stands for its log-probs
        log_probs = [
            -(tail + 1.0) / (2.0 + len(head) + head.sum()) for head, tail in zip(rows.heads, rows.tails, strict=True)
        ]
        scores = scores_of(log_probs, rows)
        assert scores.scored.tolist() == [row in (0, 1, 3) for row in order]
        return right_answer_gain(scores)

    gain, order = scored(list(range(6))), [3, 5, 0, 1, 4, 2]
    assert gain[[2, 4, 5]].tolist() == [0, 0, 0]
    assert torch.equal(scored(order), gain[order])
    head, ablated = sum(ids_of("x", "2", "so ", "\\boxed", "{")) + 7, sum(ids_of("x", "2", "\\boxed", "{")) + 6
    by_hand = sum(-(token + 1) / head + (token + 1) / ablated for token in ids_of("1", "2")) / 2
    assert gain[0].item() == pytest.approx(by_hand, rel=1e-6)


def test_an_empty_batch_has_no_scores():
    nothing = torch.zeros(0, dtype=torch.long)
    rows = right_answer_rows([], [], AnswerSpans(nothing, nothing, nothing), [], encode, decode)
    assert scores_of([], rows).scored.shape == right_answer_gain(scores_of([], rows)).shape == (0,)


def guarded_without_scores(batch: list[Rollout], config: ISPOConfig):
    groups = RolloutGroups.from_labels([rollout.group for rollout in batch])
    correct = torch.tensor([rollout.correct for rollout in batch])
    return guarded_reward(library_reward(batch, config), correct, groups, config)


def with_one_correct(batch: list[Rollout]) -> list[Rollout]:
    first = {rollout.group: row for row, rollout in reversed(list(enumerate(batch)))}
    return [
        dataclasses.replace(rollout, correct=rollout.correct or first[rollout.group] == row)
        for row, rollout in enumerate(batch)
    ]


@given(batches(groups=2), configs(all_wrong_groups="right_answer"))
@settings(max_examples=examples(75))
def test_groups_with_a_correct_rollout_are_as_in_the_paper(batch: list[Rollout], config: ISPOConfig):
    batch = with_one_correct(batch)
    plain = dataclasses.replace(config, all_wrong_groups="paper")
    assert torch.equal(library_guarded(batch, config).total, guarded_without_scores(batch, plain).total)


@given(batches(groups=2), configs(all_wrong_groups="right_answer", ifd_weight=0.0))
@settings(max_examples=examples(75))
def test_without_weight_it_is_token_only(batch: list[Rollout], config: ISPOConfig):
    token_only = dataclasses.replace(config, all_wrong_groups="token_only")
    assert torch.equal(library_guarded(batch, config).total, guarded_without_scores(batch, token_only).total)


@given(batches(min_size=2, groups=2), configs(all_wrong_groups="right_answer", ifd_weight=0.5))
@settings(max_examples=examples(150))
def test_a_missing_answer_is_never_paid_more_than_an_answer(batch: list[Rollout], config: ISPOConfig):
    """Whatever its score and token reward; and where nobody answered nobody has an advantage."""
    batch = [dataclasses.replace(rollout, correct=False) for rollout in batch]
    total = library_guarded(batch, config).total.tolist()
    for label in {rollout.group for rollout in batch}:
        mine = [(reward, rollout.answered) for reward, rollout in zip(total, batch, strict=True)]
        group = [one for one, rollout in zip(mine, batch, strict=True) if rollout.group == label]
        missing = {reward for reward, answered in group if not answered}
        assert len(missing) <= 1
        if missing:
            assert missing == {min(reward for reward, _ in group)}


@given(batches(min_size=2, groups=1))
@settings(max_examples=examples(50))
def test_a_prior_that_all_rollouts_share_changes_no_difference(batch: list[Rollout]):
    """log p(A* | Q, lead-in), where lead-ins agree: the group's mean takes it out, also for rollouts not scored."""
    batch = [
        dataclasses.replace(rollout, correct=False, right_ablated=(0.0,) * len(rollout.right_given))
        for rollout in batch
        if not rollout.answered or rollout.right_given  # all that answered are scored
    ]
    if not any(rollout.right_given for rollout in batch):
        return
    lower = [dataclasses.replace(one, right_ablated=(-2.0,) * len(one.right_given)) for one in batch]
    config = ISPOConfig(all_wrong_groups="right_answer")
    one, other = (library_guarded(rows, config).total.double() for rows in (batch, lower))
    # a missing answer has its group's lowest composite, so the prior reaches it through that as well
    assert (other - other.mean()).tolist() == pytest.approx((one - one.mean()).tolist(), abs=1e-5)


def test_a_misleading_trace_counts_as_none_with_the_bound():
    """Gains of -3, 0 and 1: with the bound leaving the trace out (0) is not paid more than the misleading trace."""
    batch = [
        Rollout("q", 0.0, False, (1,), (True,), (-1.0,), (-9.0,), (1.0,), 0, 0, 1, (-2.0,), (True,), (given,), (-4.0,))
        for given in (-7.0, -4.0, -3.0)
    ]
    config = ISPOConfig(all_wrong_groups="right_answer", token_weight=0.0)
    assert library_guarded(batch, config).total.tolist() == pytest.approx([-1.5, 0.0, 0.5])
    bounded = dataclasses.replace(config, min_right_answer_gain=0.0)
    assert library_guarded(batch, bounded).total.tolist() == pytest.approx([0.0, 0.0, 0.5])


def test_what_is_missing_or_not_finite_is_named():
    rollout = Rollout("q", 0.0, False, (1,), (True,), (-1.0,), (-9.0,), (1.0,), 0, 0, 1, (-2.0,), (True,), (0,), (0,))
    with pytest.raises(ValueError, match="right_answer' needs right_answer"):
        guarded_without_scores([rollout], ISPOConfig(all_wrong_groups="right_answer"))
    broken = dataclasses.replace(rollout, right_given=(float("nan"),))
    with pytest.raises(NonFiniteSignalError, match="right_answer_log_prob is nan at row 1, position 0"):
        right_answer_gain(right_answer_scores([rollout, broken]))
