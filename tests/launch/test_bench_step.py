"""scripts/gpu/bench_step.py without a GPU: the commands of the step benchmark, and the effect of a failure.

The commands are composed by Hydra and pass verl's validation and the preflight; what trains is a small program that
notes its calls. Not exercised: the trainings themselves on a GPU (nowhere yet), on the CPU
(tests/training/test_gpu_scripts.py).
"""

from __future__ import annotations

import importlib.util
import json
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from verl.utils.config import validate_config

from tests.launch.fake_training import FakeTraining
from tests.preflight.set_ups import math_row, word_tokenizer, write_rows
from tests.scripts.launchers import SCRIPTS
from verl_ispo.preflight.composition import compose_config
from verl_ispo.preflight.model_shape import SHIPPED_SHAPES
from verl_ispo.trainer.refusals import refuse_unsupported_settings

SPEC = importlib.util.spec_from_file_location("bench_step", SCRIPTS / "gpu/bench_step.py")
BENCH_STEP = importlib.util.module_from_spec(SPEC)
sys.modules[SPEC.name] = BENCH_STEP  # where dataclasses look for it
SPEC.loader.exec_module(BENCH_STEP)
Bench = Callable[..., tuple[int, str, str]]
Printed = Callable[..., list[tuple[str, list[str]]]]


@pytest.fixture
def bench(capsys: pytest.CaptureFixture[str]) -> Bench:
    def run(*arguments: str) -> tuple[int, str, str]:
        try:
            status = BENCH_STEP.main(arguments)
        except SystemExit as end:
            status = int(end.code or 0)
        said = capsys.readouterr()
        return status, said.out, said.err

    return run


@pytest.fixture
def printed(bench: Bench, tmp_path: Path) -> Printed:
    """Config name and overrides of each command that is printed."""

    def run(*arguments: str) -> list[tuple[str, list[str]]]:
        status, out, err = bench("--print-only", *arguments)
        assert status == 0, err
        assert not list(tmp_path.iterdir()), "nothing is written"
        commands = [shlex.split(line) for line in out.splitlines()]
        return [(words[3].removeprefix("--config-name="), words[4:]) for words in commands]

    return run


@pytest.fixture
def programs(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Calls of the programs beside the trainings; they do nothing."""
    calls: list[list[str]] = []

    def run(command: list[str], **_: object) -> subprocess.CompletedProcess:
        calls.append(command)
        return subprocess.CompletedProcess(command, 0, stdout="a table\n")

    monkeypatch.setattr(BENCH_STEP, "subprocess", SimpleNamespace(run=run, PIPE=subprocess.PIPE))
    monkeypatch.setattr(BENCH_STEP, "check_machine", lambda _: 8)
    return calls


def made_problems(folder: Path) -> Path:
    """Where the random model's would have been written."""
    folder.mkdir(parents=True)
    for name in ("train", "heldout"):
        (folder / f"{name}.parquet").touch()
    return folder


def made_model(folder: Path) -> Path:
    """A model that has the preset's context already."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text('{"max_position_embeddings": 6144}')
    return folder


def of(calls: list[list[str]], part: str) -> list[str]:
    return [" ".join(call) for call in calls if any(part in word for word in call)]


@pytest.mark.parametrize(
    ("variant", "watches", "ablated_pass"),
    [
        ("grpo", False, "separate"),
        ("ispo", True, "separate"),
        ("ispo:separate", True, "separate"),
        ("ispo:merged", True, "merged"),
    ],
)
def test_the_commands_of_a_variant_compose_and_verl_accepts_them(
    variant: str, watches: bool, ablated_pass: str, tmp_path: Path, printed: Printed
) -> None:
    commands = printed("--variants", variant, "--", "actor_rollout_ref.rollout.gpu_memory_utilization=0.5")
    configs = [compose_config(*command) for command in commands]
    assert [config.data.max_response_length for config in configs] == [1024, 4096]
    for config in configs:
        refuse_unsupported_settings(config)
        validate_config(config, use_reference_policy=watches, use_critic=False)
        actor, rollout, run = config.actor_rollout_ref.actor, config.actor_rollout_ref.rollout, config.trainer
        assert (actor.strategy, actor.fsdp_config.strategy) == ("fsdp2", "fsdp2")
        reference = config.actor_rollout_ref.ref
        assert (reference.strategy, reference.fsdp_config.strategy) == ("fsdp2", "fsdp2")
        assert (rollout.name, rollout.ignore_eos, rollout.n) == ("vllm", True, 8)
        assert rollout.gpu_memory_utilization == 0.5, "arguments come last and win"
        assert (config.data.train_batch_size, actor.ppo_mini_batch_size) == (32, 16)
        assert config.data.max_prompt_length + config.data.max_response_length <= rollout.max_model_len
        assert (run.save_freq, run.test_freq, run.val_before_train, run.total_training_steps) == (-1, -1, False, 6)
        assert config.trainer.v1.ispo.dump_dir is None
        assert config.algorithm.adv_estimator == variant.split(":")[0]
        assert run.v1.ispo.watch_signals == watches
        assert run.v1.ispo.ablated_pass == ablated_pass
        random = tmp_path / "runs/gpu/bench_step/random"
        assert config.actor_rollout_ref.model.path == str(random / "model")
        assert config.data.train_files == [str(random / "data/train.parquet")]
        assert config.actor_rollout_ref.model.override_config.attn_implementation == "flash_attention_2"


def test_the_variants_differ_in_nothing_else(printed: Printed) -> None:
    (_, grpo), (_, ispo) = printed("--variants", "grpo", "ispo", "--lengths", "1024")
    of_the_method = {"method", "trainer.experiment_name", "hydra.run.dir", "trainer.default_local_dir"}
    differing = {override.split("=")[0] for override in set(grpo) ^ set(ispo)}
    assert differing == of_the_method | {"trainer.v1.ispo.dump_dir", "trainer.v1.ispo.watch_signals"}


def test_ones_own_model_and_data_are_taken(tmp_path: Path, printed: Printed) -> None:
    own = ("--model-path", "/weights", "--data", "/data")
    ((_, overrides),) = printed("--variants", "grpo", "--lengths", "64", *own)
    config = compose_config("ispo_trainer", overrides)
    copy = f"{tmp_path}/runs/models/weights-6144"
    assert config.actor_rollout_ref.model.path == copy, "their copy, as verl-ispo train makes it"
    assert config.data.train_files == ["/data/dapo_math.parquet"]


def test_the_preflight_has_nothing_against_it_on_one_gpu(tmp_path: Path, bench: Bench) -> None:
    model = tmp_path / "model"
    model.mkdir()
    shape = json.loads((SHIPPED_SHAPES / "Qwen--Qwen2.5-Math-1.5B.json").read_text())
    word_tokenizer().save_pretrained(model)
    (model / "config.json").write_text(json.dumps({**shape, "max_position_embeddings": 6144}))
    for name in ("train", "heldout"):
        write_rows(tmp_path / f"{name}.parquet", [math_row()] * 64)
    own = ("--model-path", str(model), "--data", str(tmp_path), "--variants", "ispo", "--lengths", "4096")
    status, out, _ = bench("--dry-run", "--gpus-per-node", "1", *own)
    assert status == 0, out
    assert "PROBLEM" not in out
    assert "32 prompts x 8 rollouts per step, 2 update(s) of 128 rows on 1 ranks" in out
    assert not (tmp_path / "runs").exists()


def test_one_that_fails_does_not_stop_the_others(
    bench: Bench, fake: FakeTraining, programs: list[list[str]], tmp_path: Path
) -> None:
    made_problems(tmp_path / "out/random/data")
    fake.status, fake.fails_if = 3, ("method=ispo", "max_response_length=128")
    given = ("--variants", "grpo", "ispo", "--lengths", "64", "128", "--out", "out")
    status, _, err = bench(*given)
    assert status == 1
    assert err.splitlines()[-1] == "  ispo at 128"
    assert len(fake.commands()) == 4
    assert "trainer.n_gpus_per_node=8" in fake.commands()[0]
    out = tmp_path / "out"
    tables = [call.split("step_timing_table.py ")[1] for call in of(programs, "step_timing_table")]
    assert tables == [
        f"grpo={out}/64/grpo ispo={out}/64/ispo --skip 2 --csv {out}/step-64.csv",
        f"grpo={out}/128/grpo --skip 2 --csv {out}/step-128.csv",
    ]
    assert (out / "step-128.md").read_text() == "a table\n"

    fake.status = 0
    status, said, err = bench(*given)
    assert status == 0, err
    assert "128 new tokens, 32 prompts x 8 rollouts\n\na table" in said
    assert len(fake.commands()) == 5, "what is done is not done again"


def test_the_random_model_is_made_only_if_it_is_needed(
    bench: Bench, fake: FakeTraining, programs: list[list[str]], tmp_path: Path
) -> None:
    given = ("--variants", "grpo", "--lengths", "64", "--out", "out")
    own = ("--model-path", str(made_model(tmp_path / "weights")), "--data", str(made_problems(tmp_path / "own")))
    status, _, err = bench(*given, *own)
    assert status == 0, err
    assert not of(programs, "random_model.py")
    bench(*given, "--random-model=--answer-tokens 4")
    (made,) = of(programs, "random_model.py")
    assert made.endswith(f"--out {tmp_path}/out/random --answer-tokens 4")
    made_problems(tmp_path / "out/random/data")
    assert bench(*given, "--out", "other", "--random-out", "out/random")[0] == 0
    assert len(of(programs, "random_model.py")) == 1


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (("--variants", "grpo", "ipso"), ("METHOD=ipso", "ispo_guarded")),
        (("--variants", "ispo:both"), ("ispo:both=both", "separate merged")),
        (("--lengths", "1024", "4k"), ("LENGTHS=4k", "whole number")),
        (("--steps", "2"), ("WARMUP=2 leaves no step of STEPS=2", "WARMUP=0")),
        (("--prompts", "3"), ("PROMPTS=3", "is odd", "PROMPTS=4")),
        (("--attention", "eager"), ("ATTENTION=eager", "flash_attention_2 torch_varlen sdpa")),
        (("--rollout", "hf"), ("ROLLOUT=hf", "vllm sglang cpu")),
        ((), ("no CUDA GPU", "ROLLOUT=cpu")),
    ],
)
def test_what_cannot_be_is_refused_with_a_remedy(
    arguments: tuple[str, ...], parts: tuple[str, ...], bench: Bench, tmp_path: Path
) -> None:
    status, _, err = bench(*arguments)
    assert status == 2, err
    for part in parts:
        assert part in err
    assert not list(tmp_path.iterdir())
