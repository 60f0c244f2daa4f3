"""Sign advantage (arXiv 2605.07689): A = 2 R - 1, without a baseline and without a standard deviation.

Source: the paper's abstract and notes by others. R is the verifier's verdict, so shaped scores have no influence
(ours). Every group learns, also where all outcomes are equal: a correct rollout is always pushed up, an incorrect one
down.
"""

from __future__ import annotations

import torch

from verl_ispo.methods.method import Method, MethodBatch, Need


def sign_advantage(correct: torch.Tensor) -> torch.Tensor:
    """A = 2 R - 1: 1 for a correct rollout, -1 for an incorrect one.

    Args:
        correct (`torch.Tensor` of shape `(batch,)`, bool): the verifier's verdict, R.

    Returns:
        `torch.Tensor` of shape `(batch,)`, float32.
    """
    return 2.0 * correct.float() - 1.0


def _advantage(batch: MethodBatch, settings: None) -> torch.Tensor:
    return sign_advantage(batch.correct)


METHOD = Method(name="sign", advantage=_advantage, needs=frozenset({Need.CORRECT}))
