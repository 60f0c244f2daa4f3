"""Methods that were looked at and are not here, each with the reason. Nothing is guessed to make one run."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class NotBuilt:
    """One method without a preset.

    Attributes:
        name: as its paper calls it.
        paper: arXiv number; empty where none is known.
        reason: why there is no preset.
    """

    name: str
    paper: str
    reason: str


NOT_BUILT = (
    NotBuilt("ETR", "2601.03723", "only the abstract is public: neither formula nor constants"),
    NotBuilt("R2VPO", "2601.03320", "only the abstract is public: a penalty on the ratio's variance, no constants"),
    NotBuilt("DHPO", "2601.05607", "the ranges of its two clips are not known"),
    NotBuilt("FiberPO", "2603.08239", "only unofficial re-implementations, which do not pin it down"),
    NotBuilt("EARL", "", "several methods have the name, and none of them is for mathematics"),
    NotBuilt("Lopti", "2505.12929", "two optimizer steps per mini-batch, which verl's update does not have"),
    NotBuilt("PIPO", "2604.00860", "updates on the previous batch too, for which verl's step has no place"),
    NotBuilt("IMAGINE", "2505.17621", "trains a network of its own, too large for a method's state"),
    NotBuilt("IGPO", "2510.14967", "rewards the turns of a dialogue; the comparison has one turn"),
    NotBuilt("EVOL-RL", "2509.15194", "needs an embedding model beside the policy"),
    NotBuilt("FAPO", "2510.22543", "needs a generative judge beside the policy"),
    NotBuilt("POISE", "2605.07579", "needs the policy's hidden states, which verl's workers do not return"),
    NotBuilt("AnytimeReasoner", "2505.13438", "samples several answers behind cuts of each trace"),
    NotBuilt("T-PPO", "2506.15050", "needs a critic; its window is not known"),
)
