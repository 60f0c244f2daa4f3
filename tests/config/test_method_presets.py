"""Each method preset changes what it says that it changes, and nothing else.

The composed configs of all presets are compared with GRPO's, key by key, on both trainers: what differs is exactly the
preset's own keys (or, for a preset on top of others, theirs too). So two methods of the table differ in those alone.
That every key has its source in a comment right above it, and that a preset says where its rule is from, is checked
in the files.

Not exercised: that a training with each preset runs (tests/training), and whether a value is the paper's, which only
its source can tell; the values that are not verl's own are repeated here by hand.
"""

from __future__ import annotations

import subprocess
import sys
from functools import cache
from typing import Any

import pytest
from hydra.errors import MissingConfigException
from omegaconf import OmegaConf
from verl.trainer.ppo.core_algos import get_adv_estimator_fn, get_policy_loss_fn

from tests.composed import composed
from verl_ispo.config import ISPOConfig, ISPOTrainerConfig
from verl_ispo.explained.listings import summary
from verl_ispo.method_presets import PRESET_FOLDER, UnknownMethodError, method_names, read_preset
from verl_ispo.methods.registry import methods
from verl_ispo.trainer.refusals import refuse_unsupported_settings

TRAINERS = ("ispo_trainer", "ispo_megatron_trainer")
METHODS = method_names()
# One of each kind: another preset below it, an estimator, a loss of its own, verl's filter and reward manager.
ALSO_ON_MEGATRON = {"grpo", "ispo", "ispo_dapo", "real", "hapo", "dapo", "gspo", "scaf_grpo"}


def on_both_trainers(method: str) -> list[Any]:
    """The pairs of a preset and a trainer; most presets see Megatron's only in ``scripts/test.sh all``."""
    marks = [] if method in ALSO_ON_MEGATRON else [pytest.mark.volume]
    return [pytest.param(method, TRAINERS[0]), pytest.param(method, TRAINERS[1], marks=marks)]


def flat(section: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in section.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return found


@cache
def settings_of(method: str, trainer: str) -> dict[str, Any]:
    return flat(OmegaConf.to_container(composed(f"method={method}", name=trainer), resolve=False))


def test_the_table_is_there() -> None:
    wanted = [
        "grpo",
        "dr_grpo",
        "dapo",
        "gspo",
        "cispo",
        "rloo",
        "reinforce_plus_plus",
        "progrpo",
        "prepo",
        "gtpo",
        "grpo_s",
        "sign",
    ]
    wanted += ["ispo", "ispo_ifd_signal_only", "ispo_token_signal_only", "ispo_critical_entropy", "ispo_critical_drift"]
    wanted += ["ispo_critical_union", "ispo_symmetric", "ispo_no_hinge", "ispo_no_std", "ispo_std_floor"]
    wanted += [
        "ispo_dr_grpo",
        "ispo_gspo",
        "ispo_dapo",
        "ispo_off",
        "ispo_token_only",
        "ispo_informative",
        "ispo_guarded",
    ]
    wanted += ["ispo_right_answer", "ispo_right_answer_raised"]
    wanted += ["ispo_reference_std", "ispo_centred_ifd", "ispo_capped_ifd", "ispo_informative_capped"]
    assert set(wanted) <= set(METHODS)
    assert METHODS[0] == "grpo"


@pytest.mark.parametrize(("method", "trainer"), [both for method in METHODS for both in on_both_trainers(method)])
def test_a_preset_changes_its_own_keys_and_nothing_else(method: str, trainer: str) -> None:
    base, config, changes = settings_of("grpo", trainer), settings_of(method, trainer), read_preset(method).changes
    differing = {key for key in base.keys() | config.keys() if base.get(key, "absent") != config.get(key, "absent")}
    assert differing <= set(changes)
    for key, value in changes.items():
        assert config[key] == value, key
    # A key that equals GRPO's is allowed only to undo what another preset of the composition set.
    undone = {"algorithm.filter_groups.enable", "algorithm.filter_groups.metric"} if method == "ispo_dapo" else set()
    assert set(changes) - differing == undone


@pytest.mark.parametrize("method", METHODS)
def test_a_preset_passes_the_checks_that_run_before_a_training(method: str) -> None:
    config = composed(f"method={method}")
    refuse_unsupported_settings(config)
    ISPOConfig.from_mapping(config.algorithm.ispo)
    ISPOTrainerConfig.from_mapping(config.trainer.v1.ispo)


@pytest.mark.parametrize("method", METHODS)
def test_a_preset_says_what_it_is_and_every_key_has_a_comment_above_it(method: str) -> None:
    preset = read_preset(method)
    assert preset.about
    assert preset.source
    assert preset.extra_cost
    lines = (PRESET_FOLDER / f"{method}.yaml").read_text().splitlines()
    assert lines[0] == "# @package _global_"
    commented = False
    for line in lines:
        text = line.strip()
        if text.startswith("# "):
            commented = True
        elif not text:
            commented = False  # a comment holds for the keys of its block
        elif line.startswith(" ") and not text.endswith(":") and not text.startswith("- "):
            assert commented, f"{method}: {text} has no comment above it"


@pytest.mark.parametrize(
    ("method", "key", "value"),
    [
        ("dr_grpo", "algorithm.norm_adv_by_std_in_grpo", False),
        ("dr_grpo", "actor_rollout_ref.actor.loss_agg_mode", "seq-mean-token-sum-norm"),
        ("gspo", "actor_rollout_ref.actor.clip_ratio_low", 3e-4),
        ("gspo", "actor_rollout_ref.actor.clip_ratio_high", 4e-4),
        ("dapo", "algorithm.filter_groups.enable", True),
        ("ispo_dapo", "algorithm.filter_groups.enable", False),
        ("ispo_no_hinge", "algorithm.ispo.hinge_weight", 0.0),
        ("ispo_std_floor", "algorithm.ispo.min_group_std", 0.35),
        ("ispo_dr_grpo", "algorithm.adv_estimator", "ispo"),
        ("ispo_gspo", "actor_rollout_ref.actor.policy_loss.loss_mode", "gspo"),
    ],
)
def test_values_repeated_by_hand(method: str, key: str, value: object) -> None:
    assert settings_of(method, "ispo_trainer")[key] == value


@pytest.mark.parametrize("method", METHODS)
def test_what_is_verls_is_verls_own_function(method: str) -> None:
    """So that verl's methods give verl's numbers, whatever this package registers beside them."""
    config = settings_of(method, "ispo_trainer")
    estimator = config["algorithm.adv_estimator"]
    loss_mode = config["actor_rollout_ref.actor.policy_loss.loss_mode"]
    for name, function in ((estimator, get_adv_estimator_fn(estimator)), (loss_mode, get_policy_loss_fn(loss_mode))):
        package = "verl_ispo.trainer" if name in methods() else "verl.trainer.ppo.core_algos"
        assert function.__module__.startswith(package), name


def test_ispo_with_another_method_is_both_presets_together() -> None:
    ispo = read_preset("ispo").changes
    for other in ("dr_grpo", "gspo"):
        assert read_preset(f"ispo_{other}").changes == {**ispo, **read_preset(other).changes}


def test_a_key_on_the_command_line_wins_over_the_preset() -> None:
    config = composed("method=ispo_off", "algorithm.ispo.all_wrong_groups=informative")
    assert config.algorithm.ispo.all_wrong_groups == "informative"


def test_an_unknown_method_fails_to_compose_and_the_known_ones_are_listed() -> None:
    with pytest.raises(MissingConfigException, match=r"method/ipso") as caught:
        composed("method=ipso")
    assert "dr_grpo" in str(caught.value)


def test_an_unknown_method_is_told_the_nearest_and_all_known() -> None:
    with pytest.raises(UnknownMethodError, match="did you mean 'ispo'") as caught:
        read_preset("ipso")
    assert "reinforce_plus_plus" in str(caught.value)


def test_a_description_has_every_change() -> None:
    text = summary(read_preset("ispo_dr_grpo"))
    for part in ("algorithm.adv_estimator=ispo", "norm_adv_by_std_in_grpo=false", "source:", "extra cost:", "needs:"):
        assert part in text


@pytest.mark.parametrize(
    ("arguments", "status"), [([], 0), (["--names-only"], 0), (["grpo", "ispo"], 0), (["nope"], 2), (["--markdown"], 0)]
)
def test_the_command(arguments: list[str], status: int) -> None:
    process = subprocess.run(
        [sys.executable, "-m", "verl_ispo.cli", "methods", *arguments], capture_output=True, text=True, timeout=120
    )
    assert process.returncode == status
    if arguments == ["--names-only"]:
        assert process.stdout.split() == METHODS
    elif status == 0:
        assert "GRPO" in process.stdout
    else:
        assert "'nope'" in process.stderr
