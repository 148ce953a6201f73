"""Pictures of the README, in docs/images: pages of an agent on the demo's registries, and what `replicator demo` prints.

Needs Chromium. Leaves nothing running: agent, registries and browser end with the script.
"""

from __future__ import annotations

import asyncio
import io
import re
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.text import Text

from replicator.demo.run import Stage, stage

_IMAGES: Final = Path("docs/images").resolve()
_SECONDS: Final = 120
_PAGES: Final = {
    "status.png": ("/", "1100,700"),
    "search.png": ("/search?q=shop", "1100,500"),
    "why.png": ("/why?reference=hub/platform/shop:v1.2-rc1&at=fra", "1100,600"),
}
_FLAGS: Final = (
    "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run", "--disable-dev-shm-usage",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-extensions",
)  # fmt: skip
_COLUMNS: Final = 132


async def main() -> None:
    """Takes all pictures."""
    _IMAGES.mkdir(exist_ok=True)
    async with asyncio.timeout(_SECONDS):
        (_IMAGES / "demo.svg").write_text(drawn("replicator demo", await _output("demo")))
        async with stage() as playing, _agent(playing) as url:
            for name, (path, size) in _PAGES.items():
                await _shoot(url + path, _IMAGES / name, size)


@asynccontextmanager
async def _agent(playing: Stage) -> AsyncIterator[str]:
    """An agent that has replicated between the demo's registries; yields its URL."""
    text = playing.config.read_text().replace("[agent]\n", '[agent]\nname = "demo"\nlisten = "127.0.0.1:0"\n')
    playing.config.write_text(text + 'interval     = "5m"\n')
    process = await asyncio.create_subprocess_exec(
        *_command("-c", str(playing.config), "run"), stderr=asyncio.subprocess.PIPE
    )
    try:
        assert process.stderr is not None  # noqa: S101 - a pipe
        url, ended = "", 0
        while not url or ended < len(playing.urls) - 1:
            line = (await process.stderr.readline()).decode()
            if not line:
                raise SystemExit("the agent ended too early")
            ended += "run ended" in line
            url = found[1] if (found := re.search(r"\burl=(\S+)", line)) else url
        yield url
    finally:
        process.terminate()
        await process.communicate()


async def _output(*arguments: str) -> str:
    """What a command prints on stdout. Raises SystemExit where it fails."""
    process = await asyncio.create_subprocess_exec(
        *_command(*arguments), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    stdout, stderr = await process.communicate()
    if process.returncode:
        raise SystemExit(f"replicator {' '.join(arguments)}: {stderr.decode()}")
    return stdout.decode()


def _command(*arguments: str) -> tuple[str, ...]:
    return (sys.executable, "-m", "replicator", *arguments)


async def _shoot(url: str, file: Path, size: str) -> None:
    """Takes a picture of a page in a browser of its own."""
    browser = shutil.which("chromium")
    if browser is None:
        raise SystemExit("chromium is not installed")
    with tempfile.TemporaryDirectory() as profile:
        process = await asyncio.create_subprocess_exec(
            browser, *_FLAGS, f"--user-data-dir={profile}", f"--window-size={size}",
            f"--screenshot={file}", url,
            stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        try:
            await process.wait()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
    if process.returncode:
        raise SystemExit(f"chromium failed for {url}")


def drawn(title: str, text: str) -> str:
    """A terminal's window with this text as SVG, which loads no font from elsewhere."""
    console = Console(record=True, width=_COLUMNS, file=io.StringIO(), highlight=True)
    for line in text.splitlines():
        console.print(
            Text(line, style="bold" if line.startswith("$ ") else ""), overflow="crop", no_wrap=True
        )
    return re.sub(r"@font-face \{.*?\}\s*", "", console.export_svg(title=title), flags=re.DOTALL)


if __name__ == "__main__":
    asyncio.run(main())
