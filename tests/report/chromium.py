"""Opens a page in headless Chromium at a given width and says what a reader would meet, over the DevTools protocol."""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import os
import shutil
import signal
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--remote-debugging-port=0",
)
START_TIMEOUT_S = 60


@dataclass(frozen=True)
class SeenPage:
    """What the browser saw.

    Attributes:
        messages: console messages, log entries and exceptions.
        requests: addresses that the page asked for, its own left out.
        value: of the expression that was evaluated.
        screenshot: PNG of the visible part, or of the whole page.
    """

    messages: list[str]
    requests: list[str]
    value: Any
    screenshot: bytes


def look_at(
    page: Path, width: int, expression: str = "null", *, dark: bool = False, whole_page: bool = False, height: int = 900
) -> SeenPage:
    """Load a file, evaluate an expression in it, and take a screenshot."""
    with tempfile.TemporaryDirectory() as profile:
        process = subprocess.Popen(
            [CHROMIUM, *FLAGS, f"--user-data-dir={profile}", "about:blank"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            return asyncio.run(_look(Path(profile), page, width, height, expression, dark, whole_page))
        finally:
            # Its renderers are processes of their own and would write into the folder that is about to go.
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


async def _look(
    profile: Path, page: Path, width: int, height: int, expression: str, dark: bool, whole_page: bool
) -> SeenPage:
    port_file = profile / "DevToolsActivePort"
    for _ in range(START_TIMEOUT_S * 10):
        if port_file.exists() and port_file.read_text().count("\n"):
            break
        await asyncio.sleep(0.1)
    port = port_file.read_text().splitlines()[0]
    async with aiohttp.ClientSession() as session:
        async with session.get(f"http://127.0.0.1:{port}/json/list") as answer:
            target = next(entry for entry in await answer.json() if entry["type"] == "page")
        async with session.ws_connect(target["webSocketDebuggerUrl"], max_msg_size=0) as socket:
            return await _Conversation(socket).look(
                page.resolve().as_uri(), width, height, expression, dark, whole_page
            )


class _Conversation:
    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket = socket
        self.numbers = itertools.count(1)
        self.events: list[dict[str, Any]] = []

    async def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        number = next(self.numbers)
        await self.socket.send_str(json.dumps({"id": number, "method": method, "params": parameters}))
        while True:
            message = await self.socket.receive_json(timeout=START_TIMEOUT_S)
            if message.get("id") == number:
                assert "error" not in message, message
                return message["result"]
            self.events.append(message)

    async def wait_for(self, method: str) -> None:
        while not any(event["method"] == method for event in self.events):
            self.events.append(await self.socket.receive_json(timeout=START_TIMEOUT_S))

    async def look(
        self, address: str, width: int, height: int, expression: str, dark: bool, whole_page: bool
    ) -> SeenPage:
        for domain in ("Page", "Runtime", "Log", "Network"):
            await self.call(f"{domain}.enable")
        await self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        await self.call("Emulation.setEmulatedMedia", features=scheme)
        await self.call("Page.navigate", url=address)
        await self.wait_for("Page.loadEventFired")
        evaluated = await self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        shot = await self.call("Page.captureScreenshot", captureBeyondViewport=whole_page)
        return SeenPage(
            messages=[
                json.dumps(event["params"])
                for event in self.events
                if event["method"] in ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded")
            ],
            requests=[
                event["params"]["request"]["url"]
                for event in self.events
                if event["method"] == "Network.requestWillBeSent" and event["params"]["request"]["url"] != address
            ],
            value=evaluated["result"].get("value"),
            screenshot=base64.b64decode(shot["data"]),
        )
