"""Small made problems, the commands run in this process, and the files that they write."""

from __future__ import annotations

import importlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from data_prep.preparation_command import run_benchmark, run_training_set

REPOSITORY = Path(__file__).resolve().parents[2]
PAPER_BENCHMARKS = {"aime24": 30, "aime25": 30, "amc23": 40, "math500": 500, "olympiadbench": 675}
BENCHMARKS = {**PAPER_BENCHMARKS, "aime26": 30, "hmmt_feb25": 30, "brumo25": 30}

ADJECTIVES = ["red", "blue", "tall", "short", "round", "heavy", "light", "quick", "slow", "brave"]
NOUNS = ["apple", "bridge", "castle", "desert", "engine", "forest", "garden"]


def problem(number: int) -> str:
    """A question of about thirty words; two with different numbers share no run of five words."""
    words = [
        f"{ADJECTIVES[number * step % 10]}{number} {NOUNS[number * step % 7]}{number * step}" for step in range(1, 12)
    ]
    return f"Question {number}: the {', the '.join(words)} meet; find $x_{{{number}}}$."


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def made_rows(count: int, first: int = 0) -> list[dict[str, Any]]:
    return [{"question": problem(number), "answer": str(number % 1000)} for number in range(first, first + count)]


def olympiad_rows(count: int, first: int = 0) -> list[dict[str, Any]]:
    return [
        {
            "question": problem(number),
            "final_answer": [f"${number}$"],
            "is_multiple_answer": False,
            "answer_type": "Numerical",
            "error": None,
            "unit": None,
        }
        for number in range(first, first + count)
    ]


def command(name: str, *arguments: Any) -> int:
    """Exit code of a command, run in this process."""
    module = importlib.import_module(f"data_prep.{name}")
    argv = [str(argument) for argument in arguments]
    return run_benchmark(module.BENCHMARK, argv) if name in BENCHMARKS else run_training_set(module.SOURCE, argv)


@dataclass(frozen=True)
class Result:
    """The files of one preparation."""

    rows: list[dict[str, Any]]
    card: dict[str, Any]
    dropped: list[dict[str, Any]]
    near_duplicates: list[dict[str, Any]]
    folder: Path

    @property
    def questions(self) -> list[str]:
        return [row["extra_info"]["question"] for row in self.rows]


def result_of(folder: Path, name: str) -> Result:
    def lines(ending: str) -> list[dict[str, Any]]:
        path = folder / f"{name}.{ending}"
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []

    return Result(
        rows=pq.read_table(folder / f"{name}.parquet").to_pylist(),
        card=json.loads((folder / f"{name}.card.json").read_text(encoding="utf-8")),
        dropped=lines("dropped.jsonl"),
        near_duplicates=lines("near_duplicates.jsonl"),
        folder=folder,
    )


def made_benchmark(name: str, path: Path, first: int = 100_000) -> Path:
    """A file in the shape of the published benchmark `name`, with as many problems as it has."""
    count = BENCHMARKS[name]
    questions = [problem(number) for number in range(first, first + count)]
    if name == "olympiadbench":
        rows = olympiad_rows(count, first)
    elif name == "amc23":
        rows = [{"id": i, "question": q, "answer": f"{i}.0", "url": ""} for i, q in enumerate(questions)]
    elif name == "aime24":
        rows = [{"id": i, "problem": q, "solution": f"So\n$\\boxed{{{i:03d}}}$."} for i, q in enumerate(questions)]
    elif name == "math500":
        rows = [
            {"problem": q, "solution": "", "answer": f"{i}\\pi", "unique_id": str(i)} for i, q in enumerate(questions)
        ]
    elif name in ("aime26", "hmmt_feb25", "brumo25"):
        # MathArena's columns; an answer is a whole number in AIME, LaTeX in the others
        rows = [
            {
                "problem_idx": i + 1,
                "answer": i if name == "aime26" else f"\\frac{{{i}}}{{7}}",
                "problem_type": ["Algebra", "Number Theory"],
                "problem": q,
            }
            for i, q in enumerate(questions)
        ]
    else:
        rows = [{"id": f"I-{i}", "problem": q, "answer": str(i)} for i, q in enumerate(questions)]
    return write_jsonl(path, rows)
