"""The evaluation table in the report: one row per method, one column per benchmark, and nothing beyond the file.

Not exercised here: how the page looks (test_in_chromium), and what wrote the file (tests/evaluation).
"""

from __future__ import annotations

from verl_ispo.report.score_tables import score_tables
from verl_ispo.report.table_file import EvaluationTable

HEADER = [
    *("base_model", "method", "benchmark", "metric", "status", "score_percent"),
    *("interval_low_percent", "interval_high_percent", "problems", "between_seed_sd_percent", "paper_percent"),
]


def table(*rows: list[str]) -> EvaluationTable:
    return EvaluationTable("scores.csv", HEADER, list(rows))


def test_methods_are_rows_and_benchmarks_are_columns():
    (greedy,) = score_tables(
        table(
            ["m", "grpo", "aime24", "pass@1_greedy", "run", "30.0000", "13.3333", "46.6667", "30", "", "16.7"],
            ["m", "grpo", "amc23", "pass@1_greedy", "run", "60.0000", "", "", "40", "1.2", ""],
            ["m", "ispo", "aime24", "pass@1_greedy", "not run", "", "", "", "30", "", "48.9"],
        )
    )
    assert greedy.metric == "pass@1_greedy"
    assert greedy.header == ["base model", "method", "aime24", "amc23"]
    assert greedy.rows == [
        ["m", "grpo", "30.0 [13.3, 46.7] n=30; paper 16.7", "60.0 n=40, sd 1.2"],
        ["m", "ispo", "not run; paper 48.9", "not run"],
    ]


def test_each_metric_has_a_table_of_its_own():
    rows = [["m", "grpo", "aime24", metric, "run", "1", "", "", "30", "", ""] for metric in ("avg@4", "pass@4")]
    assert [part.metric for part in score_tables(table(*rows))] == ["avg@4", "pass@4"]


def test_the_average_comes_first():
    rows = [["m", "grpo", name, "avg@4", "run", "1", "", "", "30", "", ""] for name in ("aime24", "Average")]
    assert score_tables(table(*rows))[0].header == ["base model", "method", "Average", "aime24"]


def test_a_table_with_other_columns_is_left_as_it_is():
    assert score_tables(EvaluationTable("mine.csv", ["method", "score"], [["grpo", "1"]])) == []
