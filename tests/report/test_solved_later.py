"""Figure 6: of the prompts whose first group was all wrong early on, the share solved at a later draw.

Derivation: a prompt fails early if the first group of it, at a step up to ``early_steps``, has no correct rollout. The
share is over those drawn again, and can only rise.

Not exercised: the paper's own counting, which it does not give.
"""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from verl_ispo.report.solved_later import default_early_steps, solved_later
from verl_ispo.runs.rollout_dump.reader import PromptOutcome


def outcomes(*drawn: tuple[int, str, int]) -> list[PromptOutcome]:
    return [PromptOutcome(step, prompt, 8, right) for step, prompt, right in drawn]


def test_by_hand():
    fate = solved_later(
        outcomes(
            (1, "solved", 0),
            (1, "never solved", 0),
            (1, "solved at once", 3),
            (2, "never drawn again", 0),
            (3, "too late to be early", 0),
            (4, "solved", 0),
            (4, "never solved", 0),
            (5, "too late to be early", 8),
            (6, "solved", 1),
            (7, "never solved", 0),
        ),
        early_steps=2,
    )
    assert (fate.failed_early, fate.drawn_again, fate.solved) == (3, 2, 1)
    assert fate.steps == (4, 5, 6, 7)
    assert fate.share == (0.0, 0.0, 0.5, 0.5)


def test_a_prompt_drawn_twice_in_its_first_step_has_failed_only_if_both_groups_have():
    for first, second in ((0, 2), (2, 0)):
        fate = solved_later(outcomes((1, "p", first), (1, "p", second), (2, "p", 1)), early_steps=1)
        assert fate.failed_early == 0
    assert solved_later(outcomes((1, "p", 0), (1, "p", 0), (2, "p", 1)), early_steps=1).solved == 1


def test_nothing_to_show():
    assert solved_later([], early_steps=1).steps == ()
    once = solved_later(outcomes((1, "p", 0), (2, "q", 0)), early_steps=2)
    assert (once.failed_early, once.drawn_again, once.share) == (2, 0, ())
    assert default_early_steps(outcomes((12, "p", 0))) == 3
    assert default_early_steps([]) == 1


@given(
    st.lists(st.tuples(st.integers(1, 12), st.sampled_from("abcdef"), st.integers(0, 2)), max_size=40),
    st.integers(1, 12),
)
def test_the_share_is_one_and_never_falls(drawn: list[tuple[int, str, int]], early_steps: int):
    fate = solved_later(outcomes(*drawn), early_steps)
    assert all(0 <= share <= 1 for share in fate.share)
    assert list(fate.share) == sorted(fate.share)
    assert fate.solved <= fate.drawn_again <= fate.failed_early <= 6
