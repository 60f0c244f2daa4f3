"""Grading of mathematical answers: exact where possible, else symbolic, in processes that can be killed.

:func:`compute_score` is the reward function for verl; :func:`grading_stats` counts which path decided how many answers.
"""

from .counters import grading_stats
from .reward_function import compute_score
from .worker_pool import GraderUnavailableError, close_pools

__all__ = ["GraderUnavailableError", "close_pools", "compute_score", "grading_stats"]
