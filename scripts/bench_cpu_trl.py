"""The time of a training step on a CPU: this package's trainer beside TRL's `GRPOTrainer`, in turns, in one run.

    pip install --no-deps 'trl>=1.16,<1.17'
    python scripts/bench_cpu_trl.py                                    # three rounds, about 10 minutes on 2 idle cores
    python scripts/bench_cpu_trl.py --against ../before --rounds 3     # and another checkout, with its own .venv
    python scripts/bench_cpu_trl.py --methods grpo ispo --skip-trl

Each trainer gets the same tiny model (made by the warm start of the quickstart), the same problems, 16 prompts x 8
rollouts of at most 96 new tokens per step, one update, no KL term, one thread per process. A round runs each of them
once, one after the other. The table has medians over the rounds: of a run's median step, without its first two; of the
time from the command to the end of the first step; and of the whole command. Ratios are within rounds.

What this does not show: TRL is one process, and this trainer has one for each role, as on a cluster.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from verl_ispo.runs.metric_log import read_metric_log
from verl_ispo.tiny_task.example_steps import ENVIRONMENT, GRADER

ROOT = Path(__file__).resolve().parents[1]
PROMPTS, ROLLOUTS, NEW_TOKENS, LEARNING_RATE = 16, 8, 96, 1e-4
SKIPPED_STEPS = 2
TRL = "TRL GRPO"


@dataclass(frozen=True)
class Timing:
    """One run.

    Attributes:
        step_s: median of its steps, without the first ones.
        first_step_s: from the command to the end of the first step.
        total_s: the whole command.
        new_tokens: mean length of a response.
    """

    step_s: float
    first_step_s: float
    total_s: float
    new_tokens: float


def timing(ends: Sequence[float], steps_s: Sequence[float], began: float, lengths: Sequence[float]) -> Timing:
    """The figures of a run from the ends and durations of its steps."""
    kept = steps_s[SKIPPED_STEPS:]
    return Timing(statistics.median(kept), ends[0] - began, time.time() - began, statistics.mean(lengths))


def run_ours(method: str, checkout: Path, python: str, base: Path, data: Path, folder: Path, steps: int) -> Timing:
    """Train through the launcher of a checkout; its metric log has the duration of each step.

    Raises:
        RuntimeError: the training failed.
    """
    signals = [] if method.startswith("ispo") else ["trainer.v1.ispo.watch_signals=false"]
    overrides = (
        f"data.train_batch_size={PROMPTS}",
        f"actor_rollout_ref.actor.ppo_mini_batch_size={PROMPTS}",
        f"actor_rollout_ref.rollout.n={ROLLOUTS}",
        "data.max_prompt_length=32",
        f"data.max_response_length={NEW_TOKENS}",
        f"actor_rollout_ref.actor.optim.lr={LEARNING_RATE}",
        "trainer.v1.ispo.dump_dir=null",
        *signals,
    )
    options = ("--model", base, "--data", data, "--reward", GRADER, "--method", method, "--rollout", "cpu")
    lengths = ("--steps", steps, "--save-freq", -1, "--test-freq", -1, "--out", folder)
    began = time.time()
    screen = folder.with_suffix(".screen.txt")
    with screen.open("wb") as output:
        process = subprocess.Popen(
            [python, "-m", "verl_ispo.cli", "train", *map(str, (*options, *lengths)), *overrides],
            cwd=checkout,
            env={**os.environ, **ENVIRONMENT, "PYTHONPATH": str(checkout)},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    first = None
    metrics = folder / "metrics.1.jsonl"
    while process.poll() is None:
        if first is None and metrics.exists() and metrics.stat().st_size:
            first = time.time()
        time.sleep(0.05)
    if process.returncode:
        said = screen.read_text(errors="replace")[-3000:]
        raise RuntimeError(f"{method} of {checkout} ended with status {process.returncode}:\n{said}")
    rows = [row for _, row in sorted(read_metric_log(folder).steps.items()) if "timing_s/step" in row]
    return timing(
        [first or time.time()],
        [row["timing_s/step"] for row in rows],
        began,
        [row["response_length/mean"] for row in rows],
    )


def run_trl(base: Path, data: Path, folder: Path, steps: int) -> Timing:
    """Train with TRL in a process of its own.

    Raises:
        RuntimeError: the training failed.
    """
    began = time.time()
    command = [sys.executable, __file__, "--trl-worker", str(base), str(data), str(folder), str(steps)]
    done = subprocess.run(
        command, env={**os.environ, **ENVIRONMENT}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    result = folder / "steps.json"
    if done.returncode or not result.exists():
        raise RuntimeError(f"TRL ended with status {done.returncode}:\n{done.stdout[-3000:]}")
    found = json.loads(result.read_text())
    return timing(found["ends"], found["steps_s"], began, found["lengths"])


def trl_worker(base: str, data: str, folder: str, steps: int) -> None:
    """TRL's side: the same batch, rewards and update. Writes the ends, durations and response lengths of the steps."""
    import pandas as pd
    import torch
    from datasets import Dataset
    from transformers import AutoTokenizer, TrainerCallback
    from trl import GRPOConfig, GRPOTrainer

    from verl_ispo.tiny_task.reward import compute_score

    torch.set_num_threads(1)
    rows = pd.read_parquet(Path(data) / "train.parquet").head(PROMPTS * steps)
    problems = Dataset.from_dict(
        {
            "prompt": [list(map(dict, prompt)) for prompt in rows["prompt"]],
            "ground_truth": [model["ground_truth"] for model in rows["reward_model"]],
        }
    )

    def correct(completions: list, ground_truth: list[str], **_: object) -> list[float]:
        texts = [completion[0]["content"] for completion in completions]
        return [compute_score("", text, truth)["score"] for text, truth in zip(texts, ground_truth, strict=True)]

    class Clock(TrainerCallback):
        def __init__(self) -> None:
            self.begins: list[float] = []
            self.ends: list[float] = []
            self.lengths: list[float] = []

        def on_step_begin(self, *_: object, **__: object) -> None:
            self.begins.append(time.time())

        def on_step_end(self, *_: object, **__: object) -> None:
            self.ends.append(time.time())

        def on_log(self, *_: object, logs: dict | None = None, **__: object) -> None:
            if logs and "completions/mean_length" in logs:
                self.lengths.append(logs["completions/mean_length"])

    clock = Clock()
    trainer = GRPOTrainer(
        model=base,
        reward_funcs=correct,
        args=GRPOConfig(
            output_dir=folder,
            per_device_train_batch_size=PROMPTS * ROLLOUTS,
            gradient_accumulation_steps=1,
            num_generations=ROLLOUTS,
            max_completion_length=NEW_TOKENS,
            max_steps=steps,
            learning_rate=LEARNING_RATE,
            beta=0.0,
            temperature=1.0,
            top_k=0,
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            disable_tqdm=True,
        ),
        train_dataset=problems,
        processing_class=AutoTokenizer.from_pretrained(base),
        callbacks=[clock],
    )
    trainer.train()
    # generation belongs to a step but comes before its beginning, so a step lasts from the end of the one before
    durations = [end - begin for begin, end in zip([clock.begins[0], *clock.ends], clock.ends, strict=False)]
    record = {"ends": clock.ends, "steps_s": durations, "lengths": clock.lengths or [float("nan")]}
    (Path(folder) / "steps.json").write_text(json.dumps(record))


def bench(options: argparse.Namespace, work: Path) -> dict[str, list[Timing]]:
    """All rounds; what each run gave is printed as soon as it is there."""
    base, data = options.model or work / "base", options.data or work / "data"
    if options.model is None:
        subprocess.run([sys.executable, "-m", "verl_ispo.tiny_task.warm_start", "--out", str(base)], check=True)
    if options.data is None:
        subprocess.run([sys.executable, "-m", "verl_ispo.tiny_task.make_data", "--out", str(data)], check=True)
    sides = [] if options.skip_trl else [TRL]
    sides += options.methods
    sides += [f"{method}, {options.against}" for method in options.methods if options.against]
    found: dict[str, list[Timing]] = {side: [] for side in sides}
    for number in range(1, options.rounds + 1):
        for side in sides:
            folder = work / f"round{number}" / side.replace("/", "_").replace(" ", "_")
            folder.mkdir(parents=True)
            if side == TRL:
                result = run_trl(base, data, folder, options.steps)
            else:
                method, _, other = side.partition(", ")
                checkout = Path(other).resolve() if other else ROOT
                python = str(checkout / ".venv/bin/python") if other else sys.executable
                result = run_ours(method, checkout, python, base, data, folder, options.steps)
            found[side].append(result)
            print(f"round {number}: {side}: {result}", flush=True)
    return found


def table(found: dict[str, list[Timing]], reference: str) -> str:
    """Medians over the rounds in Markdown, and the median of each round's ratio to the reference."""
    lines = [
        f"| | step, s | of {reference}'s | to the first step's end, s | whole command, s | new tokens |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for side, timings in found.items():
        step, first, total, tokens = (
            statistics.median(getattr(one, name) for one in timings)
            for name in ("step_s", "first_step_s", "total_s", "new_tokens")
        )
        ratio = statistics.median(
            one.step_s / other.step_s for one, other in zip(timings, found[reference], strict=True)
        )
        lines.append(f"| {side} | {step:.2f} | {ratio:.2f} | {first:.1f} | {total:.1f} | {tokens:.1f} |")
    return "\n".join(lines)


def build_parser() -> argparse.ArgumentParser:
    """The parser of the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="(default: %(default)s)")
    parser.add_argument("--steps", type=int, default=10, help="of each run (default: %(default)s)")
    parser.add_argument("--methods", nargs="+", default=["grpo", "ispo"], help="(default: grpo ispo)")
    parser.add_argument("--against", type=Path, help="another checkout, whose .venv is used")
    parser.add_argument("--skip-trl", action="store_true", help="this package alone")
    parser.add_argument("--model", type=Path, help="a tiny model (default: made anew)")
    parser.add_argument("--data", type=Path, help="its problems (default: made anew)")
    parser.add_argument("--trl-worker", nargs=4, help=argparse.SUPPRESS)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    options = build_parser().parse_args(arguments)
    if options.trl_worker:
        base, data, folder, steps = options.trl_worker
        trl_worker(base, data, folder, int(steps))
        return 0
    if options.steps <= SKIPPED_STEPS:
        print(f"--steps {options.steps} leaves no step after the first {SKIPPED_STEPS}; give more", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="bench_cpu_trl_") as work:
        found = bench(options, Path(work))
    print(f"\n{table(found, next(iter(found)))}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
