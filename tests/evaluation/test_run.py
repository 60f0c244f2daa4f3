"""An evaluation from start to end on a CPU, with a random model: what is written, and what an interruption leaves.

- A sample depends on run seed, benchmark, question and index alone: neither on the batch, nor on n, nor on the order.
- Killed with SIGKILL in the middle (a real process) and started again, the final files are the same bytes; so they are
  after a torn last line, and after Ctrl-C.
- A resumed run with other options, another model or other problems is refused, and the difference is named.
- The context's end: a shorter response, or none, and the problem still counts.

The random model writes noise, so accuracies are 0; that is of no importance here.

Not exercised: vLLM itself (no GPU). Its adapter is run against a stand-in that records what it is called with, in
`test_the_vllm_adapter_...`; a power cut (fsync is called, not proven).
"""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.evaluation.conftest import arithmetic_row
from verl_ispo import cli
from verl_ispo.cpu.sampling import SampleRequest
from verl_ispo.evaluation import local_source
from verl_ispo.evaluation import run as run_module
from verl_ispo.evaluation.cpu_sampler import MAX_BATCH_PROMPT_TOKENS, MAX_BATCH_ROWS, batches
from verl_ispo.evaluation.evaluation_options import EvaluationOptions
from verl_ispo.evaluation.manifest import MANIFEST_NAME
from verl_ispo.evaluation.prompts import TokenPrompts
from verl_ispo.evaluation.results import SAMPLES_NAME, load_result
from verl_ispo.evaluation.run import LOG_NAME, SUMMARY_NAME, evaluate, run
from verl_ispo.evaluation.samples import sample_seed
from verl_ispo.user_error import UserError

FINAL_FILES = (MANIFEST_NAME, "questions.jsonl", SAMPLES_NAME, SUMMARY_NAME)


def final_bytes(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in FINAL_FILES}


def samples_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / SAMPLES_NAME).read_text().splitlines()]


def test_batches_cover_every_request_once_within_the_limits():
    lengths = [(7 * index) % 900 + 1 for index in range(1500)] + [3 * MAX_BATCH_PROMPT_TOKENS]
    found = list(batches(lengths))
    assert sorted(index for batch in found for index in batch) == list(range(len(lengths)))
    for batch in found:
        assert len(batch) <= MAX_BATCH_ROWS
        assert len(batch) == 1 or len(batch) * max(lengths[index] for index in batch) <= MAX_BATCH_PROMPT_TOKENS
    assert list(batches([])) == []


def test_seeds_differ_by_everything_they_depend_on_and_fit_a_json_number():
    seeds = {
        sample_seed(run_seed, benchmark, question, index)
        for run_seed in (0, 1)
        for benchmark in ("a", "b")
        for question in ("x", "y")
        for index in range(16)
    }
    assert len(seeds) == 128
    assert max(seeds) < 2**53
    assert sample_seed(0, "a", "x", 0) == sample_seed(0, "a", "x", 0)


def test_what_an_evaluation_writes(options: EvaluationOptions):
    summary = evaluate(options)
    samples = samples_of(options.out)
    assert len(samples) == 6 * 3
    assert [(sample["question_id"], sample["mode"], sample["sample_index"]) for sample in samples[:3]] == [
        ("sums-0", "greedy", 0),
        ("sums-0", "sampled", 0),
        ("sums-0", "sampled", 1),
    ]
    for sample in samples:
        assert sample["finish_reason"] in ("stop", "length")
        assert sample["tokens"] <= 6
        assert (sample["seed"] is None) == (sample["mode"] == "greedy")
        assert sample["temperature"] == (0.0 if sample["mode"] == "greedy" else 0.6)
    truncated = sum(sample["finish_reason"] == "length" for sample in samples)
    assert summary["sums"]["samples"]["truncated"] == truncated > 0
    assert summary["sums"]["problems"] == 6
    assert summary["sums"]["scores"]["pass@1_greedy"]["score"] == 0.0
    assert json.loads((options.out / SUMMARY_NAME).read_text()) == summary
    assert not (options.out / LOG_NAME).exists()
    result = load_result(options.out)
    assert result.finished
    assert (result.base_model, result.method) == ("random", "out")


def test_fewer_samples_are_the_first_of_more_and_other_problems_change_nothing(
    options: EvaluationOptions, write_benchmark: Callable[..., Path], tmp_path: Path
):
    evaluate(options)
    longer = write_benchmark([arithmetic_row(index) for index in (4, 2, 11, 5)], "other.parquet")
    evaluate(dataclasses.replace(options, n=3, benchmarks=(longer,), out=tmp_path / "more"))
    texts = {(s["question_id"], s["mode"], s["sample_index"]): s["text"] for s in samples_of(tmp_path / "more")}
    shared = [s for s in samples_of(options.out) if s["question_id"] in ("sums-4", "sums-2", "sums-5")]
    assert len(shared) == 9
    assert all(texts[s["question_id"], s["mode"], s["sample_index"]] == s["text"] for s in shared)
    evaluate(dataclasses.replace(options, seed=1, out=tmp_path / "seed"))
    pairs = list(zip(samples_of(options.out), samples_of(tmp_path / "seed"), strict=True))
    assert all((a["text"] == b["text"]) == (a["mode"] == "greedy") for a, b in pairs)


def test_a_torn_last_line_and_missing_samples_are_drawn_again(options: EvaluationOptions, tmp_path: Path):
    evaluate(options)
    expected = final_bytes(options.out)
    lines = expected[SAMPLES_NAME].splitlines(keepends=True)
    (options.out / SAMPLES_NAME).unlink()
    (options.out / SUMMARY_NAME).unlink()
    # seven samples in another order, and an eighth cut in the middle
    (options.out / LOG_NAME).write_bytes(b"".join(lines[11:4:-1]) + lines[0][:-40])
    evaluate(options)
    assert final_bytes(options.out) == expected
    # killed between the two last steps: the sorted file is there, the log is not yet removed
    (options.out / LOG_NAME).write_bytes(lines[0])
    evaluate(options)
    assert final_bytes(options.out) == expected
    assert not (options.out / LOG_NAME).exists()


def test_a_log_that_was_changed_from_outside_is_refused(options: EvaluationOptions):
    evaluate(options)
    lines = (options.out / SAMPLES_NAME).read_bytes().splitlines(keepends=True)
    (options.out / SAMPLES_NAME).unlink()
    (options.out / LOG_NAME).write_bytes(lines[0] + b"garbage\n" + lines[1])
    with pytest.raises(UserError, match=r"partial\.jsonl, line 2: not a sample"):
        evaluate(options)
    (options.out / LOG_NAME).write_bytes(lines[0] + lines[0])
    with pytest.raises(UserError, match=r"line 2: .* is there twice"):
        evaluate(options)


def test_ctrl_c_keeps_what_is_finished(
    options: EvaluationOptions, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
):
    undisturbed = dataclasses.replace(options, out=tmp_path / "undisturbed", method="out")
    evaluate(undisturbed)
    load = local_source.load_sampler

    def interrupted_sampler(*arguments: Any) -> Any:
        sampler = load(*arguments)

        def sample(requests: list[SampleRequest]) -> Any:
            yield from sampler(requests[:5])
            raise KeyboardInterrupt

        return sample

    monkeypatch.setattr(local_source, "load_sampler", interrupted_sampler)
    assert run(options) == 130
    assert "interrupted; finished samples are kept" in capsys.readouterr().err
    assert len((options.out / LOG_NAME).read_bytes().splitlines()) == 5
    monkeypatch.setattr(local_source, "load_sampler", load)
    assert run(options) == 0
    assert "Resuming: 5 of 18 samples are there." in capsys.readouterr().out
    assert final_bytes(options.out) == final_bytes(undisturbed.out)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"n": 3}, r"options\.n: recorded 2, asked 3"),
        ({"temperature": 1.0}, r"options\.temperature: recorded 0\.6, asked 1\.0"),
        ({"seed": 5}, r"options\.seed: recorded 0, asked 5"),
        ({"max_new_tokens": 7}, r"options\.max_new_tokens: recorded 6, asked 7"),
        ({"reward_function": "other"}, r"grader\.function: recorded .*; grader\.source_sha256: recorded"),
    ],
)
def test_resuming_with_other_options_is_refused_by_name(
    options: EvaluationOptions, tmp_path: Path, changes: dict[str, Any], said: str
):
    evaluate(options)
    before = final_bytes(options.out)
    if "reward_function" in changes:
        (tmp_path / "other.py").write_text("def compute_score(**_):\n    return 0\n")
        changes = {"reward_function": str(tmp_path / "other.py")}
    with pytest.raises(UserError, match=said):
        evaluate(dataclasses.replace(options, **changes))
    assert final_bytes(options.out) == before


def test_resuming_with_another_model_or_other_problems_is_refused(
    options: EvaluationOptions, write_benchmark: Callable[..., Path], tmp_path: Path
):
    import shutil

    evaluate(options)
    other = tmp_path / "other"
    shutil.copytree(options.model, other)
    # the same weights in another folder are the same model
    evaluate(dataclasses.replace(options, model=str(other)))
    (other / "generation_config.json").write_text('{"eos_token_id": 257}')
    with pytest.raises(UserError, match=r"inputs\.model_sha256: recorded"):
        evaluate(dataclasses.replace(options, model=str(other)))
    fewer = write_benchmark([arithmetic_row(index) for index in range(5)], "fewer.parquet")
    with pytest.raises(UserError, match=r"inputs\.benchmarks\.sums\.problems: recorded 6, asked 5"):
        evaluate(dataclasses.replace(options, benchmarks=(fewer,)))


def test_labels_can_be_changed_without_sampling_and_stay_where_they_are_not_given(
    options: EvaluationOptions, monkeypatch: pytest.MonkeyPatch
):
    evaluate(dataclasses.replace(options, method="ISPO", training_seed=3))
    monkeypatch.setattr(local_source, "load_sampler", lambda *_: pytest.fail("nothing may be sampled again"))
    evaluate(dataclasses.replace(options, base_model="tiny"))
    assert json.loads((options.out / MANIFEST_NAME).read_text())["labels"] == {
        "base_model": "tiny",
        "method": "ISPO",
        "training_seed": 3,
    }


def test_a_folder_with_other_files_is_refused(options: EvaluationOptions):
    options.out.mkdir()
    (options.out / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match=r"holds other files \(notes\.txt\) and no manifest\.json"):
        evaluate(options)


def test_two_evaluations_at_once_do_not_write_into_one_folder(options: EvaluationOptions):
    with (
        run_module._exclusive(options.out),
        pytest.raises(UserError, match="another process is writing an evaluation there"),
    ):
        evaluate(options)


def test_the_context_ends_a_response_and_a_prompt_that_fills_it_counts_as_wrong(
    options: EvaluationOptions, write_benchmark: Callable[..., Path], capsys: pytest.CaptureFixture[str]
):
    # prompts of 4, 5 and 10 tokens in a context of 7 leave 3, 2 and 0 tokens for the response
    rows = [arithmetic_row(1), arithmetic_row(10), arithmetic_row(10000)]
    rows[1]["prompt"][0]["content"] = "10+1="
    options = dataclasses.replace(options, benchmarks=(write_benchmark(rows),), context_tokens=7)
    summary = evaluate(options)
    by_question = {sample["question_id"]: sample for sample in samples_of(options.out) if sample["mode"] == "greedy"}
    assert by_question["sums-1"]["tokens"] <= 3
    assert by_question["sums-10"]["tokens"] <= 2
    long = by_question["sums-10000"]
    assert (long["tokens"], long["finish_reason"], long["correct"]) == (0, "prompt_too_long", False)
    assert summary["sums"]["problems"] == 3
    assert summary["sums"]["samples"]["prompt_too_long"] == 3
    errors = capsys.readouterr().err
    assert "sums: 1 of 3 prompts fill the context of 7 tokens" in errors
    assert "sums: 2 of 3 prompts leave less than --max-new-tokens 6" in errors


def test_a_response_with_line_separators_stays_one_line(options: EvaluationOptions, monkeypatch: pytest.MonkeyPatch):
    hostile = "a\u2028b\u0085c\n\x00</script>\ud800"
    monkeypatch.setattr(TokenPrompts, "text", lambda *_: hostile)
    evaluate(options)
    assert all(sample["text"] == hostile for sample in samples_of(options.out))
    assert load_result(options.out).finished


def test_the_command_reports_a_fault_in_one_line_and_exits_with_2(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, random_model: Path
):
    arguments = ["eval", "--model", str(random_model), "--benchmarks", "nowhere.parquet", "--out", str(tmp_path / "o")]
    assert cli.main(arguments) == 2
    assert capsys.readouterr().err.startswith("verl-ispo eval: error: nowhere.parquet: no such file")


@pytest.mark.parametrize("command", ["eval", "table"])
def test_help_teaches_by_examples(command: str, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as stopped:
        cli.main([command, "--help"])
    assert stopped.value.code == 0
    assert "examples:" in capsys.readouterr().out


@pytest.mark.trainer
def test_killed_and_resumed_gives_the_same_bytes(options: EvaluationOptions, tmp_path: Path):
    """A real process, killed with SIGKILL after its first batches, then resumed; and one that was left alone."""

    def command(out: Path) -> list[str]:
        arguments = ["--model", options.model, "--benchmarks", str(options.benchmarks[0]), "--out", str(out)]
        arguments += ["--n", "60", "--max-new-tokens", "40", "--method", "killed", "--sampler", "cpu"]
        arguments += ["--reward-function", options.reward_function]
        return [sys.executable, "-m", "verl_ispo.cli", "eval", *arguments]

    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    killed, left_alone = tmp_path / "killed", tmp_path / "left_alone"
    process = subprocess.Popen(command(killed), env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    deadline = time.monotonic() + 120
    log = killed / LOG_NAME
    while not (log.exists() and log.stat().st_size > 0):
        assert process.poll() is None, process.communicate()[0].decode()
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    done = len(log.read_bytes().splitlines())
    assert 0 < done < 6 * 61, "the kill came too late to be one"
    for out in (killed, left_alone):
        finished = subprocess.run(
            command(out), env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=120
        )
        assert finished.returncode == 0, finished.stdout
        assert ("Resuming:" in finished.stdout) == (out == killed)
    assert final_bytes(killed) == final_bytes(left_alone)


def test_the_vllm_adapter_hands_over_tokens_seeds_and_limits(monkeypatch: pytest.MonkeyPatch):
    """Against a stand-in for vLLM, which cannot run here: only what it is called with, and how its answer is read."""
    calls: list[Any] = []

    class StandInLLM:
        def __init__(self, **settings: Any) -> None:
            calls.append(settings)

        def generate(self, prompts: list[Any], sampling_params: list[Any], use_tqdm: bool) -> list[Any]:
            calls.append((prompts, sampling_params))
            return [
                types.SimpleNamespace(
                    outputs=[
                        types.SimpleNamespace(
                            token_ids=[9, len(tokens)],
                            finish_reason=["length", "stop"][len(tokens) - 1],
                            logprobs=[
                                {9: types.SimpleNamespace(logprob=-0.5)},
                                {len(tokens): types.SimpleNamespace(logprob=-1)},
                            ],
                        )
                    ]
                )
                for tokens in (prompt["prompt_token_ids"] for prompt in prompts)
            ]

    vllm = types.ModuleType("vllm")
    vllm.LLM, vllm.SamplingParams = StandInLLM, lambda **settings: settings
    inputs = types.ModuleType("vllm.inputs")
    inputs.TokensPrompt = dict
    monkeypatch.setitem(sys.modules, "vllm", vllm)
    monkeypatch.setitem(sys.modules, "vllm.inputs", inputs)
    from verl_ispo.evaluation.vllm_sampler import VLLMSampler

    requests = [
        SampleRequest(prompt_ids=(1, 2), max_new_tokens=8, temperature=0.0),
        SampleRequest(prompt_ids=(3,), max_new_tokens=5, temperature=0.6, top_p=0.9, seed=77),
    ]
    batches = list(VLLMSampler(Path("model"), context_tokens=4096, tensor_parallel_size=2)(requests))
    # a request without a seed beside others takes theirs from them on a CPU, so they come apart
    assert [len(batch) for batch in batches] == [1, 1]
    batch = [answer for answers in batches for answer in answers]
    settings, *calls_of_batches = calls
    prompts, params = ([one for call in calls_of_batches for one in call[part]] for part in (0, 1))
    assert (settings["model"], settings["max_model_len"], settings["tensor_parallel_size"]) == ("model", 4096, 2)
    assert prompts == [{"prompt_token_ids": [1, 2]}, {"prompt_token_ids": [3]}]
    assert [(p["temperature"], p["max_tokens"], p["seed"]) for p in params] == [(0.0, 8, None), (0.6, 5, 77)]
    assert [(index, c.token_ids, c.finish_reason) for index, c in batch] == [(0, (9, 2), "stop"), (1, (9, 1), "length")]
    assert settings["logprobs_mode"] == "raw_logprobs"
    assert all(completion.log_probs == (-0.5, -1.0) for _, completion in batch)
