"""Grades responses with a reward function of verl's signature, chosen by the user."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from verl_ispo.evaluation.questions import Question
from verl_ispo.user_error import UserError

DEFAULT_NAME = "compute_score"
UNDECIDED = ("timeout", "error")
"""Statuses that are not a verdict: such a sample counts as incorrect, and the number of them is shown."""
_THREADS = 2

RewardFunction = Callable[..., Any]


@dataclass(frozen=True)
class Grade:
    """What the reward function returned for a response.

    Attributes:
        score (`float`): as returned.
        correct (`bool`): its ``acc`` where it has one, else a score of 1.
        status (`str`): as returned (``correct``, ``wrong``, ``no_answer``, ``timeout``, ``error``), or derived.
        prediction (`str`, *optional*): the normalized answer, ``""`` for none; `None` if there is no ``pred``.
    """

    score: float
    correct: bool
    status: str
    prediction: str | None


class Grader:
    """A reward function, and what identifies it in a manifest.

    Args:
        spec (`str`): ``pkg://package.module`` or ``path/to/file.py``, with ``:NAME`` behind it where the function is
            not called ``compute_score``.

    Raises:
        UserError: if there is no such function.
    """

    def __init__(self, spec: str) -> None:
        self.spec = spec
        self._function = _load(spec)

    def identity(self) -> dict[str, str]:
        """Name, digest of the source file, and version of the library that decides symbolic equality."""
        source = inspect.getsourcefile(inspect.unwrap(self._function))
        digest = hashlib.sha256(Path(source).read_bytes()).hexdigest() if source else "unknown"
        # A file is identified by its content: its path may differ when the run is resumed.
        name = self.spec if self.spec.startswith("pkg://") else Path(self.spec).name
        return {"function": name, "source_sha256": digest, "math_verify": version("math-verify")}

    def check_ground_truths(self, questions: Sequence[Question]) -> None:
        """Grade an empty response to every question, so that what cannot be graded shows before anything is sampled.

        Raises:
            UserError: if the function raises, ends in an error, or calls the empty response correct.
        """
        for question in questions:
            grade = self.grade(question, "")
            if grade.correct or grade.status == "error":
                said = "calls an empty response correct" if grade.correct else "ends in an error"
                raise UserError(
                    f"the reward function {self.spec} {said} on {question.benchmark} {question.question_id} (ground "
                    f"truth {question.ground_truth!r:.80}); correct the file, or choose another --reward-function"
                )

    def grade(self, question: Question, response: str) -> Grade:
        """Grade one response.

        Raises:
            UserError: if the function raises, or returns no verdict (NaN, a shaped score without ``acc``).
        """
        where = f"the reward function {self.spec}, on {question.benchmark} {question.question_id}"
        try:
            result = self._function(
                data_source=question.benchmark,
                solution_str=response,
                ground_truth=question.ground_truth,
                extra_info=dict(question.extra_info),
            )
        except Exception as error:
            raise UserError(f"{where}, raised {type(error).__name__}: {error}") from error
        returned: Mapping[str, Any] = result if isinstance(result, Mapping) else {"score": result}
        try:
            score = float(returned["score"])
            verdict = float(score if returned.get("acc") is None else returned["acc"])
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"{where}, returned {result!r:.200}: neither a number nor a dict with 'score'") from error
        if not math.isfinite(score) or verdict not in (-1.0, 0.0, 1.0):
            raise UserError(
                f"{where}, returned {result!r:.200}, which is neither correct nor incorrect: return 0/1, -1/+1, or a "
                "dict with 'acc' (true or false) beside the 'score'"
            )
        prediction = returned.get("pred")
        prediction = None if prediction is None else str(prediction)
        correct = verdict == 1.0
        derived = "correct" if correct else "no_answer" if prediction == "" else "wrong"
        return Grade(score, correct, str(returned.get("status") or derived), prediction)

    def grade_all(self, answers: Sequence[tuple[Question, str]]) -> list[Grade]:
        """Grade several responses; in threads, as verl's reward loop calls such functions too."""
        with ThreadPoolExecutor(_THREADS) as pool:
            return list(pool.map(lambda answer: self.grade(*answer), answers))


def _load(spec: str) -> RewardFunction:
    is_package = spec.startswith("pkg://")
    location, _, name = (spec.removeprefix("pkg://") if is_package else spec).partition(":")
    name = name or DEFAULT_NAME
    try:
        if is_package:
            module = importlib.import_module(location)
        else:
            if not Path(location).is_file():
                raise UserError(f"--reward-function {spec}: no file {location}; for a module write pkg://{location}")
            module_spec = importlib.util.spec_from_file_location(f"reward_function_{Path(location).stem}", location)
            if module_spec is None or module_spec.loader is None:
                raise UserError(f"--reward-function {spec}: {location} is not a Python file")
            module = importlib.util.module_from_spec(module_spec)
            module_spec.loader.exec_module(module)
    except ImportError as error:
        raise UserError(f"--reward-function {spec}: cannot import {location} ({error})") from error
    function = getattr(module, name, None)
    if not callable(function):
        raise UserError(f"--reward-function {spec}: {location} has no function {name}; write PLACE:NAME")
    return function
