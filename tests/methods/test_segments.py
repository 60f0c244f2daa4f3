"""Where the steps of a response end.

Not exercised: putting values on segments, which the tests of the methods do (test_grpo_vps, test_pacr).
"""

from __future__ import annotations

import pytest

from verl_ispo.methods.segments import step_ends

TEXTS = ["So", " 4", ".\n\n", "Then", " 7", ".", "\n\n", "\n\n", "Thus", ".\n", "\n", "end"]


@pytest.mark.parametrize(
    ("separator", "end", "expected"),
    [
        ("\n\n", 12, [3, 7, 8, 11, 12]),  # the fourth one is made of two tokens, and ends with the second
        (".\n\n", 12, [3, 7, 11, 12]),
        ("\n\n", 8, [3, 7, 8]),  # a separator at the end is the end
        ("\n\n", 10, [3, 7, 8, 10]),  # the fourth one is cut in two
        ("\n\n", 2, [2]),
        ("\n\n", 0, []),
        ("none", 12, [12]),
        ("n", 12, [4, 12]),
    ],
)
def test_a_step_ends_with_the_token_that_ends_its_separator(separator: str, end: int, expected: list[int]) -> None:
    assert step_ends(TEXTS, separator, end) == expected


def test_tokens_without_text_and_several_separators_in_one_token() -> None:
    assert step_ends(["a", "", "\n\n\n\n\n", "", "b"], "\n\n", 5) == [3, 5]
    assert step_ends(["", "", ""], "\n\n", 3) == [3]


@pytest.mark.parametrize(("most", "expected"), [(5, [3, 7, 8, 11, 12]), (4, [3, 7, 8, 12]), (2, [7, 12]), (1, [12])])
def test_more_steps_than_allowed_are_joined(most: int, expected: list[int]) -> None:
    """Five steps in four: they end with the steps 5/4, 10/4, 15/4 and 20/4, rounded down."""
    assert step_ends(TEXTS, "\n\n", 12, most) == expected
