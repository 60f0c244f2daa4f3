"""The CPU as verl's platform, how many examples a property test draws, and which tests share a worker."""

import os
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

TRAININGS = "tests/training/"
# The trainings that start as a user's do, through the launcher; about half of the time of all trainings.
LAUNCHED = ("tests/training/test_gpu_scripts.py", "tests/training/test_launcher.py", "tests/megatron/test_training.py")
# Each composes the config of every preset, which tests/composed.py keeps.
EVERY_PRESET = (
    "tests/config/test_method_presets.py",
    "tests/methods/test_direction.py",
    "tests/methods/test_registry.py",
)

# verl asks for its platform when it is imported, so the CPU has to be chosen before any test module is.
os.environ.setdefault("VERL_PLATFORM", "cpu")

# No deadlines, also for drawing examples: the tests run on shared machines, and none of them is about time. A test that
# states how many examples it wants does so through `tests.examples`, so that the profile scales it. The suite draws the
# same examples every time, so that a change fails for what it changes; `all` draws new ones.
UNTIMED = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("suite", max_examples=25, derandomize=True, **UNTIMED)
settings.register_profile("all", max_examples=100, **UNTIMED)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "suite"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Trainings first: beside them the other workers take file after file, and nothing long is left for the end."""
    items.sort(key=lambda item: not item.nodeid.startswith(TRAININGS))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """A file's tests on one worker, so that its fixtures are made once, and the trainings on two.

    Trainings share session fixtures and take about 5 GB each, so at most two run at a time. (Marks would say it too,
    but pytest-xdist 3.8 does not see the groups under pytest 9.2.)
    """
    from xdist.scheduler import LoadScopeScheduling

    class FilesAndTrainings(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            if nodeid.startswith(LAUNCHED):
                return "launched trainings"
            if nodeid.startswith(EVERY_PRESET):
                return "every preset"
            return TRAININGS if nodeid.startswith(TRAININGS) else nodeid.split("::")[0]

    return FilesAndTrainings(config, log)
