"""`ISPOConfig`: its defaults are the method's table, it checks ranges, and it names the key that was meant.

The table is repeated here by hand. The yaml files are what a user edits, so they are compared with the dataclass key
by key, and a comment right above each key has to explain it.

Not exercised: how the settings act (tests/signals), and the composed trainer configs
(tests/trainer/test_hydra_configs).
"""

from __future__ import annotations

import dataclasses
import math
import pickle
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

import verl_ispo
from verl_ispo import ISPOConfig
from verl_ispo.config import UnknownISPOKeyError

CONFIG_DIR = Path(verl_ispo.__file__).parent / "config"

PAPER = {
    "ifd_weight": 0.5,
    "token_weight": 0.1,
    "top_entropy_fraction": 0.10,
    "drift_threshold": 0.3,
    "entropy_floor": 0.3,
    "entropy_bonus": 1.0,
    "hinge_weight": 1.0,
    "critical_selection": "intersection",
    "symmetric_token_reward": False,
}
GUARDS_OFF = {
    "answer_format": "auto",
    "answer_span": "content",
    "trace_end": "lead_in",
    "min_group_std": 0.0,
    "all_wrong_groups": "paper",
    "all_right_groups": "paper",
    "missing_answer": "zero",
    "max_abs_ifd": None,
    "min_right_answer_gain": None,
    "exclude_answer_from_critical": False,
    "ifd_reference": "none",
    "ifd_running_decay": 0.9,
    "same_outcome_std": "own",
}
CHOICES = {
    "critical_selection": ["intersection", "union", "entropy", "drift"],
    "answer_format": ["auto", "boxed", "answer_line"],
    "answer_span": ["content", "marked", "sentence"],
    "trace_end": ["lead_in", "first_statement"],
    "all_wrong_groups": ["paper", "token_only", "off", "informative", "right_answer"],
    "all_right_groups": ["paper", "token_only", "off"],
    "missing_answer": ["zero", "group_min"],
    "ifd_reference": ["none", "running_mean", "right_rollouts"],
    "same_outcome_std": ["own", "one_success"],
}


def test_defaults_are_the_paper_with_every_guard_off() -> None:
    assert dataclasses.asdict(ISPOConfig()) == ISPOConfig().to_dict() == PAPER | GUARDS_OFF


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("ifd_weight", -0.1),
        ("token_weight", -1),
        ("top_entropy_fraction", 0.0),
        ("top_entropy_fraction", 1.01),
        ("top_entropy_fraction", 10),  # per cent by mistake
        ("entropy_floor", -0.3),
        ("entropy_bonus", -1.0),
        ("hinge_weight", -1.0),
        ("min_group_std", -0.1),
        ("max_abs_ifd", 0.0),
        ("max_abs_ifd", -1.0),
        ("min_right_answer_gain", "0"),
        ("symmetric_token_reward", "yes"),
        ("symmetric_token_reward", 1),
        ("exclude_answer_from_critical", None),
        *[(key, bad) for key in CHOICES for bad in ("Paper", "", None, 3)],
        *[
            (key, bad)
            for key in ("ifd_weight", "drift_threshold", "top_entropy_fraction", "max_abs_ifd")
            for bad in (math.nan, math.inf, -math.inf, "0.5", True, [])
        ],
    ],
)
def test_a_value_out_of_range_is_named(key: str, value: object) -> None:
    with pytest.raises(ValueError, match=rf"algorithm\.ispo\.{key}") as caught:
        ISPOConfig(**{key: value})
    assert repr(value) in str(caught.value)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("ifd_weight", 0),
        ("ifd_weight", 2),
        ("token_weight", 0.3),
        ("top_entropy_fraction", 1.0),
        ("top_entropy_fraction", 0.05),
        ("drift_threshold", -0.5),
        ("drift_threshold", 0),
        ("hinge_weight", 0.0),
        ("max_abs_ifd", 0.1),
        ("max_abs_ifd", None),
        ("min_right_answer_gain", 0.0),
        ("min_right_answer_gain", -2),
        *[(key, choice) for key, choices in CHOICES.items() for choice in choices],
    ],
)
def test_a_value_in_range_is_kept(key: str, value: object) -> None:
    assert getattr(ISPOConfig(**{key: value}), key) == value


def test_informative_is_for_all_wrong_groups_only() -> None:
    with pytest.raises(ValueError, match="all_right_groups"):
        ISPOConfig(all_right_groups="informative")


@pytest.mark.parametrize(
    ("typo", "meant"),
    [
        ("ifd_weigth", "ifd_weight"),
        ("token_weights", "token_weight"),
        ("top_entropy", "top_entropy_fraction"),
        ("hinge", "hinge_weight"),
        ("all_wrong", "all_wrong_groups"),
        ("missing_answers", "missing_answer"),
        ("max_ifd", "max_abs_ifd"),
    ],
)
def test_an_unknown_key_names_the_nearest(typo: str, meant: str) -> None:
    for build in (lambda: ISPOConfig(**{typo: 1}), lambda: ISPOConfig.from_mapping({typo: 1})):
        with pytest.raises(UnknownISPOKeyError, match=f"'{typo}'.*did you mean '{meant}'"):
            build()


@given(st.text(max_size=20).filter(lambda key: key not in PAPER | GUARDS_OFF))
def test_any_unknown_key_is_refused(key: str) -> None:
    with pytest.raises(UnknownISPOKeyError, match="did you mean"):
        ISPOConfig.from_mapping({key: 0.5})


def test_it_is_frozen_hashable_and_travels() -> None:
    config = ISPOConfig(ifd_weight=0.7, max_abs_ifd=2.0)
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.ifd_weight = 0.1
    assert pickle.loads(pickle.dumps(config)) == config == dataclasses.replace(config)
    assert len({config, dataclasses.replace(config)}) == 1


def test_from_mapping_takes_what_hydra_gives() -> None:
    section = OmegaConf.create({"ispo": {"ifd_weight": 0.7, "max_abs_ifd": None, "all_wrong_groups": "off"}})
    assert ISPOConfig.from_mapping(section.ispo) == ISPOConfig(ifd_weight=0.7, all_wrong_groups="off")
    for nothing in (None, {}, OmegaConf.create({})):
        assert ISPOConfig.from_mapping(nothing) == ISPOConfig()


def test_the_paper_yaml_is_the_dataclass() -> None:
    written = yaml.safe_load((CONFIG_DIR / "ispo" / "paper.yaml").read_text())
    defaults = ISPOConfig().to_dict()
    assert written == defaults
    assert list(written) == list(defaults)
    assert ISPOConfig.from_mapping(written) == ISPOConfig()


def test_every_key_of_the_paper_yaml_is_explained_right_above_it() -> None:
    lines = (CONFIG_DIR / "ispo" / "paper.yaml").read_text().splitlines()
    keys = [
        (number, line.split(":")[0]) for number, line in enumerate(lines) if line and not line.startswith(("#", " "))
    ]
    assert len(keys) == len(ISPOConfig().to_dict())
    for number, key in keys:
        comment = lines[number - 1]
        assert comment.startswith("# "), key
        if key in GUARDS_OFF:
            assert "Ours" in comment, f"{key} is not the paper's and has to say so"


def test_every_field_is_documented() -> None:
    for field in dataclasses.fields(ISPOConfig):
        assert f"{field.name} (`" in ISPOConfig.__doc__, field.name
