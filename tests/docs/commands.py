"""The commands of a block, as bash itself splits them, and the argument parsers of what they call.

bash reads a block with every program replaced by one that notes how it was called, so quotes, loops, variables and
arrays are read as a reader's shell would. A program that is not among these is an error, so no command is left out.
"""

from __future__ import annotations

import argparse
import runpy
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import NoReturn

import pytest

from tests.docs.pages import ROOT

PROGRAMS = ("bash", "pip", "python", "sbatch", "source", "verl-ispo")
_NOTE = r"""
PATH=/nowhere
note() { { printf '\035'; printf '%s\0' "$@"; printf '\036'; /usr/bin/env -0; } >&3; }
"""


@dataclass(frozen=True)
class Command:
    """One call of a program.

    Attributes:
        program: its name.
        arguments: behind it, after bash's expansions.
        variables: set in front of it, or before in the block.
    """

    program: str
    arguments: tuple[str, ...]
    variables: tuple[tuple[str, str], ...]

    def __str__(self) -> str:
        settings = [f"{name}={value}" for name, value in self.variables]
        return " ".join([*settings, self.program, *self.arguments])


class _ParserFound(BaseException):
    """Ends a program as soon as it would parse its arguments; no handler of the program catches it."""

    def __init__(self, parser: argparse.ArgumentParser) -> None:
        self.parser = parser


def commands_of(script: str, home: str) -> list[Command]:
    """The calls that bash makes when it reads `script`.

    Raises:
        ValueError: bash reports an error, such as a program that is not known here.
    """
    programs = "".join(f'{name}() {{ note {name} "$@"; }}\n' for name in PROGRAMS)
    run = subprocess.run(
        ["/bin/bash", "-c", f'exec 3>&1 >&2\n{_NOTE}{programs}set -e\neval "$SCRIPT"'],
        env={"HOME": home, "SCRIPT": script},
        capture_output=True,
        text=True,
        check=False,
    )
    if run.returncode or run.stderr:
        raise ValueError(f"bash cannot read the block: {run.stderr}")
    commands = []
    for call in run.stdout.split("\035")[1:]:
        words, _, variables = call.partition("\036")
        program, *arguments = words.split("\0")[:-1]
        set_here = [variable.partition("=") for variable in variables.split("\0")[:-1]]
        own = {"HOME", "SCRIPT", "PWD", "SHLVL", "OLDPWD", "_", "PATH"}
        kept = tuple((name, value) for name, _, value in set_here if name not in own)
        commands.append(Command(program, tuple(arguments), kept))
    return commands


@cache
def script_parser(script: str) -> argparse.ArgumentParser:
    """The parser of ``python SCRIPT``, a path in the repository."""
    path = ROOT / script
    return _parser_of(lambda: runpy.run_path(str(path), run_name="__main__"), path.parent)


@cache
def module_parser(module: str) -> argparse.ArgumentParser:
    """The parser of ``python -m MODULE``."""
    return _parser_of(lambda: run_module(module, ()), ROOT)


def run_module(module: str, arguments: Sequence[str]) -> int:
    """``python -m MODULE ARGUMENTS`` in this process; returns the exit status."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delitem(sys.modules, module, raising=False)  # or runpy warns that it runs a second copy
        patch.setattr(sys, "argv", [module, *arguments])
        try:
            runpy.run_module(module, run_name="__main__", alter_sys=True)
        except SystemExit as end:
            return int(end.code or 0)
    return 0


def _parser_of(run: Callable[[], object], folder: Path) -> argparse.ArgumentParser:
    def found(parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        raise _ParserFound(parser)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(argparse.ArgumentParser, "parse_args", found)
        patch.syspath_prepend(str(folder))
        try:
            run()
        except _ParserFound as stop:
            return stop.parser
    raise AssertionError("the program parses no arguments")


def subparsers(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """The parsers of its subcommands, by name."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    return {}


def options_of(parser: argparse.ArgumentParser) -> set[str]:
    """Every option, those of subcommands included."""
    own = {option for action in parser._actions for option in action.option_strings}
    return own.union(*map(options_of, subparsers(parser).values()))


def bash_help(script: str) -> str:
    """What a launcher prints for ``--help``."""
    run = subprocess.run(["bash", str(ROOT / script), "--help"], capture_output=True, text=True, check=True, cwd=ROOT)
    return run.stdout
