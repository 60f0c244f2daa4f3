"""What scripts/gpu/bench_step.sh starts: each variant trained at each length, then a table of where the time goes.

On the CPU it runs in the tests, with a small model and --rollout cpu. The shell script's
help explains each option; an option is the variable's name in lower case.
"""

from __future__ import annotations

import argparse
import importlib.util
import shlex
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from verl_ispo.launch.launch_arguments import reported
from verl_ispo.launch.option_checks import check_choice, check_from_one, given, whole_number
from verl_ispo.launch.reproduce_table import SIGNAL_STATUSES
from verl_ispo.launch.start_training import train
from verl_ispo.launch.training_options import CPU_ROLLOUTS, ROLLOUTS, TrainingOptions
from verl_ispo.launch.training_settings import DUMP_FOLDER_KEY
from verl_ispo.method_presets import method_names
from verl_ispo.preflight.hydra_overrides import quoted_list
from verl_ispo.user_error import UserError

SCRIPTS = Path(__file__).resolve().parents[1]
MODEL = "qwen2_5_math_1_5b"
ROLLOUTS_PER_PROMPT = 8
ATTENTIONS = ("flash_attention_2", "torch_varlen", "sdpa")


@dataclass(frozen=True)
class Variant:
    """A method and, for ISPO, the pass that scores the ablated rows.

    Attributes:
        text: as given, ``METHOD`` or ``METHOD:PASS``.
        method: preset.
        ablated_pass: ``separate`` or ``merged``, `None` for the default.
    """

    text: str
    method: str
    ablated_pass: str | None

    @property
    def overrides(self) -> list[str]:
        """The overrides that make the variant."""
        watches = [] if self.method.startswith("ispo") else ["trainer.v1.ispo.watch_signals=false"]
        passes = [] if self.ablated_pass is None else [f"trainer.v1.ispo.ablated_pass={self.ablated_pass}"]
        return [*watches, *passes]


def read_variant(text: str) -> Variant:
    """``METHOD`` or ``METHOD:PASS``.

    Raises:
        UserError: an unknown method or pass.
    """
    method, colon, ablated_pass = text.partition(":")
    check_choice("METHOD", method, method_names())
    if colon and ablated_pass not in ("separate", "merged"):
        raise UserError(f"VARIANTS: {text}={ablated_pass} is not known. Known: separate merged")
    return Variant(text, method, ablated_pass if colon else None)


def build_parser() -> argparse.ArgumentParser:
    """The parser of the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/gpu/bench_step"))
    parser.add_argument("--lengths", nargs="+", type=whole_number("LENGTHS"), default=[1024, 4096])
    parser.add_argument("--variants", nargs="+", default=["grpo", "ispo:separate", "ispo:merged"])
    parser.add_argument("--steps", type=whole_number("STEPS"), default=6)
    parser.add_argument("--warmup", type=whole_number("WARMUP"), default=2)
    parser.add_argument("--prompts", type=whole_number("PROMPTS"), default=32)
    parser.add_argument("--model-path", default="")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--random-out", type=Path)
    parser.add_argument(
        "--random-model", type=shlex.split, default=[], help="more options of random_model.py, one word"
    )
    parser.add_argument("--attention", default="flash_attention_2")
    parser.add_argument("--rollout", default="vllm")
    parser.add_argument("--gpus-per-node", type=whole_number("GPUS_PER_NODE"))
    parser.add_argument("--dry-run", action="store_true")
    parser.add_argument("--print-only", action="store_true")
    parser.add_argument("arguments", nargs="*", metavar="KEY=VALUE", help="Hydra overrides, for every variant")
    return parser


def check(options: argparse.Namespace) -> list[Variant]:
    """Refuse invalid options, and read the variants.

    Raises:
        UserError: with the remedy.
    """
    check_choice("ROLLOUT", options.rollout, ROLLOUTS)
    check_choice("ATTENTION", options.attention, ATTENTIONS)
    check_from_one("STEPS", options.steps)
    check_from_one("PROMPTS", options.prompts)
    for length in options.lengths:
        check_from_one("LENGTHS", length)
    variants = [read_variant(text) for text in options.variants]
    if not 0 <= options.warmup < options.steps:
        raise UserError(
            f"WARMUP={options.warmup} leaves no step of STEPS={options.steps}; set for instance WARMUP=0 (--warmup 0)"
        )
    if options.prompts % 2:
        raise UserError(
            f"{given('PROMPTS', options.prompts)} is odd, and a step has two updates; set for instance "
            f"PROMPTS={options.prompts + 1}"
        )
    return variants


def check_machine(options: argparse.Namespace) -> int:
    """GPUs of this machine.

    Raises:
        UserError: there is none, or no flash attention for them.
    """
    import torch

    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if not gpus:
        raise UserError(
            "torch sees no CUDA GPU here; run it where there is one (ROLLOUT=cpu tries it with a small model)"
        )
    if options.attention == "flash_attention_2" and importlib.util.find_spec("flash_attn") is None:
        raise UserError(f"flash-attn is not installed for {sys.executable}; install it, or set ATTENTION=torch_varlen")
    return gpus


def common_overrides(options: argparse.Namespace, model: str, data: Path) -> list[str]:
    """The overrides that all variants share."""
    sharded = [f"actor_rollout_ref.{part}.strategy=fsdp2" for part in ("actor", "actor.fsdp_config", "ref.fsdp_config")]
    overrides = [
        f"data.train_batch_size={options.prompts}",
        "data.max_prompt_length=512",
        f"actor_rollout_ref.actor.ppo_mini_batch_size={options.prompts // 2}",
        f"actor_rollout_ref.rollout.n={ROLLOUTS_PER_PROMPT}",
        "actor_rollout_ref.rollout.ignore_eos=true",
        *sharded,
        "trainer.val_before_train=false",
        # verl checks for finished rollouts every 2 s, which would add to every figure
        "trainer.v1.ispo.poll_interval_s=0.1",
        f"{DUMP_FOLDER_KEY}=null",
    ]
    if model != options.model_path:
        # the random model has the preset's longer context in its own config.json
        of_model = "actor_rollout_ref.model.override_config"
        overrides += [f"~{of_model}.{key}" for key in ("max_position_embeddings", "rope_theta")]
    if data != options.data:
        overrides += [
            f"data.train_files={quoted_list([data / 'train.parquet'])}",
            f"data.val_files={quoted_list([data / 'heldout.parquet'])}",
        ]
    if options.rollout not in CPU_ROLLOUTS:
        overrides.append(f"++actor_rollout_ref.model.override_config.attn_implementation={options.attention}")
        if options.attention == "torch_varlen":
            overrides.append("actor_rollout_ref.model.external_lib=verl_ispo.varlen_attention")
    return overrides


def make_random_model(options: argparse.Namespace, folder: Path) -> None:
    """Make a model and problems to time, unless both are given or were made before."""
    needed = not options.model_path or options.data is None
    if needed and not (folder / "data/heldout.parquet").exists():
        command = [sys.executable, str(SCRIPTS / "gpu/random_model.py"), "--out", str(folder), *options.random_model]
        subprocess.run(command, check=True)


def bench(options: argparse.Namespace) -> int:
    """Run the command; returns the exit status: 1 if a variant or a table failed.

    Raises:
        UserError: a fault in the options, or no GPU.
    """
    variants = check(options)
    starts = not (options.dry_run or options.print_only)
    out = options.out.resolve()
    random = (options.random_out or out / "random").resolve()
    gpus_per_node = options.gpus_per_node
    if starts and options.rollout not in CPU_ROLLOUTS:
        gpus_per_node = gpus_per_node or check_machine(options)
    if starts:
        make_random_model(options, random)
    model, data = options.model_path or str(random / "model"), options.data or random / "data"
    common = common_overrides(options, model, data)

    def run(variant: Variant, length: int, folder: Path) -> int:
        return train(
            TrainingOptions(
                model=MODEL,
                model_path=model,
                method=variant.method,
                data=data,
                rollout=options.rollout,
                gpus_per_node=gpus_per_node,
                steps=options.steps,
                save_freq=-1,
                test_freq=-1,
                out=folder,
                dry_run=options.dry_run,
                print_only=options.print_only,
                arguments=(*common, f"data.max_response_length={length}", *variant.overrides, *options.arguments),
            )
        )

    failed = []
    for length in options.lengths:
        columns = []
        for variant in variants:
            folder = out / str(length) / variant.text.replace(":", "-")
            if starts:
                print(f"== {variant.text}, {length} new tokens: {folder}", flush=True)
            status = _survived(lambda args=(variant, length, folder): run(*args))
            if status in SIGNAL_STATUSES:
                return status
            if status:
                failed.append(f"{variant.text} at {length}")
            else:
                columns.append(f"{variant.text}={folder}")
        if starts and columns and not write_table(options, columns, out / f"step-{length}", length):
            failed.append(f"the table of {length}")
    if failed:
        print(f"{len(failed)} failed; the same command tries again:", file=sys.stderr)
        print("\n".join(f"  {name}" for name in failed), file=sys.stderr)
        return 1
    return 0


def write_table(options: argparse.Namespace, columns: Sequence[str], table: Path, length: int) -> bool:
    """Write and print the table of one length; returns whether that succeeded."""
    command = [sys.executable, str(SCRIPTS / "step_timing_table.py"), *columns, "--skip", str(options.warmup)]
    made = subprocess.run([*command, "--csv", f"{table}.csv"], stdout=subprocess.PIPE, text=True, check=False)
    if made.returncode:
        return False
    table.with_suffix(".md").write_text(made.stdout, encoding="utf-8")
    print(f"\n{length} new tokens, {options.prompts} prompts x {ROLLOUTS_PER_PROMPT} rollouts\n\n{made.stdout}", end="")
    return True


def _survived(work: Callable[[], int]) -> int:
    """The status of one variant; a user's fault in it does not stop the others."""
    try:
        return work()
    except UserError as error:
        print(error, file=sys.stderr)
        return 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status: 2 for a fault in the options."""
    options = build_parser().parse_args(arguments)
    return reported("bench_step", lambda: bench(options))


if __name__ == "__main__":
    sys.exit(main())
