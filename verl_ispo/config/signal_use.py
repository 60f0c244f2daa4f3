"""Whether a run computes ISPO's signals, to train on them or to log them under another method, and in which pass."""

from __future__ import annotations

from omegaconf import DictConfig, OmegaConf

from verl_ispo.config.section import check_choice

ABLATED_PASS_KEY = "trainer.v1.ispo.ablated_pass"
ABLATED_PASSES = ("separate", "merged")


def trains_on_signals(config: DictConfig) -> bool:
    """Whether the composite reward is trained on."""
    return OmegaConf.select(config, "algorithm.adv_estimator") == "ispo"


def observes_signals(config: DictConfig) -> bool:
    """Whether an ISPO trainer mode computes the signals at all (``trainer.v1.ispo.watch_signals``)."""
    return trains_on_signals(config) or bool(OmegaConf.select(config, "trainer.v1.ispo.watch_signals", default=True))


def ablated_pass(config: DictConfig) -> str:
    """Where answers without their traces are scored: in a ``separate`` forward, or ``merged`` with the old log-probs.

    Raises:
        ValueError: ``trainer.v1.ispo.ablated_pass`` is neither.
    """
    chosen = OmegaConf.select(config, ABLATED_PASS_KEY, default="separate")
    check_choice(ABLATED_PASS_KEY, chosen, ABLATED_PASSES)
    return chosen
