"""The model's shape from its config.json, and its number of parameters; no weights are read.

Looked for in this order: a local folder, the hub's cache on this machine, the files shipped under ``model_shapes/``
(facts of the public config.json of the paper's three models). Nothing is downloaded.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from verl_ispo.preflight.composition import setting

SHIPPED_SHAPES = Path(__file__).parent / "model_shapes"
# Dense decoders whose parameters are counted below; other families have other layers.
QUERY_KEY_NORM = {"qwen2": False, "llama": False, "mistral": False, "qwen3": True}


@dataclass(frozen=True)
class ModelShape:
    """What memory, context and divisibility depend on, with the names of transformers' config.

    Attributes:
        source: where it was read.
        qkv_bias, output_bias, mlp_bias: which projections have a bias.
        is_multimodal: whether there is a vision or audio tower; the other fields are then of the text model.
    """

    source: str
    model_type: str
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    vocab_size: int
    max_position_embeddings: int
    tie_word_embeddings: bool
    qkv_bias: bool = False
    output_bias: bool = False
    mlp_bias: bool = False
    is_multimodal: bool = False


def read_model_shape(config: DictConfig) -> ModelShape | None:
    """The shape of ``actor_rollout_ref.model``, its context from ``override_config``; `None` if it is not here."""
    model = "actor_rollout_ref.model"
    shape = _read_shape(str(setting(config, f"{model}.hf_config_path") or setting(config, f"{model}.path")))
    length = override_config(config).get("max_position_embeddings")
    return shape if shape is None or length is None else replace(shape, max_position_embeddings=int(length))


def read_published_shape(config: DictConfig) -> ModelShape | None:
    """The same without ``override_config``: what vLLM and SGLang read, since verl does not pass the override on."""
    return _read_shape(str(setting(config, "actor_rollout_ref.model.path")))


def _read_shape(path: str) -> ModelShape | None:
    found = _config_json(path)
    return None if found is None else shape_of(json.loads(found.read_text(encoding="utf-8")), source=str(found))


def override_config(config: DictConfig) -> dict[str, Any]:
    """``actor_rollout_ref.model.override_config``, which Megatron's configs nest once more (HFModelConfig)."""
    section = setting(config, "actor_rollout_ref.model.override_config", {})
    plain = OmegaConf.to_container(section, resolve=True) if OmegaConf.is_config(section) else dict(section)
    return plain.get("model_config") or plain


def _config_json(path: str) -> Path | None:
    folder = Path(os.path.expanduser(path))
    if folder.is_dir():
        return folder / "config.json" if (folder / "config.json").is_file() else None
    if not is_hub_id(path):
        return None
    from huggingface_hub import try_to_load_from_cache

    cached = try_to_load_from_cache(path, "config.json")
    if isinstance(cached, str):
        return Path(cached)
    shipped = SHIPPED_SHAPES / f"{path.replace('/', '--')}.json"
    return shipped if shipped.is_file() else None


def is_hub_id(path: str) -> bool:
    """Whether this is written as ``organisation/name`` rather than as a folder."""
    return path.count("/") == 1 and not path.startswith((".", "/", "~"))


def shape_of(config_json: dict[str, Any], source: str) -> ModelShape | None:
    """The shape in a parsed config.json, gaps filled by transformers' defaults; `None` for an unknown model type."""
    from transformers import CONFIG_MAPPING

    model_type = config_json.get("model_type")
    if model_type not in CONFIG_MAPPING:
        return None
    whole = CONFIG_MAPPING[model_type].from_dict(config_json)
    text = whole.get_text_config()
    heads = text.num_attention_heads
    attention_bias = bool(getattr(text, "attention_bias", False))
    return ModelShape(
        source=source,
        model_type=text.model_type,
        hidden_size=text.hidden_size,
        intermediate_size=text.intermediate_size,
        num_hidden_layers=text.num_hidden_layers,
        num_attention_heads=heads,
        num_key_value_heads=getattr(text, "num_key_value_heads", None) or heads,
        head_dim=getattr(text, "head_dim", None) or text.hidden_size // heads,
        vocab_size=text.vocab_size,
        max_position_embeddings=text.max_position_embeddings,
        tie_word_embeddings=bool(getattr(whole, "tie_word_embeddings", False)),
        qkv_bias=text.model_type == "qwen2" or attention_bias,
        output_bias=attention_bias,
        mlp_bias=bool(getattr(text, "mlp_bias", False)),
        is_multimodal=any(hasattr(whole, part) for part in ("vision_config", "audio_config")),
    )


def linear_shapes(shape: ModelShape) -> dict[str, tuple[int, int]]:
    """In and out sizes of a layer's seven projections."""
    hidden, inner = shape.hidden_size, shape.intermediate_size
    queries, keys = shape.num_attention_heads * shape.head_dim, shape.num_key_value_heads * shape.head_dim
    return {
        "q": (hidden, queries),
        "k": (hidden, keys),
        "v": (hidden, keys),
        "o": (queries, hidden),
        "gate": (hidden, inner),
        "up": (hidden, inner),
        "down": (inner, hidden),
    }


def layer_parameter_count(shape: ModelShape) -> int:
    """Parameters of one decoder layer."""
    linears = linear_shapes(shape)
    biased = (
        [*(["q", "k", "v"] if shape.qkv_bias else []), *(["o"] if shape.output_bias else [])]
        + (["gate", "up", "down"] if shape.mlp_bias else [])
    )  # fmt: skip
    weights = sum(rows * columns for rows, columns in linears.values())
    biases = sum(linears[name][1] for name in biased)
    norms = 2 * shape.hidden_size + (2 * shape.head_dim if QUERY_KEY_NORM[shape.model_type] else 0)
    return weights + biases + norms


def outer_parameter_count(shape: ModelShape) -> int:
    """Parameters outside of the layers: embeddings, output head unless it is tied to them, last norm."""
    matrices = 1 if shape.tie_word_embeddings else 2
    return matrices * shape.vocab_size * shape.hidden_size + shape.hidden_size


def parameter_count(shape: ModelShape) -> int | None:
    """All parameters, or `None` for a family that is not counted here (experts, vision towers)."""
    if shape.model_type not in QUERY_KEY_NORM or shape.is_multimodal:
        return None
    return outer_parameter_count(shape) + shape.num_hidden_layers * layer_parameter_count(shape)


def lora_parameter_count(shape: ModelShape, rank: int) -> int:
    """Parameters of adapters of that rank on all projections of all layers (verl's ``target_modules=all-linear``)."""
    return shape.num_hidden_layers * sum(rank * (rows + columns) for rows, columns in linear_shapes(shape).values())
