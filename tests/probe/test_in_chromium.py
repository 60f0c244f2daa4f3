"""The probe's page in a real browser, at the width of a phone and of a desktop: it fits, logs and requests nothing.

Skipped where there is no Chromium or no playwright.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import pytest

from tests.probe.hostile_probe import hostile_result
from verl_ispo.probe.probe_page import render

pytest.importorskip("playwright", reason="playwright is not installed (pip install -e .[dev])")
from tests.report.chromium import EVERYTHING_OPEN, NEEDS_CHROMIUM, SeenPage, chromium, look_at

pytestmark = NEEDS_CHROMIUM


@pytest.fixture(scope="module")
def look(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., SeenPage]]:
    page = tmp_path_factory.mktemp("probe") / "probe.html"
    page.write_text(render(*hostile_result()), encoding="utf-8")
    with chromium() as browser:
        yield partial(look_at, browser, page)


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_it_fits_and_is_silent(look: Callable[..., SeenPage], width: int, dark: bool) -> None:
    seen = look(width, EVERYTHING_OPEN + "document.documentElement.scrollWidth", dark=dark)
    assert seen.messages == []
    assert [address for address in seen.requests if not address.startswith("data:")] == []
    assert seen.value <= width
