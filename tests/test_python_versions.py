"""The Python versions that are named in several places are the same ones, and verl's.

What goes wrong in general: one place is widened or narrowed alone, and an installation fails, or a version that works
is refused. That the code runs on each is shown by the suite on that interpreter (``PYTHON=python3.12 VENV=...
scripts/test.sh``); syntax above the lowest one is for ruff to find (``target-version``).
"""

from __future__ import annotations

import importlib.metadata
import re
from pathlib import Path

import pytest
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).parents[1]
LOWEST, HIGHEST = (3, 10), (3, 12)


@pytest.mark.parametrize(
    ("file", "pattern"),
    [
        ("setup.py", r'python_requires=">=(\d)\.(\d+),<(\d)\.(\d+)"'),
        ("scripts/pinned_environment.sh", r"\((\d), (\d+)\) <= sys\.version_info\[:2\] <= \((\d), (\d+)\)"),
        ("README.md", r"Python (\d)\.(\d+) to (\d)\.(\d+)"),
        ("docs/compatibility.md", r"Python (\d)\.(\d+) to (\d)\.(\d+)"),
    ],
)
def test_every_place_names_the_same_versions(file: str, pattern: str) -> None:
    found = re.findall(pattern, (ROOT / file).read_text(encoding="utf-8"))
    assert found
    above = 1 if file == "setup.py" else 0
    for numbers in found:
        low_major, low, high_major, high = map(int, numbers)
        assert ((low_major, low), (high_major, high - above)) == (LOWEST, HIGHEST)


def test_ruff_checks_for_the_lowest_one() -> None:
    assert f'target-version = "py{LOWEST[0]}{LOWEST[1]}"' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")


def test_they_are_verls() -> None:
    verls = SpecifierSet(importlib.metadata.metadata("verl")["Requires-Python"])
    assert [minor for minor in range(20) if f"3.{minor}" in verls] == [*range(LOWEST[1], HIGHEST[1] + 1)]
