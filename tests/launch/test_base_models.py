"""The presets of the paper's models, and the copy of a model with a longer context.

Nothing is cut silently: in the composed config, prompt and response fit into the rollout engine's context, and that
fits into the model's positions. The installed transformers and verl show why the copy is needed: verl's override does
not reach the base frequency of the rotary embedding. Not exercised: the models themselves, and whether a longer context
is good for them, for which the presets name their sources.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig, OmegaConf
from transformers import AutoConfig, Qwen2Config
from transformers.models.qwen2.modeling_qwen2 import Qwen2RotaryEmbedding
from verl.utils.model import update_model_config

from tests.launch.cells import MODELS
from verl_ispo.launch.longer_context import ContextError
from verl_ispo.launch.longer_context import extend as extend_model
from verl_ispo.launch.model_choice import PRESET_FOLDER as PRESETS
from verl_ispo.preflight.composition import compose_config

OWN_POSITIONS = {"qwen2_5_math_1_5b": 4096, "qwen2_5_math_7b": 4096, "qwen2_5_7b": 131072}
"""Of the models' published config.json."""
MATH = {
    "architectures": ["Qwen2ForCausalLM"],
    "model_type": "qwen2",
    "hidden_size": 64,
    "intermediate_size": 64,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "num_hidden_layers": 1,
    "max_position_embeddings": 4096,
    "rope_theta": 10000,
    "vocab_size": 32,
}
"""As Qwen2.5-Math writes it, with a small shape."""


@cache
def composed(trainer: str, *overrides: str) -> DictConfig:
    return compose_config(trainer, overrides)


def flat(section: object, prefix: str = "") -> dict[str, object]:
    if not isinstance(section, dict):
        return {prefix.removesuffix("."): section}
    return {key: value for name, part in section.items() for key, value in flat(part, f"{prefix}{name}.").items()}


def preset_keys(model: str) -> dict[str, object]:
    return flat(OmegaConf.to_container(OmegaConf.load(PRESETS / f"{model}.yaml")))


def test_the_papers_three_models_are_there() -> None:
    assert sorted(path.stem for path in PRESETS.glob("*.yaml")) == sorted(MODELS)


@pytest.mark.parametrize("trainer", ["ispo_trainer", "ispo_megatron_trainer"])
@pytest.mark.parametrize("model", MODELS)
def test_a_preset_changes_its_own_keys_and_repeats_none(model: str, trainer: str) -> None:
    base = flat(OmegaConf.to_container(composed(trainer), resolve=False))
    config = flat(OmegaConf.to_container(composed(trainer, f"base_model={model}"), resolve=False))
    differing = {key for key in base.keys() | config.keys() if base.get(key) != config.get(key)}
    emptied = {"actor_rollout_ref.model.override_config"}  # {} there, a section here
    assert differing - emptied == set(preset_keys(model))
    if model != "qwen2_5_7b":
        assert config["data.max_response_length"] == 4096, "the paper's, from ispo_training"


@pytest.mark.parametrize("model", MODELS)
def test_every_key_has_a_comment_above_it(model: str) -> None:
    commented = False
    for line in (PRESETS / f"{model}.yaml").read_text().splitlines()[1:]:
        text = line.strip()
        if text.startswith("# "):
            commented = True
        elif not text:
            commented = False
        elif not text.endswith(":"):
            assert commented, text
            assert len(line) <= 120


@pytest.mark.parametrize("model", MODELS)
def test_prompt_and_response_fit_so_that_nothing_is_cut(model: str) -> None:
    config = composed("ispo_trainer", f"base_model={model}")
    positions = config.actor_rollout_ref.model.override_config.get("max_position_embeddings", OWN_POSITIONS[model])
    longest = config.data.max_prompt_length + config.data.max_response_length
    # SGLang's server leaves one token free
    assert longest < config.actor_rollout_ref.rollout.max_model_len <= positions
    assert longest <= config.actor_rollout_ref.actor.ppo_max_token_len_per_gpu, "one row fits into a micro-batch"
    assert config.data.truncation == "error"


@pytest.mark.parametrize("model", ["qwen2_5_math_1_5b", "qwen2_5_math_7b"])
def test_theta_grows_with_the_positions(model: str) -> None:
    override = composed("ispo_trainer", f"base_model={model}").actor_rollout_ref.model.override_config
    assert (override.max_position_embeddings, override.rope_theta) == (6144, 15000.0)
    assert override.rope_theta / MATH["rope_theta"] == 6144 / MATH["max_position_embeddings"]


def test_the_overrides_can_be_taken_out_where_a_copy_holds_them() -> None:
    """As verl-ispo train does."""
    section = "actor_rollout_ref.model.override_config"
    out = (f"~{section}.max_position_embeddings", f"~{section}.rope_theta")
    config = composed("ispo_trainer", "base_model=qwen2_5_math_7b", "actor_rollout_ref.model.path='/copy'", *out)
    assert config.actor_rollout_ref.model.override_config == {}
    assert config.actor_rollout_ref.model.path == "/copy"


def inverse_frequencies(config: Qwen2Config) -> torch.Tensor:
    return Qwen2RotaryEmbedding(config).inv_freq


def by_hand(theta: float) -> torch.Tensor:
    return torch.tensor([theta ** (-2 * index / 16) for index in range(8)])


def test_why_a_copy_verls_override_does_not_reach_theta() -> None:
    config = Qwen2Config(**MATH)
    update_model_config(config, {"max_position_embeddings": 6144, "rope_theta": 15000.0})
    assert config.max_position_embeddings == 6144
    torch.testing.assert_close(inverse_frequencies(config), by_hand(10000.0))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "Math"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(MATH))
    (folder / "model.safetensors").write_text("weights")
    (folder / "tokenizer.json").write_text("{}")
    return folder


def extend(model: Path, out: Path, positions: int = 6144, theta: float | None = 15000.0) -> Path:
    return extend_model(str(model), out, positions, theta)[0]


def test_the_copy_has_the_context_and_links_to_the_rest(model: Path, tmp_path: Path) -> None:
    out = extend(model, tmp_path / "copies/Math-6144")
    assert out == tmp_path / "copies/Math-6144"
    config = AutoConfig.from_pretrained(out)
    assert config.max_position_embeddings == 6144
    torch.testing.assert_close(inverse_frequencies(config), by_hand(15000.0))
    assert (out / "model.safetensors").resolve() == model / "model.safetensors"
    assert json.loads((model / "config.json").read_text()) == MATH, "the model itself stays"
    assert [path.name for path in out.parent.iterdir()] == ["Math-6144"], "nothing is left over"


def test_a_config_of_transformers_5_is_extended_where_it_is_read(model: Path, tmp_path: Path) -> None:
    Qwen2Config(**MATH).save_pretrained(model)
    assert "rope_parameters" in json.loads((model / "config.json").read_text())
    config = AutoConfig.from_pretrained(extend(model, tmp_path / "copy"))
    torch.testing.assert_close(inverse_frequencies(config), by_hand(15000.0))


def test_a_second_call_finds_the_copy(model: Path, tmp_path: Path) -> None:
    first = extend(model, tmp_path / "copy")
    before = (first / "config.json").stat().st_mtime_ns
    assert extend(model, tmp_path / "copy") == first
    assert (first / "config.json").stat().st_mtime_ns == before


def test_a_model_that_has_the_positions_is_used_as_it_is(model: Path, tmp_path: Path) -> None:
    assert extend(model, tmp_path / "copy", positions=4096) == model
    assert not (tmp_path / "copy").exists()


def test_a_copy_of_other_settings_or_with_broken_links_is_refused(model: Path, tmp_path: Path) -> None:
    extend(model, tmp_path / "copy")
    with pytest.raises(ContextError, match="it has other settings; remove that folder"):
        extend(model, tmp_path / "copy", theta=20000.0)
    (model / "model.safetensors").unlink()
    with pytest.raises(ContextError, match=r"model\.safetensors are broken"):
        extend(model, tmp_path / "copy")


@pytest.mark.parametrize("key", ["rope_scaling", "rope_parameters"])
def test_a_model_with_rope_scaling_is_refused(key: str, model: Path, tmp_path: Path) -> None:
    (model / "config.json").write_text(json.dumps({**MATH, key: {"rope_type": "yarn", "factor": 2.0}}))
    with pytest.raises(ContextError, match="rope scaling of type 'yarn'"):
        extend(model, tmp_path / "copy")


def test_faults_are_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ContextError, match=r"no config\.json"):
        extend(tmp_path / "empty", tmp_path / "copy")
    (tmp_path / "empty/config.json").write_text("{")
    with pytest.raises(ContextError, match=r"config\.json is not JSON"):
        extend(tmp_path / "empty", tmp_path / "copy")
    with pytest.raises(ContextError, match="no such folder, and the hub does not have it"):
        extend_model("nobody/nothing", tmp_path / "copy", 6144, None, local_only=True)
