"""Why a training stopped, read from its log."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

_COLOUR = re.compile(r"\033\[[0-9;]*m")
_RAY_PREFIX = re.compile(r"^\([^)]*\) ")
_ERROR = re.compile(r"^[A-Za-z_][A-Za-z0-9_.]*(Error|Exception|Interrupt)(\([A-Za-z]+\))?: ")
_TRAINERS_MESSAGE = re.compile(r"^.*DeadWorkerError: ")


def stop_reason(log: Path) -> str:
    """The worker that died, as named by the trainer or Ray, else the last error; empty if there is none."""
    with log.open(encoding="utf-8", errors="replace") as lines:
        return find_reason(lines)


def find_reason(lines: Iterable[str]) -> str:
    """As `stop_reason`, for lines. The trainer's own message comes first; errors that follow a death are ignored."""
    named = last = dead = ""
    within: dict[str, str] | None = None
    for raw in lines:
        line = _RAY_PREFIX.sub("", _COLOUR.sub("", raw.rstrip("\n")))
        if "DeadWorkerError: " in line:
            named = _TRAINERS_MESSAGE.sub("", line)
        if _ERROR.match(line):
            last = line
        if "ActorDiedError: " in line:
            within = {}
        if within is not None:
            # Ray's description of a dead actor: class_name, pid and ip, one per line
            name, _, value = line.strip().partition(": ")
            if name in ("class_name", "pid", "ip"):
                within[name] = value.strip()
            if name == "ip" and "class_name" in within:
                dead = (
                    f"{within['class_name'].rsplit('.', 1)[-1]} (pid {within.get('pid', '?')} on {within['ip']}) died"
                )
                within = None
    return named or dead or last


def last_lines(log: Path, number: int = 20) -> str:
    """The end of a log."""
    return "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-number:])
