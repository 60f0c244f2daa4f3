"""Figure 6 from your own run: of the prompts whose whole group was wrong early on, the share solved at a later draw.

A prompt counts as failed early when its first group, drawn within the first ``early_steps``, had no correct rollout.
It counts as solved from the step at which a later group of it has one. Prompts that were never drawn again show
nothing and are counted separately. The definition is ours; the paper gives none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from verl_ispo.runs.rollout_dump.reader import PromptOutcome


@dataclass(frozen=True)
class SolvedLater:
    """The fate of the prompts that failed early.

    Attributes:
        early_steps: last step at which a first failure counts.
        failed_early: prompts whose first group was all wrong by then.
        drawn_again: how many of these had a later group.
        steps: steps from the first one with a later group on, ascending.
        share: share of ``drawn_again`` that is solved by each of ``steps``.
    """

    early_steps: int
    failed_early: int
    drawn_again: int
    steps: tuple[int, ...]
    share: tuple[float, ...]

    @property
    def solved(self) -> int:
        """Prompts solved by the last step."""
        return round(self.share[-1] * self.drawn_again) if self.share else 0


def default_early_steps(outcomes: Sequence[PromptOutcome]) -> int:
    """The first quarter of the steps, at least one."""
    return max(1, max((outcome.step for outcome in outcomes), default=1) // 4)


def solved_later(outcomes: Sequence[PromptOutcome], early_steps: int) -> SolvedLater:
    """Follow the prompts that failed early through the later steps.

    Args:
        outcomes (`Sequence[PromptOutcome]`): of every step, in any order.
        early_steps (`int`): last step that counts as early.
    """
    first_step: dict[str, int] = {}
    solved_at: dict[str, int] = {}
    drawn_again: set[str] = set()
    failed: set[str] = set()
    later_steps: set[int] = set()
    for outcome in sorted(outcomes, key=lambda outcome: outcome.step):
        prompt, step = outcome.prompt_id, outcome.step
        first = first_step.setdefault(prompt, step)
        if step == first:
            # A prompt that the data holds twice may be drawn twice in a step: one correct rollout means not failed.
            if outcome.right == 0 and step <= early_steps and prompt not in solved_at:
                failed.add(prompt)
            elif outcome.right:
                failed.discard(prompt)
                solved_at[prompt] = step
        elif prompt in failed:
            drawn_again.add(prompt)
            later_steps.add(step)
            if outcome.right:
                solved_at.setdefault(prompt, step)
    last = max((outcome.step for outcome in outcomes), default=0)
    steps = tuple(range(min(later_steps), last + 1)) if later_steps else ()
    when = sorted(solved_at[prompt] for prompt in drawn_again if prompt in solved_at)
    share = tuple(sum(at <= step for at in when) / len(drawn_again) for step in steps)
    return SolvedLater(early_steps, len(failed), len(drawn_again), steps, share)
