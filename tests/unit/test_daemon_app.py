"""The agent as its HTTP side and systemd see it: what a reload changes and what it does not, and whether it is well."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from replicator.daemon.app import STILL_SECONDS
from replicator.daemon.generation import Chosen
from replicator.errors import ConfigError
from replicator.events import Event, Warned
from tests.fakes.clock import FakeClock
from tests.fakes.memory import MemorySite
from tests.unit.test_daemon_standings import agent, until

SITES = {name: MemorySite(name) for name in ("hub", "fra")}


async def test_what_takes_a_restart_stays_as_at_the_start_and_is_warned_of_while_it_differs(
    tmp_path: Path,
) -> None:
    async with agent(tmp_path, SITES) as world:
        app, at_start = world.app, world.chosen.loaded
        moved = replace(
            world.chosen,
            loaded=replace(
                at_start,
                agent=replace(at_start.agent, name="other", listen=("127.0.0.1", 9999)),
                warnings=(),
            ),
        )
        told: list[Event] = []
        app.events.subscribe(told.append)
        for chosen, keys in (
            (moved, ["agent.name", "agent.listen"]),
            (moved, ["agent.name", "agent.listen"]),
        ):
            told.clear()
            assert await app.reload(lambda chosen=chosen: chosen)  # type: ignore[misc]
            assert [each.text.split()[0] for each in told if isinstance(each, Warned)] == keys
            assert app.config.agent == at_start.agent
        told.clear()
        assert await app.reload(lambda: world.chosen)
        assert not [each for each in told if isinstance(each, Warned)]


async def test_a_refused_config_is_told_of_until_a_reload_succeeds_and_the_agent_stays_ready(
    tmp_path: Path,
) -> None:
    def refused() -> Chosen:
        raise ConfigError(["replicator.toml: rule[0].source: there is no site 'hup'"])

    async with agent(tmp_path, SITES) as world:
        await until(lambda: not world.app.ready())
        assert not world.app.problems
        assert not await world.app.reload(refused)
        assert world.app.problems == ["the config was refused on the last reload, the log says why"]
        assert not world.app.ready()
        assert await world.app.reload(lambda: world.chosen)
        assert not world.app.problems


async def test_an_agent_is_well_only_while_its_scheduler_turns(tmp_path: Path) -> None:
    async with agent(tmp_path, SITES) as world:
        app = world.app
        await until(lambda: app.health() is None)
        assert isinstance(app.clock, FakeClock)
        app.clock.advance(STILL_SECONDS + 1)
        assert str(app.health()).startswith("the scheduler has not turned for ")
        assert app.problems == app.ready() == [app.health()]
        await until(lambda: app.health() is None)
        await app.drain()
        assert app.health() == "the scheduler has ended"
