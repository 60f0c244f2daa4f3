"""The calls of ``torch.cuda`` that Megatron makes outright, mapped to the CPU."""

from __future__ import annotations

import contextlib
import functools


@functools.cache
def put_in_place() -> None:
    """Replace them, once per process."""
    import typing

    import torch
    import typing_extensions

    if not hasattr(typing, "override"):  # megatron-core takes this from the typing of Python 3.12
        typing.override = typing_extensions.override

    def nothing(*_: object, **__: object) -> None:
        return None

    class Stream:
        __init__ = wait_stream = wait_event = record_event = synchronize = nothing

        @staticmethod
        def priority_range() -> tuple[int, int]:
            return 0, 0

    class Event:
        __init__ = record = wait = synchronize = nothing

        def query(self) -> bool:
            return True

    cuda = torch.cuda
    # A function for each name: torch._dynamo keeps a table of them and refuses one object under two.
    cuda.current_device = lambda: "cpu"
    for name in ("set_device", "synchronize", "empty_cache"):
        setattr(cuda, name, lambda *_, **__: None)
    for name in ("memory_allocated", "max_memory_allocated", "memory_reserved"):
        setattr(cuda, name, lambda *_, **__: 0)
    cuda.current_stream = lambda *_: Stream()
    cuda.Stream, cuda.Event = Stream, Event
    cuda.stream = lambda *_: contextlib.nullcontext()
    # Megatron's tracker of random states seeds and restores through these
    cuda.manual_seed = lambda seed: torch.manual_seed(seed)
    cuda.get_rng_state = cuda.random.get_rng_state = lambda device=None: torch.get_rng_state()
    cuda.set_rng_state = cuda.random.set_rng_state = lambda state, device=None: torch.set_rng_state(state)
    cuda._lazy_call = lambda call, **_: call()
    cuda.default_generators = {"cpu": torch.default_generator, 0: torch.default_generator}
    torch.Tensor.cuda = lambda self, *_, **__: self
    torch.nn.Module.cuda = lambda self, *_, **__: self
