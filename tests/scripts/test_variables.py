"""Each environment variable of a script becomes the option of its name, and a variable that is not set becomes none.

The interpreter is ``echo``, which prints the command. The commands' own parsers say which options exist, and with
which values. Not exercised: what the commands do with them (tests/launch).
"""

from __future__ import annotations

import argparse
import runpy
import shlex
from pathlib import Path

import pytest

from tests.scripts.launchers import LAUNCHERS, SCRIPTS, launch, variables_mapped
from verl_ispo import cli
from verl_ispo.launch import ray_node
from verl_ispo.real_model import example, study
from verl_ispo.tiny_task import quickstart, study_runs

BENCH_STEP = runpy.run_path(str(SCRIPTS / "gpu/bench_step.py"))
MAPPING = [
    launcher for launcher in LAUNCHERS if variables_mapped(SCRIPTS / launcher) and launcher != "offline_bundle.sh"
]


def parsers(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """Subcommands by name."""
    (choices,) = [action.choices for action in parser._actions if isinstance(action.choices, dict)]
    return choices


OF_VERL_ISPO, OF_RAY = parsers(cli.build_parser()), parsers(ray_node.build_parser())
PARSERS = {
    "train.sh": OF_VERL_ISPO["train"],
    "eval.sh": OF_VERL_ISPO["evaluate-run"],
    "reproduce_table.sh": OF_VERL_ISPO["reproduce-table"],
    "ray/start_head.sh": OF_RAY["head"],
    "ray/start_worker.sh": OF_RAY["worker"],
    "gpu/bench_step.sh": BENCH_STEP["build_parser"](),
    "../examples/quickstart.sh": quickstart.build_parser(),
    "../examples/tiny_study.sh": study_runs.build_parser(),
    "../examples/real_model.sh": example.build_parser(),
    "../examples/real_study.sh": study.build_parser(),
}


def option_of(variable: str) -> str:
    return "--" + variable.lower().replace("_", "-")


@pytest.mark.parametrize("launcher", sorted(PARSERS))
def test_every_variable_has_an_option_of_its_name_and_every_option_a_variable(launcher: str) -> None:
    known = {name for action in PARSERS[launcher]._actions for name in action.option_strings if name.startswith("--")}
    mapped = {option_of(name): how for name, how in variables_mapped(SCRIPTS / launcher).items()}
    if launcher == "gpu/bench_step.sh":
        mapped["--random-model"] = "values"
    assert set(mapped) == known - {"--help"}
    for action in PARSERS[launcher]._actions:
        for name in set(action.option_strings) & set(mapped):
            takes = "words" if action.nargs == "+" else "flags" if action.nargs == 0 else "values"
            assert mapped[name] == takes, name


def test_no_script_that_maps_variables_is_left_out() -> None:
    assert set(MAPPING) - {"../examples/tiny_run.sh"} == set(PARSERS)


@pytest.mark.parametrize("launcher", ["train.sh", "eval.sh", "reproduce_table.sh", "../examples/tiny_run.sh"])
def test_values_arrive_as_they_are_and_arguments_behind_them(launcher: str, tmp_path: Path) -> None:
    program = tmp_path / "words"
    program.write_text('#!/usr/bin/env bash\nprintf "%q " "$@"\n')
    program.chmod(0o755)
    mapped = variables_mapped(SCRIPTS / launcher)
    text = {"values": "it's *; a $b", "words": "one two * three", "flags": "1"}
    more = () if launcher.startswith("..") else ("a.b=c d", "~e")
    run = launch(
        launcher, *more, cwd=tmp_path, PYTHON=str(program), **{name: text[how] for name, how in mapped.items()}
    )
    assert run.returncode == 0, run.stderr
    found = shlex.split(run.stdout)
    expected = []
    for name, how in mapped.items():
        words = {"values": [text["values"]], "words": text["words"].split(), "flags": []}[how]
        expected += [option_of(name), *words]
    start = found.index(expected[0])
    assert found[start : found.index("--")] == expected
    assert tuple(found[found.index("--") + 1 :]) == more


@pytest.mark.parametrize(
    ("launcher", "command"),
    [
        ("train.sh", "-m verl_ispo.cli train --"),
        ("eval.sh", "-m verl_ispo.cli evaluate-run --"),
        ("reproduce_table.sh", "-m verl_ispo.cli reproduce-table --"),
        ("../examples/tiny_run.sh", "-m verl_ispo.tiny_task.tiny_run --"),
        ("gpu/bench_step.sh", f"{SCRIPTS}/gpu/bench_step.py --"),
    ],
)
def test_what_is_not_set_or_empty_is_left_to_the_command(launcher: str, command: str, tmp_path: Path) -> None:
    empty = dict.fromkeys(variables_mapped(SCRIPTS / launcher), "")
    for variables in ({}, empty):
        run = launch(launcher, cwd=tmp_path, PYTHON="echo", **variables)
        assert run.returncode == 0, run.stderr
        assert run.stdout.split() == [*command.split()]
