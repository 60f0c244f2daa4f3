"""The command of ``verl-ispo train``: composed by Hydra, passed through verl's own validation, on one and four nodes.

Every pair of (model, method, engine, rollout, nodes) occurs in some run; each run is the command itself up to the point
where it would start. Not exercised: that the command trains, which needs GPUs, and the memory it needs
(`verl-ispo doctor`).
"""

from __future__ import annotations

import shlex
from collections.abc import Callable
from itertools import combinations
from pathlib import Path

import pytest
from omegaconf import DictConfig, OmegaConf
from verl.trainer.ppo.utils import need_critic, need_reference_policy
from verl.utils.config import validate_config

from tests.launch.cells import COVERING_CELLS, ENGINES, METHODS, MODELS, NODES, ROLLOUTS
from verl_ispo.launch.training_options import TrainingOptions
from verl_ispo.launch.training_settings import training_environment, training_settings
from verl_ispo.preflight.composition import compose_config
from verl_ispo.trainer.refusals import refuse_unsupported_settings

Command = Callable[..., tuple[int, str, str]]


def test_every_pair_of_choices_is_run() -> None:
    choices = (MODELS, METHODS, ENGINES, ROLLOUTS, NODES)
    for first, second in combinations(range(len(choices)), 2):
        seen = {(run[first], run[second]) for run in COVERING_CELLS}
        assert seen == {(one, other) for one in choices[first] for other in choices[second]}


def printed(command: Command, *arguments: object) -> tuple[str, list[str]]:
    """Config name and overrides of the command that is printed."""
    status, out, err = command("train", "--print-only", *arguments)
    assert status == 0, err
    words = shlex.split(out)
    assert words[1:3] == ["-m", "verl.trainer.main_ppo"]
    return words[3].removeprefix("--config-name="), words[4:]


def composed(config_name: str, overrides: list[str]) -> DictConfig:
    return compose_config(config_name, overrides)


@pytest.mark.parametrize(("model", "method", "engine", "rollout", "nodes"), COVERING_CELLS)
def test_it_composes_and_verl_accepts_it(
    model: str,
    method: str,
    engine: str,
    rollout: str,
    nodes: str,
    data: Path,
    tmp_path: Path,
    command: Command,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    options = ["--model", model, "--method", method, "--engine", engine, "--rollout", rollout, "--nnodes", nodes]
    options += ["--seed", "3"]
    if nodes != "1":
        options += ["--ray-address", "head:6379"]
        monkeypatch.setenv("NCCL_SOCKET_IFNAME", "ib0")
    config = composed(*printed(command, *options, "--data", data, "--out", "runs/mine"))

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
    assert config.trainer.v1.ispo.dump_dir == str(tmp_path / "runs/mine/dump")
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


def test_arguments_win_over_what_the_launcher_sets(data: Path, command: Command) -> None:
    arguments = ("data.max_response_length=1000", "trainer.save_freq=7", "actor_rollout_ref.rollout.n=4")
    options = ("--model", "qwen2_5_7b", "--method", "ispo_dapo", "--data", data)
    config = composed(*printed(command, *options, *arguments))
    assert (config.trainer.save_freq, config.actor_rollout_ref.rollout.n) == (7, 4)
    assert config.reward.reward_kwargs.overlong_buffer_cfg.len == 200, "a fifth of the length that is trained with"


def test_a_cpu_trains_through_the_same_launcher(data: Path, tmp_path: Path, command: Command) -> None:
    model = tmp_path / "it's a model"
    model.mkdir()
    options = ("--model", model, "--rollout", "cpu", "--ray-address", "head:6379", "--data", data)
    # as in its help
    sizes = ("data.train_batch_size=16", "data.max_prompt_length=32", "data.max_response_length=96")
    config = composed(*printed(command, *options, *sizes, "actor_rollout_ref.actor.ppo_mini_batch_size=8"))
    validate_config(config, use_reference_policy=need_reference_policy(config), use_critic=need_critic(config))
    assert config.trainer.device == "cpu"
    assert config.actor_rollout_ref.rollout.name == "cpu"
    assert config.actor_rollout_ref.model.path == str(model)
    # micro-batches divide a worker's share: 128 rollouts per step and 64 per update here
    actor, rollout = config.actor_rollout_ref.actor, config.actor_rollout_ref.rollout
    assert (actor.ppo_micro_batch_size_per_gpu, rollout.log_prob_micro_batch_size_per_gpu) == (64, 128)
    # of a cluster that runs already Ray refuses sizes, and its processes need to be told the platform
    ray_init = config.ray_kwargs.ray_init
    assert (ray_init.num_cpus, ray_init.num_gpus) == (None, None)
    assert ray_init.runtime_env.env_vars.VERL_PLATFORM == "cpu"
    assert OmegaConf.to_container(ray_init.runtime_env.env_vars)["OMP_NUM_THREADS"] == "1", "Ray takes strings alone"


def test_a_typo_is_one_sentence(data: Path, command: Command) -> None:
    status, _, err = command("train", "--print-only", "--model", "a/b", "--data", data, "data.max_respnse_length=1")
    assert status == 2
    assert "max_respnse_length" in err
    assert "Traceback" not in err


def test_an_option_behind_the_overrides_is_told_apart_from_one(data: Path, command: Command) -> None:
    status, _, err = command("train", "--print-only", "--model", "a/b", "--data", data, "--", "--steps=3")
    assert status == 2
    assert "--steps=3 is not a Hydra override" in err


def test_micro_batches_on_a_cpu_fit_the_share_of_each_worker(data: Path, command: Command) -> None:
    options = ("--model", "a/b", "--rollout", "cpu", "--data", data, "--gpus-per-node", "4")
    sizes = ("data.train_batch_size=12", "actor_rollout_ref.actor.ppo_mini_batch_size=6")
    config = composed(*printed(command, *options, *sizes)).actor_rollout_ref
    # of 8 rollouts for each of 6 and 12 prompts, among 4 workers
    assert config.actor.ppo_micro_batch_size_per_gpu == 4
    assert config.rollout.log_prob_micro_batch_size_per_gpu == 8


@pytest.mark.parametrize(
    ("options", "own"),
    [
        ({"model": "qwen2_5_math_7b", "method": "dapo", "engine": "megatron"}, ()),
        ({"model": "a/b", "rollout": "cpu", "ray_address": "head:1"}, ("data.train_batch_size=8",)),
        ({"model": "a/b", "rollout": "cpu"}, ("actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=2",)),
    ],
)
def test_the_config_that_is_checked_is_the_one_that_is_started(options: dict, own: tuple[str, ...], data: Path) -> None:
    """What follows from the composed config is put into it and not composed again; both come to the same."""
    given = TrainingOptions(data=data, arguments=own, **options)
    settings = training_settings(given, training_environment(given, {"VLLM_A": "1"}))
    again = compose_config(settings.config_name, settings.overrides)
    assert OmegaConf.to_container(settings.config) == OmegaConf.to_container(again)


def test_workers_on_a_cpu_have_ordinary_priority_and_one_thread_unless_told_otherwise(data: Path) -> None:
    on_cpu = TrainingOptions(model="a/b", data=data, rollout="cpu")
    found = training_environment(on_cpu, {"HOME": "/h", "TQ_NUM_THREADS": "3", "OMP_NUM_THREADS": ""})
    assert found == {
        **{"HOME": "/h", "VERL_PLATFORM": "cpu", "RAY_worker_niceness": "0"},
        **{"OMP_NUM_THREADS": "1", "TQ_NUM_THREADS": "3"},
    }
    assert training_environment(on_cpu, {"RAY_worker_niceness": "5"})["RAY_worker_niceness"] == "5"
    assert training_environment(TrainingOptions(model="a/b", data=data), {"A": "b"}) == {"A": "b"}
