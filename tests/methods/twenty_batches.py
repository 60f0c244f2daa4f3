"""Twenty batches of rollouts, every field filled, and ten micro-batches for losses: what every method is tried on.

The numbers come from numpy's PCG64, which draws the same on every platform. All of them are small fractions of powers
of two, so that sums of float32 are exact in any order, equal values stay equal, and a float64 reference reads what the
method reads. Groups hold every outcome unless a batch is about one; rows without tokens pad a batch as verl pads it.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch

from verl_ispo.methods.method import LossBatch, MethodBatch
from verl_ispo.signals.groups import RolloutGroups

Verdicts = Callable[[int, int], bool]
SEED = 20261126


@dataclass(frozen=True)
class Recipe:
    """How one batch is drawn.

    Attributes:
        sizes: rollouts of each prompt.
        verdict: from the numbers of prompt and rollout to whether it is correct.
        lengths: tokens of a rollout, drawn from `[low, high]`.
        entropy: of a token, drawn from `[low, high]` sixty-fourths of a nat.
        surprisal: minus the log-prob of a token, likewise in sixty-fourths.
        scores: of an incorrect and of a correct rollout; each is chosen in turn.
        answers: of incorrect rollouts, in turn; a correct one gives `key`.
        key: the answer of a correct rollout.
        holes: every how manieth token is not the policy's (a tool's answer); 0 for none.
        padding_rows: rows without tokens, each with a group of its own.
        prompt_lengths: tokens of a prompt but the first.
    """

    sizes: Sequence[int] = (4, 4, 4, 4)
    verdict: Verdicts = lambda prompt, rollout: (3 * prompt + 5 * rollout) % 7 < 3
    lengths: tuple[int, int] = (3, 12)
    entropy: tuple[int, int] = (0, 160)
    surprisal: tuple[int, int] = (0, 192)
    scores: tuple[Sequence[float], Sequence[float]] = ((0.0,), (1.0,))
    answers: Sequence[str | None] = ("7", "7", "-1", None, "12")
    key: str | None = "42"
    holes: int = 0
    padding_rows: int = 0
    prompt_lengths: tuple[int, int] = (2, 8)


RECIPES: dict[str, Recipe] = {
    "mixed": Recipe(),
    "all incorrect": Recipe(sizes=(4, 4, 4), verdict=lambda prompt, rollout: False),
    "all correct": Recipe(sizes=(4, 4, 4), verdict=lambda prompt, rollout: True),
    "one of each": Recipe(
        verdict=lambda prompt, rollout: prompt == 2 or (prompt == 0 and rollout % 2 == 0) or (prompt == 3),
        sizes=(4, 4, 4, 1),
    ),
    "one rollout per prompt": Recipe(sizes=(1,) * 6),
    "one prompt": Recipe(sizes=(8,)),
    "long": Recipe(sizes=(4, 4), lengths=(150, 200)),
    "short": Recipe(lengths=(1, 1)),
    "very different lengths": Recipe(sizes=(6, 6), lengths=(1, 96)),
    "rows without tokens": Recipe(sizes=(4, 4), padding_rows=3),
    "tokens of a tool": Recipe(sizes=(4, 5), holes=3),
    "zero entropy": Recipe(entropy=(0, 0)),
    "equal entropies": Recipe(entropy=(48, 48)),
    "certain": Recipe(surprisal=(0, 1), entropy=(0, 2)),
    "unlikely": Recipe(surprisal=(1000, 4000), entropy=(200, 600)),
    "scores of -1 and 1": Recipe(scores=((-1.0,), (1.0,)), padding_rows=1),
    "shaped scores": Recipe(scores=((0.0, -0.25, 0.125, 0.0), (1.0, 0.75, 0.875, 1.0)), padding_rows=1),
    "no answers": Recipe(answers=(None,), key=None),
    "pairs": Recipe(sizes=(2,) * 6, answers=("42",), prompt_lengths=(0, 3)),
    "sixteen, and groups of unequal size": Recipe(sizes=(16, 1, 2, 3, 5, 8), padding_rows=2),
}


def method_batches(normalize_by_std: bool = True) -> dict[str, MethodBatch]:
    """The twenty batches by name, float32 as the trainer gives them, for one value of verl's switch."""
    return {
        name: method_batch(recipe, SEED + number, normalize_by_std)
        for number, (name, recipe) in enumerate(RECIPES.items())
    }


def method_batch(recipe: Recipe, seed: int, normalize_by_std: bool = True) -> MethodBatch:
    """One batch after its recipe."""
    draw = _Draw(seed)
    owners = [(prompt, rollout) for prompt, size in enumerate(recipe.sizes) for rollout in range(size)]
    written, rows = len(owners), len(owners) + recipe.padding_rows
    lengths = torch.cat([draw.whole(*recipe.lengths, written), torch.zeros(recipe.padding_rows, dtype=torch.int64)])
    position = torch.arange(int(lengths.max()))
    mask = position < lengths.unsqueeze(-1)
    if recipe.holes:
        last = lengths.unsqueeze(-1) - 1
        mask &= ((position + torch.arange(rows).unsqueeze(-1)) % recipe.holes != 0) | (position == last)
    prompt_lengths = draw.whole(*recipe.prompt_lengths, len(recipe.sizes))
    row_prompts = torch.tensor([prompt for prompt, _ in owners])
    prompt_mask = torch.zeros(rows, recipe.prompt_lengths[1], dtype=torch.bool)
    prompt_mask[:written] = torch.arange(recipe.prompt_lengths[1]) < prompt_lengths[row_prompts].unsqueeze(-1)
    prompt_log_prob = -draw.sixty_fourths(0, 256, len(recipe.sizes), recipe.prompt_lengths[1])
    correct = [recipe.verdict(*owner) for owner in owners] + [False] * recipe.padding_rows
    labels = [str(prompt) for prompt, _ in owners] + [f"padding {row}" for row in range(recipe.padding_rows)]
    scores = [recipe.scores[correct[row]][row % len(recipe.scores[correct[row]])] for row in range(written)]
    scores += [0.0] * recipe.padding_rows
    answers = [recipe.key if correct[row] else recipe.answers[row % len(recipe.answers)] for row in range(written)]
    return MethodBatch(
        rewards=on_last_token(scores, mask),
        response_mask=mask.long(),
        groups=RolloutGroups.from_labels(labels),
        normalize_by_std=normalize_by_std,
        correct=torch.tensor(correct),
        log_prob=-draw.sixty_fourths(*recipe.surprisal, rows, len(position)) * mask,
        entropy=draw.sixty_fourths(*recipe.entropy, rows, len(position)) * mask,
        prompt_log_prob=torch.cat(
            [prompt_log_prob[row_prompts], torch.zeros(recipe.padding_rows, prompt_mask.shape[1])]
        ),
        prompt_mask=prompt_mask,
        answer_texts=(*answers, *([None] * recipe.padding_rows)),
        grpo_advantage=torch.tensor(grpo_of(scores, labels, normalize_by_std)).unsqueeze(-1) * mask,
    )


def on_last_token(scores: Sequence[float], mask: torch.Tensor) -> torch.Tensor:
    """`(batch, length)` float32: each score on its row's last token of the policy, 0 elsewhere."""
    rewards = torch.zeros(mask.shape)
    for row, score in enumerate(scores):
        tokens = mask[row].nonzero()
        if len(tokens):
            rewards[row, tokens[-1]] = score
    return rewards


def grpo_of(scores: Sequence[float], labels: Sequence[str], normalize_by_std: bool) -> list[float]:
    """verl's GRPO per row: (R - mean) / (std + 1e-6), the std unbiased; a group of one keeps its score."""
    advantages = []
    for score, label in zip(scores, labels, strict=True):
        group = [other for other, its in zip(scores, labels, strict=True) if its == label]
        mean, std = (statistics.fmean(group), statistics.stdev(group)) if len(group) > 1 else (0.0, 1.0)
        advantages.append((score - mean) / (std + 1e-6) if normalize_by_std else score - mean)
    return advantages


@dataclass
class _Draw:
    seed: int

    def __post_init__(self) -> None:
        self.generator = np.random.Generator(np.random.PCG64(self.seed))

    def whole(self, low: int, high: int, *shape: int) -> torch.Tensor:
        """int64, uniform over `[low, high]`."""
        return torch.from_numpy(self.generator.integers(low, high, shape, endpoint=True))

    def sixty_fourths(self, low: int, high: int, *shape: int) -> torch.Tensor:
        """float32, uniform over `[low, high]` sixty-fourths."""
        return self.whole(low, high, *shape).float() / 64


@dataclass(frozen=True)
class LossRecipe:
    """How one micro-batch is drawn.

    Attributes:
        rows, length: its shape; lengths of rows are drawn from `[1, length]`.
        log_ratio: of a token, drawn from `[-log_ratio, log_ratio]` sixty-fourths.
        signs: of the advantages, row by row in turn.
        by_token: whether the advantage differs from token to token.
        holes: whether every third token is masked.
        padding_rows: rows without tokens.
    """

    rows: int = 6
    length: int = 8
    log_ratio: int = 12
    signs: Sequence[int] = (1, -1)
    by_token: bool = False
    holes: bool = False
    padding_rows: int = 0


LOSS_RECIPES: dict[str, LossRecipe] = {
    "first update": LossRecipe(log_ratio=0),
    "near the old policy": LossRecipe(log_ratio=1, signs=(1, -1, 0)),
    "within the clip": LossRecipe(),
    "at the clip": LossRecipe(log_ratio=24),
    "beyond the clip": LossRecipe(log_ratio=96, signs=(1, 1, -1)),
    "beyond verl's clamp": LossRecipe(log_ratio=1600),
    "positive advantages": LossRecipe(log_ratio=40, signs=(1,)),
    "negative advantages, by token": LossRecipe(log_ratio=90, signs=(-1,), by_token=True),
    "masked tokens": LossRecipe(log_ratio=32, holes=True, padding_rows=2, by_token=True),
    "one row": LossRecipe(rows=1, length=12, log_ratio=32),
}


def loss_batches(dtype: torch.dtype = torch.float32) -> dict[str, LossBatch]:
    """The ten micro-batches by name."""
    return {
        name: loss_batch(recipe, SEED + 100 + number, dtype)
        for number, (name, recipe) in enumerate(LOSS_RECIPES.items())
    }


def loss_batch(recipe: LossRecipe, seed: int, dtype: torch.dtype = torch.float32) -> LossBatch:
    """One micro-batch after its recipe, clipped as all methods of the comparison are."""
    draw, rows = _Draw(seed), recipe.rows + recipe.padding_rows
    lengths = torch.cat(
        [draw.whole(1, recipe.length, recipe.rows), torch.zeros(recipe.padding_rows, dtype=torch.int64)]
    )
    lengths[0] = recipe.length
    position = torch.arange(recipe.length)
    mask = position < lengths.unsqueeze(-1)
    if recipe.holes:
        mask &= (position % 3 != 1) | (position == lengths.unsqueeze(-1) - 1)
    size = draw.sixty_fourths(16, 128, rows, recipe.length if recipe.by_token else 1)
    sign = torch.tensor([recipe.signs[row % len(recipe.signs)] for row in range(rows)]).unsqueeze(-1)
    log_ratio = draw.sixty_fourths(-recipe.log_ratio, recipe.log_ratio, rows, recipe.length) * mask
    return LossBatch(
        log_ratio=log_ratio.clamp(-20.0, 20.0).to(dtype),
        unclamped_log_ratio=log_ratio.to(dtype),
        advantages=(size * sign * mask).to(dtype),
        response_mask=mask,
        clip_low=0.2,
        clip_high=0.28,
        dual_clip=3.0,
        importance_weights=None,
    )


# What must not change a rule: other padding, other values where nothing is written, another order


def with_padding(batch: MethodBatch, columns: int) -> MethodBatch:
    """Columns of zeros behind every response and every prompt."""
    return replace(
        batch,
        **{
            part.name: torch.nn.functional.pad(value, (0, columns))
            for part in fields(batch)
            if isinstance(value := getattr(batch, part.name), torch.Tensor) and value.dim() == 2
        },
    )


def with_garbage(batch: MethodBatch, garbage: float) -> MethodBatch:
    """`garbage` wherever a mask is 0, but for rewards and GRPO's advantage, which verl keeps 0 there."""
    masks = {"log_prob": batch.response_mask, "entropy": batch.response_mask, "prompt_log_prob": batch.prompt_mask}
    return replace(
        batch,
        **{name: torch.where(mask.bool(), getattr(batch, name), garbage) for name, mask in masks.items()},
    )


def in_order(batch: Any, order: Sequence[int]) -> Any:
    """The same rows in another order, or some of them: of a `MethodBatch` or a `LossBatch`."""
    rows = len(batch.response_mask)

    def some(value: Any) -> Any:
        if isinstance(value, RolloutGroups):
            return RolloutGroups.from_labels(value.ids[list(order)].tolist())
        if isinstance(value, torch.Tensor) and value.dim() and len(value) == rows:
            return value[list(order)]
        if isinstance(value, tuple) and len(value) == rows:
            return tuple(value[row] for row in order)
        return value

    return replace(batch, **{part.name: some(getattr(batch, part.name)) for part in fields(batch)})


def with_log_ratio(batch: LossBatch, log_ratio: torch.Tensor) -> LossBatch:
    """The same tokens under another current policy."""
    return replace(batch, log_ratio=log_ratio.clamp(-20.0, 20.0), unclamped_log_ratio=log_ratio)
