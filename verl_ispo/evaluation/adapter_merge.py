"""An adapter put into the weights that it was trained on: ``python -m verl_ispo.evaluation.adapter_merge``.

A process of its own, as verl's merger is, so that the memory of both models is free again when sampling begins.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


def base_of(adapter: Path) -> str:
    """The model that an adapter was trained on, as verl noted it; empty without a note."""
    config = json.loads((adapter / ADAPTER_CONFIG).read_text(encoding="utf-8"))
    return str(config.get("base_model_name_or_path") or "")


def merge_adapter(base: str, adapter: Path, target: Path) -> None:
    """Write ``base`` with the adapter merged into it, in the number format of ``base``.

    Args:
        base (`str`): Hugging Face folder.
        adapter (`Path`): folder with the adapter in peft's form.
        target (`Path`): folder for the weights and their config; a tokenizer is not written.

    Raises:
        ValueError: the adapter would have no effect, or has weights that the model has no place for.
    """
    from peft import PeftModel, get_peft_model_state_dict
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM

    config = json.loads((adapter / ADAPTER_CONFIG).read_text(encoding="utf-8"))
    if not config.get("lora_alpha"):
        raise ValueError(f"{adapter / ADAPTER_CONFIG}: lora_alpha is {config.get('lora_alpha')}; set the training's")
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base, dtype="auto"), str(adapter))
    saved, taken = load_file(adapter / ADAPTER_WEIGHTS).keys(), get_peft_model_state_dict(model).keys()
    if saved != taken:  # peft leaves out what it finds no place for, with a warning
        raise ValueError(f"{adapter}: {sorted(saved ^ taken)[0]} and others do not fit the model in {base}")
    model.merge_and_unload().save_pretrained(target)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m verl_ispo.evaluation.adapter_merge", description=__doc__)
    parser.add_argument("base", help="Hugging Face folder of the model that the adapter was trained on")
    parser.add_argument("adapter", type=Path, help="folder of the adapter, in peft's form")
    parser.add_argument("target", type=Path, help="folder for the merged model")
    options = parser.parse_args()
    merge_adapter(options.base, options.adapter, options.target)


if __name__ == "__main__":
    main()
