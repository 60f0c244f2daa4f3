r"""The reward function: ``compute_score``, as verl calls it through ``reward.custom_reward_function``.

.. code-block:: bash

    reward.custom_reward_function.path=pkg://verl_ispo.grading.reward_function \
    reward.custom_reward_function.name=compute_score \
    +reward.custom_reward_function.reward_kwargs.path_metrics=True

It holds no state and may be called from any thread. Imports are absolute, since verl may load this file by its path.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from verl_ispo.answers.answer_place import answer_text, find_answer, markers_of, row_answer_format
from verl_ispo.grading.answer_check import AnswerTooLarge, check_answer
from verl_ispo.grading.counters import count_answer, log_undecided
from verl_ispo.grading.expression_guard import GoldNotUnderstood, RefusedExpression
from verl_ispo.grading.ground_truth_reading import lists_several, read_ground_truth
from verl_ispo.grading.normalization import normalize_answer
from verl_ispo.grading.settings import pool_settings, time_limit_s
from verl_ispo.grading.worker_pool import shared_pool

MAX_PRED_CHARS = 1_000
"""``pred`` is cut to this length; it goes into logs and majority votes."""


def compute_score(
    data_source: str,
    solution_str: str,
    ground_truth: str,
    extra_info: Mapping[str, Any] | None = None,
    *,
    answer_format: str = "auto",
    timeout_s: float | None = None,
    workers: int | None = None,
    memory_mb: float | None = None,
    path_metrics: bool = False,
    **_: Any,
) -> dict[str, Any]:
    r"""Grade the final answer of a response against its ground truth.

    Args:
        data_source (`str`):
            Name of the data set; only logged.
        solution_str (`str`):
            The decoded response. `verl_ispo.answers.answer_place` says which part of it is the answer.
        ground_truth (`str`):
            The answer, or several as a list written as a string (JSON or Python).
        extra_info (`Mapping`, *optional*):
            ``tolerance`` (`str`, absolute, such as ``"1e-1"``), ``unit`` (`str`), ``multiple_answers`` (`bool`),
            ``answer_format`` (`str`) and ``log_base`` (`str`, the base of a bare ``\log``, ``"e"`` by default) are
            read; anything else is ignored.
        answer_format (`str`, *optional*, defaults to `"auto"`):
            Which markers of an answer count, as ``algorithm.ispo.answer_format``; the two should be equal. With
            ``"auto"`` the row's ``extra_info["answer_format"]`` does, if it has one, and all markers otherwise.
        timeout_s (`float`, *optional*):
            Time limit of one answer in seconds, from when a worker starts on it. Defaults to the environment's
            ``VERL_ISPO_GRADING_TIMEOUT_S``, or 5.
        workers (`int`, *optional*):
            Workers of this process. Defaults to ``VERL_ISPO_GRADING_WORKERS``, or 2.
        memory_mb (`float`, *optional*):
            Memory limit of a worker in MiB. Defaults to ``VERL_ISPO_GRADING_MEMORY_MB``, or 1024.
        path_metrics (`bool`, *optional*, defaults to `False`):
            Add ``path_exact``, ``path_symbolic``, ``status_no_answer``, ``status_timeout`` and ``status_error``, each
            0.0 or 1.0, which verl averages into its validation metrics.

    Returns:
        `dict`: ``score`` (1.0 or 0.0), ``acc`` (`bool`), ``pred`` (`str`, the normalized answer) and ``status``, one of
        ``"correct"``, ``"wrong"``, ``"no_answer"``, ``"timeout"`` and ``"error"``. Only the first two are verdicts.

    Raises:
        ValueError: if a limit is not a number above 0, or the answer format is unknown.
        GraderUnavailableError: if no worker can be started, so that a run stops rather than score every such answer 0.
            No response and no ground truth raises, whatever its text.
    """
    markers_of(answer_format)
    limit_s = time_limit_s(timeout_s)
    settings = pool_settings(workers, memory_mb)
    started = time.monotonic()
    path, reason, pred = "exact", "", ""
    try:
        gold = read_ground_truth(ground_truth, extra_info)
        response = str(solution_str)
        several = gold.multiple_answers or lists_several(gold.text)  # as asks_for_several
        place = find_answer(response, row_answer_format(extra_info, answer_format), several)
        pred = "" if place is None else normalize_answer(answer_text(response, place))
        if not pred:
            path = status = "no_answer"
        else:
            verdict = check_answer(gold, pred)
            status = "correct" if verdict else "wrong"
            if verdict is None:
                path = "symbolic"
                outcome = shared_pool(settings).check(gold, pred, limit_s)
                status, reason = outcome.status, outcome.reason
    except (ValueError, AnswerTooLarge, GoldNotUnderstood, RefusedExpression, RuntimeError) as error:
        status, reason = "error", f"{type(error).__name__}: {error}"
    count_answer(path, status, time.monotonic() - started)
    if status in ("timeout", "error"):
        log_undecided(status, reason, data_source, pred)
    result: dict[str, Any] = {
        "score": 1.0 if status == "correct" else 0.0,
        "acc": status == "correct",
        "pred": pred[:MAX_PRED_CHARS],
        "status": status,
    }
    if path_metrics:
        result.update({f"path_{name}": float(path == name) for name in ("exact", "symbolic")})
        result.update({f"status_{name}": float(status == name) for name in ("no_answer", "timeout", "error")})
    return result
