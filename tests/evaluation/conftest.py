"""A tiny random model, small benchmark files, and result folders written without a model."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from verl_ispo.evaluation.evaluation_options import EvaluationOptions
from verl_ispo.evaluation.manifest import FORMAT, write_manifest
from verl_ispo.evaluation.results import QUESTIONS_NAME, SAMPLES_NAME

ResultWriter = Callable[..., Path]


def arithmetic_row(index: int, benchmark: str = "sums", **extra: Any) -> dict[str, Any]:
    """One row in verl's columns: a sum of two numbers."""
    question = f"{index}+{index}="
    return {
        "data_source": benchmark,
        "prompt": [{"role": "user", "content": question}],
        "ability": "math",
        "reward_model": {"style": "rule", "ground_truth": str(2 * index)},
        "extra_info": {"id": f"{benchmark}-{index}", "index": index, "question": question, **extra},
    }


@pytest.fixture
def write_benchmark(tmp_path: Path) -> Callable[..., Path]:
    """Write rows to a parquet file."""
    from verl_ispo.tiny_task.make_data import write_parquet

    def write(rows: Sequence[dict[str, Any]], name: str = "sums.parquet") -> Path:
        write_parquet(rows, tmp_path / name)
        return tmp_path / name

    return write


@pytest.fixture(scope="session")
def random_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained model with a tokenizer: it writes noise; the tests compare which noise."""
    from verl_ispo.tiny_task.base_model import build_model
    from verl_ispo.tiny_task.tokenizer import build_tokenizer

    folder = tmp_path_factory.mktemp("model") / "random"
    tokenizer = build_tokenizer()
    build_model(tokenizer, seed=0).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def options(random_model: Path, write_benchmark: Callable[..., Path], tmp_path: Path) -> EvaluationOptions:
    """Options of an evaluation of the random model on six sums."""
    return EvaluationOptions(
        model=str(random_model),
        benchmarks=(write_benchmark([arithmetic_row(index) for index in range(6)]),),
        out=tmp_path / "out",
        n=2,
        temperature=0.6,
        top_p=1.0,
        max_new_tokens=6,
        context_tokens=None,
        seed=0,
        reward_function="pkg://verl_ispo.tiny_task.reward",
        sampler="cpu",
        tensor_parallel_size=1,
        base_model=None,
        method=None,
        training_seed=None,
    )


@pytest.fixture
def write_result(tmp_path: Path) -> ResultWriter:
    """Write a finished result folder from the grades alone."""

    def write(
        name: str,
        greedy: Mapping[str, str],
        sampled: Mapping[str, Sequence[str]] | None = None,
        *,
        base_model: str = "tiny",
        method: str = "GRPO",
        training_seed: int | None = None,
        rule: str = "last step",
        options: Mapping[str, Any] | None = None,
        finished: bool = True,
        truth: str = "1",
        log_probs: Callable[[bool, int], tuple[float | None, float | None]] | None = None,
    ) -> Path:
        """``greedy``: one character per problem, 1 correct and 0 incorrect; ``sampled``: one such text per problem;
        ``log_probs``: of response and answer, from grade and index; without it the lines have none, as older ones.
        """
        folder = tmp_path / name
        folder.mkdir()
        sampled = sampled or {benchmark: [""] * len(grades) for benchmark, grades in greedy.items()}
        drawn = len(next(iter(sampled.values()))[0])
        questions, samples = [], []
        for benchmark, grades in greedy.items():
            for index, grade in enumerate(grades):
                question = {"benchmark": benchmark, "question_id": f"{benchmark}-{index}"}
                questions.append({**question, "question": "?", "ground_truth": truth, "prompt_sha256": "0"})
                for mode, marks in (("greedy", grade), ("sampled", sampled[benchmark][index])):
                    for index, mark in enumerate(marks):
                        samples.append(
                            {
                                **question,
                                "mode": mode,
                                "sample_index": index,
                                "seed": None,
                                "temperature": 0.0,
                                "text": "",
                                "tokens": 3,
                                "finish_reason": "length" if index == 1 else "stop",
                                "correct": mark == "1",
                                "score": float(mark == "1"),
                                "status": "correct" if mark == "1" else "wrong",
                                "prediction": f"answer {mark}",
                            }
                        )
                        if log_probs is not None:
                            response, answer = log_probs(mark == "1", index)
                            samples[-1] |= {"response_log_prob": response, "answer_log_prob": answer}
        manifest = {
            "format": FORMAT,
            "labels": {"base_model": base_model, "method": method, "training_seed": training_seed},
            "model": {"path": "model", "checkpoint_rule": rule, "step": 100},
            "options": {
                "n": drawn,
                "temperature": 0.6,
                "top_p": 1.0,
                "max_new_tokens": 64,
                "context_tokens": 256,
                "seed": 0,
                **(options or {}),
            },
            "inputs": {"model_sha256": "0", "benchmarks": {name: {"problems": len(greedy[name])} for name in greedy}},
            "sampler": {"name": "cpu", "versions": {"torch": "2"}},
            "grader": {"function": "pkg://grader", "source_sha256": "0", "math_verify": "0.9.0"},
        }
        write_manifest(folder, manifest)
        (folder / QUESTIONS_NAME).write_text("".join(json.dumps(question) + "\n" for question in questions))
        if finished:
            (folder / SAMPLES_NAME).write_text("".join(json.dumps(sample) + "\n" for sample in samples))
        return folder

    return write
