"""`make demo-fleet`: three agents, PostgreSQL and two registries on this machine; one agent is killed on stage.

Needs PostgreSQL's programs (Debian: postgresql). Leaves nothing behind.
"""

from __future__ import annotations

import asyncio
import logging
import re
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import aiohttp

from replicator.demo.images import image, layer, load
from replicator.demo.registry import DemoRegistry
from replicator.demo.store import Store
from tests.fakes.process import free_port
from tests.postgres import Database, running_postgres

REPOSITORIES: Final = 60
LAYER_BYTES: Final = 400_000
PACE: Final = "1MB"
"""Of the source, shared by all agents: so slow that there is something to see."""
PATIENCE_SECONDS: Final = 180.0
_RUN: Final = (sys.executable, "-m", "replicator")


@dataclass
class Stage:
    """What the demo plays on."""

    folder: Path
    database: Database
    hub: str
    fra: Store
    fra_url: str
    agents: dict[str, asyncio.subprocess.Process] = field(default_factory=dict)
    ports: dict[str, int] = field(default_factory=dict)

    @property
    def copied(self) -> int:
        """Tags that the destination has."""
        return sum(len(repository.tags) for repository in self.fra.repositories.values())

    def config(self, name: str) -> Path:
        """An agent's config: the same for all, but for its name and address."""
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        self.ports[name] = free_port()
        path = folder / "replicator.toml"
        path.write_text(f"""\
[agent]
name = "{name}"
listen = "127.0.0.1:{self.ports[name]}"
state = "{self.database.url}"
state_password = {{ file = "{self.database.password_file(folder)}" }}
cache = {{ path = "{folder}/cache" }}

[fleet]
enabled = true
shards = 32
jobs = 4
heartbeat = "1s"

[site.hub]
url = "{self.hub}"
docker_config = false
proxy = ""
limits = {{ bytes_per_second = "{PACE}" }}

[site.fra]
url = "{self.fra_url}"
docker_config = false
proxy = ""

[[rule]]
name = "apps"
source = "hub"
destinations = ["fra"]
repositories = ["**"]
interval = "5m"
""")
        return path

    async def start(self, name: str) -> None:
        """Starts an agent; its log goes to its folder."""
        path = self.config(name)
        with (self.folder / name / "log").open("wb") as log:
            self.agents[name] = await asyncio.create_subprocess_exec(
                *_RUN, "--config", str(path), "run", stdout=log, stderr=log
            )

    def said(self, name: str, text: str) -> int:
        """How often an agent said something."""
        return (self.folder / name / "log").read_text(errors="replace").count(text)

    async def until(self, copied: int) -> None:
        """Returns when so many tags are copied. Raises TimeoutError."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while self.copied < copied:  # noqa: ASYNC110  # other processes copy
                await asyncio.sleep(0.1)

    async def fleet(self, name: str) -> str:
        """What `replicator fleet` says."""
        command = await asyncio.create_subprocess_exec(
            *_RUN,
            "--config",
            str(self.folder / name / "replicator.toml"),
            "fleet",
            stdout=asyncio.subprocess.PIPE,
        )
        said, _ = await command.communicate()
        return said.decode()

    async def written(self, name: str) -> int:
        """Bytes that an agent has written, by its own metrics."""
        url = f"http://127.0.0.1:{self.ports[name]}/metrics"
        async with aiohttp.ClientSession() as session, session.get(url) as answer:
            text = await answer.text()
        return sum(
            int(float(value))
            for value in re.findall(r"^replicator_bytes_total\{.*\} (.*)$", text, re.MULTILINE)
        )


@asynccontextmanager
async def stage() -> AsyncIterator[Stage]:
    """A filled registry, an empty one, and PostgreSQL."""
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="replicator-demo-")))
        server = stack.enter_context(running_postgres())
        hub, fra = Store(), Store()
        for number in range(REPOSITORIES):
            load(hub, f"team/app{number}", "v1", image(f"{number}", [layer(f"{number}", LAYER_BYTES)]))
        urls = [(await stack.enter_async_context(DemoRegistry.serve(each))).url for each in (hub, fra)]
        playing = Stage(folder, server.create(), urls[0], fra, urls[1])
        try:
            yield playing
        finally:
            for process in playing.agents.values():
                if process.returncode is None:
                    process.terminate()
                    await process.wait()


async def play() -> None:
    """The demo."""
    logging.getLogger("aiohttp.server").setLevel(logging.CRITICAL)  # a connection of the one that is killed
    async with stage() as playing:
        print(f"PostgreSQL is up, hub has {REPOSITORIES} repositories, fra none.")
        print(
            "\n1. Three agents start with one config. The rule is due: one of them looks, all share its 32 shards.\n"
        )
        for name in ("a", "b", "c"):
            await playing.start(name)
        await playing.until(REPOSITORIES // 6)
        print(await playing.fleet("a"))
        print(f"   {playing.copied} of {REPOSITORIES} copied.")
        print("\n2. Agent b is killed with -9, in the middle of what it does.\n")
        wrote = await playing.written("b")
        playing.agents["b"].send_signal(signal.SIGKILL)
        await playing.agents["b"].wait()
        killed = time.monotonic()
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not sum(playing.said(name, "took over") for name in ("a", "c")):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        print(f"   {time.monotonic() - killed:.1f} s later the others have taken over its shards:")
        await asyncio.sleep(2.0)  # for all of its shards
        print(
            "\n".join(
                f"   {name}: {line.partition('took over')[2].strip()}"
                for name in ("a", "c")
                for line in (playing.folder / name / "log").read_text().splitlines()
                if "took over" in line
            )
        )
        await playing.until(REPOSITORIES)
        print("\n3. The others finish.\n")
        print(await playing.fleet("a"))
        for name in ("a", "c"):
            print(f"   {name} wrote {await playing.written(name):,} bytes")
        print(f"   b wrote {wrote:,} bytes before it was killed")
        print(f"\nfra has all {playing.copied} of {REPOSITORIES} tags.")


if __name__ == "__main__":
    asyncio.run(play())
