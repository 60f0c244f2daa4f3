"""Which weights of a checkpoint are evaluated, by the layout of its files; and an adapter put into its base model.

What goes wrong in general: a folder has a config, a tokenizer and weights, and they are the base model's; every number
of the evaluation is plausible and of another model. Layouts are those of verl's checkpoint managers, with made-up
contents; real ones are in tests/megatron, tests/trainer and tests/training.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from verl_ispo.evaluation.adapter_merge import merge_adapter
from verl_ispo.evaluation.model_folder import resolve_checkpoint
from verl_ispo.user_error import UserError


def megatron_checkpoint(folder: Path, peft: bool) -> Path:
    """A checkpoint of Megatron without weights; returns its folder in Hugging Face form."""
    whole = folder / "global_step_4/actor/model/huggingface"
    whole.mkdir(parents=True)
    (whole / "config.json").write_text("{}")
    (folder / "global_step_4/actor/ckpt_contents.json").write_text(json.dumps({"backend": {"peft": peft}}))
    return whole


def test_megatrons_whole_weights_are_read_where_they_are(tmp_path: Path) -> None:
    whole = megatron_checkpoint(tmp_path, peft=False)
    (whole / "model.safetensors").touch()
    assert resolve_checkpoint(str(tmp_path / "global_step_4")).folder == whole


def test_a_megatron_checkpoint_without_its_last_file(tmp_path: Path) -> None:
    """It was killed while it was saved, and its weights may be cut off."""
    whole = megatron_checkpoint(tmp_path, peft=False)
    (whole / "model.safetensors").touch()
    manifest = tmp_path / "global_step_4/actor/ckpt_contents.json"
    manifest.write_text("{")
    with pytest.raises(UserError, match=r"ckpt_contents\.json: cannot be read"):
        resolve_checkpoint(str(tmp_path / "global_step_4"))
    manifest.unlink()
    with pytest.raises(UserError, match="neither an FSDP nor a Megatron"):
        resolve_checkpoint(str(tmp_path / "global_step_4"))


def test_an_adapter_without_its_base_model(tmp_path: Path) -> None:
    """Also beside weights: they are the base model's."""
    whole = megatron_checkpoint(tmp_path, peft=True)
    (whole / "model.safetensors").touch()
    with pytest.raises(UserError, match=r"no adapter_config\.json, so the adapter is not there"):
        resolve_checkpoint(str(tmp_path / "global_step_4"))
    (whole / "adapter").mkdir()
    (whole / "adapter/adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "/nowhere/base"}))
    with pytest.raises(UserError, match=r"adapter of /nowhere/base, where there is no .* base_model_name_or_path"):
        resolve_checkpoint(str(tmp_path / "global_step_4"))


def test_an_adapter_in_its_base_model(tmp_path: Path) -> None:
    """The merged model has the logits of peft's; an adapter without a scale, or of another model, is refused."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    from verl_ispo.tiny_task.base_model import build_model
    from verl_ispo.tiny_task.tokenizer import build_tokenizer

    base, adapter, merged = tmp_path / "base", tmp_path / "adapter", tmp_path / "merged"
    model = build_model(build_tokenizer(), seed=1)
    model.save_pretrained(base)
    tuned = get_peft_model(model, LoraConfig(r=2, lora_alpha=4, target_modules=["q_proj"], init_lora_weights=False))
    tuned.save_pretrained(adapter)
    merge_adapter(str(base), adapter, merged)
    tokens = torch.arange(8)[None]
    with torch.no_grad():
        found = AutoModelForCausalLM.from_pretrained(merged)(tokens).logits
        torch.testing.assert_close(found, tuned(tokens).logits, rtol=1e-4, atol=1e-4)

    config = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps(config | {"lora_alpha": 0}))
    with pytest.raises(ValueError, match="lora_alpha is 0"):
        merge_adapter(str(base), adapter, tmp_path / "none")
    (adapter / "adapter_config.json").write_text(json.dumps(config | {"target_modules": ["k_proj"]}))
    with pytest.raises(ValueError, match="do not fit the model"):
        merge_adapter(str(base), adapter, tmp_path / "none")
