"""Responses from a server that somebody runs: which model it serves, and what its protocol does not tell."""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Sequence
from importlib.metadata import version
from urllib.parse import urlsplit, urlunsplit

import openai

from verl_ispo.cpu.sampling import SampleRequest
from verl_ispo.evaluation.evaluation_options import EvaluationOptions
from verl_ispo.evaluation.prompts import ChatPrompts, Prompts, TokenPrompts
from verl_ispo.evaluation.questions import Question
from verl_ispo.evaluation.response_source import ResponseSource
from verl_ispo.evaluation.sampler import ChatRequest, Completion, Request
from verl_ispo.evaluation.samples import PlannedSample
from verl_ispo.evaluation.server_sampler import MAX_RETRIES, MalformedResponse, ServerOptions, ServerSampler, explained
from verl_ispo.user_error import UserError

TOKEN_IDS, CHAT = "token-ids", "chat"
"""Values of ``--server-prompts``."""

_CONNECT_TIMEOUT_S = 10.0
_PROBE_TOKENS = 32
_PROBE_SEED = 20260608
_OTHER_SEEDS = 3
_FIELDS = ("token_ids", "log_probs", "seeds")
_NEWER_LIMIT = "max_completion_tokens"


def server_source(options: EvaluationOptions, questions: Sequence[Question]) -> ResponseSource:
    """Connect, choose the model, and ask for a few short responses to see what the server tells and repeats.

    Raises:
        UserError: if the server cannot be reached, does not serve the model, or refuses the prompts.
    """
    assert options.server is not None
    client = openai.OpenAI(
        base_url=_with_version(options.server),
        api_key=os.environ.get("OPENAI_API_KEY") or "none",  # most self-hosted servers ask for no key
        max_retries=MAX_RETRIES,
        timeout=openai.Timeout(options.request_timeout_s, connect=_CONNECT_TIMEOUT_S),
    )
    prompts: Prompts
    if options.server_prompts == CHAT:
        prompts = ChatPrompts(options.max_new_tokens, options.context_tokens)
    else:
        prompts = _token_prompts(options, questions)
    served_model = _served_model(client, options.served_model)
    sampler = ServerSampler(client, served_model, ServerOptions(), options.concurrency)
    question = next(one for one in questions if prompts.response_limit(one) > 0)
    request = prompts.request(PlannedSample(question, "sampled", 0, _PROBE_SEED, 1.0), 1.0)
    request = dataclasses.replace(request, max_new_tokens=min(_PROBE_TOKENS, request.max_new_tokens))
    understands, first = _understood(sampler, request)
    sampler = dataclasses.replace(sampler, understands=understands)
    repeats = understands.seeds and sampler.complete(request).text == first.text
    if repeats:
        _warn_of_equal_samples(sampler, request, first)
    missing = [
        name
        for name, told in (
            ("log-probs", first.log_probs is not None),
            ("token ids", first.token_ids is not None),
            ("seeds", repeats),
        )
        if not told
    ]
    print(
        f"Server: {served_model}, {options.concurrency} requests at a time; "
        + (f"it does not give {', '.join(missing)}" if missing else "it gives log-probs, token ids and seeds"),
        flush=True,
    )
    return ResponseSource(
        prompts=prompts,
        model={
            "path": options.model,
            "checkpoint_rule": "as served",
            "step": None,
            "server": _without_password(options.server),
        },
        model_sha256=None,
        sampler={
            "name": "server",
            "served_model": served_model,
            "prompts": "messages, by the served chat template"
            if options.server_prompts == CHAT
            else f"token ids, by the {'tokenizer' if options.raw_prompts else 'chat template'} of {options.model}",
            "missing": missing,
            "versions": {"openai": version("openai"), "server": _server_version(client)},
        },
        load=lambda: sampler,
    )


def _with_version(url: str) -> str:
    """The address with ``/v1`` behind it, which the client expects and people leave out."""
    if urlsplit(url).scheme not in ("http", "https"):
        raise UserError(f"--server {url}: give an address such as http://localhost:8000/v1")
    trimmed = url.rstrip("/")
    return trimmed if urlsplit(trimmed).path else f"{trimmed}/v1"


def _without_password(url: str) -> str:
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def _token_prompts(options: EvaluationOptions, questions: Sequence[Question]) -> TokenPrompts:
    try:
        return TokenPrompts(options.model, questions, options)
    except UserError:
        raise
    except (OSError, ValueError) as error:
        raise UserError(
            f"--model {options.model}: no tokenizer there ({str(error).splitlines()[0]:.200}). Prompts are sent as "
            "token ids, so name a Hugging Face folder or hub id with the served model's tokenizer, or give "
            f"--server-prompts {CHAT} to have the server's own chat template used"
        ) from error


def _served_model(client: openai.OpenAI, asked: str | None) -> str:
    """The model's name at the server: the one that was asked for, or the only one there."""
    probe = ServerSampler(client, asked or "", ServerOptions(), 1)
    try:
        names = [model.id for model in client.models.list()]
    except openai.NotFoundError as error:
        if asked is not None:
            return asked
        raise UserError(f"--server {client.base_url}: it lists no models; give --served-model") from error
    except openai.OpenAIError as error:
        raise explained(error, probe) from error
    except (AttributeError, TypeError, ValueError) as error:
        raise explained(MalformedResponse(f"its list of models: {error}"), probe) from error
    if asked in names:
        return str(asked)
    if asked is None and len(names) == 1:
        return names[0]
    said = "several models are served" if asked is None else f"--served-model {asked} is not served"
    raise UserError(f"--server {client.base_url}: {said}; give --served-model, one of: {', '.join(names) or 'none'}")


def _understood(sampler: ServerSampler, request: Request) -> tuple[ServerOptions, Completion]:
    """The most that the server understands, and its response; what it refuses as a bad request is left out."""
    limit = ServerOptions().limit
    for left_out in ((), ("token_ids",), ("token_ids", "log_probs"), ("token_ids", "seeds"), _FIELDS):
        for _ in range(2):
            understands = dataclasses.replace(ServerOptions(limit=limit), **dict.fromkeys(left_out, False))
            sampler = dataclasses.replace(sampler, understands=understands)
            try:
                return understands, sampler.complete(request)
            except (openai.BadRequestError, openai.UnprocessableEntityError) as error:
                refused = error
                if limit == _NEWER_LIMIT or _NEWER_LIMIT not in str(error):
                    break
                limit = _NEWER_LIMIT
            except (openai.OpenAIError, MalformedResponse) as error:
                raise explained(error, sampler) from error
    if isinstance(request, SampleRequest):
        raise UserError(
            f"--server {sampler.client.base_url}: it refuses a prompt of token ids ({refused!s:.300}); give "
            f"--server-prompts {CHAT}"
        )
    assert isinstance(request, ChatRequest)
    raise explained(refused, sampler)


def _warn_of_equal_samples(sampler: ServerSampler, request: Request, first: Completion) -> None:
    """Some servers sample greedily, or from one stream, once a request has a seed."""
    others = [dataclasses.replace(request, seed=_PROBE_SEED + index) for index in range(1, _OTHER_SEEDS + 1)]
    if first.text and all(sampler.complete(other).text == first.text for other in others):
        print(
            f"warning: --server {sampler.client.base_url}: {_OTHER_SEEDS + 1} seeds gave the same {first.tokens} "
            "tokens at temperature 1; if the server does not draw by the seed, all samples of a problem will be alike",
            file=sys.stderr,
            flush=True,
        )


def _server_version(client: openai.OpenAI) -> str:
    """What vLLM answers under ``/version``; other servers do not tell it."""
    root = client.base_url.copy_with(path="/")
    try:
        told = client.copy(base_url=root, max_retries=0).get("/version", cast_to=object)
        return str(told["version"])[:100]
    except (openai.OpenAIError, KeyError, TypeError, ValueError):
        return "not told"
