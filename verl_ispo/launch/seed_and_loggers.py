"""Checks of SEED and LOGGERS, which the preflight makes of the composed config too."""

from __future__ import annotations

from verl_ispo.launch.option_checks import given
from verl_ispo.preflight.loggers import name_fault, package_fault
from verl_ispo.preflight.seeds import seed_fault
from verl_ispo.user_error import UserError


def check_seed(variable: str, value: int) -> None:
    """Refuse a seed that some random generator of a training does not take.

    Raises:
        UserError: it is negative or too large.
    """
    fault = seed_fault(value)
    if fault is not None:
        raise UserError(f"{given(variable, value)} {fault}; set for instance {variable}=1")


def check_loggers(names: str, packages: bool) -> None:
    """Refuse loggers that verl does not know, or whose packages are not installed here.

    Args:
        names (`str`): separated by commas.
        packages (`bool`): whether to look for packages too.

    Raises:
        UserError: names the logger and the remedy.
    """
    for name in names.split(","):
        fault = name_fault(name.strip()) or (package_fault(name.strip()) if packages else None)
        if fault is not None:
            raise UserError(f"{given('LOGGERS', names)}: {fault}")
