"""Megatron's folder: there with the pinned versions, or the one sentence that says how to get it."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from pathlib import Path

import pytest

from tests.megatron.environment import MISSING, megatron_folder

REQUIREMENTS = Path(__file__).parents[2] / "requirements/megatron_cpu.txt"


def test_megatron_is_there_in_the_pinned_versions_and_nowhere_else() -> None:
    assert importlib.util.find_spec("megatron") is None, "Megatron has come into the ordinary environment"
    folder = megatron_folder()
    if folder is None:
        pytest.skip(MISSING)
    found = {f"{package.name}=={package.version}" for package in importlib.metadata.distributions(path=[str(folder)])}
    lines = REQUIREMENTS.read_text(encoding="utf-8").splitlines()
    assert found == {line for line in lines if line and not line.startswith("#")}
