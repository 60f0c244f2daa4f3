"""An evaluation through an OpenAI-compatible server gives what the sampler behind it gives, whatever fails on the way.

The server is a stand-in on a real port, with the CPU sampler behind it, so the files can be compared with those of the
CPU sampler here: same seeds, same tokens, same log-probs. What a server does not tell is missing in the manifest and in
the samples, and nowhere else. Each kind of fault comes once and passes, or stays and ends the command with a sentence.

Not exercised: hosted services and llama.cpp; `vllm serve` is in tests/vllm.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.evaluation.conftest import arithmetic_row
from tests.evaluation.fake_server import NAME, FakeServer, serving
from tests.evaluation.test_run import final_bytes, samples_of
from verl_ispo.evaluation import server_sampler, server_source
from verl_ispo.evaluation.evaluation_options import EvaluationOptions
from verl_ispo.evaluation.results import SAMPLES_NAME
from verl_ispo.evaluation.run import LOG_NAME, evaluate, run
from verl_ispo.user_error import UserError


@pytest.fixture
def server(random_model: Path) -> Iterator[FakeServer]:
    with serving(FakeServer(random_model)) as running:
        yield running


@pytest.fixture
def served(options: EvaluationOptions, server: FakeServer, tmp_path: Path) -> EvaluationOptions:
    """The options of `options`, through the server."""
    return dataclasses.replace(
        options, server=server.url, sampler="auto", concurrency=4, out=tmp_path / "served", method="out"
    )


@pytest.fixture(autouse=True)
def few_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_source, "MAX_RETRIES", 2)
    monkeypatch.setattr(server_sampler, "MAX_RETRIES", 2)


def manifest_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "manifest.json").read_text())


def test_token_ids_give_the_samplers_own_samples(
    options: EvaluationOptions, served: EvaluationOptions, server: FakeServer
) -> None:
    evaluate(options)
    evaluate(served)
    assert samples_of(served.out) == samples_of(options.out)
    sampler = manifest_of(served.out)["sampler"]
    assert (sampler["name"], sampler["served_model"], sampler["missing"]) == ("server", NAME, [])
    assert "token ids" in sampler["prompts"]
    assert manifest_of(served.out)["inputs"]["model_sha256"] is None
    assert 1 < server.most_at_once <= 4


def test_the_served_chat_template_gives_them_too_and_needs_no_tokenizer_here(
    options: EvaluationOptions, served: EvaluationOptions
) -> None:
    evaluate(options)
    evaluate(dataclasses.replace(served, server_prompts="chat", model="somebody/model"))
    ours, theirs = samples_of(options.out), samples_of(served.out)
    assert [sample["text"] for sample in theirs] == [sample["text"] for sample in ours]
    assert [sample["response_log_prob"] for sample in theirs] == [sample["response_log_prob"] for sample in ours]
    assert "chat template" in manifest_of(served.out)["sampler"]["prompts"]


@pytest.mark.parametrize("refuses", [True, False])
@pytest.mark.parametrize(
    ("tells", "missing"),
    [
        ({"log_probs", "seeds"}, ["token ids"]),
        ({"seeds"}, ["log-probs", "token ids"]),
        ({"log_probs"}, ["token ids", "seeds"]),
        (set(), ["log-probs", "token ids", "seeds"]),
    ],
)
def test_what_a_server_does_not_tell_is_recorded_as_missing(
    options: EvaluationOptions,
    served: EvaluationOptions,
    server: FakeServer,
    tells: set[str],
    missing: list[str],
    refuses: bool,
) -> None:
    server.tells, server.refuses = tells, refuses
    evaluate(options)
    evaluate(served)
    assert manifest_of(served.out)["sampler"]["missing"] == missing
    for ours, theirs in zip(samples_of(options.out), samples_of(served.out), strict=True):
        assert theirs["tokens"] > 0
        if "seeds" in tells or ours["mode"] == "greedy":
            assert theirs["text"] == ours["text"]
        assert (theirs["response_log_prob"] is None) == ("log_probs" not in tells)


@pytest.mark.parametrize("fault", [429, 500, 503, "cut", "garbage", "shape", "slow"])
def test_a_fault_that_passes_shows_in_no_file(
    options: EvaluationOptions, served: EvaluationOptions, server: FakeServer, fault: int | str
) -> None:
    evaluate(options)
    served = dataclasses.replace(served, request_timeout_s=1.0 if fault == "slow" else 60.0)
    evaluate(dataclasses.replace(served, out=served.out.parent / "undisturbed"))
    server.faults = [fault, "", "", fault, "", fault]
    evaluate(served)
    assert server.faults == []
    assert final_bytes(served.out)[SAMPLES_NAME] == final_bytes(options.out)[SAMPLES_NAME]
    assert final_bytes(served.out) == final_bytes(served.out.parent / "undisturbed")


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (401, "the key is refused .* set OPENAI_API_KEY"),
        (404, f"no model '{NAME}' there .* give another --served-model"),
        (429, "too many requests, still after 2 retries; give a smaller --concurrency"),
        (500, "status 500 .*what was sampled is kept, and the same command resumes"),
        ("cut", "the connection fails, still after 2 retries"),
        ("garbage", "not an OpenAI-compatible response"),
        ("shape", "not an OpenAI-compatible response"),
        ("slow", "no answer within --request-timeout-s"),
    ],
)
def test_a_fault_that_stays_ends_the_command_and_keeps_what_was_sampled(
    served: EvaluationOptions, server: FakeServer, fault: int | str, said: str, tmp_path: Path
) -> None:
    served = dataclasses.replace(served, concurrency=1, request_timeout_s=0.5 if fault == "slow" else 60.0)
    evaluate(dataclasses.replace(served, out=tmp_path / "undisturbed", request_timeout_s=60.0))
    # three requests find out what the server tells and repeats
    server.faults = ["", "", "", "", "", *[fault] * 50]
    with pytest.raises(UserError, match=said):
        evaluate(served)
    assert len((served.out / LOG_NAME).read_bytes().splitlines()) == 2
    server.faults = []
    evaluate(dataclasses.replace(served, request_timeout_s=60.0))
    assert final_bytes(served.out) == final_bytes(tmp_path / "undisturbed")


def test_a_prompt_that_the_server_refuses_as_too_long_counts_as_incorrect(
    served: EvaluationOptions, server: FakeServer, write_benchmark: Callable[..., Path]
) -> None:
    rows = [arithmetic_row(1), arithmetic_row(1000000000)]
    served = dataclasses.replace(served, benchmarks=(write_benchmark(rows),), server_prompts="chat")
    server.context_tokens = 16
    evaluate(served)
    long = [sample for sample in samples_of(served.out) if sample["question_id"] == "sums-1000000000"]
    assert {sample["finish_reason"] for sample in long} == {"prompt_too_long"}
    assert not any(sample["correct"] for sample in long)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"served_model": "other"}, f"--served-model other is not served; give --served-model, one of: {NAME}"),
        ({"server": "localhost:8000"}, "--server localhost:8000: give an address such as http://"),
        ({"server": "http://127.0.0.1:9"}, "the connection fails, still after 2 retries"),
        ({"model": "/nowhere/model"}, "no tokenizer there .* or give --server-prompts chat"),
        ({"replicas": 2}, "--replicas and --server"),
        ({"sampler": "cpu"}, "--sampler cpu and --server"),
        ({"concurrency": 0}, "--concurrency 0: give 1 or more"),
    ],
)
def test_what_cannot_work_is_said_before_anything_is_sampled(
    served: EvaluationOptions, changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(UserError, match=said):
        evaluate(dataclasses.replace(served, **changes))
    assert not served.out.exists()


def test_several_models_have_to_be_told_apart(served: EvaluationOptions, server: FakeServer) -> None:
    server.names = ("first", NAME)
    with pytest.raises(UserError, match=f"several models are served; give --served-model, one of: first, {NAME}"):
        evaluate(served)
    evaluate(dataclasses.replace(served, served_model=NAME))
    assert manifest_of(served.out)["sampler"]["served_model"] == NAME


def test_a_server_that_takes_no_token_ids_is_named(served: EvaluationOptions, server: FakeServer) -> None:
    server.takes_token_ids = False
    with pytest.raises(UserError, match=r"refuses a prompt of token ids .* give --server-prompts chat"):
        evaluate(served)


def test_another_address_resumes_and_a_password_in_it_is_not_written(
    served: EvaluationOptions, server: FakeServer, capsys: pytest.CaptureFixture[str]
) -> None:
    evaluate(served)
    with_password = server.url.replace("http://", "http://me:secret@") + "/v1/"
    assert run(dataclasses.replace(served, server=with_password)) == 0
    assert "secret" not in "".join(path.read_text() for path in served.out.iterdir() if path.is_file())
    captured = capsys.readouterr()
    assert "secret" not in captured.out + captured.err


def test_a_server_that_knows_the_newer_name_of_the_limit_is_asked_by_it(
    options: EvaluationOptions, served: EvaluationOptions, server: FakeServer
) -> None:
    server.limit, server.tells, server.refuses = "max_completion_tokens", {"log_probs", "seeds"}, True
    evaluate(options)
    evaluate(dataclasses.replace(served, server_prompts="chat"))
    assert [sample["text"] for sample in samples_of(served.out)] == [s["text"] for s in samples_of(options.out)]


def test_seeds_that_change_nothing_are_warned_of(
    served: EvaluationOptions, server: FakeServer, capsys: pytest.CaptureFixture[str]
) -> None:
    evaluate(served)
    assert "warning: --server" not in capsys.readouterr().err
    server.one_stream = True
    evaluate(dataclasses.replace(served, out=served.out.parent / "alike"))
    assert "4 seeds gave the same 6 tokens at temperature 1" in capsys.readouterr().err


def test_a_response_that_is_all_reasoning_has_no_answer(served: EvaluationOptions, server: FakeServer) -> None:
    """Servers with a reasoning parser send ``content: null`` where the limit came before the answer."""
    server.reasons = True
    evaluate(dataclasses.replace(served, server_prompts="chat"))
    for sample in samples_of(served.out):
        assert (sample["text"], sample["status"], sample["answer_log_prob"]) == ("", "no_answer", None)
        assert sample["tokens"] > 0
