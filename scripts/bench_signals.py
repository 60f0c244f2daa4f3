#!/usr/bin/env python3
"""Cost of ISPO's composite reward and advantage compared with verl's GRPO advantage on the same tensors, in one run.

    python scripts/bench_signals.py                       # 1024 rollouts of 8192 tokens, as the paper's long setting
    python scripts/bench_signals.py --rollouts 256 --tokens 2048 --repeats 9

Prints medians, the ratio to GRPO, and the peak of extra memory beside the size of the inputs. Each of the two is
measured in its own process. Times depend on the machine and are noisy; compare ratios within one run.

For the cost inside a training, read the log of any run of the CPU trainer:

    python scripts/bench_signals.py --log runs/quickstart/levels1-6-seed1-steps25/ispo/metrics.1.jsonl

prints the median of every timing_s/ispo_* beside timing_s/old_log_prob, and the time that the ablated forward may take:
its share of the tokens plus a tenth of the old-log-prob pass.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
import warnings
from pathlib import Path

import torch

from verl_ispo.command_line import run_command
from verl_ispo.runs.metric_log import read_metric_log
from verl_ispo.user_error import UserError

MIB = 2**20


def make_inputs(rollouts: int, tokens: int, group: int, seed: int) -> dict[str, torch.Tensor]:
    """Random tensors of the sizes and dtypes that the trainer passes; responses of 25 to 100 % of the length."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(*shape: int) -> torch.Tensor:
        return torch.rand(*shape, generator=generator)

    lengths = (tokens * (0.25 + 0.75 * uniform(rollouts))).long()
    return {
        "score": (uniform(rollouts) < 0.5).float(),
        "log_prob": -2 * uniform(rollouts, tokens),
        "ref_log_prob": -2 * uniform(rollouts, tokens),
        "entropy": 2 * uniform(rollouts, tokens),
        "response_mask": torch.arange(tokens) < lengths.unsqueeze(-1),
        "answer_log_prob": -uniform(rollouts, 8),
        "ablated_answer_log_prob": -uniform(rollouts, 8),
        "answer_mask": torch.ones(rollouts, 8, dtype=torch.bool),
        "uid": torch.arange(rollouts) // group,
    }


def input_bytes(inputs: dict[str, torch.Tensor]) -> int:
    """Size of all input tensors."""
    return sum(tensor.numel() * tensor.element_size() for tensor in inputs.values())


def grpo(inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    """verl's GRPO advantage on the outcome."""
    from verl.trainer.ppo.core_algos import compute_grpo_outcome_advantage

    rewards = torch.zeros_like(inputs["log_prob"])
    rewards[:, -1] = inputs["score"]
    return compute_grpo_outcome_advantage(rewards, inputs["response_mask"], inputs["uid"].numpy())[0]


def ispo(inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    """ISPO's composite reward, and the same advantage on it."""
    from verl_ispo import ISPOConfig, compute_ispo_reward

    signals = {name: tensor for name, tensor in inputs.items() if name != "uid"}
    reward = compute_ispo_reward(correct=inputs["score"] > 0, config=ISPOConfig(), **signals)
    return grpo({**inputs, "score": reward.total})


def measure(method: str, options: argparse.Namespace) -> dict[str, float]:
    """Median time of one method and the growth of the process's peak memory over its inputs, in this process."""
    warnings.simplefilter("ignore")
    run = {"grpo": grpo, "ispo": ispo}[method]
    run(make_inputs(16, 32, 8, options.seed))  # imports and first-call costs
    inputs = make_inputs(options.rollouts, options.tokens, options.group, options.seed)
    before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    times_s = []
    for _ in range(options.repeats):
        start_s = time.perf_counter()
        run(inputs)
        times_s.append(time.perf_counter() - start_s)
    peak_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "median_s": statistics.median(times_s),
        "min_s": min(times_s),
        "max_s": max(times_s),
        "extra_mib": (peak_kib - before_kib) / 1024,
        "inputs_mib": input_bytes(inputs) / MIB,
    }


def report_log(path: Path) -> None:
    """Medians of the ISPO parts of a training step, from verl's file log; the first step is left out as warm-up.

    Raises:
        UserError: no log, or no step of ISPO in it after the first.
    """
    steps = [step for step in read_metric_log(path).steps.values() if "timing_s/ispo_ablated_log_prob" in step][1:]
    if not steps:
        raise UserError(
            f"{path} has no step with timing_s/ispo_ablated_log_prob after the first; give the log of an ISPO training"
        )

    def median(name: str) -> float:
        return statistics.median(step[name] for step in steps)

    # verl's timer around the old-log-prob hook includes what ISPO does inside it.
    inside = median("timing_s/ispo_ablated_log_prob") + median("timing_s/ispo_answer_span")
    old_log_prob_s = median("timing_s/old_log_prob") - inside
    print(f"{len(steps)} steps of {path}, medians\n")
    print(f"{'timing_s/step':34s}{median('timing_s/step'):9.3f} s")
    print(f"{'timing_s/old_log_prob less ISPO':34s}{old_log_prob_s:9.3f} s")
    for name in sorted(name for name in steps[0] if name.startswith("timing_s/ispo_")):
        value = median(name)
        print(f"{name:34s}{value:9.3f} s{value / old_log_prob_s:8.1%} of old_log_prob")
    full = sum(step["ispo/tokens/old_log_prob"] for step in steps)
    share = sum(step["ispo/tokens/ablated"] for step in steps) / full
    spent = median("timing_s/ispo_ablated_log_prob") / old_log_prob_s
    print(f"\nablated forward: {share:.1%} of the tokens, {spent:.1%} of the time; allowed {share + 0.1:.1%}")


def main() -> int:
    """Entry point; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rollouts", type=int, default=1024, help="rows of the batch (default: %(default)s)")
    parser.add_argument("--tokens", type=int, default=8192, help="response length (default: %(default)s)")
    parser.add_argument("--group", type=int, default=8, help="rollouts per prompt (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=5, help="runs of each (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the random tensors (default: %(default)s)")
    parser.add_argument("--log", type=Path, help="report a training's timing instead, from verl's file log")
    parser.add_argument("--only", choices=["grpo", "ispo"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.log:
        return run_command(parser.prog, lambda: report_log(options.log))
    if options.only:
        print(json.dumps(measure(options.only, options)))
        return 0

    results = {}
    for method in ("grpo", "ispo"):
        print(f"measuring {method}: {options.repeats} x {options.rollouts} x {options.tokens} ...", file=sys.stderr)
        command = [sys.executable, *sys.argv, "--only", method]
        output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        results[method] = json.loads(output.splitlines()[-1])
    print(f"{options.rollouts} rollouts x {options.tokens} tokens, {torch.get_num_threads()} threads\n")
    print(f"{'':6s}{'median':>10s}{'min':>10s}{'max':>10s}{'extra memory':>15s}{'inputs':>12s}")
    for method, result in results.items():
        print(
            f"{method:6s}{result['median_s']:9.3f}s{result['min_s']:9.3f}s{result['max_s']:9.3f}s"
            f"{result['extra_mib']:11.0f} MiB{result['inputs_mib']:8.0f} MiB"
        )
    ratio = results["ispo"]["median_s"] / results["grpo"]["median_s"]
    memory = results["ispo"]["extra_mib"] / results["ispo"]["inputs_mib"]
    print(f"\nISPO / GRPO: {ratio:.1f} in time; ISPO's extra memory: {memory:.2f} of its inputs")
    return 0


if __name__ == "__main__":
    sys.exit(main())
