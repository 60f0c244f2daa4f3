"""What PREPO's hook hands to verl: how many candidates, and rows in the form that verl's ``compute_log_prob`` takes.

The rule by which prompts are chosen is in tests/methods/test_prepo; that a training chooses by it, in tests/training.

Not exercised: a vision-language prompt, and a GPU on which the rollout engine holds its memory during the pass.
"""

from __future__ import annotations

import pytest
import torch
from verl.workers.utils.padding import response_from_nested

from verl_ispo.trainer.prompt_selection import candidate_count, prompt_rows


@pytest.mark.parametrize(
    ("kept", "keep_fraction", "drawn_at_once", "candidates"),
    [(16, 0.2, 16, 80), (512, 0.2, 512, 2560), (16, 1.0, 16, 16), (16, 0.3, 16, 64), (10, 0.25, 8, 40)],
)
def test_candidates_are_whole_draws_of_the_data_loader(
    kept: int, keep_fraction: float, drawn_at_once: int, candidates: int
) -> None:
    assert candidate_count(kept, keep_fraction, drawn_at_once) == candidates


def test_a_prompts_first_token_has_no_log_prob_and_all_others_do() -> None:
    rows = prompt_rows([[5, 6, 7], [8, 9]], row_multiple=1)
    assert [row.tolist() for row in rows["input_ids"].unbind()] == [[5, 6, 7], [8, 9]]
    assert [row.tolist() for row in rows["responses"].unbind()] == [[6, 7], [9]]
    assert [row.tolist() for row in rows["position_ids"].unbind()] == [[0, 1, 2], [0, 1]]
    # verl's passes return for each token the log-prob of the next one; here the position itself stands for it.
    output = torch.nested.as_nested_tensor([torch.arange(3.0), torch.arange(2.0)], layout=torch.jagged)
    found = response_from_nested(output, rows["response_mask"])
    assert [row.tolist() for row in found.unbind()] == [[0.0, 1.0], [0.0]]


def test_a_prompt_of_one_token_has_a_stand_in() -> None:
    rows = prompt_rows([[5]], row_multiple=1)
    assert [row.tolist() for row in rows["input_ids"].unbind()] == [[5, 5]]


@pytest.mark.parametrize(("row_multiple", "rows"), [(1, 3), (2, 4), (3, 3), (8, 8)])
def test_rows_divide_among_workers_and_micro_batches(row_multiple: int, rows: int) -> None:
    found = prompt_rows([[1, 2], [3, 4], [5, 6, 7]], row_multiple)
    assert len(found) == rows
    assert [row.tolist() for row in found["input_ids"].unbind()][3:] == [[5, 6, 7]] * (rows - 3)
