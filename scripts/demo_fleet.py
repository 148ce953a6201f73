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
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import aiohttp
import msgspec

from replicator.cli.fleet import lines
from replicator.daemon.http.api.shapes import AgentInfo, Agents
from replicator.demo.images import image, layer, load
from replicator.demo.registry import DemoRegistry
from replicator.demo.store import Store
from tests.fakes.process import free_port
from tests.postgres import Database, running_postgres

PACE: Final = "1MB"
"""Of the source, shared by all agents: so slow that there is something to see."""
PATIENCE_SECONDS: Final = 120.0
_RUN: Final = (sys.executable, "-m", "replicator")


@dataclass
class Stage:
    """What the demo plays on."""

    folder: Path
    database: Database
    hub: Store
    hub_url: str
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
url = "{self.hub_url}"
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
interval = "5s"
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

    async def until(self, true: Callable[[], Awaitable[bool]]) -> None:
        """Returns when it is true. Raises TimeoutError."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not await true():  # noqa: ASYNC110  # what it waits for is in other processes
                await asyncio.sleep(0.1)

    async def until_copied(self, count: int) -> None:
        """Returns when so many tags are copied."""

        async def copied() -> bool:
            return self.copied >= count

        await self.until(copied)

    async def get(self, name: str, path: str) -> Any:
        """What an agent's API answers; None while it does not answer."""
        try:
            async with (
                aiohttp.ClientSession() as session,
                session.get(f"http://127.0.0.1:{self.ports[name]}{path}") as answer,
            ):
                return await answer.json()
        except aiohttp.ClientConnectionError:
            return None

    async def agents_of(self, name: str) -> list[AgentInfo]:
        """The agents, as one of them knows them; none while it does not answer."""
        told = await self.get(name, "/api/v1/agents")
        return [] if told is None else msgspec.convert(told, Agents).agents

    async def fleet(self, name: str) -> str:
        """What `replicator fleet` says, from an agent's API, which is quicker than a process."""
        return "\n".join(lines(await self.agents_of(name), time.time())) + "\n"

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
    """Two empty registries, and PostgreSQL."""
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="replicator-demo-")))
        server = stack.enter_context(running_postgres())
        hub, fra = Store(), Store()
        urls = [(await stack.enter_async_context(DemoRegistry.serve(each))).url for each in (hub, fra)]
        playing = Stage(folder, server.create(), hub, urls[0], fra, urls[1])
        try:
            yield playing
        finally:
            for process in playing.agents.values():
                if process.returncode is None:
                    process.terminate()
                    await process.wait()


async def play(repositories: int, layer_bytes: int) -> None:
    """The demo."""
    logging.getLogger("aiohttp.server").setLevel(logging.CRITICAL)  # a connection of the one that is killed
    async with stage() as playing:
        print("PostgreSQL is up; hub and fra are empty registries.")
        await _start(playing)
        await _divide(playing, repositories, layer_bytes)
        wrote = await playing.written("b")
        await _kill(playing, repositories)
        await playing.until_copied(repositories)
        await _finish(playing, wrote)
        print(f"\nfra has all {playing.copied} of {repositories} tags.")


async def _start(playing: Stage) -> None:
    print("\n1. Three agents start with one config. They find each other in the database:\n")
    for name in ("a", "b", "c"):
        await playing.start(name)

    async def all_there() -> bool:
        return len(await playing.agents_of("a")) == 3

    await playing.until(all_there)
    print(await playing.fleet("a"))


async def _divide(playing: Stage, repositories: int, layer_bytes: int) -> None:
    print(
        f"2. {repositories} images are pushed to hub. At the next tick of the rule, every 5 s, one agent puts its 32 shards into\n"
        "   the queue, and all take from there:\n"
    )
    for number in range(repositories):
        load(playing.hub, f"team/app{number}", "v1", image(f"{number}", [layer(f"{number}", layer_bytes)]))

    async def b_works() -> bool:
        agents = await playing.agents_of("a")
        return playing.copied > repositories // 6 and any(
            each.agent == "b" and len(each.doing) > 1 for each in agents
        )

    await playing.until(b_works)
    print(await playing.fleet("a"))
    print(f"   {playing.copied} of {repositories} copied.")


async def _kill(playing: Stage, repositories: int) -> None:
    print("\n3. Agent b is killed with -9, in the middle of what it does.\n")
    playing.agents["b"].send_signal(signal.SIGKILL)
    await playing.agents["b"].wait()
    killed = time.monotonic()

    async def taken_over() -> bool:
        # On a slow machine it may have ended all that it had between the picture above and the signal.
        is_left = playing.copied < repositories
        return not is_left or any(playing.said(name, "took over") for name in ("a", "c"))

    await playing.until(taken_over)
    seconds = time.monotonic() - killed
    await asyncio.sleep(2.0)  # for all of its shards
    lines = [
        f"   {name}: {line.partition('took over')[2].strip()}"
        for name in ("a", "c")
        for line in (playing.folder / name / "log").read_text().splitlines()
        if "took over" in line
    ]
    if lines:
        print(f"   {seconds:.1f} s later the others have taken over its shards:", *lines, sep="\n")
    else:
        print("   It had just ended what it had in hand; the others do the rest.")


async def _finish(playing: Stage, wrote: int) -> None:
    print("\n4. The others finish, and any of them knows what all did:\n")

    async def ended() -> bool:
        return bool(await copying(playing))

    await playing.until(ended)
    for run in await copying(playing):
        print(f"   {run}")
    print()
    print(await playing.fleet("a"))
    for name in ("a", "c"):
        print(f"   {name} wrote {await playing.written(name):,} bytes")
    print(f"   b wrote {wrote:,} bytes before it was killed")


async def copying(playing: Stage) -> list[str]:
    """The runs that b had a part in and that have ended, as agent c tells of them; earliest first."""
    told = await playing.get("c", "/api/v1/runs?rule=apps&limit=200")
    return [
        f"a run of {each['shards']['count']} shards by {', '.join(each['agents'])}: {each['outcome']}"
        for each in reversed(told["runs"])
        if each["ended_at"] and each["shards"] and "b" in each["agents"]
    ][-3:]


def main() -> None:
    """The demo; `--quick` with fewer and smaller images."""
    asyncio.run(play(*((36, 200_000) if sys.argv[1:] == ["--quick"] else (60, 400_000))))


if __name__ == "__main__":
    main()
