#!/usr/bin/env python3
"""ISPO's reward on a GPU equals the CPU's on the same log-probs; exit status 1 if it does not.

    python scripts/gpu/same_as_cpu.py                      # on cuda:0
    python scripts/gpu/same_as_cpu.py --device cpu --sizes 16x64    # what the tests run

Made-up batches of float32 log-probs and entropies, full and ragged, with empty responses,
rollouts without an answer, tied entropies and drift at the threshold, go through `compute_ispo_reward`,
`guarded_reward` and `group_advantage` on both devices, once with the settings of each method preset that trains on
the signals. Masks must be equal. Numbers may differ by 1e-5 + 1e-5 times the CPU's, since both devices sum in float32
in a different order. Advantages may differ by 1e-3 + 1e-3 times, since they are divided by a spread that can be small.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import fields

import torch

from verl_ispo.command_line import run_command
from verl_ispo.config.ispo_config import ISPOConfig
from verl_ispo.method_presets import method_names, read_preset
from verl_ispo.signals.composite import ISPOReward, RewardParts, compute_ispo_reward
from verl_ispo.signals.groups import RolloutGroups, group_advantage, guarded_reward
from verl_ispo.signals.right_answer import RightAnswerScores
from verl_ispo.signals.running_ifd import RunningIFD
from verl_ispo.user_error import UserError

SIZES = ("1024x8192", "512x1024", "64x4096", "24x7", "8x1")
GROUP = 8
TOLERANCE, ADVANTAGE_TOLERANCE = 1e-5, 1e-3
SECTION = "algorithm.ispo."


def ispo_presets() -> dict[str, ISPOConfig]:
    """Settings of the presets that train on the signals, by name."""
    presets = {}
    for name in method_names():
        changes = read_preset(name).changes
        if changes.get("algorithm.adv_estimator") == "ispo":
            given = {key.removeprefix(SECTION): value for key, value in changes.items() if key.startswith(SECTION)}
            presets[name] = ISPOConfig(**given)
    return presets


def made_batch(rollouts: int, tokens: int, ragged: bool, seed: int) -> dict[str, torch.Tensor]:
    """Arguments of `compute_ispo_reward` on the CPU, rows of `rollouts` and responses of up to `tokens`."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(*shape: int) -> torch.Tensor:
        return torch.rand(*shape, generator=generator)

    lengths = (uniform(rollouts) * (tokens + 1)).long() if ragged else torch.full((rollouts,), tokens)
    mask = torch.arange(tokens) < lengths.unsqueeze(-1)
    log_prob, entropy = -3 * uniform(rollouts, tokens), 2 * uniform(rollouts, tokens)
    # some entropies are tied, and some drifts equal the threshold's float32 exactly
    entropy = torch.where(uniform(rollouts, tokens) < 0.1, (entropy * 8).round() / 8, entropy)
    reference = log_prob + 0.6 * (uniform(rollouts, tokens) - 0.7)
    reference = torch.where(uniform(rollouts, tokens) < 0.05, log_prob - 0.3, reference)
    answer_mask = torch.arange(12) < (uniform(rollouts, 1) * 14 - 1).long()
    answer_mask &= (lengths > 12).unsqueeze(-1) | (tokens < 13)
    score = (uniform(rollouts) < 0.4).float()
    # groups without a correct or an incorrect rollout
    score[:GROUP], score[GROUP : 2 * GROUP] = 0.0, 1.0
    return {
        "score": score,
        "correct": score > 0,
        "log_prob": log_prob,
        "ref_log_prob": reference,
        "entropy": entropy,
        "response_mask": mask,
        "answer_log_prob": -2 * uniform(rollouts, 12),
        "ablated_answer_log_prob": -4 * uniform(rollouts, 12),
        "answer_mask": answer_mask,
        "entropy_candidate_mask": uniform(rollouts, tokens) < 0.98,
    }


def made_right_answers(rollouts: int) -> RightAnswerScores:
    """Correct answers of up to 6 tokens, none in every third rollout."""
    generator = torch.Generator().manual_seed(0)
    given_trace, ablated = (-3 * torch.rand(rollouts, 6, generator=generator) for _ in range(2))
    lengths = torch.randint(1, 7, (rollouts, 1), generator=generator)
    mask = (torch.arange(6) < lengths) & (torch.arange(rollouts) % 3 > 0).unsqueeze(-1)
    return RightAnswerScores(given_trace, ablated, mask, too_long=torch.zeros(rollouts, dtype=torch.bool))


def results(batch: dict[str, torch.Tensor], config: ISPOConfig, device: torch.device) -> dict[str, torch.Tensor]:
    """Everything that the trainer reads, computed on a device and copied back."""
    on_device = {name: tensor.to(device) for name, tensor in batch.items()}
    running = RunningIFD(right=0.4, wrong=0.9)
    reward = compute_ispo_reward(**on_device, config=config, running_ifd=running)
    groups = RolloutGroups.from_labels([row // GROUP for row in range(len(batch["score"]))], device=device)
    scores = made_right_answers(len(batch["score"]))
    right_answer = RightAnswerScores(*(getattr(scores, field.name).to(device) for field in fields(scores)))
    guarded = guarded_reward(reward, on_device["correct"], groups, config, right_answer)
    same_outcome = groups.all_wrong(on_device["correct"]) | groups.all_right(on_device["correct"])
    updated = running.updated(reward.measured_ifd, on_device["correct"], reward.answer_found, config.ifd_running_decay)
    found = {field.name: getattr(reward, field.name) for field in fields(ISPOReward) if field.name != "parts"}
    found |= {f"{field.name} part": getattr(guarded.parts, field.name) for field in fields(RewardParts)}
    found["training_reward"] = guarded.total
    found["running_ifd"] = torch.tensor([updated.right, updated.wrong])
    for divided in (True, False):
        found[f"advantage, {'divided' if divided else 'not divided'} by the std"] = group_advantage(
            guarded.total,
            groups,
            divided,
            config.min_group_std,
            one_success_std_in=same_outcome if config.same_outcome_std == "one_success" else None,
        )
    return {name: tensor.cpu() for name, tensor in found.items()}


def differences(expected: dict[str, torch.Tensor], found: dict[str, torch.Tensor]) -> list[str]:
    """One sentence for each result that differs."""
    faults = []
    for name, values in expected.items():
        others = found[name]
        if values.dtype == torch.bool:
            different = values != others
            what = f"{int(different.sum())} of {different.numel()} values differ"
        else:
            tolerance = ADVANTAGE_TOLERANCE if name.startswith("advantage") else TOLERANCE
            different = ~torch.isclose(others, values, rtol=tolerance, atol=tolerance)
            largest = float((others - values).abs().max())
            what = f"{int(different.sum())} of {different.numel()} differ, by up to {largest:.3g}"
        if different.any():
            faults.append(f"{name}: {what}")
    return faults


def largest_difference(expected: dict[str, torch.Tensor], found: dict[str, torch.Tensor]) -> float:
    """The largest difference of the training reward."""
    return float((expected["training_reward"] - found["training_reward"]).abs().max())


def size_of(text: str) -> tuple[int, int]:
    """``ROLLOUTSxTOKENS``."""
    rollouts, tokens = (int(part) for part in text.split("x"))
    if rollouts < GROUP or rollouts % GROUP or tokens < 1:
        raise argparse.ArgumentTypeError(f"{text}: rollouts are a multiple of {GROUP}, tokens at least 1")
    return rollouts, tokens


def compare_devices(options: argparse.Namespace, presets: Mapping[str, ISPOConfig]) -> int:
    """Print the largest difference of each size; returns 1 if a preset differs.

    Raises:
        UserError: the device is a GPU, and torch sees none.
    """
    if options.device.type == "cuda" and not torch.cuda.is_available():
        raise UserError("torch sees no CUDA GPU here; run it where there is one, or try it with --device cpu")

    name = torch.cuda.get_device_name(options.device) if options.device.type == "cuda" else "CPU"
    print(f"{options.device} ({name}) against the CPU, torch {torch.__version__}")
    failed = 0
    for rollouts, tokens in options.sizes:
        for ragged in (False, True):
            batch = made_batch(rollouts, tokens, ragged, options.seed)
            worst = 0.0
            for preset in options.presets:
                expected = results(batch, presets[preset], torch.device("cpu"))
                found = results(batch, presets[preset], options.device)
                worst = max(worst, largest_difference(expected, found))
                for fault in differences(expected, found):
                    failed += 1
                    print(f"  DIFFERENT  {preset}: {fault}")
            kind = "ragged" if ragged else "full"
            print(
                f"{rollouts} x {tokens}, {kind}: {len(options.presets)} preset(s), training reward within {worst:.3g}"
            )
    print(f"{failed} difference(s)" if failed else "the same")
    return 1 if failed else 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", type=torch.device, default=torch.device("cuda"), help="default: %(default)s")
    parser.add_argument("--sizes", type=size_of, nargs="+", default=[size_of(size) for size in SIZES],
                        metavar="ROLLOUTSxTOKENS", help=f"default: {' '.join(SIZES)}")  # fmt: skip
    presets = ispo_presets()
    parser.add_argument("--presets", nargs="+", choices=presets, default=list(presets), metavar="PRESET",
                        help="default: all that train on the signals")  # fmt: skip
    parser.add_argument("--seed", type=int, default=0, help="of the batches (default: %(default)s)")
    options = parser.parse_args(arguments)
    return run_command(parser.prog, lambda: compare_devices(options, presets))


if __name__ == "__main__":
    sys.exit(main())
