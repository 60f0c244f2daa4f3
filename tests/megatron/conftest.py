"""Without Megatron's folder nothing is collected here but the test that says so; trainings have it on their path."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.megatron.environment import megatron_folder, with_megatron
from tests.training.conftest import ENVIRONMENT, sums, tiny_task, train  # noqa: F401  fixtures
from verl_ispo.cpu.fork_server import fork_server

collect_ignore_glob = [] if megatron_folder() else ["test_engine.py", "test_training.py"]


@pytest.fixture(scope="session")
def forking() -> Iterator[dict[str, str]]:
    """As in tests/training, with Megatron on the path."""
    with fork_server(with_megatron({**ENVIRONMENT, "RAY_DEDUP_LOGS": "0"})) as environment:
        yield environment
