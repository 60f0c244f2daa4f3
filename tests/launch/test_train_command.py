"""The command of scripts/train.sh: composed by Hydra and passed through verl's own validation, on one and four nodes.

Every pair of (model, method, engine, rollout, nodes) occurs in some run; each run is the launcher itself up to the
point where it would start. Not exercised: that the command trains, which needs GPUs, and the memory it needs
(`verl-ispo doctor`).
"""

from __future__ import annotations

import shlex
from itertools import combinations
from pathlib import Path

import pytest
from hydra import compose, initialize_config_module
from omegaconf import DictConfig, OmegaConf
from verl.trainer.ppo.utils import need_critic, need_reference_policy
from verl.utils.config import validate_config

from tests.scripts.launchers import MODELS, launch
from verl_ispo.trainer.refusals import refuse_unsupported_settings

METHODS = ("grpo", "dr_grpo", "dapo", "ispo")
ENGINES = ("fsdp", "megatron")
ROLLOUTS = ("vllm", "sglang")
NODES = ("1", "4")
RUNS = [
    ("qwen2_5_math_1_5b", "grpo", "fsdp", "vllm", "1"),
    ("qwen2_5_math_1_5b", "dr_grpo", "megatron", "sglang", "4"),
    ("qwen2_5_math_1_5b", "dapo", "fsdp", "sglang", "1"),
    ("qwen2_5_math_1_5b", "ispo", "megatron", "vllm", "4"),
    ("qwen2_5_math_7b", "grpo", "megatron", "sglang", "4"),
    ("qwen2_5_math_7b", "dr_grpo", "fsdp", "vllm", "1"),
    ("qwen2_5_math_7b", "dapo", "megatron", "vllm", "4"),
    ("qwen2_5_math_7b", "ispo", "fsdp", "sglang", "1"),
    ("qwen2_5_7b", "grpo", "fsdp", "sglang", "4"),
    ("qwen2_5_7b", "dr_grpo", "megatron", "vllm", "1"),
    ("qwen2_5_7b", "dapo", "fsdp", "vllm", "4"),
    ("qwen2_5_7b", "ispo", "megatron", "sglang", "1"),
]


def test_every_pair_of_choices_is_run() -> None:
    choices = (MODELS, METHODS, ENGINES, ROLLOUTS, NODES)
    for first, second in combinations(range(len(choices)), 2):
        seen = {(run[first], run[second]) for run in RUNS}
        assert seen == {(one, other) for one in choices[first] for other in choices[second]}


def printed(cwd: Path, *arguments: str, **variables: str) -> tuple[str, list[str]]:
    """Config name and overrides of the command that the launcher prints."""
    run = launch("train.sh", *arguments, cwd=cwd, PRINT_ONLY="1", **variables)
    assert run.returncode == 0, run.stderr
    words = shlex.split(run.stdout)
    assert words[1:3] == ["-m", "verl.trainer.main_ppo"]
    return words[3].removeprefix("--config-name="), words[4:]


def composed(config_name: str, overrides: list[str]) -> DictConfig:
    with initialize_config_module("verl.trainer.config", version_base=None):
        return compose(config_name, overrides=overrides)


@pytest.mark.parametrize(("model", "method", "engine", "rollout", "nodes"), RUNS)
def test_it_composes_and_verl_accepts_it(
    model: str, method: str, engine: str, rollout: str, nodes: str, data: Path, tmp_path: Path
) -> None:
    variables = {"MODEL": model, "METHOD": method, "ENGINE": engine, "ROLLOUT": rollout, "NNODES": nodes, "SEED": "3"}
    if nodes != "1":
        variables |= {"RAY_ADDRESS": "head:6379", "NCCL_SOCKET_IFNAME": "ib0"}
    config = composed(*printed(tmp_path, DATA=str(data), OUT="runs/mine", **variables))

    refuse_unsupported_settings(config)
    validate_config(config, use_reference_policy=need_reference_policy(config), use_critic=need_critic(config))
    actor, run = config.actor_rollout_ref.actor, config.trainer
    assert actor.strategy == engine
    assert config.actor_rollout_ref.rollout.name == rollout
    assert (run.nnodes, run.n_gpus_per_node) == (int(nodes), 8)
    assert (config.data.seed, config.actor_rollout_ref.rollout.seed) == (3, 3)
    assert config.data.train_files == [str(data / "dapo_math.parquet")]
    names = ("aime24", "aime25", "amc23", "math500", "olympiadbench")
    assert config.data.val_files == [str(data / f"{name}.parquet") for name in names]
    assert run.default_local_dir == str(tmp_path / "runs/mine/checkpoints")
    assert config.algorithm.ispo.dump_dir == str(tmp_path / "runs/mine/dump")
    assert run.logger == ["console", "file"]
    assert run.resume_mode == "auto"
    # the paper's settings, whatever the model
    assert (config.data.train_batch_size, config.actor_rollout_ref.rollout.n) == (512, 8)
    assert (actor.optim.lr, actor.clip_ratio_low, actor.clip_ratio_high) == (1e-6, 0.2, 0.28)
    response = 8192 if model == "qwen2_5_7b" else 4096
    assert config.data.max_response_length == response
    override = config.actor_rollout_ref.model.override_config
    assert "rope_theta" not in override, "the copy holds it, which the printed command names"
    copied = str(tmp_path / "runs/models") in config.actor_rollout_ref.model.path
    assert copied == (model != "qwen2_5_7b")
    if method == "dapo":
        assert config.reward.reward_kwargs.overlong_buffer_cfg.len == response // 5
        assert config.reward.reward_kwargs.max_resp_len == response
    if method == "dr_grpo":
        assert actor.loss_scale_factor == response
    ray_init = config.ray_kwargs.ray_init
    if nodes == "1":
        assert ray_init.address == "local", "not the one that somebody else has started there"
    else:
        assert ray_init.address == "head:6379"
        assert ray_init.runtime_env.env_vars.NCCL_SOCKET_IFNAME == "ib0"


def test_arguments_win_over_what_the_launcher_sets(data: Path, tmp_path: Path) -> None:
    arguments = ("data.max_response_length=1000", "trainer.save_freq=7", "actor_rollout_ref.rollout.n=4")
    config = composed(*printed(tmp_path, *arguments, MODEL="qwen2_5_7b", METHOD="ispo_dapo", DATA=str(data)))
    assert (config.trainer.save_freq, config.actor_rollout_ref.rollout.n) == (7, 4)
    assert config.reward.reward_kwargs.overlong_buffer_cfg.len == 200, "a fifth of the length that is trained with"


def test_a_cpu_trains_through_the_same_launcher(data: Path, tmp_path: Path) -> None:
    model = tmp_path / "it's a model"
    model.mkdir()
    variables = {"MODEL": str(model), "ROLLOUT": "cpu", "RAY_ADDRESS": "head:6379", "DATA": str(data)}
    # as in its help
    sizes = ("data.train_batch_size=16", "data.max_prompt_length=32", "data.max_response_length=96")
    config = composed(*printed(tmp_path, *sizes, "actor_rollout_ref.actor.ppo_mini_batch_size=8", **variables))
    validate_config(config, use_reference_policy=need_reference_policy(config), use_critic=need_critic(config))
    assert config.trainer.device == "cpu"
    assert config.actor_rollout_ref.rollout.name == "cpu"
    assert config.actor_rollout_ref.model.path == str(model)
    # micro-batches divide a worker's share: 128 rollouts a step and 64 an update here
    actor, rollout = config.actor_rollout_ref.actor, config.actor_rollout_ref.rollout
    assert (actor.ppo_micro_batch_size_per_gpu, rollout.log_prob_micro_batch_size_per_gpu) == (64, 128)
    # of a cluster that runs already Ray refuses sizes, and its processes need to be told the platform
    ray_init = config.ray_kwargs.ray_init
    assert (ray_init.num_cpus, ray_init.num_gpus) == (None, None)
    assert ray_init.runtime_env.env_vars.VERL_PLATFORM == "cpu"
    assert OmegaConf.to_container(ray_init.runtime_env.env_vars)["OMP_NUM_THREADS"] == "1", "Ray takes strings alone"


def test_a_typo_is_one_sentence(data: Path, tmp_path: Path) -> None:
    run = launch("train.sh", "data.max_respnse_length=1", cwd=tmp_path, PRINT_ONLY="1", MODEL="a/b", DATA=str(data))
    assert run.returncode == 2
    assert "max_respnse_length" in run.stderr
    assert "Traceback" not in run.stderr


def test_a_dry_run_gives_the_preflight_the_same_settings(data: Path, tmp_path: Path, stand_in) -> None:
    variables = {"MODEL": "qwen2_5_7b", "METHOD": "dapo", "DATA": str(data), **stand_in.variables}
    command = shlex.split(launch("train.sh", "a=b", cwd=tmp_path, PRINT_ONLY="1", **variables).stdout)
    before = set(tmp_path.rglob("*"))
    assert launch("train.sh", "a=b", cwd=tmp_path, DRY_RUN="1", **variables).returncode == 0
    (call,) = stand_in.calls("doctor")
    start = "-m verl_ispo.cli doctor --no-ray --dry-run --config-name ispo_trainer "
    assert call == start + " ".join(command[4:])
    assert set(tmp_path.rglob("*")) == before, "nothing is written"


def test_micro_batches_on_a_cpu_fit_the_share_of_each_worker(data: Path, tmp_path: Path) -> None:
    variables = {"MODEL": "a/b", "ROLLOUT": "cpu", "DATA": str(data), "GPUS_PER_NODE": "4"}
    sizes = ("data.train_batch_size=12", "actor_rollout_ref.actor.ppo_mini_batch_size=6")
    config = composed(*printed(tmp_path, *sizes, **variables)).actor_rollout_ref
    # of 8 rollouts for each of 6 and 12 prompts, among 4 workers
    assert config.actor.ppo_micro_batch_size_per_gpu == 4
    assert config.rollout.log_prob_micro_batch_size_per_gpu == 8
