"""Loggers, seeds, folders, checkpoints to keep, sizes of Megatron, rows of a local update, and how long the data last.

verl's `Tracking`, numpy and torch are the reference where they can be asked. Not exercised: clusters, full disks.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import DictConfig, OmegaConf
from verl.utils.tracking import Tracking

from tests.examples import examples
from tests.preflight.set_ups import composed, data_settings, math_row, problems, with_settings, write_model
from verl_ispo.launch.option_checks import given as named
from verl_ispo.launch.training_options import TrainingOptions
from verl_ispo.launch.training_settings import training_settings
from verl_ispo.preflight import loggers, output_folders
from verl_ispo.preflight.batch_sizes import check_batch_sizes, check_parallel_sizes, rows_per_pass
from verl_ispo.preflight.checkpoint_plan import check_checkpoints, check_kept
from verl_ispo.preflight.composition import read_parallelism
from verl_ispo.preflight.finding import NOTE, OK, PROBLEM
from verl_ispo.preflight.loggers import check_logger_packages, check_loggers
from verl_ispo.preflight.model_shape import read_model_shape
from verl_ispo.preflight.output_folders import check_output_folders, check_output_paths
from verl_ispo.preflight.seeds import LARGEST, check_seeds, seed_fault
from verl_ispo.preflight.training_length import check_training_length, data_end
from verl_ispo.user_error import UserError

ACTOR, ROLLOUT = "actor_rollout_ref.actor", "actor_rollout_ref.rollout"
FOLDER = "trainer.default_local_dir"


def test_the_known_loggers_are_verls() -> None:
    assert set(loggers.IMPORTED) == {*Tracking.supported_backend, "tracking"}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("[console,wanbd]", "did you mean wandb?"),
        ("['console wandb']", "did you mean console,wandb?"),
        ("Console", "did you mean console?"),
        ("[console,neptune_ai_x]", "leave it out"),
    ],
)
def test_a_logger_that_verl_does_not_know(value: str, text: str) -> None:
    """verl asserts the name when all workers have been started."""
    found = problems(check_loggers(with_settings([f"trainer.logger={value}"])))
    assert text in found["trainer.logger"]
    assert "Known: clearml, console" in found["trainer.logger"]


def test_the_package_of_a_logger() -> None:
    config = with_settings(["trainer.logger=[console,file,vemlp_wandb,tensorboard]"])
    assert problems(check_loggers(config)) == {}
    asked: list[str] = []
    found = list(check_logger_packages(config, lambda module: bool(asked.append(module))))
    assert asked == ["volcengine_ml_platform", "tensorboard"]
    assert [finding.level for finding in found] == [PROBLEM, PROBLEM]
    assert "vemlp_wandb needs the package volcengine_ml_platform" in found[0].text
    (empty,) = check_loggers(with_settings(["trainer.logger=[]"]))
    assert empty.level == NOTE


@given(seed=st.integers(-(2**40), 2**40))
def test_a_seed_is_refused_where_a_generator_refuses_it(seed: int) -> None:
    """The launcher and the preflight took -1; numpy takes 32 bits and no sign, and ranks are added to it."""
    try:
        np.random.RandomState(seed)
        torch.Generator().manual_seed(seed)
    except ValueError:
        assert seed_fault(seed) is not None
    else:
        assert (seed_fault(seed) is None) == (seed <= LARGEST)


@pytest.mark.parametrize(
    ("settings_", "blamed"),
    [
        (["data.seed=-1"], "data.seed"),
        (["data.seed=1.5"], "data.seed"),
        (["data.seed=true"], "data.seed"),
        ([f"{ROLLOUT}.seed=4294967296"], f"{ROLLOUT}.seed"),
        ([f"{ACTOR}.data_loader_seed=x"], f"{ACTOR}.data_loader_seed"),
        (["data.seed=0", f"{ROLLOUT}.seed=0"], None),
    ],
)
def test_seeds_of_the_config(settings_: list[str], blamed: str | None) -> None:
    assert list(problems(check_seeds(with_settings(settings_)))) == ([blamed] if blamed else [])


def options(**more: object) -> TrainingOptions:
    files = {"train_files": (Path("a.parquet"),), "val_files": (Path("a.parquet"),)}
    return TrainingOptions(**{"model": "qwen2_5_7b", **files, **more})


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"seed": -1}, "is not from 0 to"),
        ({"seed": 2**32}, "is not from 0 to"),
        ({"loggers": "console,wanbd"}, "did you mean wandb?"),
        ({"loggers": "console wandb"}, "did you mean console,wandb?"),
        ({"keep": 0}, named("KEEP", 0)),
        ({"train_tp": 0}, named("TRAIN_TP", 0)),
    ],
)
def test_the_launcher_refuses_what_would_end_a_training_late(more: dict, said: str) -> None:
    with pytest.raises(UserError, match=said.replace("(", "\\(").replace(")", "\\)").replace("?", "\\?")):
        options(**more)


@pytest.mark.parametrize(
    ("kept", "level"),
    [(0, PROBLEM), (-1, PROBLEM), (2.5, PROBLEM), (True, PROBLEM), (1, NOTE), (2, None), ("null", None)],
)
def test_checkpoints_to_keep(kept: object, level: str | None) -> None:
    """verl takes 0, a negative number or a fraction for "all of them", which fills a disk."""
    config = with_settings([f"trainer.max_actor_ckpt_to_keep={kept}", "trainer.save_freq=10"])
    assert [finding.level for finding in check_kept(config)] == ([level] if level else [])
    if level == PROBLEM:
        assert "trainer.max_actor_ckpt_to_keep" in problems(check_checkpoints(config))


@pytest.mark.parametrize("path", ["~/runs", "$HOME/runs", "runs/$USER"])
def test_a_path_that_nobody_expands(path: str) -> None:
    config = with_settings(["trainer.save_freq=10"])
    config.trainer.default_local_dir = path
    found = problems(check_output_paths(config))
    assert "a folder of that very name" in found[FOLDER]


def test_folders_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Found out at the first checkpoint, hours later."""
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")

    def of(folder: Path, *more: str) -> list:
        return list(check_output_folders(with_settings(["trainer.save_freq=10", f"{FOLDER}={folder}", *more])))

    assert [found.level for found in of(tmp_path / "new/run")] == [OK]
    assert f"{tmp_path / 'file'} is a file" in problems(of(tmp_path / "file/run"))[FOLDER]
    assert "is a link to nothing" in problems(of(tmp_path / "link/run"))[FOLDER]
    dump = f"trainer.rollout_data_dir={tmp_path / 'file'}"
    assert "is a file" in problems(of(tmp_path, dump))["trainer.rollout_data_dir"]
    assert of(tmp_path / "file/run", "trainer.save_freq=-1") == [], "nothing is written there"
    monkeypatch.setattr(output_folders.os, "access", lambda path, mode: mode != os.W_OK | os.X_OK)
    assert "cannot be written by this user" in problems(of(tmp_path / "new/run"))[FOLDER]


@pytest.mark.parametrize(
    ("size", "said"), [(0, "takes 0 GPUs"), (3, "divisor of 8"), (8, "attention heads"), (4, "vocabulary of 510")]
)
def test_tensor_parallel_sizes_that_do_not_fit(tmp_path: Path, size: int, said: str) -> None:
    """TRAIN_TP has to divide the GPUs, the heads and the vocabulary."""
    model = write_model(tmp_path / "model", num_attention_heads=4, num_key_value_heads=4, vocab_size=510)
    key = f"{ACTOR}.megatron.tensor_model_parallel_size"
    config = with_settings(
        [f"actor_rollout_ref.model.path={model}", f"{key}={size}"], composed("ispo_megatron_trainer")
    )
    findings = check_parallel_sizes(config, read_parallelism(config), read_model_shape(config))
    found = [finding.text for finding in findings if finding.level == PROBLEM]
    assert any(said in text for text in found), found


SEPARATE = ("trainer.v1.trainer_mode=ispo_separate_async", f"{ROLLOUT}.nnodes=1", f"{ROLLOUT}.n_gpus_per_node=1")


@pytest.fixture(scope="module")
def separate() -> DictConfig:
    backend = f"{ROLLOUT}.checkpoint_engine.backend=ray_mailbox"
    return with_settings((*SEPARATE, backend), composed("ispo_trainer", "backend=cpu"))


@settings(max_examples=examples(25), deadline=None)
@given(
    mini=st.integers(1, 12),
    step=st.integers(1, 4),
    samples=st.integers(1, 6),
    workers=st.sampled_from([1, 2, 4]),
    micro=st.integers(1, 24),
)
def test_rows_of_a_local_update(
    separate: DictConfig, mini: int, step: int, samples: int, workers: int, micro: int
) -> None:
    """With parameter_sync_step > 1 a step is cut into local updates before its log-probs are computed, so that is what
    micro-batches divide; the step's own rows hid this, and the first step ended in an assertion.
    """
    if mini * samples % workers:
        return
    key = f"{ROLLOUT}.log_prob_micro_batch_size_per_gpu"
    for name, value in {
        "trainer.v1.separate_async.parameter_sync_step": step,
        "data.train_batch_size": mini * step,
        f"{ACTOR}.ppo_mini_batch_size": mini,
        f"{ROLLOUT}.n": samples,
        "trainer.n_gpus_per_node": workers,
        key: micro,
        f"{ACTOR}.ppo_micro_batch_size_per_gpu": mini * samples // workers,
    }.items():
        OmegaConf.update(separate, name, value)
    found = problems(check_batch_sizes(separate, read_parallelism(separate)))
    assert (key in found) == bool(mini * samples // workers % micro)
    if key in found and step > 1:
        assert f"parameter_sync_step={step}" in found[key]


def test_the_launcher_gives_micro_batches_that_divide_a_local_update() -> None:
    """On a CPU it derives them; 128 rows of a step of 32 prompts x 4 did not divide an update of 8 prompts."""
    given_ = options(
        model="qwen2_5_math_1_5b",
        rollout="cpu",
        arguments=(
            *SEPARATE,
            "trainer.v1.separate_async.parameter_sync_step=3",
            "data.train_batch_size=24",
            f"{ACTOR}.ppo_mini_batch_size=8",
            f"{ROLLOUT}.n=4",
        ),
    )
    config = training_settings(given_, {}).config
    assert rows_per_pass(8, 8, 4, 1) % config.actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu == 0


@pytest.mark.parametrize(
    ("epochs", "steps", "kept", "end"),
    [
        (1, 100, None, 6),
        (16, 100, None, 96),
        (17, 100, None, None),
        (17, 100, 599, 85),
        (1, "null", None, None),
        (1, 6, None, None),
    ],
)
def test_data_that_end_before_the_steps(
    tmp_path: Path, epochs: int, steps: int | str, kept: int | None, end: int | None
) -> None:
    """verl ends at whichever comes first, with status 0 and without saving the last step."""
    more = (f"trainer.total_epochs={epochs}", f"trainer.total_training_steps={steps}", "data.train_batch_size=100")
    config = with_settings((*data_settings(tmp_path), *more))
    found = data_end(config, kept)
    assert (found and found[0]) == end
    report = problems(check_training_length(config, kept))
    assert set(report) == ({"trainer.total_epochs"} if end else set())
    if end:
        text = report["trainer.total_epochs"]
        assert f"after step {end}" in text
        assert f"trainer.total_training_steps={steps}" in text
        longer = text.rsplit("trainer.total_epochs=", 1)[1]
        assert data_end(with_settings([f"trainer.total_epochs={longer}"], config), kept) is None


def test_what_a_pass_is_counts_samples_and_batches(tmp_path: Path) -> None:
    more = ("data.train_max_samples=250", "data.train_batch_size=100", "trainer.total_epochs=3")
    config = with_settings((*data_settings(tmp_path, [math_row()] * 600), *more))
    (found,) = check_training_length(config, None)
    assert found.level == OK
    assert "3 epochs of 2 steps (250 rows): 6 steps" in found.text
