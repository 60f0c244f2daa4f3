"""Sets of 30 and 40 problems need ten sampled responses to each: what warns, and that the defaults satisfy it."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from tests.evaluation.conftest import ResultWriter
from verl_ispo.cli import build_parser
from verl_ispo.evaluation.document import build_document
from verl_ispo.evaluation.evaluation_options import EvaluationOptions
from verl_ispo.evaluation.results import load_result
from verl_ispo.evaluation.run import evaluate
from verl_ispo.evaluation.samples import LEAST_SAMPLES, SMALL_SET
from verl_ispo.launch.evaluate_run import EvaluationRunOptions

ROOT = Path(__file__).parents[2]


def warnings(write_result: ResultWriter, problems: int, drawn: int) -> list[str]:
    greedy, sampled = {"aime24": "1" * problems}, {"aime24": ["0" * drawn] * problems}
    result = load_result(write_result(f"r{problems}-{drawn}", greedy, sampled, method="ISPO"))
    return [remark for remark in build_document([result]).remarks if "sampled responses to each" in remark]


def test_the_table_warns_of_few_samples_of_a_small_set_by_name(write_result: ResultWriter):
    [warning] = warnings(write_result, SMALL_SET, LEAST_SAMPLES - 1)
    assert warning.startswith("AIME24 has 40 problems and only 9 sampled responses to each (tiny ISPO): ")
    assert "at least 10 (--n)" in warning
    assert warnings(write_result, SMALL_SET, LEAST_SAMPLES) == []
    assert warnings(write_result, SMALL_SET + 1, 1) == []
    assert len(warnings(write_result, 30, 0)) == 1


def test_the_evaluation_warns_before_it_samples(options: EvaluationOptions, capsys: pytest.CaptureFixture[str]):
    evaluate(options)
    assert "warning: --n 2: few for sets of at most 40 problems (sums)" in capsys.readouterr().err
    evaluate(dataclasses.replace(options, n=10, out=options.out.with_name("enough")))
    assert "--n 10: few" not in capsys.readouterr().err


def test_the_defaults_draw_enough():
    arguments = ["eval", "--model", "m", "--benchmarks", "b", "--out", "o"]
    assert build_parser().parse_args(arguments).n >= LEAST_SAMPLES
    assert EvaluationRunOptions(model="m/m", files=(Path("b"),)).n >= LEAST_SAMPLES
    for script in ("eval.sh", "reproduce_table.sh"):
        described = re.search(r"^#   N=(\d+) ", (ROOT / "scripts" / script).read_text(encoding="utf-8"), re.MULTILINE)
        assert int(described[1]) >= LEAST_SAMPLES
