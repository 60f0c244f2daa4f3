"""The supervised run: its gradient, its resume after a kill, its reuse, and its refusals.

A run of a few steps is used instead of the real one: it has two phases, checkpoints and the evaluation. One test kills
the real command with SIGKILL after its first checkpoint and compares the restarted run with one that was never
interrupted, tensor by tensor.

Not exercised: that 800 steps reach the accuracy that the docs state, which takes minutes (the record beside each model
says what it reached), and a power cut.
"""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from safetensors.torch import load_file

from verl_ispo.tiny_task import held_out_evaluation
from verl_ispo.tiny_task import warm_start as ws
from verl_ispo.tiny_task.base_model import build_model
from verl_ispo.tiny_task.held_out_evaluation import generate_responses, score_responses
from verl_ispo.tiny_task.problems import Problem, ResponseMix, held_out_problems
from verl_ispo.tiny_task.tokenizer import build_tokenizer
from verl_ispo.user_error import UserError


@pytest.fixture(autouse=True)
def _small_and_repeatable(monkeypatch):
    """One thread, so that sums are taken in one order; and responses cut short, since untrained models never stop."""
    monkeypatch.setattr(held_out_evaluation, "MAX_NEW_TOKENS", 8)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def short_options(seed=0, steps=(4, 3)):
    return ws.WarmStartOptions(
        seed=seed,
        held_out_per_level=2,
        phases=tuple(ws.Phase(n, 8, 2e-3, 2, ResponseMix(no_trace_share=0.5)) for n in steps),
    )


def weights(folder):
    return load_file(folder / "model.safetensors")


def assert_same_weights(first, second):
    assert first.keys() == second.keys()
    for name in first:
        assert torch.equal(first[name], second[name]), name


def test_slicing_a_batch_by_length_leaves_its_gradient():
    tokenizer = build_tokenizer()
    examples = ws.draw_examples(short_options(), 0, 0, frozenset(), tokenizer)
    gradients = []
    for slices in (1, 3, 8):
        model = build_model(tokenizer, 0).double()
        ws.train_step(model, torch.optim.SGD(model.parameters(), lr=0.0), examples, tokenizer.pad_token_id, slices)
        gradients.append([p.grad for p in model.parameters()])
    for other in gradients[1:]:
        for expected, found in zip(gradients[0], other, strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


def test_the_loss_is_on_the_response_and_the_end_of_sequence_alone():
    tokenizer = build_tokenizer()
    [(ids, prompt_length)] = ws.encode_examples(["9-1="], [r"\boxed{8}"], tokenizer)
    assert ids == [*b"9-1=", *rb"\boxed{8}", tokenizer.eos_token_id]
    assert prompt_length == 4
    model = build_model(tokenizer, 0)
    with torch.no_grad():
        log_probs = model(torch.tensor([ids])).logits.log_softmax(-1)[0]
        expected = -sum(log_probs[i - 1, ids[i]] for i in range(prompt_length, len(ids)))
        # a longer row beside it: padding must not matter
        longer = ws.encode_examples(["9-1="], [r"9-1=8;\boxed{8}"], tokenizer)
        both = ws.token_loss_sum(model, *ws.to_tensors([(ids, prompt_length), *longer], tokenizer.pad_token_id))
        alone = ws.token_loss_sum(model, *ws.to_tensors(longer, tokenizer.pad_token_id))
    torch.testing.assert_close(both - alone, expected, rtol=1e-5, atol=1e-4)


def test_the_learning_rate_rises_then_falls_to_a_tenth():
    phase = ws.Phase(100, 8, 1.0, 10, ResponseMix(0.0))
    rates = [ws.learning_rate_at(phase, step) for step in range(100)]
    assert rates[:10] == pytest.approx([(step + 1) / 10 for step in range(10)])
    assert rates[10] == 1.0
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert 0.1 <= rates[-1] < 0.11


def test_a_batch_of_prompts_is_decoded_as_each_alone():
    tokenizer = build_tokenizer()
    model = build_model(tokenizer, 0).eval()
    questions = ["9-1=", "12+34-50+1-2+3=", "3+4-2="]
    batched = generate_responses(model, tokenizer, questions, None)
    assert batched == [generate_responses(model, tokenizer, [question], None)[0] for question in questions]


def test_sampling_follows_its_seed_and_spares_the_callers_random_state():
    tokenizer = build_tokenizer()
    model = build_model(tokenizer, 0).eval()
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first, second, other = (generate_responses(model, tokenizer, ["9-1="], seed) for seed in (0, 0, 1))
    assert torch.equal(torch.rand(3), expected)
    assert first == second
    assert first != other


def test_responses_are_counted_by_level():
    problems = [Problem(1, (9, -1)), Problem(1, (2, 2)), Problem(4, (20, 1, 1))]
    found = score_responses(problems, [r"9-1=8;\boxed{8}", r"\boxed{5}", "20+1=21;21+1"])
    assert found["by_level"] == {"1": {"correct": 1, "problems": 2}, "4": {"correct": 0, "problems": 1}}
    assert found["accuracy"] == 0.25
    assert found["trace_share"] == pytest.approx(2 / 3)
    assert found["answer_missing_rate"] == pytest.approx(1 / 3)


def test_a_complete_folder_is_reused_and_another_one_refused(tmp_path, capsys):
    out = tmp_path / "model"
    record = ws.warm_start(out, short_options())
    assert json.loads((out / ws.RECORD_NAME).read_text()) == record
    assert os.listdir(tmp_path) == ["model"]
    before = {path.name: path.stat().st_mtime_ns for path in out.iterdir()}
    assert ws.warm_start(out, short_options()) == record
    assert {path.name: path.stat().st_mtime_ns for path in out.iterdir()} == before
    assert "Reusing" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"phases\.0\.steps: recorded 4, wanted 5.*seed: recorded 0, wanted 1"):
        ws.warm_start(out, short_options(seed=1, steps=(5, 3)))
    assert {path.name: path.stat().st_mtime_ns for path in out.iterdir()} == before


@pytest.mark.parametrize("content", [None, "", "{", "[]"])
def test_a_folder_that_is_something_else_is_left_alone(tmp_path, content):
    (tmp_path / "thesis.tex").write_text("x")
    if content is not None:
        (tmp_path / ws.RECORD_NAME).write_text(content)
    with pytest.raises(UserError, match="choose another --out"):
        ws.warm_start(tmp_path, short_options())
    assert (tmp_path / "thesis.tex").read_text() == "x"


def test_an_empty_folder_is_filled(tmp_path):
    (tmp_path / "model").mkdir()
    ws.warm_start(tmp_path / "model", short_options())
    assert (tmp_path / "model" / ws.RECORD_NAME).exists()


@pytest.mark.parametrize("stop_after", [1, 4, 6])
def test_an_interrupted_run_goes_on_and_ends_in_the_same_model(tmp_path, monkeypatch, stop_after):
    ws.warm_start(tmp_path / "whole", short_options())
    step, taken = ws.train_step, []

    def stopping(*args):
        if len(taken) == stop_after:
            raise KeyboardInterrupt
        taken.append(None)
        return step(*args)

    monkeypatch.setattr(ws, "train_step", stopping)
    with pytest.raises(KeyboardInterrupt):
        ws.warm_start(tmp_path / "resumed", short_options(), checkpoint_every=1)
    assert not (tmp_path / "resumed").exists()
    monkeypatch.setattr(ws, "train_step", lambda *args: (taken.append(None), step(*args))[1])
    record = ws.warm_start(tmp_path / "resumed", short_options(), checkpoint_every=1)
    assert len(taken) == 7  # no step was taken twice
    assert_same_weights(weights(tmp_path / "resumed"), weights(tmp_path / "whole"))
    whole = json.loads((tmp_path / "whole" / ws.RECORD_NAME).read_text())
    assert {**record, "train_time_s": None} == {**whole, "train_time_s": None}


@pytest.mark.volume  # the interruptions above, in a process of its own
def test_a_run_killed_outright_goes_on(tmp_path):
    command = [
        *(sys.executable, "-m", "verl_ispo.tiny_task.warm_start", "--held-out-per-level", "1"),
        *("--steps", "4", "--short-answer-steps", "1", "--checkpoint-every", "1", "--out"),
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    out = tmp_path / "killed"
    process = subprocess.Popen([*command, str(out)], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    checkpoint = tmp_path / ".killed.unfinished" / ws.CHECKPOINT_NAME
    deadline = time.monotonic() + 120
    while not checkpoint.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert checkpoint.exists()
    assert not out.exists()
    again = subprocess.run([*command, str(out)], env=environment, capture_output=True, text=True, timeout=180)
    assert again.returncode == 0, again.stderr
    assert "Resuming from" in again.stdout
    assert "5/5" in again.stderr  # progress, with the steps done before the kill
    ws.main([*command[3:-1], "--out", str(tmp_path / "whole")])
    assert_same_weights(weights(out), weights(tmp_path / "whole"))


def test_an_unfinished_run_of_other_options_is_started_over(tmp_path, monkeypatch, capsys):
    def crash(*_args):
        raise RuntimeError

    with monkeypatch.context() as patch:
        patch.setattr(ws, "evaluate", crash)
        with pytest.raises(RuntimeError):
            ws.warm_start(tmp_path / "model", short_options(), checkpoint_every=1)
    ws.warm_start(tmp_path / "model", short_options(seed=1))
    assert "seed: recorded 0, wanted 1" in capsys.readouterr().out
    ws.warm_start(tmp_path / "fresh", short_options(seed=1))
    assert_same_weights(weights(tmp_path / "model"), weights(tmp_path / "fresh"))


def test_a_second_start_at_the_same_time_is_refused(tmp_path):
    with ws.exclusive(tmp_path / "model"), pytest.raises(UserError, match="another process"):
        ws.warm_start(tmp_path / "model", short_options())


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path, monkeypatch):
    monkeypatch.setattr(ws, "train_step", lambda *_: float("nan"))
    with pytest.raises(FloatingPointError, match="loss is nan at step 0 of phase 1"):
        ws.warm_start(tmp_path / "model", short_options())
    assert not (tmp_path / "model").exists()


def test_held_out_questions_are_not_trained_on():
    excluded = frozenset(problem.question for problem in held_out_problems(0, 50))
    tokenizer = build_tokenizer()
    options = ws.WarmStartOptions(0, 50, (ws.Phase(1, 500, 1e-3, 1, ResponseMix(0.5)),))
    examples = ws.draw_examples(options, 0, 0, excluded, tokenizer)
    assert excluded.isdisjoint(tokenizer.decode(ids[:prompt_length]) for ids, prompt_length in examples)


@pytest.mark.parametrize("option", [["--steps", "-1"], ["--held-out-per-level", "0"], ["--checkpoint-every", "0"]])
def test_bad_options_are_named(tmp_path, option, capsys):
    assert ws.main(["--out", str(tmp_path / "model"), *option]) == 2
    assert option[1] in capsys.readouterr().err
