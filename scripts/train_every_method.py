"""Two steps of every method on verl's own trainer, on the CPU, with one worker and with two.

    python scripts/train_every_method.py                            # all presets, one training at a time
    python scripts/train_every_method.py real nft --workers 2       # some
    python scripts/train_every_method.py --jobs 4 --out runs/every_method

For each preset and number of workers: whether the training ended well, and loss, gradient and advantage of its steps.
One mini-batch per step and a seed per rollout, so that one worker and two have the same rollouts in the first step: the
last column says by how much their gradient norms differ there. A training takes some 20 seconds on 2 cores. Results
are appended to OUT/results.jsonl; the same command goes on with what has no result. Status 1: something has failed.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from verl_ispo.cpu.fork_server import fork_server, forked_python_command, py_executable
from verl_ispo.method_presets import method_names, read_preset

STEPS = 2
SETTINGS = (
    "backend=cpu",
    "data.seed=1",
    "data.train_batch_size=8",
    "data.max_prompt_length=96",
    "data.max_response_length=48",
    "actor_rollout_ref.actor.optim.lr=1e-3",
    "actor_rollout_ref.actor.ppo_mini_batch_size=8",
    # micro-batches by tokens, several per step, as on GPUs
    "actor_rollout_ref.actor.use_dynamic_bsz=true",
    "actor_rollout_ref.actor.ppo_max_token_len_per_gpu=640",
    "actor_rollout_ref.rollout.log_prob_use_dynamic_bsz=true",
    "actor_rollout_ref.rollout.log_prob_max_token_len_per_gpu=640",
    "actor_rollout_ref.rollout.agent.default_agent_loop=ispo_seeded_single_turn",
    "reward.custom_reward_function.path=pkg://verl_ispo.tiny_task.reward",
    "trainer.logger=[console,file]",
    f"trainer.total_training_steps={STEPS}",
    "trainer.val_before_train=false",
    "trainer.test_freq=-1",
    "trainer.save_freq=1",
    "trainer.v1.ispo.repeatable_order=true",
)
# In place of a preset's value for trainings of hundreds of steps and responses of thousands of tokens.
INSTEAD = {"reward.reward_kwargs.overlong_buffer_cfg.len": 9, "algorithm.scaf_grpo.warmup_steps": 0}
ENVIRONMENT = {
    "VERL_PLATFORM": "cpu",
    "OMP_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_OFFLINE": "1",
    "RAY_DEDUP_LOGS": "0",
}
SHOWN = ("actor/pg_loss", "actor/grad_norm", "critic/advantages/min", "critic/advantages/max")


def make_task(folder: Path) -> None:
    """A model that has seen some worked sums, and problems; made once."""
    if (folder / "data/heldout.parquet").exists():
        return
    module = [sys.executable, "-m"]
    warm_start = ["--steps", "250", "--short-answer-steps", "20", "--held-out-per-level", "1"]
    subprocess.run([*module, "verl_ispo.tiny_task.warm_start", "--out", folder / "base", *warm_start], check=True)
    make_data = [*module, "verl_ispo.tiny_task.make_data", "--out", folder / "data", "--train-rows", "256"]
    make_data += ["--levels", "1-2"]
    subprocess.run(make_data, check=True)
    add_columns(folder / "data/train.parquet")


def add_columns(path: Path) -> None:
    """What Scaf-GRPO reads, the kind of problem and its result as hints, and RL-PLUS, a trace."""
    rows = pq.read_table(path)
    sums = [model["ground_truth"] for model in rows["reward_model"].to_pylist()]
    columns = {
        "knowledge_components_parts": [["add"]] * len(sums),
        "planning_skeleton_parts": [[]] * len(sums),
        "solution_breakdown_parts": [[f"sum {total}"] for total in sums],
        "target": [[f"\\boxed{{{total}}}"] for total in sums],
    }
    for name, column in columns.items():
        rows = rows.append_column(name, pa.array(column, pa.list_(pa.string())))
    pq.write_table(rows, path)


def overrides(method: str, workers: int, task: Path, folder: Path) -> list[str]:
    """The settings of one training."""
    changes = read_preset(method).changes
    smaller = [f"{key}={value}" for key, value in INSTEAD.items() if key in changes]
    own_n = "actor_rollout_ref.rollout.n" in changes
    return [
        f"method={method}",
        *SETTINGS,
        f"data.train_files={task}/data/train.parquet",
        f"data.val_files={task}/data/heldout.parquet",
        f"actor_rollout_ref.model.path={task}/base",
        *([] if own_n else ["actor_rollout_ref.rollout.n=4"]),
        *smaller,
        f"trainer.n_gpus_per_node={workers}",
        f"trainer.default_local_dir={folder}/checkpoints",
        f'+ray_kwargs.ray_init.runtime_env.py_executable="{py_executable()}"',
        f"hydra.run.dir={folder}",
    ]


def train(method: str, workers: int, out: Path, environment: Mapping[str, str], limit_s: float) -> dict[str, Any]:
    """One training; its log is OUT/METHOD-WORKERS/log.txt."""
    folder = out / f"{method}-{workers}"
    folder.mkdir(parents=True, exist_ok=True)
    metrics = folder / "metrics.jsonl"
    metrics.unlink(missing_ok=True)
    command = [*forked_python_command(), "-m", "verl.trainer.main_ppo", "--config-name=ispo_trainer"]
    command += [*overrides(method, workers, out / "task", folder), "trainer.resume_mode=disable"]
    begun = time.monotonic()
    with (folder / "log.txt").open("w") as log:
        try:
            status = subprocess.run(
                command,
                env={**environment, "VERL_FILE_LOGGER_PATH": str(metrics)},
                stdout=log,
                stderr=subprocess.STDOUT,
                timeout=limit_s,
            ).returncode
        except subprocess.TimeoutExpired:
            status = 124
    lines = metrics.read_text().splitlines() if metrics.exists() else []
    steps = {entry["step"]: entry["data"] for entry in map(json.loads, lines)}
    shown = {step: {name: data.get(name) for name in SHOWN} for step, data in steps.items()}
    finite = all(math.isfinite(value) for data in shown.values() for value in data.values() if value is not None)
    return {
        "method": method,
        "workers": workers,
        "status": status,
        "passed": status == 0 and set(steps) == set(range(1, STEPS + 1)) and finite,
        "seconds": round(time.monotonic() - begun, 1),
        "steps": shown,
    }


def read_results(path: Path) -> dict[tuple[str, int], dict[str, Any]]:
    """The last result of each training that has passed."""
    lines = path.read_text().splitlines() if path.exists() else []
    results = [json.loads(line) for line in lines]
    return {(one["method"], one["workers"]): one for one in results if one["passed"]}


def table(results: Mapping[tuple[str, int], Mapping[str, Any]], methods: Sequence[str]) -> str:
    """One line per method: loss and gradient norm of both steps with one worker, and the difference with two."""
    lines = ["| method | workers | loss, step 1, 2 | gradient norm, step 1, 2 | step 1, two workers against one |"]
    lines.append("|---|---|---|---|---|")
    for method in methods:
        found = {workers: one for (name, workers), one in results.items() if name == method}
        if not found:
            continue
        steps = [{int(step): data for step, data in one["steps"].items()} for one in found.values()]
        values = [", ".join(f"{steps[0][step][name]:.3g}" for step in sorted(steps[0])) for name in SHOWN[:2]]
        norms = [step[1]["actor/grad_norm"] for step in steps]
        differs = f"{abs(norms[0] - norms[1]) / max(norms[0], 1e-12):.1e}" if len(norms) > 1 else ""
        lines.append(f"| `{method}` | {', '.join(map(str, sorted(found)))} | {values[0]} | {values[1]} | {differs} |")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("methods", nargs="*", help="presets (default: all)")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2], help="numbers of workers (default: 1 2)")
    parser.add_argument("--jobs", type=int, default=1, help="trainings at a time (default: 1; each keeps 2 cores busy)")
    parser.add_argument("--out", type=Path, default=Path("runs/every_method"), help="folder (default: %(default)s)")
    parser.add_argument("--limit", type=float, default=300, help="seconds for one training (default: %(default)s)")
    given = parser.parse_args(argv)
    unknown = sorted(set(given.methods) - set(method_names()))
    if unknown:
        parser.error(f"unknown methods {' '.join(unknown)}; known: {' '.join(method_names())}")
    methods, out = given.methods or method_names(), given.out.resolve()
    make_task(out / "task")
    results = read_results(out / "results.jsonl")
    wanted = [(method, workers) for method in methods for workers in given.workers]
    open_ones = [one for one in wanted if one not in results]
    failed = []
    with (
        fork_server({**os.environ, **ENVIRONMENT}) as environment,
        ThreadPoolExecutor(given.jobs) as pool,
        (out / "results.jsonl").open("a") as file,
    ):
        runs = [pool.submit(train, method, workers, out, environment, given.limit) for method, workers in open_ones]
        for number, run in enumerate(as_completed(runs), start=1):
            one = run.result()
            file.write(json.dumps(one) + "\n")
            file.flush()
            word = "passed" if one["passed"] else f"FAILED, status {one['status']}"
            print(
                f"{number}/{len(runs)} {one['method']}, {one['workers']} workers: {word}, {one['seconds']} s",
                flush=True,
            )
            failed += [] if one["passed"] else [one]
    print(table(read_results(out / "results.jsonl"), methods))
    for one in failed:
        print(f"failed: {out}/{one['method']}-{one['workers']}/log.txt", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
