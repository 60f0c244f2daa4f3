"""Teacher-forced scores of rows: against a plain forward of one row, and in batches of any shape.

Not exercised: a GPU; the memory that a batch takes there.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.examples import examples
from verl_ispo.probe.score_log import ScoreLog, row_key
from verl_ispo.probe.scored_rows import (
    MAX_BATCH_TOKENS,
    Row,
    RowScores,
    ScoringPlace,
    load_model,
    row_batches,
    score_rows,
    scoring_place,
)
from verl_ispo.user_error import UserError

CPU = ScoringPlace("cpu", "float32")


@pytest.fixture(scope="module")
def model(random_model: Path):
    return load_model(random_model, CPU)


def test_scores_are_those_of_a_plain_forward(model) -> None:
    """What goes wrong: padding shifts positions, a log-prob is the next token's, or the temperature is left out."""
    rows = [Row((1, 2, 3), (4, 5)), Row((7,), (8, 9, 10, 11)), Row((5,) * 9, (6,)), Row((1, 2), ())]
    for temperature in (1.0, 0.7):
        found = dict(pair for batch in score_rows(model, rows, temperature) for pair in batch)
        assert sorted(found) == [0, 1, 2]
        for index, scores in found.items():
            head, tail = rows[index].head, rows[index].tail
            logits = model(torch.tensor([head + tail])).logits[0, len(head) - 1 : -1] / temperature
            expected = torch.log_softmax(logits, dim=-1)
            of_tail = expected.gather(-1, torch.tensor(tail).unsqueeze(-1)).squeeze(-1)
            assert scores.log_prob == pytest.approx(of_tail.tolist(), abs=1e-5)
            entropy = torch.distributions.Categorical(logits=logits).entropy()
            assert scores.entropy == pytest.approx(entropy.tolist(), abs=1e-5)


def test_scores_do_not_depend_on_the_batch(model) -> None:
    rows = [Row(tuple(range(1, 2 + index)), tuple(range(3, 4 + index % 4))) for index in range(9)]
    together = dict(pair for batch in score_rows(model, rows, 1.0) for pair in batch)
    alone = dict(pair for batch in score_rows(model, rows, 1.0, logits=1) for pair in batch)
    for index in range(9):
        assert together[index].log_prob == pytest.approx(alone[index].log_prob, abs=1e-5)


@given(
    lengths=st.lists(st.tuples(st.integers(1, 3000), st.integers(0, 3000)), max_size=12),
    logits=st.integers(1, 10**6),
)
@settings(max_examples=examples(50))
def test_every_row_is_in_one_batch_within_both_limits(lengths: list[tuple[int, int]], logits: int) -> None:
    """What goes wrong: one long row beside many short ones takes all of the memory."""
    rows = [Row((1,) * head, (2,) * tail) for head, tail in lengths]
    batches = row_batches(rows, 10, logits)
    assert sorted(index for batch in batches for index in batch) == [at for at, row in enumerate(rows) if row.tail]
    for batch in batches:
        longest = max(len(rows[index].head) + len(rows[index].tail) for index in batch)
        kept = max(len(rows[index].tail) for index in batch) + 1
        assert len(batch) == 1 or (len(batch) * kept * 10 <= logits and len(batch) * longest <= MAX_BATCH_TOKENS)


def test_scores_are_found_again_and_a_torn_line_is_not(tmp_path: Path) -> None:
    """What goes wrong: a kill leaves half a line, and the next start reads it, or writes behind it."""
    keys = [row_key(Row((1,), (tail,)), {"model": "a"}) for tail in range(3)]
    log = ScoreLog(tmp_path / "scores.jsonl")
    log.append([(key, RowScores((-0.1234567,), (1.0,))) for key in keys])
    log.close()
    path = tmp_path / "scores.jsonl"
    path.write_bytes(path.read_bytes()[:-5])
    log = ScoreLog(path)
    assert [log.get(key) is not None for key in keys] == [True, True, False]
    assert log.get(keys[0]) == RowScores((-0.123457,), (1.0,))
    log.append([(keys[2], RowScores((-2.0,), (0.5,)))])
    log.close()
    log = ScoreLog(path)
    assert log.get(keys[2]) == RowScores((-2.0,), (0.5,))
    log.close()


def test_what_decides_a_score_is_in_its_key() -> None:
    row = Row((1, 2), (3,))
    keys = [
        row_key(row, {"model": "a"}),
        row_key(row, {"model": "b"}),
        row_key(Row((1,), (2, 3)), {"model": "a"}),
        row_key(Row((1, 2), (4,)), {"model": "a"}),
    ]
    assert len(set(keys)) == 4


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_refused() -> None:
    assert scoring_place("auto", "auto") == CPU
    with pytest.raises(UserError, match="--device cuda: no GPU is visible"):
        scoring_place("cuda", "auto")
