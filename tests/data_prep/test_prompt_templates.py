r"""Prompts: DAPO's wrapping is added and removed, and templates render the question.

Derivation. The published DAPO file wraps each question between a fixed instruction and a fixed reminder. Removing
the wrapping has to give back the exact question, even if it contains the wrapping's own sentences; so
``unwrap(wrap(q)) == q`` is checked for arbitrary text. A prompt that is not wrapped must not lose a character.

Not exercised: the published file itself, which is not available here. The wrapping's text was compared with public
code that contains it.
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep.prompt_templates import (
    DAPO_BOXED_PREFIX,
    DAPO_PREFIX,
    DAPO_SUFFIX,
    QWEN_MATH_SYSTEM,
    load_template,
    unwrap_dapo,
    wrap_dapo,
)
from verl_ispo.user_error import UserError

TEXT = st.text() | st.sampled_from([DAPO_PREFIX, DAPO_SUFFIX, DAPO_PREFIX + "x" + DAPO_SUFFIX, "", "\n\n"])


@given(TEXT)
def test_unwrapping_undoes_wrapping(question):
    assert unwrap_dapo(wrap_dapo(question)) == (question, True)
    assert unwrap_dapo(DAPO_BOXED_PREFIX + question + DAPO_SUFFIX) == (question, True)


@given(TEXT)
def test_a_prompt_that_is_not_wrapped_stays(text):
    half_wrapped = [DAPO_PREFIX + text + "?", "Q " + text + DAPO_SUFFIX, text + "?"]
    assert [unwrap_dapo(prompt) for prompt in half_wrapped] == [(prompt, False) for prompt in half_wrapped]


def test_prefix_and_suffix_that_overlap_are_no_wrapping():
    short = DAPO_PREFIX[: -len("\n\n")] + DAPO_SUFFIX
    assert unwrap_dapo(short) == (short, False)


def test_the_wrapping_is_the_published_one():
    assert wrap_dapo("What is 1+1?") == (
        "Solve the following math problem step by step. The last line of your response should be of the form Answer: "
        "$Answer (without quotes) where $Answer is the answer to the problem.\n\nWhat is 1+1?\n\n"
        'Remember to put your answer on its own line after "Answer:".'
    )


def test_named_templates():
    assert load_template("plain").render("Q") == [{"role": "user", "content": "Q"}]
    assert load_template("dapo").render("Q") == [{"role": "user", "content": wrap_dapo("Q")}]
    assert load_template("qwen_math").render("Q") == [
        {"role": "system", "content": QWEN_MATH_SYSTEM},
        {"role": "user", "content": "Q"},
    ]


def test_a_jinja_file_renders_the_question_untouched(tmp_path):
    path = tmp_path / "mine.jinja"
    path.write_text("Think about {{ question }} now.\n")
    template = load_template(str(path))
    assert template.render(r"$a<b$ & {{ x }} {% y %}") == [
        {"role": "user", "content": r"Think about $a<b$ & {{ x }} {% y %} now."}
    ]
    assert (template.name, len(template.sha256)) == ("mine.jinja", 64)


def test_a_jinja_file_may_have_a_system_message(tmp_path):
    path = tmp_path / "mine.jinja"
    path.write_text("{% block system %}Be brief.{% endblock %}{% block user %}Q: {{ question }}{% endblock %}")
    assert load_template(str(path)).render("7?") == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Q: 7?"},
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("no variable", "does not contain the question"),
        ("{{ question", "line 1"),
        ("{{ problem }}{{ question }}", "'problem' is undefined"),
        ("{{ question.__class__.__mro__ }}", "unsafe"),
    ],
)
def test_faulty_jinja_files_are_named(tmp_path, text, message):
    path = tmp_path / "mine.jinja"
    path.write_text(text)
    with pytest.raises(UserError, match=message) as caught:
        load_template(str(path))
    assert str(path) in str(caught.value)


def test_an_unknown_template_lists_the_known():
    with pytest.raises(UserError, match="qwen_math, dapo, plain"):
        load_template("qwen")
