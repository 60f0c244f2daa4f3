"""Sampling from an OpenAI-compatible server: vLLM, SGLang, llama.cpp, a hosted one.

https://platform.openai.com/docs/api-reference . The ``openai`` client retries what may pass (429, 5xx, a cut
connection, a time-out) with growing pauses, and waits as long as a server asks for. What a server sends is untrusted:
a body of another shape is asked for again, then refused.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any

import openai

from verl_ispo.cpu.sampling import SampleRequest
from verl_ispo.evaluation.sampler import Completion, Request
from verl_ispo.user_error import UserError

MAX_RETRIES = 8
"""The client's pauses grow to 8 s, so a request is given up after about a minute of faults."""

_MAX_MALFORMED = 3
_ENDED = {"stop": "stop", "length": "length", "content_filter": "stop", "tool_calls": "stop", "eos": "stop"}


class MalformedResponse(Exception):
    """A body that is no completion."""


@dataclass(frozen=True)
class ServerOptions:
    """What a server understands, found out by asking.

    Attributes:
        log_probs: it tells each token's log-prob.
        token_ids: it tells token ids (``return_token_ids``, vLLM's).
        seeds: it takes a seed.
        limit: what it calls the longest response; newer hosted models know ``max_completion_tokens`` alone.
    """

    log_probs: bool = True
    token_ids: bool = True
    seeds: bool = True
    limit: str = "max_tokens"


@dataclass(frozen=True)
class ServerSampler:
    """`Sampler` on a server.

    Attributes:
        client: of the server.
        served_model: its name there.
        understands: which fields to send.
        concurrency: requests at a time.
    """

    client: openai.OpenAI
    served_model: str
    understands: ServerOptions
    concurrency: int

    def __call__(self, requests: Sequence[Request]) -> Iterator[list[tuple[int, Completion]]]:
        """Sample every request, so many at a time; what is finished together is yielded together.

        Greedy ones come first, and alone: they have no seed, and vLLM on a CPU then ignores those of the whole batch
        (https://github.com/vllm-project/vllm/issues/51226).
        """
        try:
            for is_greedy in (True, False):
                yield from self._together(
                    [pair for pair in enumerate(requests) if (pair[1].temperature == 0) == is_greedy]
                )
        finally:
            self.client.close()  # open requests end with it

    def _together(self, requests: Sequence[tuple[int, Request]]) -> Iterator[list[tuple[int, Completion]]]:
        order = iter(requests)
        pool = ThreadPoolExecutor(self.concurrency)
        open_requests: dict[Future[Completion], int] = {}
        try:
            while True:
                for index, request in order:
                    future = pool.submit(self.complete, request)
                    open_requests[future] = index
                    if len(open_requests) >= self.concurrency:
                        break
                if not open_requests:
                    return
                done, _ = wait(open_requests, return_when=FIRST_COMPLETED)
                finished, failure = [], None
                for future in done:
                    index = open_requests.pop(future)
                    if (error := future.exception()) is not None:
                        failure = error
                    else:
                        finished.append((index, future.result()))
                if finished:
                    yield finished
                if failure is not None:
                    raise explained(failure, self) from failure
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def complete(self, request: Request) -> Completion:
        """One response.

        Raises:
            openai.OpenAIError: if the server refuses, or its faults do not pass.
            MalformedResponse: if what it sends is no completion, time after time.
        """
        for attempt in range(_MAX_MALFORMED):
            try:
                return self._complete(request)
            except openai.BadRequestError as error:
                if _is_too_long(error):
                    return Completion("prompt_too_long", tokens=0, text="")
                raise
            except (MalformedResponse, openai.APIResponseValidationError, ValueError) as error:
                if attempt + 1 == _MAX_MALFORMED:
                    raise MalformedResponse(str(error) or type(error).__name__) from error
        raise AssertionError("the loop returns or raises")

    def _complete(self, request: Request) -> Completion:
        settings: dict[str, Any] = {
            "model": self.served_model,
            self.understands.limit: request.max_new_tokens,
            "temperature": request.temperature,
            "top_p": request.top_p,
        }
        if self.understands.seeds and request.temperature > 0:
            settings["seed"] = request.seed
        if self.understands.token_ids:
            settings["extra_body"] = {"return_token_ids": True}
        if isinstance(request, SampleRequest):
            if self.understands.log_probs:
                settings["logprobs"] = 1
            answer = self.client.completions.create(prompt=list(request.prompt_ids), **settings)
        else:
            if self.understands.log_probs:
                settings["logprobs"] = True
            answer = self.client.chat.completions.create(messages=[dict(one) for one in request.messages], **settings)
        try:
            return _read(answer.model_dump())
        except (AttributeError, KeyError, IndexError, TypeError) as error:
            raise MalformedResponse(f"{type(answer).__name__} without {error}: {answer!r:.200}") from error


def _read(answer: Mapping[str, Any]) -> Completion:
    """A completion of either interface."""
    choice = answer["choices"][0]
    reason = choice["finish_reason"]
    if reason not in _ENDED:
        raise MalformedResponse(f"finish_reason is {reason!r:.40}; known: {', '.join(_ENDED)}")
    is_chat = "message" in choice
    text = choice["message"]["content"] if is_chat else choice["text"]
    if not isinstance(text, str | None):
        raise MalformedResponse(f"the text is a {type(text).__name__}")
    pieces, log_probs = _tokens(choice.get("logprobs"), text or "")
    token_ids = choice.get("token_ids")
    ids = tuple(map(int, token_ids)) if token_ids else None
    counted = (answer.get("usage") or {}).get("completion_tokens")
    if counted is None:
        counted = len(ids or log_probs or ())
    if ids is not None and log_probs is not None and len(ids) != len(log_probs):
        ids = None  # then the log-probs are known by the tokens' texts alone
    return Completion(
        _ENDED[reason], tokens=int(counted), token_ids=ids, text=text or "", pieces=pieces, log_probs=log_probs
    )


def _tokens(logprobs: Any, text: str) -> tuple[tuple[bytes, ...] | None, tuple[float, ...] | None]:
    """Bytes and log-prob of each token; `None` for what a server does not tell, or tells of another text."""
    if not logprobs:
        return None, None
    if logprobs.get("content") is not None:  # chat
        entries = logprobs["content"]
        values = tuple(float(entry["logprob"]) for entry in entries)
        pieces = tuple(
            entry["token"].encode(errors="surrogatepass") if entry.get("bytes") is None else bytes(entry["bytes"])
            for entry in entries
        )
    elif logprobs.get("tokens") is not None:
        values = tuple(math.nan if value is None else float(value) for value in logprobs["token_logprobs"])
        pieces = tuple(token.encode(errors="surrogatepass") for token in logprobs["tokens"])
    else:
        return None, None
    if not values or not all(map(math.isfinite, values)) or len(values) != len(pieces):
        return None, None
    # An end-of-sequence token may be told beside the text; anything else means that pieces and text differ.
    told = b"".join(pieces).decode(errors="replace")
    return (pieces if told.startswith(text) else None), values


def _is_too_long(error: openai.BadRequestError) -> bool:
    words = str(error).lower()
    return "context length" in words or "context_length_exceeded" in words or "context size" in words


def explained(error: BaseException, sampler: ServerSampler) -> BaseException:
    """The error as a sentence for the user, where it is one of the server."""
    where = f"--server {sampler.client.base_url}"
    kept = "what was sampled is kept, and the same command resumes"
    if isinstance(error, openai.AuthenticationError | openai.PermissionDeniedError):
        return UserError(f"{where}: the key is refused ({error}); set OPENAI_API_KEY")
    if isinstance(error, openai.NotFoundError):
        return UserError(f"{where}: no model {sampler.served_model!r} there ({error}); give another --served-model")
    if isinstance(error, openai.RateLimitError):
        return UserError(f"{where}: too many requests, still after {MAX_RETRIES} retries; give a smaller --concurrency")
    if isinstance(error, openai.APITimeoutError):
        return UserError(f"{where}: no answer within --request-timeout-s; give a longer one, or less --concurrency")
    if isinstance(error, openai.APIConnectionError):
        return UserError(
            f"{where}: the connection fails, still after {MAX_RETRIES} retries ({error.__cause__}); {kept}"
        )
    if isinstance(error, openai.APIStatusError):
        return UserError(f"{where}: status {error.status_code} ({error!s:.500}); {kept}")
    if isinstance(error, MalformedResponse):
        return UserError(f"{where}: not an OpenAI-compatible response ({error}); {kept}")
    return error
