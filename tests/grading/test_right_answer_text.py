"""The text of a ground truth that a policy is scored on, from every form in which data sets carry one.

What goes wrong in general: a list is scored as the text of a list, brackets and quotes included; a number is not a
text; what is no answer stops the training.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from verl_ispo.grading.ground_truth_reading import right_answer_text


@pytest.mark.parametrize(
    ("ground_truth", "text"),
    [
        ("42", "42"),
        (" \\frac{1}{2} ", "\\frac{1}{2}"),  # as published: neither normalized nor evaluated
        (42, "42"),
        (0.5, "0.5"),
        (["1", " -2"], "1, -2"),
        (("1", "2"), "1, 2"),
        ([1, 2.5], "1, 2.5"),
        (np.array(["1", "-2"]), "1, -2"),
        (np.int64(7), "7"),
        ('["1", "-2"]', "1, -2"),
        ("['1', '-2']", "1, -2"),
        ("[1, 2]", "[1, 2]"),  # an interval, and no list of texts
        ("1, -2", "1, -2"),
        (["1", "", "  "], "1"),
        ("", ""),
        ("   ", ""),
        ([], ""),
        (None, ""),
        ({"target": 24, "numbers": [1, 2]}, ""),
    ],
)
def test_the_text_that_a_response_would_state(ground_truth: Any, text: str) -> None:
    assert right_answer_text(ground_truth) == text
