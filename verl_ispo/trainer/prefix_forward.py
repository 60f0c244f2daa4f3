"""The ground truth behind parts of each response (`Need.PREFIX_SCORES`): the texts, and what one forward says of them.

A text is the prompt, the first tokens of a response (as many as a cut of the method says), the method's lead-in and the
ground truth, whose tokens are scored. It runs under the weights of the old log-probs, right after their pass.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from omegaconf import DictConfig
from transfer_queue import KVBatchMeta

from verl_ispo.methods.method import CutRequest, Method, PrefixScores
from verl_ispo.signals.answer_span import AnswerSpans
from verl_ispo.signals.right_answer import MAX_RIGHT_ANSWER_TOKENS
from verl_ispo.signals.token_texts import TokenTexts
from verl_ispo.trainer.right_answer_forward import forward_over_tails, ground_truth_texts, longest_row
from verl_ispo.trainer.step_batch import fetch, prompt_of, rollout_rows

Encode = Callable[[str], Sequence[int]]


@dataclass(frozen=True)
class PrefixRows:
    """The texts to score, and which of them belong to each rollout.

    Attributes:
        heads: what is given, one tensor of token ids per text.
        tails: of the ground truth, whose tokens are scored.
        cuts: for each rollout, how many of its tokens are given, rising from 0; empty for one that is not scored.
        texts: for each rollout, the indices of its texts, one per cut.
        too_long: for each rollout, whether it is not scored because its longest text has too many tokens.
    """

    heads: list[torch.Tensor]
    tails: list[torch.Tensor]
    cuts: tuple[tuple[int, ...], ...]
    texts: tuple[tuple[int, ...], ...]
    too_long: tuple[bool, ...]


def prefix_rows(
    prompts: Sequence[torch.Tensor],
    responses: Sequence[torch.Tensor],
    right_answers: Sequence[str | None],
    cuts: Callable[[int], Sequence[int]],
    lead_in: str,
    encode: Encode,
    max_length: int | None = None,
) -> PrefixRows:
    """The texts whose forward gives log p of the ground truth behind parts of the responses.

    A rollout is not scored if its ground truth is empty or has more than `MAX_RIGHT_ANSWER_TOKENS` tokens, or if its
    longest text would be longer than ``max_length``. The prompt alone is one text for all rollouts of a prompt.

    Args:
        prompts (`Sequence[torch.Tensor]`): token ids of each prompt.
        responses (`Sequence[torch.Tensor]`): token ids of each response.
        right_answers (`Sequence[str]`): ground truth of each rollout; `None` for a row that is no rollout.
        cuts (`Callable`): from a rollout's index to its cuts behind 0, as `PrefixCuts.positions` gives them.
        lead_in (`str`): the text between cut and ground truth.
        encode (`Callable`): from a text to its token ids, without special tokens.
        max_length (`int`, *optional*): most tokens of a text.

    Returns:
        `PrefixRows`.

    Raises:
        ValueError: cuts that do not rise, or lie outside of the response.
    """
    heads: list[torch.Tensor] = []
    tails: list[torch.Tensor] = []
    all_cuts: list[tuple[int, ...]] = []
    texts: list[tuple[int, ...]] = []
    too_long: list[bool] = []
    placed = {key: behind_lead_in(lead_in, key, encode) for key in set(right_answers) if key}
    of_the_prompt: dict[tuple[bytes, str], int] = {}

    def add(head: torch.Tensor, tail: torch.Tensor) -> int:
        heads.append(head)
        tails.append(tail)
        return len(heads) - 1

    for row, (prompt, response, key) in enumerate(zip(prompts, responses, right_answers, strict=True)):
        all_cuts.append(())
        texts.append(())
        too_long.append(False)
        if not key or not 0 < len(placed[key][1]) <= MAX_RIGHT_ANSWER_TOKENS:
            continue
        opening, tail = (prompt.new_tensor(part) for part in placed[key])
        of_row = (0, *(int(cut) for cut in cuts(row)))
        if any(second <= first for first, second in pairwise(of_row)) or of_row[-1] > len(response):
            raise ValueError(
                f"rollout {row}: the ground truth is asked for behind {list(of_row[1:])} of {len(response)} tokens; "
                "the numbers have to rise, from 1 to the response's length at most"
            )
        if max_length is not None and len(prompt) + of_row[-1] + len(opening) + len(tail) > max_length:
            too_long[-1] = True
            continue
        known = (prompt.numpy().tobytes(), key)
        if known not in of_the_prompt:
            of_the_prompt[known] = add(torch.cat([prompt, opening]), tail)
        behind = [add(torch.cat([prompt, response[:cut], opening]), tail) for cut in of_row[1:]]
        all_cuts[-1], texts[-1] = of_row, (of_the_prompt[known], *behind)
    return PrefixRows(heads, tails, tuple(all_cuts), tuple(texts), tuple(too_long))


def behind_lead_in(lead_in: str, right_answer: str, encode: Encode) -> tuple[list[int], list[int]]:
    r"""Token ids of the lead-in, and those of the ground truth behind it.

    Where the tokenizer joins the lead-in's end with the answer's beginning (``{\frac`` may begin with one token
    ``{\``), that token is scored with the ground truth.
    """
    opening, whole = list(encode(lead_in)), list(encode(lead_in + right_answer))
    shared = 0
    while shared < min(len(opening), len(whole) - 1) and opening[shared] == whole[shared]:
        shared += 1
    return whole[:shared], whole[shared:]


def prefix_scores(
    log_probs: Sequence[torch.Tensor], entropies: Sequence[torch.Tensor], rows: PrefixRows
) -> PrefixScores:
    """Each rollout's scores of the ground truth, from those of the scored texts.

    Args:
        log_probs, entropies (`Sequence[torch.Tensor]`): of the tails of ``rows``, one tensor each.
        rows (`PrefixRows`).
    """
    width = max([1, *map(len, rows.cuts)])
    shape = (len(rows.cuts), width)
    cuts, mask = torch.zeros(shape, dtype=torch.int64), torch.zeros(shape, dtype=torch.bool)
    mean_log_prob, mean_entropy = torch.zeros(shape), torch.zeros(shape)
    tokens = torch.zeros(len(rows.cuts), dtype=torch.int64)
    for row, (of_row, texts) in enumerate(zip(rows.cuts, rows.texts, strict=True)):
        if not of_row:
            continue
        count = len(of_row)
        cuts[row, :count] = torch.tensor(of_row)
        mask[row, :count] = True
        mean_log_prob[row, :count] = torch.stack([log_probs[text].mean() for text in texts])
        mean_entropy[row, :count] = torch.stack([entropies[text].mean() for text in texts])
        tokens[row] = len(rows.tails[texts[0]])
    return PrefixScores(cuts, mask, mean_log_prob, mean_entropy, tokens)


def prefix_metrics(method: str, rows: PrefixRows, rollouts: int) -> dict[str, float]:
    """What the forward costs, and for how many of the rollouts it is made; the prefix is the method's name.

    - ``tokens/prefix_scores``: tokens of all texts, ground truths included;
    - ``prefix_scores/rate``: share of the rollouts that are scored;
    - ``prefix_scores/too_long``: rollouts that are not, because their longest text has too many tokens;
    - ``prefix_scores/cuts``: mean number of cuts behind 0 of a rollout that is scored.
    """
    scored = [cuts for cuts in rows.cuts if cuts]
    return {
        f"{method}/tokens/prefix_scores": sum(map(len, [*rows.heads, *rows.tails])),
        f"{method}/prefix_scores/rate": len(scored) / max(rollouts, 1),
        f"{method}/prefix_scores/too_long": sum(rows.too_long),
        f"{method}/prefix_scores/cuts": sum(len(cuts) - 1 for cuts in scored) / max(len(scored), 1),
    }


def cut_request(
    entropy: torch.Tensor, response: torch.Tensor, spans: AnswerSpans, row: int, token_text: TokenTexts
) -> CutRequest:
    """One response as a method sees it when it chooses cuts; ``spans`` are of all rows."""
    has_answer = int(spans.end[row]) > int(spans.start[row])
    return CutRequest(
        entropy=entropy.float(),
        token_texts=[token_text(token) for token in response.tolist()],
        trace_length=int(spans.lead_in_start[row]) if has_answer else len(response),
    )


def scores_behind_prefixes(
    batch: KVBatchMeta,
    workers: Any,
    config: DictConfig,
    method: Method,
    prompts: Sequence[torch.Tensor],
    responses: Sequence[torch.Tensor],
    spans: AnswerSpans,
    token_text: TokenTexts,
    encode: Encode,
) -> tuple[PrefixScores, Mapping[str, float]]:
    """The scores of a batch whose entropies are in the queue, on verl's rows, and their metrics.

    Raises:
        UnsupportedSettingError: the data has no ``reward_model``.
    """
    settings = method.read_settings(config.algorithm.get(method.name))
    rows = rollout_rows(batch)
    texts = ground_truth_texts(
        batch, rows, reader=f"algorithm.adv_estimator={method.name}", remedy="choose another method"
    )
    right_answers: list[str | None] = [None] * len(batch)
    for row in rows:
        right_answers[row] = texts[prompt_of(batch.keys[row])]
    entropies = fetch(batch, ["entropy"])["entropy"].unbind()

    def cuts(row: int) -> Sequence[int]:
        request = cut_request(entropies[row], responses[row], spans, row, token_text)
        return method.prefix_cuts.positions(request, settings)

    lead_in = method.prefix_cuts.lead_in(settings)
    found = prefix_rows(prompts, responses, right_answers, cuts, lead_in, encode, longest_row(config))
    scored = forward_over_tails(workers, config, found.heads, found.tails, ["log_probs", "entropy"])
    return (
        prefix_scores(scored["log_probs"], scored["entropy"], found),
        prefix_metrics(method.name, found, len(rows)),
    )
