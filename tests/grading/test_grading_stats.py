r"""Counters and logs: every answer is counted once, by path and by status; what is undecided is logged, but not often.

Not exercised: sums over the processes of a run, for which verl averages the keys of the result
(``test_grading_in_verl.py``).
"""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor

from verl_ispo.grading import compute_score, counters, grading_stats

GRADED = [
    (r"\boxed{42}", "42", "exact", "correct"),
    (r"\boxed{41}", "42", "exact", "wrong"),
    (r"\boxed{x+x}", "2x", "symbolic", "correct"),
    (r"\boxed{|x|}", "2x", "symbolic", "wrong"),
    ("nothing", "42", "no_answer", "no_answer"),
    (r"\boxed{100000!}", "42", "exact", "error"),
]


def test_each_answer_is_counted_once_from_all_threads():
    grading_stats(reset=True)
    with ThreadPoolExecutor(8) as executor:
        list(executor.map(lambda row: compute_score("stats", row[0], row[1]), GRADED * 10))
    stats = grading_stats(reset=True)
    assert stats["answers"] == 60
    assert stats["paths"] == {"exact": 30, "symbolic": 20, "no_answer": 10}
    assert stats["statuses"] == {"correct": 20, "wrong": 20, "no_answer": 10, "timeout": 0, "error": 10}
    assert stats["seconds"]["symbolic"] > 0
    assert stats["workers"]["workers_started"] >= 1
    assert grading_stats()["answers"] == 0


def test_path_metrics_tell_each_answers_path():
    for response, gold, path, status in GRADED:
        result = compute_score("stats", response, gold, path_metrics=True)
        assert result["status"] == status
        assert result["path_exact"] == float(path == "exact")
        assert result["path_symbolic"] == float(path == "symbolic")
        assert [result[f"status_{name}"] for name in ("no_answer", "timeout", "error")] == [
            float(status == name) for name in ("no_answer", "timeout", "error")
        ]


def test_a_burst_of_errors_is_logged_in_few_lines_that_name_what_happened(caplog, monkeypatch):
    monkeypatch.setattr(counters, "_last_logged_s", float("-inf"))
    with caplog.at_level(logging.WARNING, logger="verl_ispo.grading.counters"):
        for _ in range(50):
            compute_score("my_set", r"\boxed{100000!}", "42")
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 1
    assert "error" in lines[0]
    assert "'my_set'" in lines[0]
    assert "100000!" in lines[0]
