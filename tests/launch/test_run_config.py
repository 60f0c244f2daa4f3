"""A run is what its composed config says: a later start with another config is refused, or noted.

The configs are verl's own, composed as its main composes them. Not exercised: that the launcher hands over the config
it starts with (test_train_run.py), how the report draws a change (tests/report).
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import DictConfig, OmegaConf

from tests.composed import composed
from tests.examples import examples
from verl_ispo.launch.run_config import MAX_SHOWN, arguments_digest, check_config, differences, trained_settings
from verl_ispo.user_error import UserError

# One of each sort that decides what is trained; every one went on in silence before.
OTHERS = (
    "algorithm.ispo.ifd_weight=0",
    "algorithm.ispo.token_weight=0",
    "actor_rollout_ref.rollout.n=4",
    "actor_rollout_ref.rollout.temperature=0.5",
    "actor_rollout_ref.actor.optim.lr=1e-5",
    "data.train_files=[/other/train.parquet]",
    "data.train_batch_size=64",
    "data.max_response_length=100",
    "actor_rollout_ref.model.path=/other/model",
    "reward.custom_reward_function.path=pkg://another.grader",
    "trainer.n_gpus_per_node=1",
    "method=grpo",
)
SAME = (
    "trainer.total_training_steps=7",
    "trainer.total_epochs=3",
    "trainer.save_freq=1",
    "trainer.test_freq=2",
    "trainer.logger=[console]",
    "trainer.experiment_name=another",
    "trainer.default_local_dir=/elsewhere",
    "trainer.max_actor_ckpt_to_keep=9",
    "trainer.val_before_train=false",
    "trainer.v1.ispo.dump_dir=/elsewhere/dump",
    "trainer.resume_mode=disable",
    "+ray_kwargs.ray_init.address=local",
)


def config_of(*overrides: str) -> DictConfig:
    """verl's config with these overrides; a choice of files is composed, single keys are set in what was composed."""
    choices = [override for override in overrides if override.startswith("method=")]
    config = composed(*choices)
    for override in overrides:
        if override not in choices:
            key, value = override.lstrip("+").split("=", 1)
            OmegaConf.update(config, key, OmegaConf.from_dotlist([f"x={value}"]).x, force_add=True)
    return config


def start(folder: Path, *overrides: str, change: bool = False, number: int = 1, step: int = 0) -> None:
    check_config(folder, config_of(*overrides), change, number, step)


@pytest.mark.parametrize("override", OTHERS)
def test_another_setting_is_refused_with_its_key_and_both_values(override: str, tmp_path: Path) -> None:
    start(tmp_path)
    kept = (tmp_path / "trained_settings.json").read_text()
    with pytest.raises(UserError, match="contains a run with other settings") as refused:
        start(tmp_path, override)
    if not override.startswith("method"):
        key = override.split("=", 1)[0]
        line = next(line for line in str(refused.value).splitlines() if line.strip().startswith(f"{key}: "))
        before, now = (json.dumps(trained_settings(config)[key]) for config in (config_of(), config_of(override)))
        assert line.strip() == f"{key}: {before} -> {now}"
    assert "CHANGE=1" in str(refused.value)
    assert (tmp_path / "trained_settings.json").read_text() == kept
    assert not (tmp_path / "changes.jsonl").exists()


@pytest.mark.parametrize("override", SAME)
def test_places_lengths_and_frequencies_may_differ(override: str, tmp_path: Path) -> None:
    start(tmp_path)
    start(tmp_path, override)


def test_a_change_that_was_asked_for_is_noted_once_and_holds_from_then_on(tmp_path: Path) -> None:
    start(tmp_path)
    start(tmp_path, "algorithm.ispo.ifd_weight=0.25", change=True, number=2, step=4)
    start(tmp_path, "algorithm.ispo.ifd_weight=0.25", number=3, step=6)
    (line,) = (tmp_path / "changes.jsonl").read_text().splitlines()
    before = composed().algorithm.ispo.ifd_weight
    assert json.loads(line) == {
        "step": 4,
        "start": 2,
        "changed": {"algorithm.ispo.ifd_weight": [json.dumps(before), "0.25"]},
    }
    with pytest.raises(UserError, match="other settings"):
        start(tmp_path)
    start(tmp_path, change=True, number=4, step=8)
    assert len((tmp_path / "changes.jsonl").read_text().splitlines()) == 2


def test_a_refusal_names_a_dozen_keys_and_counts_the_others(tmp_path: Path) -> None:
    start(tmp_path)
    with pytest.raises(UserError) as refused:
        check_config(tmp_path, composed(name="ispo_megatron_trainer"), False, 2, 0)
    shown = [line for line in str(refused.value).splitlines() if " -> " in line]
    assert len(shown) == MAX_SHOWN
    assert " more\n" in str(refused.value)


values = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(max_size=5))
flat = st.dictionaries(st.text("abc.", min_size=1, max_size=4), values, max_size=5)


@settings(max_examples=examples(50))
@given(flat, flat)
def test_differences_are_the_keys_whose_values_differ(before: dict, now: dict) -> None:
    assert differences(before, before) == []
    found = {one.key for one in differences(before, now)}
    written = [{key: json.dumps(value) for key, value in one.items()} for one in (before, now)]
    assert found == {key for key in before.keys() | now.keys() if written[0].get(key) != written[1].get(key)}
    # what was read back from the file is what was written
    assert differences(json.loads(json.dumps(before)), before) == []


def test_the_default_folder_is_another_one_for_each_value_of_a_key() -> None:
    digests = {arguments_digest([f"algorithm.ispo.ifd_weight={weight}"]) for weight in (0, 0.5, 1)}
    assert len(digests) == 3
    assert arguments_digest(["a=1", "b=2"]) == arguments_digest(["b=2", "a=1"])
    assert arguments_digest(["a=1", "trainer.save_freq=5"]) == arguments_digest(["a=1"])
    assert arguments_digest(SAME) == arguments_digest([]) == ""
