"""Invalid options are refused in one sentence with value, option and remedy, and exit status 2; nothing is written.

Not exercised: refusals of the trainer and of verl (tests/trainer, tests/preflight).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.launch.cells import MODELS

Command = Callable[..., tuple[int, str, str]]
MODEL = ("--model", MODELS[0])


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (("train", *MODEL, "--engine", "fsdp3"), ("ENGINE=fsdp3 (--engine)", "did you mean fsdp", "fsdp megatron")),
        (("train", *MODEL, "--rollout", "hf"), ("ROLLOUT=hf", "vllm sglang cpu")),
        (("train", *MODEL, "--screen", "tv"), ("SCREEN=tv", "log progress")),
        (("train", *MODEL, "--method", "ipso"), ("METHOD=ipso", "dr_grpo", "ispo_guarded", "did you mean ispo")),
        (("train", "--model", "qwen"), ("MODEL=qwen", *MODELS)),
        (("train",), ("MODEL is not set", *MODELS)),
        (("train", *MODEL, "--steps", "0"), ("STEPS=0", "whole number")),
        (("train", *MODEL, "--steps", "many"), ("STEPS=many", "whole number")),
        (("train", *MODEL, "--nnodes", "two"), ("NNODES=two",)),
        (("train", *MODEL, "--gpus-per-node", "0"), ("GPUS_PER_NODE=0 (--gpus-per-node)", "set for instance")),
        (("train", *MODEL), ("no data", "data_prep")),
        (("train", *MODEL, "--data", "nowhere"), ("nowhere/dapo_math.parquet does not exist",)),
        (("train", *MODEL, "--nnodes", "2", "--data", "d"), ("NNODES=2 (--nnodes) needs a Ray cluster",)),
        (("train", *MODEL, "--ray-address", "http://head:8265"), ("host:port",)),
        (("train", *MODEL, "--ray-address", "head"), ("RAY_ADDRESS=head", "host:port")),
        (
            ("train", "--model", "a/b", "--rollout", "cpu", "--engine", "megatron"),
            ("ENGINE=megatron (--engine) needs GPUs",),
        ),
        (
            ("train", "--model", "a/b", "--model-path", "c", "--train-files", "t", "--val-files", "v", "--print-only"),
            ("MODEL_PATH=c (--model-path) needs a preset",),
        ),
        (("evaluate-run", "--model", "qwen", "--benchmarks", "b"), ("MODEL=qwen", *MODELS)),
        (("evaluate-run",), ("set RUN", *MODELS)),
        (("evaluate-run", "--model", "a/b", "--run", "c"), ("set one of them",)),
        (("evaluate-run", "--run", "."), ("no run.txt",)),
        (("evaluate-run", "--model", "a/b"), ("no problems", "data_prep")),
        (("evaluate-run", "--model", "a/b", "--sampler", "tpu"), ("SAMPLER=tpu", "auto vllm cpu")),
        (("reproduce-table", "--data", "d", "--methods", "grpo", "nope"), ("METHOD=nope", "dr_grpo")),
        (("reproduce-table", "--data", "d", "--models", "nope"), ("MODEL=nope", *MODELS)),
        (("reproduce-table", "--data", "d", "--seeds", "0"), ("SEEDS=0",)),
        (("reproduce-table", "--data", "d", "--model-path", "/w"), ("MODEL_PATH=/w", "several")),
        (("reproduce-table",), ("no data",)),
    ],
)
def test_what_cannot_be_is_refused_with_a_remedy(
    arguments: tuple[str, ...], parts: tuple[str, ...], command: Command, tmp_path: Path
) -> None:
    status, _, err = command(*arguments)
    assert status == 2, err
    for part in parts:
        assert part in err
    assert "Traceback" not in err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["train", "evaluate-run", "reproduce-table"])
def test_help_teaches(name: str, command: Command) -> None:
    status, out, _ = command(name, "--help")
    assert status == 0
    assert "examples:" in out
    assert "xit status" in out
    assert out.count("default: ") >= 10, "what holds where an option is not given"
