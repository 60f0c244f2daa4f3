r"""The rewritten keys and the answers made to be wrong: they are what they are called, and accepts are counted.

What goes wrong in general: a rewriting keeps the value although it is called wrong (``-(-a)``, a percentage above one),
or changes it although it is called correct; then the table of ``scripts/grading/rewritten_keys.py`` blames the grader.
"""

from __future__ import annotations

import importlib
import json
import random
import sys
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.examples import examples

SCRIPTS = Path(__file__).parents[2] / "scripts/grading"


@pytest.fixture(scope="module", autouse=True)
def scripts_on_the_path():
    sys.path.insert(0, str(SCRIPTS))
    yield
    sys.path.remove(str(SCRIPTS))


def script(name: str) -> ModuleType:
    return importlib.import_module(name)


def always(status: str):
    return lambda *_, **__: {
        "score": float(status == "correct"),
        "acc": status == "correct",
        "pred": "",
        "status": status,
    }


whole = st.integers(-2_000, 2_000)
keys = st.one_of(
    whole.map(str),
    st.tuples(whole, st.integers(1, 60)).map(lambda pair: rf"\frac{{{pair[0]}}}{{{pair[1]}}}"),
    st.tuples(st.integers(0, 99), st.integers(0, 999)).map(lambda pair: f"{pair[0]}.{pair[1]}"),
    st.tuples(whole, st.integers(2, 99)).map(lambda pair: rf"{pair[0]}\sqrt{{{pair[1]}}}"),
    st.tuples(st.integers(1, 9), st.integers(2, 9)).map(lambda pair: rf"\frac{{{pair[0]}\pi}}{{{pair[1]}}}"),
    st.tuples(whole, whole).map(lambda pair: f"{pair[0]}+{pair[1]}i"),
    st.tuples(st.integers(2, 9), st.integers(2, 40)).map(lambda pair: f"{pair[0]}^{{{pair[1]}}}"),
)


@given(keys)
@settings(max_examples=examples(150))
def test_correct_forms_keep_the_value_and_wrong_forms_change_it(text: str):
    """Wherever both sides can be worked out, without the grader."""
    key = script("key_shapes").Key(text)
    for correct, forms in (
        (True, script("rewritten_forms").CORRECT_FORMS),
        (False, script("rewritten_forms").WRONG_FORMS),
    ):
        for name, form in forms.items():
            for answer in form(key):
                value = script("key_shapes").value_of(answer)
                if value is not None and key.value is not None:
                    close = abs(value - key.value) <= 1e-25 * (1 + abs(key.value))
                    assert bool(close) is correct, (name, answer)


def test_every_form_rewrites_a_key():
    rewritten, forms_of = script("rewritten_keys"), script("rewritten_forms")
    more = (
        "a+b",
        r"\log 2",
        r"\binom{n}{2}",
        r"2\pi k, k\in\mathbb{Z}",
        "2, -2",
        "(-3,3)",
        r"[-1, 1]",
        r"\frac{1}{3}",
    )
    built_in = [rewritten.Key(text) for text in (*rewritten.BUILT_IN, *more)]
    built_in.append(rewritten.Key("5", {"unit": "cm"}))
    for forms in (forms_of.CORRECT_FORMS, forms_of.WRONG_FORMS):
        for name, form in forms.items():
            assert any(list(form(key)) for key in built_in), name


def test_the_readers_of_keys():
    key = script("key_shapes").Key
    assert key('["2", "-5"]', {"multiple_answers": True}).items == ("2", "-5")
    assert key("1,234").integer == 1234
    assert key(r"10,\!080").integer == 10080
    assert key("1, 2").items == ("1", "2")
    assert key(r"K \, dA").items == ()
    assert key("(1,2)").interval is None
    assert key("[1,2)").interval == ("[", "1", "2", ")")
    assert key("x=3, y=2").named_list == (("x", "3"), ("y", "2"))
    assert key("2k").symbolic is False  # may stand for all multiples
    assert key("9^{9^{9^9}}").value is None


@pytest.mark.parametrize(("status", "expected"), [("correct", 1), ("wrong", 1), ("error", 1)])
def test_the_exit_status_counts_accepts_and_rejections(
    status: str, expected: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    rewritten = script("rewritten_keys")
    monkeypatch.setattr(rewritten, "compute_score", always(status))
    monkeypatch.setattr(sys, "argv", ["rewritten_keys.py", "--out", str(tmp_path / "out.jsonl"), "--keys", "20"])
    assert rewritten.main() == expected
    findings = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert {finding["status"] for finding in findings} == {status}
    assert "first examples" in capsys.readouterr().out


def test_a_grader_that_is_right_passes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    rewritten = script("rewritten_keys")
    monkeypatch.setattr(rewritten, "grade", lambda task, *_: "correct" if task.correct else "wrong")
    monkeypatch.setattr(sys, "argv", ["rewritten_keys.py", "--out", str(tmp_path / "out.jsonl"), "--keys", "20"])
    assert rewritten.main() == 0
    assert (tmp_path / "out.jsonl").read_text() == ""


def test_prepared_files_are_read_once_for_each_ground_truth(tmp_path: Path):
    import pyarrow as pa
    import pyarrow.parquet as parquet

    rows = [
        {"reward_model": {"ground_truth": text}, "extra_info": {"unit": "", "tolerance": tolerance, "id": str(index)}}
        for index, (text, tolerance) in enumerate((("1", ""), ("1", ""), ("1", "1e-1"), ("2", "")))
    ]
    parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    assert len(script("rewritten_keys").read_keys([tmp_path])) == 3
    with pytest.raises(SystemExit, match="prepare one"):
        script("rewritten_keys").read_keys([tmp_path / "none"])


def test_wrong_answers_are_not_the_key_and_have_another_value():
    wrong, shapes, rng = script("wrong_answers"), script("key_shapes"), random.Random(0)
    made = set()
    for _ in range(3_000):
        kind, answer, gold = wrong.wrong_answer(rng)
        made.add(kind)
        assert answer != gold
        values = shapes.value_of(answer), shapes.value_of(gold)
        if None not in values and kind != "large numbers":  # 40 digits do not tell those apart
            assert abs(values[0] - values[1]) > 1e-25 * abs(values[1]), (kind, answer, gold)
    assert len(made) > 60


def test_the_fuzz_run_fails_on_an_accepted_wrong_answer(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    fuzz = script("fuzz_grading")
    for status, expected in (("correct", 1), ("wrong", 0)):
        monkeypatch.setattr(fuzz, "compute_score", always(status))
        monkeypatch.setattr(sys, "argv", ["fuzz_grading.py", "--answers", "100", "--only", "wrong"])
        assert fuzz.main() == expected
        assert f"wrong ones accepted {100 * expected}" in capsys.readouterr().out


def test_another_checkouts_grader_runs_beside_this_one():
    """Plain numbers alone, so that neither process needs a worker."""
    process = script("checkout_grader").CheckoutGrader(SCRIPTS.parents[1])
    graded = process.grade([(r"\boxed{5}", "5"), (r"\boxed{5}", "6"), (r"\boxed{0.5}", r"\frac12")], 2, 5.0)
    process.close()
    assert graded.scores == [1.0, 0.0, 1.0]
    assert len(graded.seconds_each) == 1
    assert graded.exact_share == 1.0
    with pytest.raises(SystemExit, match="no checkout of this repository"):
        script("checkout_grader").CheckoutGrader(SCRIPTS)
