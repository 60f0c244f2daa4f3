"""What a sampler is: the types that the choice of a sampler and the samplers themselves share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from verl_ispo.cpu.sampling import SampleRequest


@dataclass(frozen=True)
class ChatRequest:
    """One response to chat messages, from a server that makes the prompt itself.

    Attributes:
        messages: with ``role`` and ``content``.
        max_new_tokens: most tokens of the response.
        temperature: softmax temperature; 0 is greedy.
        top_p: keep the smallest set of likeliest tokens with this much probability.
        seed: the response's random stream, below 2**53.
    """

    messages: tuple[Mapping[str, str], ...]
    max_new_tokens: int
    temperature: float
    top_p: float
    seed: int


Request = SampleRequest | ChatRequest


@dataclass(frozen=True)
class Completion:
    """A response.

    Attributes:
        finish_reason: ``stop`` if the model ended it, ``length`` if the token limit did, ``prompt_too_long`` if a
            server refused the prompt because it does not fit its context.
        tokens: how many tokens it has, the end-of-sequence token counted.
        token_ids: `None` where a server does not tell them.
        text: as a server gave it; `None` where it is decoded from the token ids.
        pieces: the text of each token as bytes, from a server that does not tell token ids but does tell these.
        log_probs: each token's log-prob in nats under the model at temperature 1, without a filter; `None` where a
            server does not tell them.
    """

    finish_reason: Literal["stop", "length", "prompt_too_long"]
    tokens: int
    token_ids: tuple[int, ...] | None = None
    text: str | None = None
    pieces: tuple[bytes, ...] | None = None
    log_probs: tuple[float, ...] | None = None


class Sampler(Protocol):
    """A function from requests to responses.

    It yields batches of (index of the request, response), in any order, as they are finished: what has been yielded
    survives a kill.
    """

    def __call__(self, requests: Sequence[Request]) -> Iterator[list[tuple[int, Completion]]]:
        """Sample every request."""
        ...
