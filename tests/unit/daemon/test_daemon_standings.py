"""What the agent knows of where its rules stand, while runs last and after reloads."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from msgspec.structs import replace

from replicator.config.load import load
from replicator.daemon.app import App
from replicator.daemon.generation import Chosen
from replicator.demo.images import image
from replicator.demo.images import load as put
from replicator.events import Events
from replicator.runs.wiring import Equipment
from replicator.state.store import open_state
from tests.fakes.clock import FakeClock
from tests.fakes.memory import MemorySite
from tests.unit.metrics.test_metrics import Scraped

CONFIG = """
[agent]
stuck_after = "{stuck_after}"
[site.hub]
url = "https://hub.example.com"
[site.fra]
url = "https://fra.example.com"
[[rule]]
name = "platform"
source = "hub"
destinations = ["fra"]
repositories = ["**"]
interval = "1m"
"""
PAIR = {"rule": "platform", "destination": "fra"}


@dataclass
class World:
    app: App
    chosen: Chosen
    sites: Mapping[str, MemorySite]

    @property
    def scraped(self) -> Scraped:
        return Scraped(self.app.metrics)

    def tags(self, state: str) -> float | None:
        return self.scraped.value("replicator_tags", **PAIR, state=state)


@asynccontextmanager
async def agent(
    folder: Path, sites: Mapping[str, MemorySite], *, stuck_after: str = "9999d"
) -> AsyncIterator[World]:
    """An agent on sites in memory, with a clock that jumps to whatever is next."""
    config = folder / "replicator.toml"
    config.write_text(CONFIG.format(stuck_after=stuck_after))
    loaded = load(config, {"HOME": str(folder)})
    clock = FakeClock()

    state = await open_state(folder / "state.db", clock=clock)
    try:
        equipment = Equipment(state, Events(), clock, None)
        async with App.start(
            Chosen(loaded, loaded.rules), equipment, state, lambda settings: sites[settings.name]
        ) as app:
            yield World(app, Chosen(loaded, loaded.rules), sites)
    finally:
        await state.aclose()


@pytest.fixture
def sites() -> dict[str, MemorySite]:
    made = {name: MemorySite(name) for name in ("hub", "fra")}
    for tag in ("v1", "v2"):
        put(made["hub"].store, "app", tag, image(tag))
    return made


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 - no event tells of it, and the clock is a fake
            await asyncio.sleep(0.001)


async def test_what_a_long_run_brought_in_step_is_not_pending_until_it_ends(
    tmp_path: Path, sites: dict[str, MemorySite]
) -> None:
    held = sites["fra"].pause("write_manifest", subject="v2")
    async with agent(tmp_path, sites) as world:
        await held.reached.wait()
        await until(lambda: "v1" in sites["fra"].store.repositories["app"].tags)
        await until(lambda: world.tags("pending") == 1)
        held.release()
        await until(lambda: world.tags("in_step") == 2)
        assert world.tags("pending") == 0


async def test_breakdown_by_repository_comes_and_goes_with_a_reload(
    tmp_path: Path, sites: dict[str, MemorySite]
) -> None:
    held = sites["fra"].pause("write_manifest", subject="v2")
    async with agent(tmp_path, sites) as world:
        await held.reached.wait()
        assert world.app.metrics.expose().count(b"replicator_repositor") == 0
        for count, shown in ((5, 1.0), (0, None)):
            settings = replace(world.chosen.loaded.agent, metrics_per_repository=count)
            chosen = dataclasses.replace(
                world.chosen, loaded=dataclasses.replace(world.chosen.loaded, agent=settings)
            )
            assert await world.app.reload(lambda chosen=chosen: chosen)  # type: ignore[misc]
            place = {**PAIR, "repository": "app", "state": "pending"}
            await until(lambda: world.scraped.value("replicator_repository_tags", **place) == shown)  # noqa: B023
        held.release()
