"""An OpenAI-compatible server on a real port, with the CPU sampler behind it and faults on order.

It stands in for servers that a test machine does not have; `vllm serve` itself is in tests/vllm.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from transformers import AutoTokenizer

from verl_ispo.cpu.sampling import SampleRequest
from verl_ispo.evaluation.cpu_sampler import CPUSampler
from verl_ispo.evaluation.sampler import Completion

NAME = "tiny"


@dataclass
class FakeServer:
    """What it does, and what it was asked.

    Attributes:
        folder: of the model.
        tells: which of ``log_probs``, ``token_ids``, ``seeds`` it has; a request for another one is refused with 400
            where `refuses` says so, and ignored otherwise.
        faults: one for each of the next requests: a status, ``cut`` (the body ends early), ``garbage``, ``slow``.
        refuses: whether fields that it does not know are an error.
        takes_token_ids: whether a prompt may be a list of token ids.
        names: of the models that it lists.
        context_tokens: a longer prompt and response are refused, as vLLM does.
        limit: what it calls the longest response; another name is refused, as hosted models do.
        one_stream: a request with a seed is answered greedily, as some servers do.
        reasons: all of a response is reasoning, which it sends beside an empty content.
        asked: bodies of the requests.
        most_at_once: greatest number of requests at a time.
    """

    folder: Path
    tells: set[str] = field(default_factory=lambda: {"log_probs", "token_ids", "seeds"})
    faults: list[int | str] = field(default_factory=list)
    refuses: bool = False
    takes_token_ids: bool = True
    names: tuple[str, ...] = (NAME,)
    context_tokens: int = 100_000
    limit: str = "max_tokens"
    one_stream: bool = False
    reasons: bool = False
    asked: list[dict[str, Any]] = field(default_factory=list)
    most_at_once: int = 0
    url: str = ""
    _now: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def app(self) -> FastAPI:
        """The application."""
        app, tokenizer, sampler = FastAPI(), AutoTokenizer.from_pretrained(self.folder), CPUSampler(self.folder)

        @app.get("/v1/models")
        def models() -> Any:
            return {"object": "list", "data": [{"id": name, "object": "model"} for name in self.names]}

        def respond(body: dict[str, Any]) -> Any:
            if (fault := self._fault()) is not None:
                return fault
            if body["model"] not in self.names:
                return _error(404, f"The model `{body['model']}` does not exist.")
            wanted = {
                "log_probs": "logprobs" in body,
                "token_ids": "return_token_ids" in body,
                "seeds": "seed" in body,
            }
            unknown = [name for name, is_wanted in wanted.items() if is_wanted and name not in self.tells]
            if unknown and self.refuses:
                return _error(400, f"unknown field for {unknown[0]}")
            if self.limit not in body:
                return _error(400, f"Unsupported parameter: use '{self.limit}' instead.")
            if "messages" in body:
                ids = tokenizer.apply_chat_template(body["messages"], add_generation_prompt=True, return_dict=False)
            elif isinstance(body["prompt"], str) or not self.takes_token_ids:
                return _error(400, "prompt must be text" if not self.takes_token_ids else "prompt must be token ids")
            else:
                ids = body["prompt"]
            if len(ids) + body[self.limit] > self.context_tokens:
                return _error(400, f"This model's maximum context length is {self.context_tokens} tokens.")
            request = SampleRequest(
                tuple(ids),
                body[self.limit],
                temperature=0.0 if self.one_stream and "seed" in body else body["temperature"],
                top_p=body["top_p"],
                seed=body.get("seed", 0) if "seeds" in self.tells else time.perf_counter_ns(),
            )
            [[(_, completion)]] = sampler([request])
            return self._body(body, completion, tokenizer, wanted)

        @app.post("/v1/completions")
        def completions(body: dict[str, Any]) -> Any:
            return self._counted(respond, body)

        @app.post("/v1/chat/completions")
        def chat(body: dict[str, Any]) -> Any:
            return self._counted(respond, body)

        @app.exception_handler(Exception)
        def fail(_: Request, error: Exception) -> Any:
            return _error(500, repr(error))

        return app

    def _counted(self, respond: Any, body: dict[str, Any]) -> Any:
        with self._lock:
            self.asked.append(body)
            self._now += 1
            self.most_at_once = max(self.most_at_once, self._now)
        try:
            return respond(body)
        finally:
            with self._lock:
                self._now -= 1

    def _fault(self) -> Response | None:
        with self._lock:
            fault = self.faults.pop(0) if self.faults else None
        if fault == "garbage":
            return Response("<html>not here</html>", media_type="text/html")
        if fault == "cut":
            return Response('{"choices": [', media_type="application/json", headers={"content-length": "5000"})
        if fault == "slow":
            time.sleep(3)
        if fault == "shape":
            return JSONResponse({"choices": []})
        return _error(fault, "on order") if isinstance(fault, int) else None

    def _body(self, body: dict[str, Any], completion: Completion, tokenizer: Any, wanted: dict[str, bool]) -> Any:
        token_ids = list(completion.token_ids or ())
        pieces = [tokenizer.decode([token]) for token in token_ids]
        text = tokenizer.decode(token_ids, skip_special_tokens=True)
        choice: dict[str, Any] = {"index": 0, "finish_reason": completion.finish_reason}
        if "messages" in body:
            said = {"content": None, "reasoning_content": text} if self.reasons else {"content": text}
            choice["message"] = {"role": "assistant", **said}
        else:
            choice["text"] = text
        if wanted["log_probs"] and "log_probs" in self.tells:
            if "messages" in body:
                choice["logprobs"] = {
                    "content": [
                        {"token": piece, "bytes": list(piece.encode()), "logprob": value, "top_logprobs": []}
                        for piece, value in zip(pieces, completion.log_probs or (), strict=True)
                    ]
                }
            else:
                choice["logprobs"] = {"tokens": pieces, "token_logprobs": list(completion.log_probs or ())}
        if wanted["token_ids"] and "token_ids" in self.tells:
            choice["token_ids"] = token_ids
        return {
            "id": "1",
            "object": "chat.completion" if "messages" in body else "text_completion",
            "created": 0,
            "model": body["model"],
            "choices": [choice],
            "usage": {"prompt_tokens": 1, "completion_tokens": len(token_ids), "total_tokens": 1 + len(token_ids)},
        }


@contextmanager
def serving(server: FakeServer) -> Iterator[FakeServer]:
    """Run it on a free port of this machine."""
    runner = uvicorn.Server(uvicorn.Config(server.app(), host="127.0.0.1", port=0, log_level="critical"))
    thread = threading.Thread(target=runner.run, daemon=True)
    thread.start()
    while not runner.started:
        time.sleep(0.01)
    port = runner.servers[0].sockets[0].getsockname()[1]
    server.url = f"http://127.0.0.1:{port}"
    try:
        yield server
    finally:
        runner.should_exit = True
        thread.join(timeout=10)


def _error(status: int, message: str) -> Response:
    body = json.dumps({"error": {"message": message, "type": "error", "code": status}})
    return Response(body, status_code=status, media_type="application/json", headers={"retry-after-ms": "1"})
