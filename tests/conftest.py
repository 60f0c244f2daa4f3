"""The CPU as verl's platform, how many examples a property test draws, and which tests share a worker."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

# verl asks for its platform when it is imported, so the CPU has to be chosen before any test module is.
os.environ.setdefault("VERL_PLATFORM", "cpu")

# No deadlines: the tests run on shared machines, and none of them is about time. A test that states how many examples
# it wants does so through `tests.examples`, so that the profile scales it.
settings.register_profile("suite", deadline=None, max_examples=25)
settings.register_profile("all", deadline=None, max_examples=100)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "suite"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """One group for each file, so that its fixtures are made once, and one for all tests that train.

    Trainings share session fixtures and take gigabytes, so they run one at a time. They come first: beside them the
    other workers take file after file, and nothing long is left for the end.
    """
    trains = {item: item.get_closest_marker("trainer") is not None for item in items}
    for item in items:
        file = Path(item.path).relative_to(item.config.rootpath).as_posix()
        item.add_marker(pytest.mark.xdist_group("trainer" if trains[item] else file))
    items.sort(key=lambda item: not trains[item])
