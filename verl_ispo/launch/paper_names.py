"""What the paper's table calls the methods, so that its rows stand beside ours."""

from __future__ import annotations

PAPER_NAMES = {
    "grpo": "GRPO",
    "dr_grpo": "Dr.GRPO",
    "dapo": "DAPO",
    "progrpo": "ProGRPO",
    "prepo": "PREPO",
    "gtpo": "GTPO",
    "grpo_s": "GRPO-S",
    "ispo": "ISPO",
}
"""Method preset to name in the paper, in the order of its table."""


def paper_name(method: str) -> str:
    """The paper's name of a method; the method's own where the paper has none."""
    return PAPER_NAMES.get(method, method)
