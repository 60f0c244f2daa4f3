"""One method, one seed on the tiny task: training on verl's own trainer, then evaluation. A second start resumes.

    python -m verl_ispo.tiny_task.tiny_run --method ispo --seed 1 --base runs/quickstart/base \\
        --data runs/quickstart/data-levels1-6 --run runs/mine

The quickstart and the study do this for each of their runs.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from verl_ispo.example_runs.command import example_parser, run_example
from verl_ispo.tiny_task.example_steps import TinyRun, tiny_environment, train_and_evaluate


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    parser = example_parser("verl_ispo.tiny_task.tiny_run", __doc__)
    parser.add_argument("--method", default="ispo", help="any of `verl-ispo methods` (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of data order and rollouts (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=25, help="training steps (default: %(default)s)")
    parser.add_argument("--base", type=Path, required=True, help="the warm-started model (tiny_task.warm_start)")
    parser.add_argument("--data", type=Path, required=True, help="training and held-out problems (tiny_task.make_data)")
    parser.add_argument("--run", type=Path, required=True, help="folder of this run: logs, checkpoints, rollout dump")
    parser.add_argument("--result", type=Path, help="folder of the evaluation (default: RUN/result)")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="more Hydra overrides")
    given = parser.parse_args(argv)
    run = TinyRun(
        method=given.method,
        seed=given.seed,
        steps=given.steps,
        base=given.base,
        data=given.data,
        folder=given.run,
        result=given.result or given.run / "result",
        overrides=tuple(given.overrides),
    )
    return run_example("tiny_run", [run.method], tiny_environment, lambda: train_and_evaluate(run))


if __name__ == "__main__":
    sys.exit(main())
