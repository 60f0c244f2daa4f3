"""Writes the rollout dump, whose format is described in `verl_ispo.runs.rollout_dump.format`."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import math
import platform
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from verl_ispo.atomic_file import write_text
from verl_ispo.config.ispo_config import ISPOConfig
from verl_ispo.config.ispo_trainer_config import ISPOTrainerConfig
from verl_ispo.runs.rollout_dump.format import DUMP_FORMAT, OUTCOMES
from verl_ispo.signals.composite import RewardParts
from verl_ispo.signals.diagnostics import ObservedBatch
from verl_ispo.signals.right_answer import RightAnswerScores, right_answer_gain
from verl_ispo.signals.token_reward import token_reward_terms

VERSIONED_PACKAGES = ("verl", "verl_ispo", "torch", "transformers", "ray", "TransferQueue", "vllm", "sglang")

# The fields of a rollout that the signals do not keep.
ROLLOUT_FIELDS = ("prompts", "responses", "response_mask", "old_log_probs", "ref_log_prob", "entropy")

_DECIMALS = 6
# A UTF-8 character has at most four bytes; a longer run of undecodable tokens is not one character.
_MAX_TOKENS_PER_CHARACTER = 4
_SECRET_KEY = re.compile(r"token$|secret|password|api_?key|credential", re.IGNORECASE)


@dataclass(frozen=True)
class StepToDump:
    """One local update of the trainer, padding rows left out.

    Attributes:
        step: verl's ``global_steps``, from 1.
        local_update: index of the local update within the step, from 0.
        estimator: verl's ``adv_estimator``.
        keys: verl's key of each rollout, ``{uid}_{session}_{output}``.
        observed: signals and rewards of the batch.
        advantage: `(batch,)`, one number per rollout.
        columns: verl's fields by name, one entry per rollout: `ROLLOUT_FIELDS` as tensors without padding, and
            ``reward_model`` as the data set has it, where it has it.
    """

    step: int
    local_update: int
    estimator: str
    keys: Sequence[str]
    observed: ObservedBatch
    advantage: torch.Tensor
    columns: Mapping[str, Sequence[Any]]


def describe_run(dump: ISPOTrainerConfig, config: DictConfig) -> None:
    """Write ``run.json``, before training starts, so that a folder that cannot be written stops the run at once.

    Ray's own settings are left out, and values whose key looks like a secret's are masked.

    Raises:
        ValueError: ``dump_dir`` cannot be written.
    """
    settings = OmegaConf.to_container(config, resolve=True)
    settings.pop("ray_kwargs", None)
    description = {
        "format": DUMP_FORMAT,
        "started_at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "versions": {"python": platform.python_version(), **_versions()},
        "seeds": {
            key: value
            for key in ("data.seed", "actor_rollout_ref.rollout.seed", "actor_rollout_ref.actor.data_loader_seed")
            if (value := OmegaConf.select(config, key)) is not None
        },
        "config": _without_secrets(settings),
    }
    folder = Path(dump.dump_dir)
    try:
        for subfolder in (folder / "outcomes", folder / "rollouts"):
            subfolder.mkdir(parents=True, exist_ok=True)
        write_text(folder / "run.json", [json.dumps(description, indent=1, default=str), "\n"])
    except OSError as error:
        raise ValueError(
            f"trainer.v1.ispo.dump_dir={dump.dump_dir} cannot be written on {platform.node()}: {error}. "
            "Set another folder, or null for no dump."
        ) from error


def dump_step(dump: ISPOTrainerConfig, ispo_config: ISPOConfig, tokenizer: Any, update: StepToDump) -> None:
    """Write the outcomes of one update, and at every ``dump_every``-th step the rollouts of a few prompts.

    Args:
        dump (`ISPOTrainerConfig`): with ``dump_dir`` set.
        ispo_config (`ISPOConfig`): the settings of the method, which are written too.
        tokenizer: has ``decode``.
        update (`StepToDump`).

    Raises:
        OSError: the folder cannot be written; no half file is left under the file's own name.
    """
    members = _rows_by_group(update.observed)
    first_rows = [_row_of_the_prompt(rows, update.columns["prompts"]) for rows in members]
    prompt_ids = [hash_prompt(update.columns["prompts"][row].tolist()) for row in first_rows]
    correct = update.observed.correct
    heads = [
        {
            "format": DUMP_FORMAT,
            "step": update.step,
            "local_update": update.local_update,
            "prompt_id": prompt_id,
            "uid": update.keys[row].rsplit("_", 2)[0],
        }
        for prompt_id, row in zip(prompt_ids, first_rows, strict=True)
    ]
    file_name = f"step_{update.step:06d}_{update.local_update}.jsonl"
    correct_counts = [int(correct[rows].sum()) for rows in members]
    outcome_lines = [
        json.dumps({**head, "rollouts": len(rows), "right": count}) + "\n"
        for head, rows, count in zip(heads, members, correct_counts, strict=True)
    ]
    write_text(Path(dump.dump_dir) / "outcomes" / file_name, outcome_lines)
    if not dump.dumps_rollouts_at(update.step):
        return
    outcomes = [
        OUTCOMES[0] if count == 0 else OUTCOMES[2] if count == len(rows) else OUTCOMES[1]
        for rows, count in zip(members, correct_counts, strict=True)
    ]
    lines = (
        _group_line({**heads[group], "outcome": outcomes[group]}, members[group], ispo_config, tokenizer, update)
        for group in choose_groups(outcomes, prompt_ids, dump.dump_groups)
    )
    write_text(Path(dump.dump_dir) / "rollouts" / file_name, lines)


def hash_prompt(prompt_token_ids: Sequence[int]) -> str:
    """Name of a prompt, from its token ids: 16 hexadecimal digits of SHA-256."""
    return hashlib.sha256(",".join(map(str, prompt_token_ids)).encode()).hexdigest()[:16]


def choose_groups(outcomes: Sequence[str], prompt_ids: Sequence[str], count: int) -> list[int]:
    """Which groups to dump: the first all-wrong, mixed and all-correct one, then the others, in order of prompt id.

    Args:
        outcomes (`Sequence[str]`): of each group, one of `OUTCOMES`.
        prompt_ids (`Sequence[str]`): of each group; the order of a batch is random, so an index in it means nothing.
        count (`int`): how many to choose at most.

    Returns:
        `list[int]`: indices of the chosen groups.
    """
    order = sorted(range(len(outcomes)), key=lambda group: (prompt_ids[group], group))
    first_of_each = [next((group for group in order if outcomes[group] == outcome), None) for outcome in OUTCOMES]
    chosen = [group for group in first_of_each if group is not None]
    return [*chosen, *(group for group in order if group not in chosen)][:count]


def token_texts(token_ids: Sequence[int], decode: Callable[[list[int]], str]) -> list[str]:
    """Text of each token; a character spread over several tokens is the text of the last of them.

    Args:
        token_ids (`Sequence[int]`).
        decode (`Callable`): from token ids to text, with U+FFFD for bytes that do not decode.
    """
    texts = [""] * len(token_ids)
    pending: list[int] = []
    for index, token_id in enumerate(token_ids):
        pending.append(token_id)
        text = decode(pending)
        if "\ufffd" not in text or len(pending) == _MAX_TOKENS_PER_CHARACTER:
            texts[index] = text
            pending = []
    if pending:
        texts[-1] = decode(pending)
    return texts


def _row_of_the_prompt(rows: Sequence[int], prompts: Sequence[torch.Tensor]) -> int:
    """Of a group's rows the first one with the group's prompt; a rollout with a hint has a longer one of its own."""
    first = prompts[rows[0]]
    if all(torch.equal(prompts[row], first) for row in rows):
        return rows[0]
    counts = Counter(tuple(prompts[row].tolist()) for row in rows)
    return min(rows, key=lambda row: (-counts[tuple(prompts[row].tolist())], len(prompts[row])))


def _group_line(
    head: Mapping[str, Any], rows: Sequence[int], ispo_config: ISPOConfig, tokenizer: Any, update: StepToDump
) -> str:

    def decode(ids: list[int]) -> str:
        return tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)

    prompts = update.columns["prompts"]
    prompt = prompts[_row_of_the_prompt(rows, prompts)]
    rollouts = [
        {
            "key": update.keys[row],
            **({} if torch.equal(prompts[row], prompt) else {"prompt_text": decode(prompts[row].tolist())}),
            **_token_columns(row, update.columns, decode),
            **_signals(row, update),
            "critical_terms": _critical_terms(row, update, ispo_config),
        }
        for row in rows
    ]
    line = {
        **head,
        "prompt_text": decode(prompt.tolist()),
        "ground_truth": _ground_truth(rows[0], update.columns),
        "estimator": update.estimator,
        "config": ispo_config.to_dict(),
        "rollouts": rollouts,
    }
    return json.dumps(line, allow_nan=False) + "\n"


def _token_columns(
    row: int, columns: Mapping[str, Sequence[torch.Tensor]], decode: Callable[[list[int]], str]
) -> dict[str, list]:
    token_ids = columns["responses"][row].tolist()
    return {
        "token_ids": token_ids,
        "token_texts": token_texts(token_ids, decode),
        "response_mask": [int(value) for value in columns["response_mask"][row].tolist()],
        "log_prob": _rounded(columns["old_log_probs"][row]),
        "ref_log_prob": _rounded(columns["ref_log_prob"][row]),
        "entropy": _rounded(columns["entropy"][row]),
    }


def _signals(row: int, update: StepToDump) -> dict[str, Any]:
    observed = update.observed
    reward, spans, correct = observed.reward, observed.answers.spans, bool(observed.correct[row])
    answered, answer_mask = bool(spans.found[row]), observed.answer_mask[row]

    def number(values: torch.Tensor) -> float | None:
        return _rounded(values[row : row + 1])[0]

    return {
        "entropy_filter": reward.entropy_mask[row].nonzero().flatten().tolist(),
        "drift_filter": reward.drift_mask[row].nonzero().flatten().tolist(),
        "critical": reward.critical_mask[row].nonzero().flatten().tolist(),
        "lead_in_start": int(spans.lead_in_start[row]) if answered else None,
        "answer_start": int(spans.start[row]) if answered else None,
        "answer_end": int(spans.end[row]) if answered else None,
        "trace_end": int(observed.answers.trace_end[row]) if answered else None,
        "answer_log_prob": _rounded(observed.answer_log_prob[row][answer_mask]),
        "ablated_answer_log_prob": _rounded(observed.ablated_answer_log_prob[row][answer_mask]),
        "score": number(reward.parts.outcome),
        "correct": correct,
        "ifd": number(reward.ifd),
        "token_reward": number(reward.token_reward),
        "parts": {field.name: number(getattr(reward.parts, field.name)) for field in fields(RewardParts)},
        "composite": number(reward.total),
        "training_reward": number(observed.training_reward),
        "advantage": number(update.advantage),
        **(
            {}
            if observed.right_answer is None
            else {"right_answer_gain": _right_answer_gain(row, observed.right_answer)}
        ),
    }


def _right_answer_gain(row: int, scores: RightAnswerScores) -> float | None:
    one = scores.rows(torch.tensor([row]))
    return _rounded(right_answer_gain(one))[0] if one.scored else None


def _critical_terms(row: int, update: StepToDump, config: ISPOConfig) -> list[float | None]:
    log_prob, entropy = (update.columns[name][row].float() for name in ("old_log_probs", "entropy"))
    terms = token_reward_terms(
        log_prob.unsqueeze(0),
        entropy.unsqueeze(0),
        update.observed.correct[row : row + 1],
        entropy_floor=config.entropy_floor,
        entropy_bonus=config.entropy_bonus,
        hinge_weight=config.hinge_weight,
        symmetric=config.symmetric_token_reward,
    )
    return _rounded(terms[0][update.observed.reward.critical_mask[row, : len(log_prob)]])


def _rows_by_group(observed: ObservedBatch) -> list[list[int]]:
    members: list[list[int]] = [[] for _ in range(observed.groups.count)]
    for row, group in enumerate(observed.groups.ids.tolist()):
        members[group].append(row)
    return members


def _ground_truth(row: int, columns: Mapping[str, Sequence[Any]]) -> str | None:
    if not columns.get("reward_model"):
        return None
    reward_model = columns["reward_model"][row]
    answer = reward_model.get("ground_truth") if isinstance(reward_model, Mapping) else None
    return None if answer is None else str(answer)


def _rounded(values: torch.Tensor) -> list[float | None]:
    return [round(value, _DECIMALS) if math.isfinite(value) else None for value in values.float().tolist()]


def _versions() -> dict[str, str]:
    found = {}
    for name in VERSIONED_PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _without_secrets(settings: Any, key: str = "") -> Any:
    if isinstance(settings, dict):
        return {str(name): _without_secrets(value, str(name)) for name, value in settings.items()}
    if isinstance(settings, list):
        return [_without_secrets(value, key) for value in settings]
    return "(masked)" if isinstance(settings, str) and settings and _SECRET_KEY.search(key) else settings
