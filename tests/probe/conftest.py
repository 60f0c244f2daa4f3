"""The fixtures of the evaluation's tests that the probe's use too."""

from tests.evaluation.conftest import random_model, write_benchmark

__all__ = ["random_model", "write_benchmark"]
