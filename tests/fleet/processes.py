"""Agents as processes, on one database, with one config."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from tests.acceptance.daemon import Daemon
from tests.acceptance.program import Ended, Program
from tests.fakes.process import free_port
from tests.postgres import Database

PATIENCE_SECONDS = 90.0


@dataclass
class Crew:
    """A fleet. `sites`: URL by name, with the other keys of the site. `rules`: as in the config."""

    folder: Path
    database: Database
    sites: dict[str, str]
    rules: str
    fleet: str = 'shards = 16\njobs = 4\nheartbeat = "1s"'
    port: int = 0
    """Of the database, if agents reach it by another way."""
    agents: dict[str, Daemon] = field(default_factory=dict)
    urls: dict[str, str] = field(default_factory=dict)

    async def start(
        self,
        name: str,
        *,
        port: int = 0,
        serves: str = "",
        sites: Mapping[str, str] | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> Daemon:
        """Starts an agent, anew if there was one of the name; `port` as the field, `sites` in place of it."""
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        program = Program(folder)
        listen = free_port()
        self.urls[name] = f"http://127.0.0.1:{listen}"
        database = self.database.url.replace(
            f":{self.database.port}/", f":{port or self.port or self.database.port}/"
        )
        text = (
            f'[agent]\nname = "{name}"\nlisten = "127.0.0.1:{listen}"\nstate = "{database}"\n'
            f'state_password = {{ file = "{self.database.password_file(folder)}" }}\n'
            f'cache = {{ path = "{folder}/cache" }}\n{serves}\n[fleet]\nenabled = true\n{self.fleet}\n'
        )
        text += "".join(f"[site.{site}]\n{keys}\n" for site, keys in (sites or self.sites).items())
        (folder / "replicator.toml").write_text(text + self.rules)
        self.agents[name] = Daemon(program, folder / "log", self.urls[name], environ)
        await self.agents[name].start()
        return self.agents[name]

    async def ask(self, name: str, *arguments: str) -> Ended:
        """Runs a command with an agent's config."""
        return await Program(self.folder / name)(*arguments)

    async def get(self, name: str, path: str) -> Any:
        """What an agent's API answers."""
        async with aiohttp.ClientSession() as session, session.get(self.urls[name] + path) as answer:
            assert answer.status == 200, await answer.text()
            return await answer.json()

    @property
    def log(self) -> str:
        """What all agents said."""
        return "".join(f"--- {name}\n{agent.log}" for name, agent in self.agents.items())


@asynccontextmanager
async def crew(crew: Crew) -> AsyncIterator[Crew]:
    """The fleet, whose agents are killed at the end where they still live."""
    try:
        yield crew
    finally:
        for agent in crew.agents.values():
            await agent.kill()


async def until(true: Callable[[], bool], crew: Crew, seconds: float = PATIENCE_SECONDS) -> None:
    """Returns when it is true. Raises AssertionError with what the agents said."""

    async def is_true() -> bool:
        return true()

    await become(crew, is_true, seconds)


async def become(crew: Crew, true: Callable[[], Awaitable[bool]], seconds: float = PATIENCE_SECONDS) -> None:
    """As `until`, of what has to be asked for."""
    try:
        async with asyncio.timeout(seconds):
            while not await true():  # noqa: ASYNC110
                await asyncio.sleep(0.05)  # what it waits for is in other processes
    except TimeoutError:
        raise AssertionError(crew.log[-20_000:]) from None
