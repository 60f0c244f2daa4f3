"""What a sampler is: the types that the choice of a sampler and the samplers themselves share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from verl_ispo.cpu.sampling import SampleRequest


@dataclass(frozen=True)
class Completion:
    """A response: its token ids, and whether the model ended it or the token limit did."""

    token_ids: tuple[int, ...]
    finish_reason: Literal["stop", "length"]


class Sampler(Protocol):
    """A function from requests to responses.

    It yields batches of (index of the request, response), in any order, as they are finished: what has been yielded
    survives a kill.
    """

    def __call__(self, requests: Sequence[SampleRequest]) -> Iterator[list[tuple[int, Completion]]]:
        """Sample every request."""
        ...
