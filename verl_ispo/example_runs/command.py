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
