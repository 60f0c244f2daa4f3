"""Why a training stopped, read from its log: the first cause, not the last complaint.

What a dying training prints comes from many processes. The driver's own error mostly quotes a worker's, through as
many of Ray's tasks as lie between, and in a Python chain the first exception is the cause of those after it. Where all
that the driver knows is that somebody died, did not answer or sent nothing, the cause is what a worker printed before.
Errors of processes that end because the others did come last, and are nobody's cause.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

_COLOUR = re.compile(r"\033\[[0-9;]*m")
_RAY_PREFIX = re.compile(r"^\((?P<owner>[^()]*(?:pid=\d+[^()]*|raylet[^()]*))\) ?")
_VLLM_PREFIX = re.compile(r"^(?:\((?P<owner>\w+ pid=\d+)\) )?ERROR [\d-]+ [\d:]+ \[[\w./]+:\d+\] ?")
"""Of what the processes of its engine log, behind Ray's prefix for the server."""
_REPEATED = re.compile(r"\s*\[repeated \d+x across cluster\].*$")
_ERROR = re.compile(r"^[A-Za-z_][\w.]*(Error|Exception|Interrupt|Exit)(\(\w+\))?(: |$)")
_ENDS_A_TRACEBACK = re.compile(r"^[A-Za-z_][\w.]*(\(\w+\))?(: |$)")
_POINTER = re.compile(r"ray::\S+.*\(pid=")
"""A message of Ray's that only says in which task the error below it happened."""
_TRACEBACK = "Traceback (most recent call last):"
_IN_A_CHAIN = ("The above exception was the direct cause", "During handling of the above exception")
_DRIVERS_LAST_WORDS = "Error executing job with overrides"
"""Hydra's, before the traceback that ends the program."""
_PROGRESS = re.compile(r"step:\d+ - ")
"""verl's console logger, after each step: what was printed before it ended nothing."""
_TRAINERS_MESSAGE = re.compile(r"^.*(DeadWorkerError|WeightSyncError): ")
_SYMPTOM = re.compile(
    r"""^[\w.]*(
        (Actor|RayActor|Worker|Node|Owner|LocalRaylet|ObjectLost|ObjectFetch|RaySystem|TaskCancelled)\w*Error
        |DeadWorkerError|WeightSyncError|GetTimeoutError|\w*Timeout(Error|Exception)?|CancelledError
        |Connection\w*Error|BrokenPipeError|EOFError|IncompleteReadError|Client\w*Error|ServerDisconnectedError
        |Dist(Network|Backend|Store)Error|SystemExit|KeyboardInterrupt|Empty|Full
    )(\(\w+\))?(:|$)
    |connection\ (closed|reset|refused|lost)|closed\ by\ peer
    |no\ materializable\ trajectories|after\ (interpreter\ )?shutdown
    |[Ww]atchdog\ caught\ collective|(worker|actor|process(es)?)\ (has\ |have\ )?died""",
    re.VERBOSE,
)
"""An error that tells of another: somebody is gone, late, or sent nothing."""
_UNRAISED = re.compile(
    r"^\[[-\d]+ [\d:,.]+ [EFC] \d+ \d+\] \S+\.(?:cc|h):\d+: +(?P<ray>.+)|^(?P<fork>the fork server at .+)"
)
"""Of Ray's C++ part in the driver, which ends a process without an exception, and of `verl_ispo.cpu.forked_python`."""
_MOST_CHARACTERS = 240
_MEMORY = re.compile(
    r"killed due to (?:the node running low on memory|memory pressure)|OOM-killed|out of memory \(OOM\)"
)


@dataclass
class _Chain:
    """Errors that Python or Ray printed as one, by one process.

    Attributes:
        owner: the process, as Ray names it; empty for the driver.
        line: number of the first line.
        cause: first error of the chain; in a quotation of Ray's, what the innermost task raised.
        is_settled: the cause is known, and errors that follow came from it.
        outcome: the last of those.
        is_ignored: Python could not raise it and went on, as in a destructor.
    """

    owner: str
    line: int
    cause: str = ""
    is_settled: bool = False
    outcome: str = ""
    is_ignored: bool = False

    def __str__(self) -> str:
        led = self.outcome and not _SYMPTOM.search(self.outcome) and not _POINTER.search(self.outcome)
        return f"{self.cause} (which led to {self.outcome})" if led else self.cause


@dataclass
class _Reader:
    """Chains of one process; lines of several processes are mixed in a log."""

    owner: str
    chains: list[_Chain] = field(default_factory=list)
    in_traceback: bool = False
    continues: bool = False
    ignores: bool = False

    def read(self, number: int, line: str) -> None:
        if line.startswith("Exception ignored in"):
            self.ignores = True
        elif any(words in line for words in _IN_A_CHAIN):
            self.continues = bool(self.chains)
            if self.chains:
                self.chains[-1].is_settled = True
        elif line.startswith(_TRACEBACK):
            self.in_traceback = True
        elif (self.in_traceback and _ENDS_A_TRACEBACK.match(line)) or _ERROR.match(line):
            self._add(number, _REPEATED.sub("", line))
            self.in_traceback = False

    def _add(self, number: int, error: str) -> None:
        quoted = bool(self.chains) and not self.chains[-1].is_settled and bool(_POINTER.search(self.chains[-1].cause))
        if not (self.continues or quoted):
            self.chains.append(_Chain(self.owner, number, is_ignored=self.ignores))
            self.ignores = False
        self.continues = False
        if self.chains[-1].is_settled:
            self.chains[-1].outcome = error
        else:
            self.chains[-1].cause = error


def stop_reason(log: Path) -> str:
    """The first cause of a training's end, as `find_reason` reads it from its log; empty if there is none."""
    with log.open(encoding="utf-8", errors="replace") as lines:
        return find_reason(lines)


def find_reason(lines: Iterable[str]) -> str:
    """As `stop_reason`, for lines.

    In this order: the cause of the error that ended the driver; if that only tells of another's end, the first error
    of a worker since the last step; the trainer's or Ray's word on who died; that error itself.
    """
    readers: dict[str, _Reader] = {}
    last_words = progress = -1
    named = memory = said = ""
    dead: list[str] = []
    within: dict[str, str] | None = None
    for number, raw in enumerate(lines):
        line = _COLOUR.sub("", raw.rstrip("\n"))
        prefix = _RAY_PREFIX.match(line)
        owner = prefix["owner"] if prefix else ""
        line = line[prefix.end() :] if prefix else line
        if engine := _VLLM_PREFIX.match(line):
            owner = f"{owner} {engine['owner'] or ''}"
            line = line[engine.end() :]
        if _PROGRESS.search(line):
            progress = number
        if line.startswith(_DRIVERS_LAST_WORDS) and last_words < 0:
            last_words = number
        if _TRAINERS_MESSAGE.match(line) and not _POINTER.search(line):
            named = _TRAINERS_MESSAGE.sub("", line)
        if (words := _UNRAISED.match(line)) and not owner:
            said = (words["ray"] or words["fork"])[:_MOST_CHARACTERS]
        if _MEMORY.search(line) and not memory:
            memory = line.strip()
        readers.setdefault(owner, _Reader(owner)).read(number, line)
        if "ActorDiedError: " in line:
            within = {}
        if within is not None:
            within = _described(line, within, dead)
    chains = sorted((chain for reader in readers.values() for chain in reader.chains), key=lambda chain: chain.line)
    chains = [chain for chain in chains if not chain.is_ignored and chain.line > progress]
    ended = next((chain for chain in chains if not chain.owner and chain.line > last_words), None)
    if ended is not None and not _SYMPTOM.search(ended.cause):
        return str(ended)
    before = [chain for chain in chains if chain.owner and not _SYMPTOM.search(chain.cause)]
    if ended is not None:
        before = [chain for chain in before if chain.line < ended.line] or before
    if before:
        return str(before[0])
    told = [named, dead[0] if dead else "", ended.cause if ended is not None else ""]
    reason = next((words for words in told if words), chains[0].cause if chains else said)
    return f"{reason}: {memory}" if memory and reason else reason or memory


def _described(line: str, within: dict[str, str], dead: list[str]) -> dict[str, str] | None:
    """Read one line of Ray's description of a dead actor (class_name, pid and ip, one per line); `None` at its end."""
    name, _, value = line.strip().partition(": ")
    if name in ("class_name", "pid", "ip"):
        within[name] = value.strip()
    if name == "ip" and "class_name" in within:
        kind = within["class_name"].rsplit(".", 1)[-1]
        dead.append(f"{kind} (pid {within.get('pid', '?')} on {within['ip']}) died")
        return None
    return within


def last_lines(log: Path, number: int = 20) -> str:
    """The end of a log."""
    return "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-number:])
