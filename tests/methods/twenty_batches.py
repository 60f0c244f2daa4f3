"""Twenty batches of rollouts, every field filled, and ten micro-batches for losses: what every method is tried on.

The numbers come from numpy's PCG64, which draws the same on every platform. All of them are small fractions of powers
of two, so that sums of float32 are exact in any order, equal values stay equal, and a float64 reference reads what the
method reads. Groups hold every outcome unless a batch is about one; rows without tokens pad a batch as verl pads it.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
import torch

from verl_ispo.methods.method import GROUP_COLUMN, CutRequest, LossBatch, Method, MethodBatch, PrefixScores
from verl_ispo.signals.groups import RolloutGroups

Verdicts = Callable[[int, int], bool]
SEED = 20261126
VOCABULARY = ("", " so", " 4", ".", "\n\n", " then", " 7", ".\n\n", " let", ",", " is", " x", "\n")
"""Texts of the tokens by id; 0 pads. So few that rollouts often have the same token at the same place."""


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
        drift: log-prob minus the reference policy's, drawn from `[-drift, drift]` sixty-fourths.
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
    drift: int = 64
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
        name: replace(method_batch(recipe, SEED + number, normalize_by_std), step=number + 1, total_steps=len(RECIPES))
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
    log_prob = -draw.sixty_fourths(*recipe.surprisal, rows, len(position)) * mask
    ends = position < lengths.unsqueeze(-1)
    return MethodBatch(
        rewards=on_last_token(scores, mask),
        response_mask=mask.long(),
        groups=RolloutGroups.from_labels(labels),
        normalize_by_std=normalize_by_std,
        correct=torch.tensor(correct),
        log_prob=log_prob,
        entropy=draw.sixty_fourths(*recipe.entropy, rows, len(position)) * mask,
        prompt_log_prob=torch.cat(
            [prompt_log_prob[row_prompts], torch.zeros(recipe.padding_rows, prompt_mask.shape[1])]
        ),
        prompt_mask=prompt_mask,
        answer_texts=(*answers, *([None] * recipe.padding_rows)),
        grpo_advantage=torch.tensor(grpo_of(scores, labels, normalize_by_std)).unsqueeze(-1) * mask,
        ref_log_prob=(log_prob - draw.sixty_fourths(-recipe.drift, recipe.drift, rows, len(position))).clamp(max=0)
        * mask,
        response_ids=draw.whole(1, len(VOCABULARY) - 1, rows, len(position)) * ends,
        expert=torch.tensor([row < written and row % 5 == 2 for row in range(rows)]),
        prompt_keys=(*(f"prompt {prompt}" for prompt, _ in owners), *([""] * recipe.padding_rows)),
    )


def prefix_scores(
    batch: MethodBatch, positions: Callable[[CutRequest], Sequence[int]], seed: int = SEED
) -> PrefixScores:
    """Scores of the ground truth behind the cuts that a method names; of every fifth rollout there are none.

    Args:
        batch (`MethodBatch`): with every field.
        positions (`Callable`): from one response to its cuts behind 0.
        seed (`int`, *optional*).
    """
    draw, cuts = _Draw(seed), []
    for row, ids in enumerate(batch.response_ids.tolist()):
        length = int(batch.response_ids[row].count_nonzero())
        answer = 0 if batch.answer_texts[row] is None else min(2, length - 1)
        request = CutRequest(
            batch.entropy[row, :length], [VOCABULARY[token] for token in ids[:length]], length - answer
        )
        scored = length > 0 and row % 5 != 4
        cuts.append([0, *positions(request)] if scored else [])
    width = max(map(len, cuts))
    mask = torch.tensor([[index < len(own) for index in range(width)] for own in cuts]).reshape(len(cuts), width)
    return PrefixScores(
        cuts=torch.tensor([own + [0] * (width - len(own)) for own in cuts], dtype=torch.int64).reshape(
            len(cuts), width
        ),
        mask=mask,
        mean_log_prob=-draw.sixty_fourths(0, 320, len(cuts), width) * mask,
        mean_entropy=draw.sixty_fourths(0, 128, len(cuts), width) * mask,
        tokens=draw.whole(1, 4, len(cuts)) * mask.any(dim=-1),
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
        rollouts: of which it is.
        log_ratio: of a token, drawn from `[-log_ratio, log_ratio]` sixty-fourths.
        signs: of the advantages, row by row in turn.
        by_token: whether the advantage differs from token to token.
    """

    rollouts: Recipe = field(default_factory=lambda: Recipe(sizes=(4, 2), lengths=(1, 8)))
    log_ratio: int = 12
    signs: Sequence[int] = (1, -1)
    by_token: bool = False


_PADDED = Recipe(sizes=(3, 4), lengths=(1, 9), holes=3, padding_rows=2)
LOSS_RECIPES: dict[str, LossRecipe] = {
    "first update": LossRecipe(log_ratio=0),
    "near the old policy": LossRecipe(log_ratio=1, signs=(1, -1, 0)),
    "within the clip": LossRecipe(),
    "at the clip": LossRecipe(log_ratio=24),
    "beyond the clip": LossRecipe(log_ratio=96, signs=(1, 1, -1)),
    "beyond verl's clamp": LossRecipe(log_ratio=1600),
    "positive advantages": LossRecipe(Recipe(sizes=(5,), lengths=(2, 8), surprisal=(0, 8)), 40, signs=(1,)),
    "negative advantages, by token": LossRecipe(log_ratio=90, signs=(-1,), by_token=True),
    "masked tokens": LossRecipe(_PADDED, log_ratio=32, by_token=True),
    "one row": LossRecipe(Recipe(sizes=(1,), lengths=(12, 12)), log_ratio=32),
}


@dataclass(frozen=True)
class Update:
    """A micro-batch for a loss with the rollouts that it is of, row by row.

    Attributes:
        rollouts: as the advantage read them.
        loss: with every field that does not depend on the method.
    """

    rollouts: MethodBatch
    loss: LossBatch

    def of(self, method: Method, settings: Any) -> LossBatch:
        """With the columns that a method's loss reads, and without the entropy where it has not asked for it."""
        columns: dict[str, torch.Tensor] = {}
        if method.loss_columns is not None:
            columns |= method.loss_columns(self.rollouts, settings, self.loss.advantages)
        if method.whole_groups:
            columns[GROUP_COLUMN] = self.rollouts.groups.ids
        shape = self.loss.response_mask.shape
        spread = {
            name: (values.unsqueeze(-1).expand(shape) if values.dim() == 1 else values).to(self.loss.advantages.dtype)
            for name, values in columns.items()
        }
        return replace(self.loss, columns=spread, entropy=self.loss.entropy if method.loss_needs_entropy else None)


def updates(dtype: torch.dtype = torch.float32) -> dict[str, Update]:
    """The ten micro-batches by name."""
    return {
        name: update(recipe, SEED + 100 + number, dtype) for number, (name, recipe) in enumerate(LOSS_RECIPES.items())
    }


def update(recipe: LossRecipe, seed: int, dtype: torch.dtype = torch.float32) -> Update:
    """One micro-batch after its recipe, clipped as all methods of the comparison are."""
    rollouts, draw = method_batch(recipe.rollouts, seed), _Draw(seed + 1000)
    mask = rollouts.response_mask.bool()
    rows, length = mask.shape
    size = draw.sixty_fourths(16, 128, rows, length if recipe.by_token else 1)
    sign = torch.tensor([recipe.signs[row % len(recipe.signs)] for row in range(rows)]).unsqueeze(-1)
    log_ratio = draw.sixty_fourths(-recipe.log_ratio, recipe.log_ratio, rows, length) * mask
    loss = LossBatch(
        log_ratio=log_ratio.clamp(-20.0, 20.0).to(dtype),
        unclamped_log_ratio=log_ratio.to(dtype),
        advantages=(size * sign * mask).to(dtype),
        response_mask=mask,
        clip_low=0.2,
        clip_high=0.28,
        dual_clip=3.0,
        importance_weights=None,
        old_log_prob=rollouts.log_prob.to(dtype),
        entropy=(draw.sixty_fourths(*recipe.rollouts.entropy, rows, length) * mask).to(dtype),
    )
    return Update(rollouts, loss)


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

    def hidden(values: torch.Tensor | None, mask: torch.Tensor | None) -> torch.Tensor | None:
        return None if values is None else torch.where(mask.bool(), values, garbage)

    scores = batch.prefix_scores
    if scores is not None:
        filled = {name: hidden(getattr(scores, name), scores.mask) for name in ("mean_log_prob", "mean_entropy")}
        scores = replace(scores, **filled)
    return replace(
        batch,
        log_prob=hidden(batch.log_prob, batch.response_mask),
        entropy=hidden(batch.entropy, batch.response_mask),
        ref_log_prob=hidden(batch.ref_log_prob, batch.response_mask),
        prompt_log_prob=hidden(batch.prompt_log_prob, batch.prompt_mask),
        prefix_scores=scores,
    )


def in_order(batch: Any, order: Sequence[int]) -> Any:
    """The same rows in another order, or some of them: of a `MethodBatch`, a `LossBatch` or `PrefixScores`."""
    rows = len(batch.response_mask if hasattr(batch, "response_mask") else batch.mask)

    def some(value: Any) -> Any:
        if isinstance(value, RolloutGroups):
            return RolloutGroups.from_labels(value.ids[list(order)].tolist())
        if isinstance(value, PrefixScores):
            return in_order(value, order)
        if isinstance(value, torch.Tensor) and value.dim() and len(value) == rows:
            return value[list(order)]
        if isinstance(value, tuple) and len(value) == rows:
            return tuple(value[row] for row in order)
        if isinstance(value, Mapping):
            return {name: some(column) for name, column in value.items()}
        return value

    return replace(batch, **{part.name: some(getattr(batch, part.name)) for part in fields(batch)})


def with_log_ratio(batch: LossBatch, log_ratio: torch.Tensor) -> LossBatch:
    """The same tokens under another current policy."""
    return replace(batch, log_ratio=log_ratio.clamp(-20.0, 20.0), unclamped_log_ratio=log_ratio)
