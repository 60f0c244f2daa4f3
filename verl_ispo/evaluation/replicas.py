"""Several engines at once, as Ray actors on this machine or on the cluster that ``RAY_ADDRESS`` names (ours).

Work is handed out in runs of whole prompts, each to the replica that is free next. A sample depends on its own seed
alone, so neither the number of replicas nor which of them drew it shows in it, as far as the engine keeps that promise
(the CPU sampler does).
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from verl_ispo.cpu.sampling import SampleRequest
from verl_ispo.evaluation.sampler import Completion, Sampler
from verl_ispo.user_error import UserError

MAX_RESTARTS = 3
"""A replica that dies more often without finishing anything in between ends the evaluation, and so do requests over
which replicas die more often."""

_LEAST_REQUESTS = 64
_MOST_REQUESTS = {"gpu": 2048, "cpu": 64}
"""Requests that a replica gets at once: enough to keep the engine busy, and what its death costs."""


def default_replicas(gpus_each: int) -> int:
    """All GPUs over the GPUs of one engine; one on a CPU.

    Args:
        gpus_each (`int`): GPUs of one engine; 0 on a CPU.

    Raises:
        UserError: if there are fewer GPUs than one engine needs.
    """
    if not gpus_each:
        return 1
    gpus = available_gpus()
    if gpus < gpus_each:
        raise UserError(
            f"--tensor-parallel-size {gpus_each}: {gpus} GPU(s) in {_place()}; give a smaller one, or the address of a "
            "cluster in RAY_ADDRESS"
        )
    return gpus // gpus_each


@cache
def available_gpus() -> int:
    """GPUs of the cluster that ``RAY_ADDRESS`` names, else of this machine; asked once, as connecting takes seconds."""
    if not os.environ.get("RAY_ADDRESS"):
        import torch

        return torch.cuda.device_count()
    import ray

    with _ray():
        return int(ray.cluster_resources().get("GPU", 0))


def load_replicas(load: Callable[[], Sampler], count: int, gpus_each: int) -> Sampler:
    """A sampler over several engines.

    Args:
        load (`Callable`): loads one engine, in its own process.
        count (`int`): number of replicas.
        gpus_each (`int`): GPUs of one replica; 0 on a CPU.

    Raises:
        UserError: if there are fewer GPUs than that.
    """
    needed = count * gpus_each
    if needed and (gpus := available_gpus()) < needed:
        raise UserError(
            f"--replicas {count} of {gpus_each} GPU(s) need {needed}, and {_place()} has {gpus}; give --replicas "
            f"{max(1, gpus // gpus_each)}"
        )

    def sample(requests: Sequence[SampleRequest]) -> Iterator[list[tuple[int, Completion]]]:
        with _ray():
            yield from _sample(load, count, gpus_each, requests)

    return sample


@dataclass
class _Replica:
    """One engine: its actor, where that runs, and how often it died since it last finished something."""

    number: int
    actor: Any
    place: Any
    deaths: int = 0


@dataclass
class _Work:
    """Requests that no replica has, in runs of whole prompts, given out in the order of the plan."""

    requests: Sequence[SampleRequest]
    waiting: deque[list[int]] = field(default_factory=deque)
    deaths: Counter[int] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        for index, request in enumerate(self.requests):
            if index and request.prompt_ids == self.requests[index - 1].prompt_ids:
                self.waiting[-1].append(index)
            else:
                self.waiting.append([index])

    def take(self, replicas: int, most: int) -> list[int]:
        """Indices for one replica: at first many, towards the end fewer, so that none works alone for long."""
        left = sum(map(len, self.waiting))
        wanted = min(most, max(_LEAST_REQUESTS, left // (2 * replicas)))
        taken: list[int] = []
        while self.waiting and (not taken or len(taken) + len(self.waiting[0]) <= wanted):
            taken += self.waiting.popleft()
        return taken

    def give_back(self, indices: list[int]) -> int:
        """Take what a replica had when it died; returns how often that has happened to these requests."""
        self.waiting.appendleft(indices)
        self.deaths[indices[0]] += 1
        return self.deaths[indices[0]]


def _sample(
    load: Callable[[], Sampler], count: int, gpus_each: int, requests: Sequence[SampleRequest]
) -> Iterator[list[tuple[int, Completion]]]:
    import ray

    work = _Work(requests)
    most = _MOST_REQUESTS["gpu" if gpus_each else "cpu"]
    free = [_started(number, load, count, gpus_each) for number in range(min(count, len(work.waiting)))]
    busy: dict[Any, tuple[_Replica, list[int]]] = {}
    while work.waiting or busy:
        while free and work.waiting:
            replica, indices = free.pop(0), work.take(count, most)
            busy[replica.actor.sample.remote([requests[index] for index in indices])] = replica, indices
        finished, _ = ray.wait(list(busy), num_returns=1)
        for result in finished:
            replica, indices = busy.pop(result)
            try:
                completions = ray.get(result)
            except ray.exceptions.RayError as error:
                deaths = max(work.give_back(indices), replica.deaths + 1)
                _say_death(replica, error, len(indices), deaths)
                ray.kill(replica.actor)
                free.append(_started(replica.number, load, count, gpus_each, replica.deaths + 1))
                continue
            replica.deaths = 0
            free.append(replica)
            yield list(zip(indices, completions, strict=True))


def _started(number: int, load: Callable[[], Sampler], count: int, gpus_each: int, deaths: int = 0) -> _Replica:
    import ray

    threads = max(1, (os.cpu_count() or 1) // count)
    # On a CPU no core is reserved: Ray would wait for ever where there are more replicas than cores.
    actor = (
        ray.remote(_Engine)
        .options(num_cpus=0, num_gpus=gpus_each, scheduling_strategy="SPREAD")
        .remote(load, None if gpus_each else threads)
    )
    return _Replica(number, actor, actor.place.remote(), deaths)


def _say_death(replica: _Replica, error: Exception, lost: int, deaths: int) -> None:
    """Name a replica that died and why; raise after too many deaths."""
    import ray

    try:
        place = ray.get(replica.place, timeout=1)
    except ray.exceptions.RayError:
        place = "that has not started"
    lines = str(error).strip().splitlines()
    # an exception in the engine ends in its own sentence; Ray's report of a lost process begins with one
    reason = lines[-1 if "ray::" in str(error) else 0][:500]
    said = f"replica {replica.number} {place} died: {reason}"
    if deaths > MAX_RESTARTS:
        raise UserError(
            f"{said}. That is {deaths} times without finishing anything in between; what was sampled is kept, and the "
            "same command resumes"
        )
    print(f"{said}; its {lost} responses are drawn again (restart {deaths} of {MAX_RESTARTS})", file=sys.stderr)


class _Engine:
    """Runs in a process of its own."""

    def __init__(self, load: Callable[[], Sampler], threads: int | None) -> None:
        if threads is not None:
            import torch

            torch.set_num_threads(threads)
        self._sampler = load()

    def place(self) -> str:
        import ray

        return f"on {ray.util.get_node_ip_address()} (process {os.getpid()})"

    def sample(self, requests: Sequence[SampleRequest]) -> list[Completion]:
        found = {index: completion for batch in self._sampler(requests) for index, completion in batch}
        return [found[index] for index in range(len(requests))]


def _place() -> str:
    address = os.environ.get("RAY_ADDRESS")
    return f"the cluster at {address}" if address else "this machine"


@contextmanager
def _ray() -> Iterator[None]:
    """Connected to the cluster of ``RAY_ADDRESS``, or one of this machine that ends with the evaluation."""
    import ray

    if ray.is_initialized():
        yield
        return
    in_main_thread = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(include_dashboard=None if os.environ.get("RAY_ADDRESS") else False, logging_level="ERROR")
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise UserError(f"Ray does not start in {_place()}: {error}") from error
    if in_main_thread:
        signal.signal(signal.SIGTERM, handler)  # Ray's own ends the process at once
    try:
        yield
    finally:
        ray.shutdown()
