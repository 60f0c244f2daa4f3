from __future__ import annotations

from pathlib import Path

import pytest

from tests.scripts.launchers import NotingPrograms


@pytest.fixture
def programs(tmp_path: Path) -> NotingPrograms:
    return NotingPrograms(tmp_path)
