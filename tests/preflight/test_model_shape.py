"""Parameter counts from the shape: transformers' own count on the meta device, and the published sizes.

Not exercised: models with experts or towers, which are not counted.
"""

from __future__ import annotations

import pytest
import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM

from tests.preflight.set_ups import with_settings, write_model
from verl_ispo.preflight.model_shape import (
    SHIPPED_SHAPES,
    linear_shapes,
    lora_parameter_count,
    parameter_count,
    read_model_shape,
    read_published_shape,
    shape_of,
)

TINY = {
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "vocab_size": 101,
    "max_position_embeddings": 64,
}


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize(
    ("model_type", "changes"),
    [
        ("qwen2", {}),
        ("qwen2", {"num_key_value_heads": 6}),
        ("qwen3", {"head_dim": 16}),
        ("llama", {}),
        ("llama", {"attention_bias": True, "mlp_bias": True}),
        ("mistral", {"head_dim": 8}),
    ],
)
def test_counts_are_transformers_own(model_type, changes, tied):
    shape = {"model_type": model_type, **TINY, **changes, "tie_word_embeddings": tied}
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(CONFIG_MAPPING[model_type].from_dict(shape))
    assert parameter_count(shape_of(shape, "test")) == sum(weight.numel() for weight in model.parameters())


@pytest.mark.parametrize(
    ("name", "exact"),
    [
        # embeddings and head, 28 layers of (queries, keys and values with biases, output, MLP, two norms), last norm
        (
            "Qwen/Qwen2.5-Math-1.5B",
            151936 * 1536
            + 28 * (1536 * 1536 + 1536 + 2 * (1536 * 256 + 256) + 1536 * 1536 + 3 * 1536 * 8960 + 2 * 1536)
            + 1536,
        ),
        (
            "Qwen/Qwen2.5-7B",
            2 * 152064 * 3584
            + 28 * (3584 * 3584 + 3584 + 2 * (3584 * 512 + 512) + 3584 * 3584 + 3 * 3584 * 18944 + 2 * 3584)
            + 3584,
        ),
    ],
)
def test_the_papers_models_by_hand(name, exact):
    count = parameter_count(read_model_shape(with_settings([f"actor_rollout_ref.model.path={name}"])))
    assert count == exact
    published = 1.54e9 if "1.5B" in name else 7.62e9  # as Qwen's model cards have it
    assert count == pytest.approx(published, rel=0.005)


def test_shipped_shapes_are_the_papers_three_models():
    assert sorted(path.stem.replace("--", "/") for path in SHIPPED_SHAPES.glob("*.json")) == [
        "Qwen/Qwen2.5-7B",
        "Qwen/Qwen2.5-Math-1.5B",
        "Qwen/Qwen2.5-Math-7B",
    ]


def test_a_local_folder_and_the_override(tmp_path):
    folder = write_model(tmp_path / "model")
    config = with_settings(
        [
            f"actor_rollout_ref.model.path={folder}",
            "actor_rollout_ref.model.override_config.max_position_embeddings=16384",
        ]
    )
    assert read_published_shape(config).max_position_embeddings == 8192
    assert read_model_shape(config).max_position_embeddings == 16384
    # Megatron's configs nest it once more
    nested = "actor_rollout_ref.model.override_config.model_config.max_position_embeddings=512"
    config = with_settings([f"actor_rollout_ref.model.path={folder}", nested])
    assert read_model_shape(config).max_position_embeddings == 512


@pytest.mark.parametrize("path", ["somebody/some-model", "/nowhere/model", "a/b/c"])
def test_unknown_models_have_no_shape(path):
    assert read_model_shape(with_settings([f"actor_rollout_ref.model.path={path}"])) is None


def test_other_families_are_not_counted(tmp_path):
    folder = write_model(tmp_path / "moe", model_type="qwen2_moe", num_experts=4)
    shape = read_model_shape(with_settings([f"actor_rollout_ref.model.path={folder}"]))
    assert shape.num_attention_heads == 4
    assert parameter_count(shape) is None
    assert shape_of({"model_type": "not-a-model"}, "test") is None


def test_lora_counts_two_thin_matrices_a_projection():
    shape = shape_of({"model_type": "qwen2", **TINY}, "test")
    by_loop = 0
    for _ in range(shape.num_hidden_layers):
        for rows, columns in linear_shapes(shape).values():
            by_loop += rows * 4 + 4 * columns
    assert lora_parameter_count(shape, 4) == by_loop
