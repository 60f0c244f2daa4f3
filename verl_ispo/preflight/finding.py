"""One line of the report of ``verl-ispo doctor``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

OK, NOTE, PROBLEM = "ok", "note", "PROBLEM"


@dataclass(frozen=True)
class Finding:
    """How bad it is, what it is about (mostly a key), and what to do.

    Attributes:
        level: ``OK``, ``NOTE`` or ``PROBLEM``. Only the last makes the doctor fail.
        subject: the key of the config, or the part of the machine.
        text: value, reason and remedy.
    """

    level: str
    subject: str
    text: str


def as_notes(findings: Iterator[Finding]) -> Iterator[Finding]:
    """The same findings without problems: what is wrong with this machine does not stop a job that runs elsewhere."""
    for finding in findings:
        yield replace(finding, level=NOTE) if finding.level == PROBLEM else finding


def survived(name: str, check: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    """The findings of one check; if it raises, as on values of a wrong type, that is a finding too."""
    try:
        yield from check()
    except Exception as error:  # one broken check must not hide what the others find
        yield Finding(PROBLEM, name, f"could not be checked, {type(error).__name__}: {str(error).strip()}")
