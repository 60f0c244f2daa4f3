"""A training on data that ``data_prep`` prepared, graded by ``verl_ispo.grading`` inside verl's reward workers.

The problems are made here, so that a model that has seen only arithmetic can answer some; the real benchmarks go the
same way (tests/data_prep checks that verl loads them, tests/grading that verl's reward manager grades them).

Not exercised here: how well anything is learned.
"""

from __future__ import annotations

import pytest

from tests.training.conftest import TrainingRun

pytestmark = pytest.mark.trainer


def test_prepared_problems_are_trained_on_and_graded(whole: TrainingRun):
    metrics = whole.steps[3]
    assert 0 <= metrics["val-core/sums/acc/mean@1"] <= 1
    decided = metrics["val-aux/sums/path_exact/mean@1"] + metrics["val-aux/sums/path_symbolic/mean@1"]
    assert decided + metrics["val-aux/sums/status_no_answer/mean@1"] == pytest.approx(1)
    assert metrics["val-aux/sums/status_error/mean@1"] == 0
    assert metrics["ispo/reward/ifd/std"] > 0
