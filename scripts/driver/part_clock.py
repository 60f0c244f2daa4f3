"""Seconds and memory of the parts of a step: every moment belongs to the innermost part that is running."""

from __future__ import annotations

import functools
import importlib
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

STATUS = Path("/proc/self/status")
CLEAR_REFS = Path("/proc/self/clear_refs")
KIB = 1024


class PartClock:
    """Adds up wall time, CPU time and peak memory.

    Args:
        not_ours (`set[str]`): parts whose memory does not count.
    """

    def __init__(self, not_ours: set[str]) -> None:
        self.not_ours = not_ours
        self._running: list[str] = []
        self._since = (0.0, 0.0)
        self._start_bytes = 0
        self.reset()

    def reset(self) -> None:
        """Begin at 0 again."""
        self.wall_s: dict[str, float] = defaultdict(float)
        self.cpu_s: dict[str, float] = defaultdict(float)
        self.peak_bytes = 0

    @property
    def innermost(self) -> str | None:
        """The part that is running."""
        return self._running[-1] if self._running else None

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Inside the block, time belongs to the part, unless a part inside it takes it."""
        self._note_time()
        if not self._running:
            self._start_bytes = _resident_bytes("VmRSS")
            _forget_peak()
        elif name in self.not_ours and self.innermost not in self.not_ours:
            self._note_peak()
        self._running.append(name)
        try:
            yield
        finally:
            self._note_time()
            self._running.pop()
            if name not in self.not_ours and not self._running:
                self._note_peak()
            elif name in self.not_ours and self.innermost not in self.not_ours:
                _forget_peak()

    def time_calls(self, module: str, names: str, part: str, unless: set[str] | None = None) -> None:
        """Time a function or method from now on as a part; one that the checkout does not have is left out.

        Args:
            module (`str`): where the callers look it up.
            names (`str`): its name in the module, with dots.
            part (`str`).
            unless (`set[str]`, *optional*): parts that keep the time of the call.
        """
        with suppress(ImportError, AttributeError):
            owner: Any = importlib.import_module(module)
            *outer, name = names.split(".")
            for attribute in outer:
                owner = getattr(owner, attribute)
            setattr(owner, name, self._timed(getattr(owner, name), part, unless or set()))

    def _timed(self, function: Callable[..., Any], part: str, unless: set[str]) -> Callable[..., Any]:
        @functools.wraps(function)
        def timed(*args: Any, **kwargs: Any) -> Any:
            if self.innermost is None or self.innermost in unless:
                return function(*args, **kwargs)
            with self.part(part):
                return function(*args, **kwargs)

        return timed

    def _note_time(self) -> None:
        now = (time.perf_counter(), time.process_time())
        if self._running:
            self.wall_s[self._running[-1]] += now[0] - self._since[0]
            self.cpu_s[self._running[-1]] += now[1] - self._since[1]
        self._since = now

    def _note_peak(self) -> None:
        self.peak_bytes = max(self.peak_bytes, _resident_bytes("VmHWM") - self._start_bytes)


def _resident_bytes(name: str) -> int:
    for line in STATUS.read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) * KIB
    raise RuntimeError(f"{STATUS} has no {name}: peak memory is measured on Linux only")


def _forget_peak() -> None:
    """Linux counts the peak of resident memory anew from here."""
    CLEAR_REFS.write_text("5")
