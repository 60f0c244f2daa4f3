"""Run folders as a training leaves them, with made-up numbers: verl's metrics file, and a dump that the dump's own code
writes from tensors."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf

from verl_ispo.config.ispo_config import ISPOConfig
from verl_ispo.config.ispo_trainer_config import ISPOTrainerConfig
from verl_ispo.runs.rollout_dump.writer import StepToDump, describe_run, dump_step
from verl_ispo.signals.answer_span import find_scored_answers, gather_answer
from verl_ispo.signals.composite import compute_ispo_reward
from verl_ispo.signals.diagnostics import ObservedBatch
from verl_ispo.signals.groups import RolloutGroups, group_advantage, guarded_reward


def metrics_at(step: int, **more: float | None) -> dict[str, float | None]:
    """A step's metrics under the names that verl and ISPO log them."""
    return {
        "ispo/zero_adv_rate/outcome": 0.25 + 0.01 * step,
        "ispo/zero_adv_rate/composite": 0.0,
        "ispo/advantage_share/all_wrong": 0.4,
        "ispo/critical_entropy/correct": 0.9,
        "ispo/critical_entropy/wrong": 1.1 - 0.1 * step,
        "ispo/entropy_filter_entropy/correct": 1.2,
        "ispo/entropy_filter_entropy/wrong": 1.3,
        "ispo/ifd/correct/mean": 0.5,
        "ispo/ifd/correct/std": 0.2,
        "ispo/ifd/wrong/mean": 0.3,
        "ispo/ifd/wrong/std": 0.1,
        **{f"ispo/critical_fraction/{name}": 0.1 * at for at, name in enumerate(("both", "entropy", "drift"))},
        "ispo/order_violation_rate": 0.0125,
        "ispo/reward/outcome/mean": 0.5,
        "critic/score/mean": 0.5 + 0.01 * step,
        "response_length/mean": 100.0 + step,
        "timing_s/step": 10.0,
        "timing_s/ref": 1.0,
        "timing_s/ispo_ablated_log_prob": 0.25,
        "timing_s/ispo_reward": 0.25,
        "timing_s/ispo_dump": 0.1,
        **more,
    }


def write_metrics(file: Path, steps: Mapping[int, Mapping[str, float | None]]) -> None:
    """What verl's file logger writes: NaN as null, one line per step."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps({"step": step, "data": data}) + "\n" for step, data in steps.items()))


class LetterTokenizer:
    """One token per character; the test chooses the texts."""

    def decode(self, token_ids: Sequence[int], **_: Any) -> str:
        return "".join(map(chr, token_ids))


def update_of(
    step: int,
    groups: Sequence[tuple[str, Sequence[tuple[str, bool]]]],
    config: ISPOConfig | None = None,
    estimator: str = "ispo",
) -> StepToDump:
    """One update of a trainer whose rollouts are given as text; log-probs and entropies depend on the position.

    Args:
        step (`int`).
        groups (`Sequence`): prompt text, and its rollouts: text, and whether it is correct.
        config (`ISPOConfig`, *optional*).
        estimator (`str`, *optional*, defaults to `"ispo"`).
    """
    config = config or ISPOConfig()
    rollouts = [(prompt, text, is_correct) for prompt, members in groups for text, is_correct in members]
    ids = [[ord(character) for character in text] for _, text, _ in rollouts]
    width = max(map(len, ids))
    mask = torch.tensor([[index < len(row) for index in range(width)] for row in ids])
    position = torch.arange(width, dtype=torch.float32).repeat(len(ids), 1)
    row_number = torch.arange(len(ids), dtype=torch.float32).unsqueeze(-1)
    log_prob = torch.where(mask, -0.1 - 0.01 * position - 0.02 * row_number, 0)
    ref_log_prob = torch.where(mask, log_prob - 0.7 * (position % 3 == 0), 0)
    entropy = torch.where(mask, (position % 5) * 0.4, 0)
    scored = find_scored_answers(ids, chr, config)
    answer, answer_mask = gather_answer(log_prob, scored.spans)
    ablated = torch.where(answer_mask, answer - 0.5 - 0.1 * row_number, 0)
    correct = torch.tensor([is_correct for _, _, is_correct in rollouts])
    reward = compute_ispo_reward(
        score=correct.float(),
        correct=correct,
        log_prob=log_prob,
        ref_log_prob=ref_log_prob,
        entropy=entropy,
        response_mask=mask,
        answer_log_prob=answer,
        ablated_answer_log_prob=ablated,
        answer_mask=answer_mask,
        config=config,
    )
    labels = [prompt for prompt, _, _ in rollouts]
    batch_groups = RolloutGroups.from_labels(labels)
    reward = guarded_reward(reward, correct, batch_groups, config)
    training_reward = reward.total if estimator == "ispo" else correct.float()
    observed = ObservedBatch(
        reward=reward,
        training_reward=training_reward,
        correct=correct,
        groups=batch_groups,
        answers=scored,
        response_ids=torch.zeros(mask.shape, dtype=torch.long),
        response_mask=mask,
        entropy=entropy,
        answer_log_prob=answer,
        ablated_answer_log_prob=ablated,
        answer_mask=answer_mask,
    )

    lengths = list(map(len, ids))
    columns = {
        "prompts": [torch.tensor(list(map(ord, prompt))) for prompt, _, _ in rollouts],
        "responses": list(map(torch.tensor, ids)),
        "response_mask": [mask[row, :length].long() for row, length in enumerate(lengths)],
        "old_log_probs": [log_prob[row, :length] for row, length in enumerate(lengths)],
        "ref_log_prob": [ref_log_prob[row, :length] for row, length in enumerate(lengths)],
        "entropy": [entropy[row, :length] for row, length in enumerate(lengths)],
        "reward_model": [{"ground_truth": "42"}] * len(ids),
    }
    return StepToDump(
        step=step,
        local_update=0,
        estimator=estimator,
        keys=[f"{label}-uid_{row}_0" for row, label in enumerate(labels)],
        observed=observed,
        advantage=group_advantage(training_reward, batch_groups, True, 0.0),
        columns=columns,
    )


def write_dump(folder: Path, updates: Sequence[StepToDump], every: int = 1, **config: Any) -> ISPOTrainerConfig:
    """A dump folder, as the trainer writes it."""
    dump = ISPOTrainerConfig(dump_dir=str(folder), dump_every=every)
    settings = {
        "algorithm": {"adv_estimator": "ispo", "ispo": ISPOConfig().to_dict()},
        "data": {"seed": 7},
        **config,
    }
    describe_run(dump, OmegaConf.create(settings))
    for update in updates:
        dump_step(dump, ISPOConfig(), LetterTokenizer(), update)
    return dump


TEXTS = ("so 6*7 is \\boxed{42}", "I say \\boxed{41}")


def write_run(folder: Path, steps: int = 4, texts: Sequence[str] = TEXTS) -> Path:
    """A run folder: metrics with a validation every second step, and a dump in which failures are solved later."""
    metrics = {step: metrics_at(step) for step in range(1, steps + 1)}
    for step in range(0, steps + 1, 2):
        metrics.setdefault(step, {})["val-core/sums/acc/mean@1"] = 0.1 * (step + 1)
    write_metrics(folder / "metrics.1.jsonl", dict(sorted(metrics.items())))
    groups = {
        step: [("6*7=", [(texts[0], step > 2), (texts[1], False)]), ("1+1=", [("\\boxed{3}", False)] * 2)]
        for step in range(1, steps + 1)
    }
    write_dump(folder / "dump", [update_of(step, members) for step, members in groups.items()])
    return folder
