r"""Instructions on the answer's form are taken off the end of a question, and nothing else is.

Derivation. A question that keeps the instruction of its set is asked for two formats at once; one that loses a sentence
of its own has another answer. So each published instruction is put behind arbitrary questions and has to come off, and
sentences that say more than where to put the answer have to stay.
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep.prompt_instructions import DAPO, INSTRUCTION, question_in_prompt
from data_prep.prompt_templates import wrap_dapo

PUBLISHED = [
    " Let's think step by step and output the final answer within \\boxed{}.",
    ' Let\'s think step by step and output the final answer after "####".',
    "\n\nPresent the answer in LaTex format: \\boxed{Your answer}",
    "\nPlease reason step by step, and put your final answer within \\boxed{}.",
    " Please think step by step. Put your final answer in \\boxed{}.",
    "\n\nPlease put your final answer in \\boxed{...}.",
    "\nGive your final answer in <answer> </answer> tags.",
]
questions = st.sampled_from(
    ["Find $x$.", "What is 6 times 7?", "Compute: 1.5 + 2", "Give all $x$ with $x^2=4$. Explain!"]
)


@given(questions, st.sampled_from(PUBLISHED))
def test_a_published_instruction_comes_off(question: str, instruction: str) -> None:
    """The question keeps the instruction of its set, so that two formats are asked for."""
    assert question_in_prompt(question + instruction) == (question, INSTRUCTION)


@pytest.mark.parametrize(
    "question",
    [
        "Find $x$. Give your answer rounded to 2 decimals in \\boxed{}.",
        "Find $x$. Write the answer as a simplified fraction in \\boxed{}.",
        "Which number is in the box? Put it in \\boxed{} and say why. Then find $y$.",
        "What does \\boxed{5} mean?",
        "Put your final answer within \\boxed{}.",  # nothing would be left
        "Find $x$. Think step by step.",
    ],
)
def test_what_belongs_to_the_problem_stays(question: str) -> None:
    """A sentence that says what is asked for is taken for an instruction on the format."""
    assert question_in_prompt(question) == (question, "")


def test_wrappings() -> None:
    assert question_in_prompt(wrap_dapo("Find $x$.")) == ("Find $x$.", DAPO)
    chat = "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nFind $x$.<|im_end|>\n<|im_start|>assistant\n"
    assert question_in_prompt(chat) == ("Find $x$.", INSTRUCTION)


@given(st.text(max_size=200))
def test_any_other_text_stays(text: str) -> None:
    assert question_in_prompt(text) == (text.strip(), "")
