r"""The markers that people train with, and boxes that form the key's list, by hand-judged rows and in general.

Derivation. A marker is a promise of the format, so an answer behind it must be read whatever stands around it; the
phrases among them are ordinary English (or Chinese) too, so most sentences that hold them give no answer. What goes
wrong in general is said in each test.

Not exercised: whether an answer is correct (tests/grading); token runs (test_answer_place.py, which draws these
markers too).
"""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.examples import examples
from verl_ispo.answers.answer_place import (
    MARKERS,
    answer_text,
    asked_markers,
    find_answer,
    markers_of,
    row_answer_format,
)
from verl_ispo.grading import compute_score
from verl_ispo.grading.ground_truth_reading import lists_several


def answer(text: str, answer_format: str = "auto", several: bool = False) -> str | None:
    place = find_answer(text, answer_format, several)
    return None if place is None else answer_text(text, place)


WRITTEN = {
    "answer_line": ["Answer: {}", "**Answer:** {}", "Answer:\n{}", "ANSWER：{}"],
    "hashes": ["#### {}", "so it is #### {}", "####{}"],
    "answer_tag": ["<answer>{}</answer>", "<ANSWER>\n{}\n</ANSWER>", "<think>hm</think><answer> {} </answer>"],
    "sentence": [
        "The final answer is ${}$.",
        "Therefore, the answer is {}.",
        "the correct answer is: **{}**.",
        "The answer to this problem is \\({}\\), as required.",
        "Final Answer: The final answer is ${}$. I hope it is correct.",
        "Hence the final answer is\n\n$${}$$",
        "We conclude that the answer is {}, because the others fail.",
    ],
    "heading": ["**Final Answer**\n\n{}", "## Final Answer\n{}", "Final Answer\n\n{}", "### Answer\n\n\\[\n{}\n\\]"],
    "chinese": ["答案：{}", "答案是{}", "故答案为 ${}$。", "【答案】{}", "**答案**：{}", "最终答案是：{}，因为其他不行。"],  # noqa: E501
}  # fmt: skip
values = st.sampled_from(["5", "-2", "0.75", "1,800", r"\frac{1}{2}", "x=3", "2n+1", "(1,2)", r"3\sqrt{2}", "3.14"])
dressed = st.sampled_from([(name, form) for name, forms in WRITTEN.items() for form in forms])


def bare(text: str | None) -> str | None:
    """Without the delimiters of a formula, which the grader takes off."""
    if text is None:
        return None
    return text.removeprefix("$$").removesuffix("$$").strip("$").removeprefix("\\(").removesuffix("\\)").strip("* ")


@settings(max_examples=examples(150), deadline=None)
@given(dressed, values, st.sampled_from(["", "We add.\n", "Let $x=1.5$. "]), st.sampled_from(["", "\n", "\n\n"]))
def test_an_answer_behind_any_marker_is_read(form, value, before, after) -> None:
    """A format that a model was trained on is not read, so that every answer of the model is graded as missing."""
    name, pattern = form
    text = before + ("\n" if name == "heading" else "") + pattern.replace("{}", value) + after
    assert bare(answer(text)) == value
    assert find_answer(text, name).marker == name


@settings(max_examples=examples(150), deadline=None)
@given(dressed, dressed, values, values)
def test_of_two_answers_the_last_counts(first, second, one, other) -> None:
    """A response that gives two answers is graded by the one that fits, so that hedging pays."""
    text = first[1].replace("{}", one) + "\n\n" + second[1].replace("{}", other) + "\n"
    assert bare(answer(text)) == other
    boxed = f"so \\boxed{{{one}}}.\n" + second[1].replace("{}", other)
    assert answer(boxed) == one  # one rule, whatever fits: a box comes before everything else


@settings(max_examples=examples(150), deadline=None)
@given(dressed, values)
def test_a_marker_that_is_off_gives_nothing(form, value) -> None:
    """A prompt asks for a box, and an answer in another format is graded all the same."""
    name, pattern = form
    text = pattern.replace("{}", value)
    assert find_answer(text, "boxed") is None
    # minerva's sentence is two markers in one, so only the places of the others are compared
    others = "+".join(marker.name for marker in MARKERS if marker.name != name)
    place = find_answer(text, others)
    assert place is None or place.marker != name
    info = {"answer_format": "boxed"}
    assert compute_score("t", text, value, info)["status"] == "no_answer"
    assert compute_score("t", text, value, answer_format="boxed")["status"] == "no_answer"


@pytest.mark.parametrize(
    "text",
    [
        "The answer is not 5.",
        "The answer is in the form $m/n$.",
        "The answer is required to be an integer.",
        "the answer is then obtained by adding the two parts together",
        "If the answer is 5, we are done.",
        "Is the answer 5? Suppose the answer is 6.",
        "So the answer is 5?",
        "I am sure that the answer is correct.",
        "His answer is 5.",
        "The answer is the number of ways in which eight rooks stand on the board.",
        "The answer is \\boxed{5",  # cut off
        "#### Step 2: find x\nIt is small.",
        "#### 2. The second part\nIt is small.",
        "#### Conclusion\n\nIt is small.",
        "##### 5",
        "<answer>5",
        "I put it between <answer> and </answer>",
        "**Final Answer**\n\n",
        "答案是什么？",
        "答案不是5",
        "这个答案的推导在上面",
        "答案是否正确需要验证",
    ],
)  # fmt: skip
def test_prose_about_an_answer_is_no_answer(text: str) -> None:
    """A phrase of ordinary prose is read as the answer, so that it is scored, and replaces the true one before it."""
    if text.startswith("I put"):
        assert answer(text) == "and"
        return
    assert answer(text) is None
    assert answer(f"#### 7\n\n{text}") == ("7" if "####" not in text else answer(f"#### 7\n\n{text}"))


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("The answer is 3.14.", "3.14"),
        ("The answer is D. The others fail.", "D"),
        ("The answer is 5!", "5!"),  # a factorial, not a cheer
        ("The answer is $5$!", "$5$"),
        ("The answer is 5, not 6.", "5"),
        ("The answer is 5 or 6.", "5 or 6"),
        ("The answer is yes.", "yes"),
        ("#### 72 apples\nDone.", "72 apples"),
        ("#### blue", "blue"),
        ("#### 5\n#### 6", "6"),
        ("<answer>5</answer> <answer></answer>", "5"),
        ("<answer>The answer is 5.</answer>", "5"),
        ("<answer>Answer: 5</answer>", "5"),
        ("<answer>4</answer>\n#### 5", "5"),
        ("Answer: 42 and the reasoning", "42 and the reasoning"),  # a label gives the whole line
        ("**Final Answer**\n\nThe answer is 13.", "13"),
        ("**Final Answer**\n\nAnswer: 13", "13"),
        ("Final Answer\r\n\r\n13\r\n", "13"),
        ("#### Final Answer\n13", "13"),
        (r"\boxed{5}. I put it in \boxed{} as asked.", "5"),
        (r"\boxed{5}, as \boxed{...} asks", "5"),
        (r"\boxed{5}, in the form \boxed{\text{your answer}}", "5"),
        (r"\boxed{5} \boxed{\quad}", "5"),
        (r"\boxed{5} \boxed{\phantom{00}}", "5"),
        (r"\boxed{5} \boxed{[answer]}", "5"),
        ("So answer is 5.", "5"),
        ("The final answer is 4. Wait, the final answer is 5.", "5"),
        (r"In \boxed{}: the answer is 5.", "5"),
        (r"It is $\boxed 7$.", "7"),
        (r"It is \boxed 7.", "7"),
        (r"It is $\boxed7$.", "7"),
    ],
)
def test_what_is_read(text: str, found: str) -> None:
    assert answer(text) == found


# ---------------------------------------------------------------- boxes that form the key's list

joins = st.sampled_from(
    [" and ", ", ", " or ", r" \quad \text{and} \quad ", "$, $", "\n- ", "\n2. ", "; ", r"\quad", "\n* ", " (b) "]
)  # fmt: skip
items = st.lists(st.sampled_from(["1", "-2", r"\frac{1}{2}", "0", "x+1", "7"]), min_size=2, max_size=4, unique=True)


@settings(max_examples=examples(100), deadline=None)
@given(items, joins)
def test_adjacent_boxes_are_the_list_that_the_key_is(numbers, join) -> None:
    """A key lists several answers, the response boxes each of them, and only the last one is graded."""
    key = ",".join(numbers)
    response = "so " + join.join(f"\\boxed{{{number}}}" for number in numbers) + "."
    assert lists_several(key)
    assert answer(response, several=True) == ", ".join(numbers)
    assert compute_score("t", response, key)["status"] == "correct"
    assert answer(response) == numbers[-1]
    assert compute_score("t", response, numbers[0])["status"] != "correct"  # of one answer, the last box


@settings(max_examples=examples(100), deadline=None)
@given(items, st.sampled_from([" No, wrong. So ", " is too small, so ", " then ", " but not ", ", hence finally "]))
def test_boxes_with_words_between_them_are_no_list(numbers, words) -> None:
    """A first attempt and its correction are read as a list, and the key's list is found in wrong attempts."""
    response = words.join(f"\\boxed{{{number}}}" for number in numbers)
    assert answer(response, several=True) == numbers[-1]
    assert compute_score("t", response, ",".join(numbers))["status"] == "wrong"


@pytest.mark.parametrize(
    ("response", "read"),
    [
        (r"$x=\boxed{3}, y=\boxed{5}$", "x=3, y=5"),
        ("$$x = \\boxed{3}$$\n$$y = \\boxed{5}$$", "x = 3, y = 5"),
        (r"a=\boxed{1}, b=\boxed{2}, c=\boxed{3}", "a=1, b=2, c=3"),
        # the values of one unknown are a list of values
        (r"$x=\boxed{3}$ or $x=\boxed{5}$", "3, 5"),
        (r"$x_1=\boxed{3}$, $x_2=\boxed{5}$", "3, 5"),
        (r"\boxed{3}, y=\boxed{5}", "3, 5"),  # one name is missing
    ],
)
def test_names_between_boxes_belong_to_the_answer(response: str, read: str) -> None:
    """Values of different unknowns lose their names, so that x and y are exchanged without notice."""
    assert answer(response, several=True) == read
    place = find_answer(response, several=True)
    assert place.lead_in_start < place.start < place.end
    assert response[place.start] == "3" or response[place.start] == "1"


@pytest.mark.parametrize(
    ("key", "several"),
    [
        ("1,-2", True), ("3, 5, 7", True), ("x=3,y=5", True), ("1 or 2", True), ("1 and 2", True), ("A, C", True),
        (r"\pm 2", True), (r"3 \pm \sqrt{5}", True), ("(1,2),(3,4)", True), ("1,000 and 2,500", True),
        (r"\frac{1}{2},\frac{1}{3}", True), ("f(x)=x, f(x)=-x", True),
        ("35,000", False), ("1,234,567", False), ("(1,2)", False), ("[1,2)", False), ("]1,2]", False),
        (r"\{1,2\}", False), ("(x,y)=(1,2)", False), ("13", False), ("x<1 or x>2", False), (r"x \le 1, x \in Z", False),
        (r"(-\infty,1) \cup (2,3)", False), ("f(x)=ax+b, where b is any number", False), ("", False),
        (r"a_n = 2n, n \ge 1", False), (r"1,2,\ldots,9", False), (r"\begin{pmatrix} 1,2 \end{pmatrix}", False),
    ],
)  # fmt: skip
def test_which_keys_list_several_answers(key: str, several: bool) -> None:
    """A comma that groups digits or separates coordinates is taken for a list, or a list for one answer."""
    assert lists_several(key) == several


# ---------------------------------------------------------------- formats


def test_formats_are_names_joined_by_plus_or_commas() -> None:
    assert [marker.name for marker in markers_of("hashes+boxed")] == ["boxed", "hashes"]
    assert markers_of("boxed, hashes") == markers_of("boxed+hashes")
    assert markers_of("auto") == markers_of("+".join(marker.name for marker in MARKERS)) == MARKERS
    for unknown in ("", "box", "boxed+", "boxed hashes"):
        with pytest.raises(ValueError, match="choose from auto, boxed, answer_line"):
            markers_of(unknown)


def test_a_row_says_what_its_prompt_asks_for() -> None:
    assert row_answer_format({"answer_format": "boxed"}) == "boxed"
    assert row_answer_format({"answer_format": "boxed"}, "hashes") == "hashes"  # the run's own choice comes first
    for info in (None, {}, {"answer_format": ""}, {"answer_format": None}, "text"):
        assert row_answer_format(info) == "auto"
    broken = compute_score("t", r"\boxed{5}", "5", {"answer_format": "box"})
    assert broken["status"] == "error"
    with pytest.raises(ValueError, match="answer_format is 'box'"):
        compute_score("t", r"\boxed{5}", "5", answer_format="box")


@pytest.mark.parametrize(
    ("prompt", "names"),
    [
        (r"Please reason step by step, and put your final answer within \boxed{}.", {"boxed"}),
        ('Let\'s think step by step and output the final answer after "####".', {"hashes"}),
        ("The last line of your response should be of the form Answer: $Answer where $Answer is the answer.",
         {"answer_line"}),
        ("Show your work in <think> </think> tags. And return the final answer in <answer> </answer> tags.",
         {"answer_tag"}),
        ('Conclude with "The final answer is $5$. I hope it is correct."', {"sentence"}),
        ('End with "Final Answer: The final answer is [answer]. I hope it is correct."', {"sentence"}),
        ("请在最后写出答案：", {"chinese"}),
        ("If the answer is $m/n$ in lowest terms, find $m+n$.", set()),
        (r"请把最终答案放在 \boxed{} 中。", {"boxed"}),
    ],
)  # fmt: skip
def test_what_a_prompt_asks_for(prompt: str, names: set[str]) -> None:
    assert {marker.name for marker in asked_markers(prompt)} == names


@pytest.mark.parametrize("given", [None, "", float("nan")])
def test_a_row_without_a_format_has_all_markers(given: object) -> None:
    """A file merged from several sets has null or NaN where a set has none."""
    assert row_answer_format({"answer_format": given}) == "auto"
    assert row_answer_format({"answer_format": given}, "boxed") == "boxed"
