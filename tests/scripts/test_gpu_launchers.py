"""scripts/gpu without a GPU: the commands of the step benchmark, what a failure leaves, what a summary says.

The commands are composed by Hydra and pass verl's validation and the preflight; around them the interpreter is a
stand-in that notes its calls. Not exercised: the trainings themselves on a GPU (nowhere yet), on the CPU
(tests/training/test_gpu_scripts.py).
"""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
from hydra import compose, initialize_config_module
from omegaconf import DictConfig
from verl.utils.config import validate_config

from tests.preflight.set_ups import math_row, write_rows
from tests.scripts.launchers import SCRIPTS, StandIn, launch
from verl_ispo.preflight.model_shape import SHIPPED_SHAPES
from verl_ispo.trainer.refusals import refuse_unsupported_settings


def composed(config_name: str, overrides: list[str]) -> DictConfig:
    with initialize_config_module("verl.trainer.config", version_base=None):
        return compose(config_name, overrides=overrides)


def made_problems(folder: Path) -> Path:
    """Where the stand-in's random model would have written them."""
    folder.mkdir(parents=True)
    for name in ("train", "heldout"):
        (folder / f"{name}.parquet").touch()
    return folder


def printed(cwd: Path, *arguments: str, **variables: str) -> list[tuple[str, list[str]]]:
    """Config name and overrides of each command that the benchmark prints."""
    run = launch("gpu/bench_step.sh", *arguments, cwd=cwd, PRINT_ONLY="1", **variables)
    assert run.returncode == 0, run.stderr
    assert not list(cwd.iterdir()), "nothing is written"
    commands = [shlex.split(line) for line in run.stdout.splitlines()]
    return [(words[3].removeprefix("--config-name="), words[4:]) for words in commands]


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
    variant: str, watches: bool, ablated_pass: str, tmp_path: Path
) -> None:
    commands = printed(tmp_path, "actor_rollout_ref.rollout.gpu_memory_utilization=0.5", VARIANTS=variant)
    configs = [composed(*command) for command in commands]
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


def test_the_variants_differ_in_nothing_else(tmp_path: Path) -> None:
    (_, grpo), (_, ispo) = printed(tmp_path, VARIANTS="grpo ispo", LENGTHS="1024")
    of_the_method = {"method", "trainer.experiment_name", "hydra.run.dir", "trainer.default_local_dir"}
    differing = {override.split("=")[0] for override in set(grpo) ^ set(ispo)}
    assert differing == of_the_method | {"trainer.v1.ispo.dump_dir", "trainer.v1.ispo.watch_signals"}


def test_ones_own_model_and_data_are_taken(tmp_path: Path) -> None:
    ((_, overrides),) = printed(tmp_path, VARIANTS="grpo", LENGTHS="64", MODEL_PATH="/weights", DATA="/data")
    config = composed("ispo_trainer", overrides)
    assert config.actor_rollout_ref.model.path == f"{tmp_path}/runs/models/weights-6144", (
        "their copy, as train.sh makes it"
    )
    assert config.data.train_files == ["/data/dapo_math.parquet"]


def test_the_preflight_has_nothing_against_it_on_one_gpu(tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    shape = json.loads((SHIPPED_SHAPES / "Qwen--Qwen2.5-Math-1.5B.json").read_text())
    (model / "config.json").write_text(json.dumps({**shape, "max_position_embeddings": 6144}))
    for name in ("train", "heldout"):
        write_rows(tmp_path / f"{name}.parquet", [math_row()] * 64)
    variables = {"MODEL_PATH": str(model), "DATA": str(tmp_path), "VARIANTS": "ispo", "LENGTHS": "4096"}
    run = launch("gpu/bench_step.sh", cwd=tmp_path, DRY_RUN="1", GPUS_PER_NODE="1", **variables)
    assert run.returncode == 0, run.stdout
    assert "PROBLEM" not in run.stdout
    assert "32 prompts x 8 rollouts a step, 2 update(s) of 128 rows on 1 ranks" in run.stdout
    assert not (tmp_path / "runs").exists()


def test_one_that_fails_does_not_stop_the_others(stand_in: StandIn, tmp_path: Path) -> None:
    made_problems(tmp_path / "out/random/data")
    variables = {"VARIANTS": "grpo ispo", "LENGTHS": "64 128", "OUT": "out", **stand_in.variables}
    run = launch("gpu/bench_step.sh", cwd=tmp_path, FAIL="*main_ppo*method=ispo*max_response_length=128*", **variables)
    assert run.returncode == 1
    assert run.stderr.splitlines()[-1] == "  ispo at 128"
    assert len(stand_in.calls("main_ppo")) == 4
    out = tmp_path / "out"
    tables = [call.split("step_timing_table.py ")[1] for call in stand_in.calls("step_timing_table")]
    assert tables == [
        f"grpo={out}/64/grpo ispo={out}/64/ispo --skip 2 --csv {out}/step-64.csv",
        f"grpo={out}/128/grpo --skip 2 --csv {out}/step-128.csv",
    ]
    assert (out / "step-128.md").exists()

    again = launch("gpu/bench_step.sh", cwd=tmp_path, **variables)
    assert again.returncode == 0, again.stderr
    assert len(stand_in.calls("main_ppo")) == 5, "what is done is not done again"


def test_the_random_model_is_made_only_if_it_is_needed(stand_in: StandIn, tmp_path: Path) -> None:
    variables = {"VARIANTS": "grpo", "LENGTHS": "64", "OUT": "out", **stand_in.variables}
    own = {"MODEL_PATH": "/weights", "DATA": str(made_problems(tmp_path / "own"))}
    assert launch("gpu/bench_step.sh", cwd=tmp_path, **own, **variables).returncode == 0
    assert not stand_in.calls("random_model.py")
    launch("gpu/bench_step.sh", cwd=tmp_path, RANDOM_MODEL="--answer-tokens 4", **variables)
    (made,) = stand_in.calls("random_model.py")
    assert made.endswith(f"--out {tmp_path}/out/random --answer-tokens 4")
    made_problems(tmp_path / "out/random/data")
    assert launch("gpu/bench_step.sh", cwd=tmp_path, **variables).returncode == 0
    assert len(stand_in.calls("random_model.py")) == 1


def test_a_failed_part_is_in_the_summary_and_the_others_run(stand_in: StandIn, tmp_path: Path) -> None:
    made_problems(tmp_path / "out/random/data")
    run = launch("gpu/run_all.sh", cwd=tmp_path, OUT="out", FAIL="*same_as_cpu*", **stand_in.variables)
    assert run.returncode == 1
    summary = (tmp_path / "out/summary.txt").read_text().splitlines()
    assert [line.split(" after ")[0] for line in summary] == ["reward: FAILED", "metrics: passed", "cost: passed"]
    assert run.stdout.splitlines()[-5:-2] == summary
    assert "made to fail" in (tmp_path / "out/reward.log").read_text()
    (checked,) = stand_in.calls("same_metrics")
    assert checked.endswith(f"same_metrics.py {tmp_path}/out/metrics/256/ispo-separate")
    trained = stand_in.calls("main_ppo")
    assert len(trained) == 1 + 6, "two steps, and three variants at two lengths"
    assert "trainer.total_training_steps=2" in trained[0]
    assert f"{tmp_path}/out/random/model" in trained[0]
    assert "pip freeze" in (tmp_path / "notes.txt").read_text()
    assert "verl_ispo " in (tmp_path / "out/versions.txt").read_text()


def test_all_that_is_written_of_a_gpu_says_that_none_has_run_it() -> None:
    scripts = [path for path in (SCRIPTS / "gpu").iterdir() if path.suffix in (".py", ".sh")]
    assert len(scripts) == 5
    for script in scripts:
        assert "Not run on a GPU by us yet" in script.read_text(), script
