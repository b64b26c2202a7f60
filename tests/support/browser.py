"""A headless Chromium, spoken to over its DevTools protocol: opens a page, asks it, and takes its picture."""

import asyncio
import base64
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from support.patience import PATIENCE_S

needs_chromium = pytest.mark.skipif(
    shutil.which("chromium") is None,
    reason="chromium is not there: apt-get install --no-install-recommends chromium",
)
OPTIONS = ("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--remote-debugging-port=0")


class Tab:
    """A page that is open; `violations` are its errors, and what its content security policy has stopped."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._numbers = count(1)
        self.violations: list[str] = []

    async def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Call a method of the protocol."""
        number = next(self._numbers)
        await self._socket.send_json({"id": number, "method": method, "params": parameters})
        async with asyncio.timeout(PATIENCE_S):
            while (message := await self._socket.receive_json()).get("id") != number:
                if message.get("method") in {"Log.entryAdded", "Runtime.exceptionThrown"}:
                    self.violations.append(str(message["params"]))
        assert "error" not in message, message
        result: dict[str, Any] = message["result"]
        return result

    async def open(self, url: str, width: int = 1280, height: int = 900, *, is_dark: bool = False) -> None:
        """Open a page in a window of that size."""
        await self.call("Log.enable")
        await self.call("Runtime.enable")
        await self.call("Page.enable")
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        await self.call("Emulation.setDeviceMetricsOverride", **size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if is_dark else "light"}
        await self.call("Emulation.setEmulatedMedia", features=[scheme])
        await self.call("Page.navigate", url=url)

    async def ask(self, expression: str) -> Any:
        """Return what an expression of JavaScript is on the page."""
        asked = await self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in asked, asked
        return asked["result"].get("value")

    async def until(self, expression: str) -> None:
        """Wait until an expression is true."""
        async with asyncio.timeout(PATIENCE_S):
            while not await self.ask(expression):
                await asyncio.sleep(0.05)

    async def picture(self, *, is_whole: bool = True) -> bytes:
        """Return a PNG of the page."""
        shot = await self.call("Page.captureScreenshot", captureBeyondViewport=is_whole)
        return base64.b64decode(shot["data"])


class Browser:
    """A Chromium that runs; each tab is closed at the end of its block."""

    def __init__(self, url: str) -> None:
        self._url = url

    @asynccontextmanager
    async def tab(self) -> AsyncIterator[Tab]:
        """Open an empty tab."""
        async with aiohttp.ClientSession(self._url) as session:
            async with session.put("/json/new?about:blank") as answer:
                target = await answer.json()
            async with session.ws_connect(target["webSocketDebuggerUrl"], max_msg_size=1 << 26) as socket:
                yield Tab(socket)
            async with session.get(f"/json/close/{target['id']}"):
                pass


@asynccontextmanager
async def chromium(directory: Path) -> AsyncIterator[Browser]:
    """Run a Chromium with a profile of its own."""
    process = await asyncio.create_subprocess_exec(
        "chromium",
        *OPTIONS,
        f"--user-data-dir={directory}",
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stderr is not None
    try:
        async with asyncio.timeout(PATIENCE_S):
            while b"DevTools listening on ws://" not in (line := await process.stderr.readline()):
                assert line, "chromium has ended"
        address = line.decode().split("ws://")[1].split("/")[0]
        reading = asyncio.create_task(process.stderr.read())  # else a full pipe would stop it
        yield Browser(f"http://{address}")
        reading.cancel()
    finally:
        process.terminate()
        await process.wait()
