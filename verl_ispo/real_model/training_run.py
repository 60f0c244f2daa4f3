"""One method, one seed from a real model: training on verl's own trainer, then evaluation. A second start resumes.

    python -m verl_ispo.real_model.training_run --method ispo --seed 1 --start runs/real_model/start \
        --data runs/real_model/data --run runs/mine

The example and the study do this for each of their runs.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from verl_ispo.cpu.environment import cpu_environment
from verl_ispo.example_runs.command import example_parser, run_example
from verl_ispo.example_runs.steps import Evaluation, StepFailedError, evaluate
from verl_ispo.launch.data_choice import choose_data
from verl_ispo.launch.start_training import train
from verl_ispo.launch.training_options import CPU_ROLLOUTS, ROLLOUTS, TrainingOptions
from verl_ispo.real_model.make_data import HELD_OUT, TRAIN

LEARNING_RATE = 1e-5
SAVE_EVERY_STEPS = 4


@dataclass(frozen=True)
class RealRun:
    """One method, one seed.

    Attributes:
        method (`str`): preset.
        seed (`int`): of data order and rollouts.
        steps (`int`): training steps.
        start (`str`): model to start from, a folder or hub id.
        data (`Path`): folder of the problems to train on and of the held-out ones.
        folder (`Path`): logs, checkpoints, rollout dump.
        result (`Path`): folder of the evaluation.
        rollout (`str`): one of ``scripts/train.sh``'s ``ROLLOUT``.
        prompts (`int`): per step, in two updates.
        rollouts (`int`): per prompt.
        max_new_tokens (`int`): longest response.
        base_model (`str`): the start's name in the table.
        vllm_args (`tuple[str, ...]`): as ``verl-ispo eval`` takes them, for its evaluation.
        overrides (`tuple[str, ...]`): more Hydra overrides of its training.
    """

    method: str
    seed: int
    steps: int
    start: str
    data: Path
    folder: Path
    result: Path
    rollout: str = "cpu"
    prompts: int = 8
    rollouts: int = 8
    max_new_tokens: int = 64
    base_model: str = "SmolLM2-135M"
    vllm_args: tuple[str, ...] = ()
    overrides: tuple[str, ...] = ()

    @property
    def evaluation(self) -> Evaluation:
        """What it is evaluated on."""
        return Evaluation(
            self.base_model, choose_data(self.data).validation, self.max_new_tokens, vllm_args=self.vllm_args
        )


@contextmanager
def real_environment(rollout: str) -> Iterator[None]:
    """The environment of the example's processes; on a CPU every process has all cores."""
    if rollout in CPU_ROLLOUTS:
        # unlike the tiny model's, one forward of a real model keeps several cores busy, and processes take turns
        os.environ.setdefault("OMP_NUM_THREADS", str(os.cpu_count() or 1))
        os.environ.update(cpu_environment(os.environ))
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    yield


def training_options(run: RealRun) -> TrainingOptions:
    """The run as ``verl-ispo train`` takes it."""
    sizes = (
        f"data.train_batch_size={run.prompts}",
        "data.max_prompt_length=128",
        f"data.max_response_length={run.max_new_tokens}",
        f"actor_rollout_ref.rollout.n={run.rollouts}",
        f"actor_rollout_ref.actor.ppo_mini_batch_size={max(run.prompts // 2, 1)}",
        f"actor_rollout_ref.actor.optim.lr={LEARNING_RATE}",
        "actor_rollout_ref.actor.checkpoint.save_contents=[model,optimizer,extra,hf_model]",
        "trainer.val_before_train=false",
    )
    on_cpu = run.rollout in CPU_ROLLOUTS
    return TrainingOptions(
        model=run.start,
        method=run.method,
        seed=run.seed,
        steps=run.steps,
        data=run.data,
        rollout=run.rollout,
        gpus_per_node=None if on_cpu else torch.cuda.device_count(),
        rollout_tp=None if on_cpu else 1,  # small models, whose attention heads need not divide by verl's default of 2
        screen="progress",
        save_freq=SAVE_EVERY_STEPS,
        keep=1,
        test_freq=-1,
        out=run.folder,
        arguments=(*sizes, *run.overrides),
    )


def train_real(run: RealRun) -> None:
    """The training, through the launcher as on a cluster. A second call resumes where it stopped.

    Raises:
        StepFailedError: it stopped before its last step.
    """
    status = train(training_options(run))
    if status:
        raise StepFailedError(f"{run.method} seed {run.seed}: the training stopped, see above", status)


def train_and_evaluate(run: RealRun) -> None:
    """One run from its start to its result.

    Raises:
        StepFailedError: one of the two stopped.
    """
    train_real(run)
    evaluate(run.folder / "checkpoints", run.method, run.seed, run.evaluation, run.result, run.folder / "eval.log")


def add_sizes(parser: argparse.ArgumentParser) -> None:
    """The options of a run's size, which the example, the study and this command share."""
    parser.add_argument("--steps", type=int, default=12, help="training steps of each method (default: %(default)s)")
    parser.add_argument("--prompts", type=int, default=8, help="per step, in two updates (default: %(default)s)")
    parser.add_argument("--rollouts", type=int, default=8, help="per prompt (default: %(default)s)")
    parser.add_argument("--max-new-tokens", type=int, default=64, help="longest response (default: %(default)s)")
    parser.add_argument(
        "--vllm-args",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help="as verl-ispo eval takes them, for the evaluations with vLLM (default: none)",
    )
    parser.add_argument(
        "--rollout", default="cpu", help=f"{', '.join(ROLLOUTS)}; as scripts/train.sh (default: %(default)s)"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    parser = example_parser("verl_ispo.real_model.training_run", __doc__)
    parser.add_argument("--method", default="ispo", help="any of `verl-ispo methods` (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of data order and rollouts (default: %(default)s)")
    parser.add_argument("--start", required=True, help="folder or hub id of the model to start from")
    parser.add_argument("--data", type=Path, required=True, help=f"folder of data_prep, or with {TRAIN} and {HELD_OUT}")
    parser.add_argument("--run", type=Path, required=True, help="folder of this run: logs, checkpoints, rollout dump")
    parser.add_argument("--base-model", default=RealRun.base_model, help="name in the table (default: %(default)s)")
    add_sizes(parser)
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="more Hydra overrides")
    given = vars(parser.parse_args(argv))
    folder = given.pop("run")
    lists = {name: tuple(given.pop(name)) for name in ("overrides", "vllm_args")}
    run = RealRun(folder=folder, result=folder / "result", **given, **lists)
    return run_example(
        "training_run", [run.method], lambda: real_environment(run.rollout), lambda: train_and_evaluate(run)
    )


if __name__ == "__main__":
    sys.exit(main())
