"""Grading of mathematical answers: exact where it can be, symbolic in killable processes where it has to be.

:func:`compute_score` is the reward function for verl; :func:`grading_stats` tells which path decided what.
"""

from .counters import grading_stats
from .reward_function import compute_score
from .worker_pool import GraderUnavailableError, close_pools

__all__ = ["GraderUnavailableError", "close_pools", "compute_score", "grading_stats"]
