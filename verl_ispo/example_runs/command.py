"""What the command lines of the examples share."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

from verl_ispo.example_runs.steps import StepFailedError
from verl_ispo.launch.launch_arguments import reported
from verl_ispo.launch.option_checks import check_choice
from verl_ispo.method_presets import method_names


def example_parser(module: str, about: str | None) -> argparse.ArgumentParser:
    """A parser that shows a module's docstring."""
    return argparse.ArgumentParser(
        prog=f"python -m {module}",
        description=(about or "").strip(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def add_methods(parser: argparse.ArgumentParser, methods: Sequence[str], in_words: str = "") -> None:
    """The option for the presets of an example.

    Args:
        parser (`argparse.ArgumentParser`).
        methods (`Sequence[str]`): the default.
        in_words (`str`, *optional*): the default in the help, where the list is long.
    """
    parser.add_argument(
        "--methods",
        nargs="+",
        default=list(methods),
        help=f"any of `verl-ispo methods` (default: {in_words or ' '.join(methods)})",
    )


def run_example(
    name: str, methods: Sequence[str], environment: Callable[[], AbstractContextManager[None]], work: Callable[[], None]
) -> int:
    """Run an example in its environment; returns the exit status.

    Args:
        name (`str`): what messages begin with.
        methods (`Sequence[str]`): presets, checked before anything is made.
        environment (`Callable`): gives the context to work in.
        work (`Callable`): the example.
    """

    def checked() -> int:
        for method in methods:
            check_choice("METHODS", method, method_names())
        try:
            with environment():
                work()
        except StepFailedError as error:
            print(error, file=sys.stderr)
            return error.status
        return 0

    return reported(name, checked)
