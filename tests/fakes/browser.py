"""Debian's Chromium without a window, driven by its driver (W3C WebDriver)."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import aiohttp

from tests.fakes.process import require, running

# Without the flags about networking, Chromium calls home at every start.
_FLAGS: Final = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-dev-shm-usage",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-extensions",
)  # fmt: skip


@dataclass(frozen=True)
class Browser:
    """One window."""

    _session: aiohttp.ClientSession
    _path: str

    async def open(self, url: str) -> None:
        """Goes there and waits until it is loaded."""
        await self._call("POST", "/url", {"url": url})

    async def prepare(self, script: str) -> None:
        """Has every page that is opened from now on run this before its own scripts."""
        parameters = {"cmd": "Page.addScriptToEvaluateOnNewDocument", "params": {"source": script}}
        await self._call("POST", "/goog/cdp/execute", parameters)

    async def run(self, script: str, *arguments: Any) -> Any:
        """What the script, a function's body, returns."""
        return await self._call("POST", "/execute/sync", {"script": script, "args": list(arguments)})

    async def text(self, selector: str = "body") -> str:
        """What is to be read there, as a person sees it."""
        found = await self._call("POST", "/element", {"using": "css selector", "value": selector})
        (element,) = found.values()
        return str(await self._call("GET", f"/element/{element}/text"))

    async def until(self, text: str, selector: str = "body") -> None:
        """Waits until something of this kind is there and says this."""
        script = "const found = document.querySelector(arguments[0]); return found?.innerText.includes(arguments[1]) ?? false"
        async with asyncio.timeout(15):
            while not await self.run(script, selector, text):  # noqa: ASYNC110 - a browser tells nothing by itself
                await asyncio.sleep(0.05)

    async def title(self) -> str:
        """The window's title."""
        return str(await self._call("GET", "/title"))

    async def press(self, key: str) -> None:
        """Presses and lets go of a key."""
        actions = [{"type": "keyDown", "value": key}, {"type": "keyUp", "value": key}]
        await self._call("POST", "/actions", {"actions": [{"type": "key", "id": "keys", "actions": actions}]})

    async def resize(self, width: int, height: int) -> None:
        """Gives the window another size."""
        await self._call("POST", "/window/rect", {"width": width, "height": height})

    async def complaints(self) -> list[str]:
        """What stands in the console since this was last asked: refused scripts and styles, errors."""
        entries = await self._call("POST", "/se/log", {"type": "browser"})
        return [str(entry["message"]) for entry in entries]

    async def _call(self, method: str, path: str, body: object = None) -> Any:
        async with self._session.request(method, self._path + path, json=body) as answer:
            told = (await answer.json())["value"]
        if answer.status != 200:
            raise AssertionError(f"{method} {path}: {told['error']}: {told['message']}")
        return told


@asynccontextmanager
async def chromium(folder: Path, *flags: str, javascript: bool = True) -> AsyncIterator[Browser]:
    """A new browser that knows nothing."""
    binary, driver = require("chromium"), require("chromedriver")
    profile = tempfile.mkdtemp(prefix="chromium-")  # the path of its socket must be short
    options: dict[str, Any] = {"binary": binary, "args": [*_FLAGS, f"--user-data-dir={profile}", *flags]}
    if not javascript:
        options["prefs"] = {"profile.managed_default_content_settings.javascript": 2}
    wanted = {"browserName": "chrome", "goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
    try:
        with ExitStack() as stack:
            port = await asyncio.to_thread(_start_driver, driver, folder, stack)
            async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session:
                async with session.post("/session", json={"capabilities": {"alwaysMatch": wanted}}) as answer:
                    told = (await answer.json())["value"]
                    assert answer.status == 200, told
                path = f"/session/{told['sessionId']}"
                try:
                    yield Browser(session, path)
                finally:
                    async with session.delete(path):
                        pass
    finally:
        await asyncio.to_thread(shutil.rmtree, profile, ignore_errors=True)


def _start_driver(driver: str, folder: Path, stack: ExitStack) -> str:
    """The port of a chromedriver that runs until the stack is left.

    It takes a free port of IPv6 and then wants the same of IPv4, which somebody else may have.
    """
    for number in range(5):
        process = stack.enter_context(running([driver, "--port=0"], folder / f"chromedriver{number}.log"))
        try:
            return process.wait_for(r"started successfully on port (\d+)")[1]
        except ChildProcessError as error:
            if "Address already in use" not in str(error):
                raise
    raise AssertionError("chromedriver met a port in use five times")
