"""Opens a page in the system's headless Chromium at a given width and says what a reader would meet."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, sync_playwright

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
NEEDS_CHROMIUM = [
    pytest.mark.volume,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium, chromium-browser or google-chrome on the PATH"),
]
"""Marks of a module that opens pages."""
EVERYTHING_OPEN = "document.querySelectorAll('details').forEach(one => one.open = true);"
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@dataclass(frozen=True)
class SeenPage:
    """What the browser saw.

    Attributes:
        messages: console messages and exceptions.
        requests: addresses that the page requested, without its own.
        value: of the expression that was evaluated.
        screenshot: PNG of the visible part, or of the whole page.
    """

    messages: list[str]
    requests: list[str]
    value: Any
    screenshot: bytes


@contextmanager
def chromium() -> Iterator[Browser]:
    """The system's browser, headless."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        yield browser
        browser.close()


def look_at(
    browser: Browser, page: Path, width: int, expression: str = "null", *, dark: bool = False, whole_page: bool = False
) -> SeenPage:
    """Load a file, evaluate an expression in it, and take a screenshot."""
    address = page.resolve().as_uri()
    messages, requests = [], []
    with browser.new_page(
        viewport={"width": width, "height": 900},
        color_scheme="dark" if dark else "light",
        is_mobile=width < 600,
    ) as tab:
        tab.on("console", lambda message: messages.append(message.text))
        tab.on("pageerror", lambda error: messages.append(str(error)))
        tab.on("request", lambda request: requests.append(request.url))
        tab.goto(address)
        value = tab.evaluate(expression)
        screenshot = tab.screenshot(full_page=whole_page)
    return SeenPage(messages, [url for url in requests if url != address], value, screenshot)
