"""``verl-ispo evaluate-run``: a run's last checkpoint, or a model, on the benchmarks, under the run's own names."""

from __future__ import annotations

import argparse
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

from verl_ispo.launch.data_choice import BENCHMARKS
from verl_ispo.launch.longer_context import extend
from verl_ispo.launch.model_choice import ModelChoice, choose_model, known_models
from verl_ispo.launch.option_checks import check_choice, given
from verl_ispo.launch.run_folder import IDENTITY, read_run
from verl_ispo.launch.training_settings import composed, longer_context
from verl_ispo.method_presets import table_name
from verl_ispo.preflight.composition import setting
from verl_ispo.user_error import UserError

SAMPLERS = ("auto", "vllm", "cpu")
LONGEST_RESPONSE = 4096


@dataclass(frozen=True)
class EvaluationRunOptions:
    """One evaluation; ``verl-ispo evaluate-run --help`` says what each option is.

    Args:
        run (`Path`, *optional*): folder of ``verl-ispo train``.
        model (`str`, *optional*): or a model, as for `choose_model`, or a checkpoint of verl.
        model_path (`str`, *optional*): weights of a preset.
        model_copies (`Path`, *optional*, defaults to `runs/models`): folder for copies with a longer context.
        benchmarks (`Path`, *optional*): folder of data_prep.
        files (`tuple[Path, ...]`, *optional*): parquet files instead.
        out (`Path`, *optional*): folder of the evaluation.
        n (`int`, *optional*, defaults to `16`): samples per problem beside the greedy response.
        temperature, top_p (`float`, *optional*, default to `0.6` and `1.0`): of the samples.
        max_new_tokens (`int`, *optional*): longest response; the run's or the preset's, else 4096.
        sampling_seed (`int`, *optional*, defaults to `0`): of the sampling.
        sampler (`str`, *optional*, defaults to `"auto"`): one of `SAMPLERS`.
        tensor_parallel (`int`, *optional*, defaults to `1`): GPUs for one model.
        reward (`str`, *optional*): grader.
        base_model, method, seed (*optional*): names in the table; the run's own.
        print_only (`bool`, *optional*, defaults to `False`): print the command.
        arguments (`tuple[str, ...]`, *optional*): more options of ``verl-ispo eval``, which win.

    Raises:
        UserError: if an option or a combination of options is invalid.
    """

    run: Path | None = None
    model: str = ""
    model_path: str = ""
    model_copies: Path = Path("runs/models")
    benchmarks: Path | None = None
    files: tuple[Path, ...] = ()
    out: Path | None = None
    n: int = 16
    temperature: float = 0.6
    top_p: float = 1.0
    max_new_tokens: int | None = None
    sampling_seed: int = 0
    sampler: str = "auto"
    tensor_parallel: int = 1
    reward: str = "pkg://verl_ispo.grading"
    base_model: str = ""
    method: str = ""
    seed: int | None = None
    print_only: bool = False
    arguments: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_choice("SAMPLER", self.sampler, SAMPLERS)
        if self.run is not None and self.model:
            raise UserError(f"{given('RUN', self.run)} and {given('MODEL', self.model)}: set one of them")
        if self.run is None and not self.model:
            raise UserError(
                f"set RUN (--run) to a folder of verl-ispo train, or MODEL (--model) to one of: {known_models()}"
            )
        if self.run is not None and not set(IDENTITY) <= set(read_run(self.run)):
            raise UserError(
                f"{given('RUN', self.run)}: no run.txt with {', '.join(IDENTITY)}, so not a folder of verl-ispo train; "
                "for a checkpoint of verl set MODEL (--model) to its path"
            )
        if self.model:
            choose_model(self.model, self.model_path)
        if not self.files and self.benchmarks is None:
            raise UserError(
                "no problems: set BENCHMARKS (--benchmarks) to a folder of data_prep (python -m data_prep.aime24 "
                "--local_save_dir FOLDER, and so on), or FILES (--files)"
            )


@dataclass(frozen=True)
class Subject:
    """What is evaluated, and its names in the table.

    Attributes:
        model (`str`): for ``verl-ispo eval``.
        base_model, method (`str`): names.
        seed (`int`, *optional*): of the training.
        longest_response (`int`): in tokens.
        out (`Path`): folder of the evaluation.
    """

    model: str
    base_model: str
    method: str
    seed: int | None
    longest_response: int
    out: Path


def subject_of_run(run: Path) -> Subject:
    """The last checkpoint of a run, with the names and the length from its run.txt."""
    noted = read_run(run)
    try:
        base_model = choose_model(noted["MODEL"]).paper_name
    except UserError:  # the folder has moved since
        base_model = Path(noted["MODEL"]).name
    return Subject(
        str(run / "checkpoints"),
        base_model,
        noted["METHOD"],
        int(noted["SEED"]),
        int(noted.get("RESPONSE_LENGTH", LONGEST_RESPONSE)),
        run / "result",
    )


def subject_of_model(choice: ModelChoice, copies: Path, named_only: bool) -> Subject:
    """A model before training. A preset gets the context of its training, since that model is the policy at step 0.

    Args:
        choice (`ModelChoice`): the model.
        copies (`Path`): folder for a copy with a longer context.
        named_only (`bool`): make no copy; use the model's own folder or name instead.
    """
    model, length = choice.path or choice.identity, LONGEST_RESPONSE
    if choice.preset is not None:
        config = composed("ispo_trainer", choice.overrides())
        model, length = str(config.actor_rollout_ref.model.path), setting(config, "data.max_response_length")
        wanted = longer_context(config)
        if wanted is not None and not named_only:
            folder, note = extend(wanted.model, wanted.copy_in(copies), wanted.positions, wanted.rope_theta)
            model = str(folder)
            if note:
                print(note, file=sys.stderr)
    return Subject(model, choice.paper_name, "Base", None, length, Path("runs/eval") / choice.name)


def eval_arguments(options: EvaluationRunOptions) -> list[str]:
    """Arguments of ``verl-ispo eval``.

    Raises:
        UserError: if the context of a preset's model cannot be extended.
    """
    if options.run is not None:
        subject = subject_of_run(options.run)
    else:
        choice = choose_model(options.model, options.model_path)
        subject = subject_of_model(choice, options.model_copies, options.print_only)
    seed = subject.seed if options.seed is None else options.seed
    files = options.files or tuple(options.benchmarks / name for name in BENCHMARKS)
    return [
        *("--model", subject.model, "--base-model", options.base_model or subject.base_model),
        *("--method", table_name(options.method or subject.method)),
        *([] if seed is None else ["--training-seed", str(seed)]),
        *("--benchmarks", *map(str, files), "--out", str(options.out or subject.out)),
        *("--n", str(options.n), "--temperature", str(options.temperature), "--top-p", str(options.top_p)),
        *("--max-new-tokens", str(options.max_new_tokens or subject.longest_response)),
        *("--seed", str(options.sampling_seed), "--sampler", options.sampler),
        *("--tensor-parallel-size", str(options.tensor_parallel), "--reward-function", options.reward),
        *options.arguments,
    ]


def eval_command(options: EvaluationRunOptions) -> list[str]:
    """The whole command, to run in a separate process."""
    return [sys.executable, "-m", "verl_ispo.cli", "eval", *eval_arguments(options)]


def evaluate_run(options: EvaluationRunOptions) -> int:
    """Run the command; returns the exit status of ``verl-ispo eval``.

    Raises:
        UserError: a fault in options, files or folders.
    """
    if options.print_only:
        print(shlex.join(eval_command(options)))
        return 0
    from verl_ispo.evaluation.evaluation_arguments import add_eval_parser, run_eval

    parser = argparse.ArgumentParser(prog="verl-ispo")
    add_eval_parser(parser.add_subparsers(dest="command", required=True))
    return run_eval(parser.parse_args(["eval", *eval_arguments(options)]))
