"""``ISPOTrainerConfig``: the Hydra file is the dataclass, wrong values and keys fail, a moved key names the new one.

Not exercised: what the settings do (tests/trainer, tests/training).
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import yaml

import verl_ispo.config
from verl_ispo.config import ISPOConfig, ISPOTrainerConfig, UnknownISPOKeyError
from verl_ispo.preflight.composition import compose_config

CONFIG_DIR = Path(verl_ispo.config.__file__).parent


def test_the_yaml_is_the_dataclass() -> None:
    written = yaml.safe_load((CONFIG_DIR / "ispo_training.yaml").read_text())["trainer"]["v1"]["ispo"]
    assert sorted(written) == sorted(dataclasses.asdict(ISPOTrainerConfig()))
    assert ISPOTrainerConfig.from_mapping(written) == ISPOTrainerConfig()
    assert ISPOTrainerConfig.from_mapping(None) == ISPOTrainerConfig()


def test_every_field_is_documented() -> None:
    for field in dataclasses.fields(ISPOTrainerConfig):
        assert f"{field.name} (`" in ISPOTrainerConfig.__doc__, field.name


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("dump_every", 0),
        ("dump_every", 1.5),
        ("dump_every", True),
        ("dump_groups", -1),
        ("dump_dir", ""),
        ("dump_dir", 3),
        ("ablated_pass", "both"),
        ("poll_interval_s", 0),
        ("poll_interval_s", "soon"),
        ("watch_signals", "yes"),
        ("keep_over_starts", 1),
        ("repeatable_order", None),
    ],
)
def test_values_outside_their_range_name_the_key(key: str, value: object) -> None:
    with pytest.raises(ValueError, match=rf"trainer\.v1\.ispo\.{key} must be"):
        ISPOTrainerConfig.from_mapping({key: value})


def test_an_unknown_key_names_the_nearest_one() -> None:
    with pytest.raises(UnknownISPOKeyError, match=r"'dump_evry'.*did you mean 'dump_every'"):
        ISPOTrainerConfig.from_mapping({"dump_evry": 5})


@pytest.mark.parametrize("key", ["dump_dir", "dump_every", "dump_groups"])
def test_a_key_that_has_moved_is_refused_with_its_new_name(key: str) -> None:
    with pytest.raises(UnknownISPOKeyError, match=rf"algorithm\.ispo\.{key} has moved: set trainer\.v1\.ispo\.{key}"):
        ISPOConfig.from_mapping({key: "x"})
    assert hasattr(ISPOTrainerConfig(), key)


@pytest.mark.parametrize("override", ["algorithm.ispo.dump_dir=/tmp/d", "+algorithm.ispo.dump_every=2"])
def test_so_is_its_override_where_this_package_composes(override: str) -> None:
    """Hydra alone would say that the key is not there, and advise a plus sign."""
    key = override.strip("+").split("=")[0]
    with pytest.raises(UnknownISPOKeyError, match=rf"{key} has moved: set {key.replace('algorithm', 'trainer.v1')}"):
        compose_config("ispo_trainer", [override])


def test_the_first_step_and_every_so_many_are_dumped() -> None:
    config = ISPOTrainerConfig(dump_every=4)
    assert [step for step in range(1, 13) if config.dumps_rollouts_at(step)] == [1, 4, 8, 12]
