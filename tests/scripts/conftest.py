from __future__ import annotations

from pathlib import Path

import pytest

from tests.scripts.launchers import StandIn


@pytest.fixture
def stand_in(tmp_path: Path) -> StandIn:
    return StandIn(tmp_path)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A folder with the names that data_prep gives; the launchers do not read them."""
    folder = tmp_path / "data"
    folder.mkdir()
    for name in ("dapo_math", "aime24", "aime25", "amc23", "math500", "olympiadbench"):
        (folder / f"{name}.parquet").touch()
    return folder
