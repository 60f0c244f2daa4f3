"""Evaluation: samples and grades (``verl-ispo eval``), and the table with its statistics (``verl-ispo table``).

`pass_at_k` is exported here; everything else is imported from its module, so that the command line stays quick.
"""

from verl_ispo.evaluation.estimators import pass_at_k

__all__ = ["pass_at_k"]
