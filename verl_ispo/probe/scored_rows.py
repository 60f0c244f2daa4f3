"""Teacher-forced log-probs and entropies of rows of token ids, by a plain Hugging Face forward on a GPU or a CPU.

A row is a head, which is only read, and a tail, whose tokens are scored. Every text that the probe scores is such a
row: a rollout (prompt, response), or an answer without its trace (prompt, lead-in and answer).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import torch

from verl_ispo.user_error import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
MAX_BATCH_TOKENS = 16384
"""Rows times longest row of one forward."""
_LOGIT_COPIES = 4
"""Tensors of the logits' size that live at a time, in float32: logits, their log-softmax, probabilities, a product."""
_CPU_MEMORY_SHARE, _GPU_MEMORY_SHARE = 0.1, 0.4
_MOST_CPU_BYTES = 2 << 30
_WORKED_ON_TOGETHER = 1 << 26
"""Logits that are normalized together, so that their copies stay small beside a long row's logits."""


@dataclass(frozen=True)
class Row:
    """Token ids: ``head`` is read, at least one token; ``tail`` is scored, and may be empty."""

    head: tuple[int, ...]
    tail: tuple[int, ...]


@dataclass(frozen=True)
class RowScores:
    """One value per token of a row's tail.

    Attributes:
        log_prob: of the token, nats.
        entropy: of the distribution that it was drawn from, nats.
    """

    log_prob: tuple[float, ...]
    entropy: tuple[float, ...]


@dataclass(frozen=True)
class ScoringPlace:
    """Where rows are scored, and in which precision.

    Attributes:
        device: of torch.
        dtype: a key of `DTYPES`.
    """

    device: str
    dtype: str


def scoring_place(device: str, dtype: str) -> ScoringPlace:
    """Resolve ``auto``: the GPU where there is one; float32 on a CPU, bfloat16 on a GPU.

    Raises:
        UserError: a GPU is asked for and none is visible.
    """
    gpu = torch.cuda.is_available()
    if device == "cuda" and not gpu:
        raise UserError("--device cuda: no GPU is visible; leave --device out, or give cpu")
    chosen = ("cuda" if gpu else "cpu") if device == "auto" else device
    return ScoringPlace(chosen, ("bfloat16" if chosen == "cuda" else "float32") if dtype == "auto" else dtype)


def load_model(folder: Path, place: ScoringPlace) -> PreTrainedModel:
    """Load a causal language model for scoring."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=DTYPES[place.dtype], attn_implementation="sdpa")
    return model.to(place.device).eval()


def logit_budget(device: torch.device) -> int:
    """Logits that one forward may make, from the memory that is free."""
    if device.type == "cuda":
        free = torch.cuda.mem_get_info(device)[0] * _GPU_MEMORY_SHARE
    else:
        free = min(psutil.virtual_memory().available * _CPU_MEMORY_SHARE, _MOST_CPU_BYTES)
    return int(free / (4 * _LOGIT_COPIES))


def row_batches(rows: Sequence[Row], vocabulary: int, logits: int) -> list[list[int]]:
    """Indices of the rows in batches, longest tails first, so that what does not fit fails at once.

    Args:
        rows (`Sequence[Row]`): rows with an empty tail are in no batch.
        vocabulary (`int`): logits per position.
        logits (`int`): most logits of one batch; a longer row is a batch by itself.
    """
    order = sorted(
        (index for index, row in enumerate(rows) if row.tail),
        key=lambda index: (-len(rows[index].tail), -len(rows[index].head), index),
    )
    batches: list[list[int]] = []
    longest_tail = longest = 0
    for index in order:
        length = len(rows[index].head) + len(rows[index].tail)
        count = len(batches[-1]) + 1 if batches else 1
        longest_tail, longest = max(longest_tail, len(rows[index].tail)), max(longest, length)
        fits = count * (longest_tail + 1) * vocabulary <= logits and count * longest <= MAX_BATCH_TOKENS
        if batches and fits:
            batches[-1].append(index)
        else:
            batches.append([index])
            longest_tail, longest = len(rows[index].tail), length
    return batches


@torch.no_grad()
def score_rows(
    model: PreTrainedModel, rows: Sequence[Row], temperature: float, logits: int | None = None
) -> Iterator[list[tuple[int, RowScores]]]:
    """Score the tails of rows; yields batches of (index of the row, its scores) as they are finished.

    Args:
        model (`PreTrainedModel`): a causal language model in eval mode.
        rows (`Sequence[Row]`): rows with an empty tail are not yielded.
        temperature (`float`): the training's; logits are divided by it, as verl does for log-probs and entropies.
        logits (`int`, *optional*): most logits of one forward; from the free memory by default.
    """
    vocabulary = model.get_output_embeddings().weight.shape[0]
    budget = logit_budget(model.device) if logits is None else logits
    for batch in row_batches(rows, vocabulary, budget):
        yield list(zip(batch, _score_batch(model, [rows[index] for index in batch], temperature), strict=True))


def _score_batch(model: PreTrainedModel, rows: Sequence[Row], temperature: float) -> list[RowScores]:
    """One forward over left-padded rows; only the logits that predict a tail are made."""
    width = max(len(row.head) + len(row.tail) for row in rows)
    kept = max(len(row.tail) for row in rows) + 1
    ids = torch.zeros(len(rows), width, dtype=torch.long)
    mask = torch.zeros(len(rows), width, dtype=torch.long)
    for index, row in enumerate(rows):
        text = row.head + row.tail
        ids[index, width - len(text) :] = torch.tensor(text)
        mask[index, width - len(text) :] = 1
    ids, mask = ids.to(model.device), mask.to(model.device)
    logits = model(
        input_ids=ids,
        attention_mask=mask,
        position_ids=(mask.cumsum(-1) - 1).clamp(min=0),
        use_cache=False,
        logits_to_keep=kept,
    ).logits
    logits = logits[:, -kept:-1]  # also of a model that ignores logits_to_keep
    targets = ids[:, width - kept + 1 :]
    positions = max(1, _WORKED_ON_TOGETHER // (len(rows) * logits.shape[-1]))
    log_probs, entropies = [], []
    for start in range(0, logits.shape[1], positions):
        normalized = torch.log_softmax(logits[:, start : start + positions].float() / temperature, dim=-1)
        here = targets[:, start : start + positions]
        log_probs.append(normalized.gather(-1, here.unsqueeze(-1)).squeeze(-1))
        # a log-prob of minus infinity has probability 0, and 0 times infinity is not a number
        entropies.append(-(normalized.exp() * normalized.clamp(min=torch.finfo(torch.float32).min)).sum(dim=-1))
    log_prob, entropy = (torch.cat(parts, dim=1).cpu() for parts in (log_probs, entropies))
    scores = []
    for index, row in enumerate(rows):
        own = slice(kept - 1 - len(row.tail), None)
        scores.append(RowScores(tuple(log_prob[index, own].tolist()), tuple(entropy[index, own].tolist())))
    return scores
