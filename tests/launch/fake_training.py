"""A small program in place of verl's main, and its notes. The launcher around it is the real one.

``python tests/launch/fake_training.py NOTES SAYS STATUS STAYS COMMAND...`` notes its command and environment, prints
SAYS, and ends with STATUS; with STAYS it waits for SIGTERM first, or for the file of that name, at which it "saves".
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass
class FakeTraining:
    """How the program behaves, and its notes; set the fields before a start.

    Attributes:
        folder: for the notes.
        says: what it prints.
        status: with which it ends.
        stays: whether it waits for SIGTERM; a path: or until there is such a file.
        fails_if: words of a command that make it fail with `status`; empty means every one.
        metrics: entries that it writes where verl's file logger does; none means no file.
    """

    folder: Path
    says: str = ""
    status: int = 0
    stays: bool | Path = False
    fails_if: tuple[str, ...] = ()
    metrics: Sequence[Mapping[str, Any]] = ()

    @property
    def notes(self) -> Path:
        return self.folder / "notes.jsonl"

    def noted(self) -> list[dict[str, Any]]:
        if not self.notes.exists():
            return []
        return [json.loads(line) for line in self.notes.read_text().splitlines()]

    def commands(self) -> list[list[str]]:
        """The words of each call, behind ``python``."""
        return [note["command"][1:] for note in self.noted() if "command" in note]

    def ended(self) -> int:
        """Calls that were ended by SIGTERM."""
        return sum("ended" in note for note in self.noted())

    def saved(self) -> int:
        """Calls that ended by themselves when they were asked to."""
        return sum("saved" in note for note in self.noted())

    def run_process(
        self, command: Sequence[str], environment: Mapping[str, str], log: Path, *more: Any, **options: Any
    ) -> Any:
        """As `training_process.run_process`, with the program in place of the command's."""
        from verl_ispo.launch.training_process import run_process

        if self.metrics:
            lines = "".join(json.dumps(entry) + "\n" for entry in self.metrics)
            Path(environment["VERL_FILE_LOGGER_PATH"]).write_text(lines, encoding="utf-8")
        fails = all(any(part in word for word in command) for part in self.fails_if)
        behavior = [str(self.notes), self.says, str(self.status if fails else 0), str(self.stays or "")]
        return run_process([sys.executable, "-IS", __file__, *behavior, *command], environment, log, *more, **options)


def main() -> int:
    """Behave as told."""
    notes, says, status, stays, *command = sys.argv[1:]

    def note(entry: dict[str, Any]) -> None:
        with open(notes, "a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")

    def end(*_: object) -> None:
        note({"ended": True})
        os._exit(143)

    signal.signal(signal.SIGTERM, end)
    secrets = os.environ.get("VERL_ISPO_ENVIRONMENT_FILE")
    given = {"secrets": Path(secrets).read_text(), "mode": Path(secrets).stat().st_mode & 0o777} if secrets else {}
    note({"command": command, "environment": dict(os.environ), "pid": os.getpid(), **given})
    print(says, flush=True)
    for _ in range(600 if stays else 0):
        time.sleep(0.1)
        if os.path.exists(stays):
            note({"saved": True})
            break
    return int(status)


if __name__ == "__main__":
    sys.exit(main())
