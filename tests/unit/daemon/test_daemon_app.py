"""The agent as its HTTP side and systemd see it: what a reload changes and what it does not, and whether it is well."""

from __future__ import annotations

import dataclasses
import os
import threading
from pathlib import Path

import pytest
from msgspec.structs import replace

from replicator.config.load import load
from replicator.daemon import reading
from replicator.daemon.generation import Chosen
from replicator.daemon.scheduler import STILL_SECONDS
from replicator.demo.images import image
from replicator.demo.images import load as put
from replicator.engine import run
from replicator.errors import ConfigError
from replicator.events import Event, Warned
from tests.fakes.clock import FakeClock
from tests.fakes.memory import MemorySite
from tests.unit.daemon.test_daemon_standings import agent, until

SITES = {name: MemorySite(name) for name in ("hub", "fra")}


async def test_what_takes_a_restart_stays_as_at_the_start_and_is_warned_of_while_it_differs(
    tmp_path: Path,
) -> None:
    async with agent(tmp_path, SITES) as world:
        app, at_start = world.app, world.chosen.loaded
        moved = dataclasses.replace(
            world.chosen,
            loaded=dataclasses.replace(
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
        assert world.app.problems == ["the config was refused on the last reload; see the log"]
        assert not world.app.ready()
        assert await world.app.reload(lambda: world.chosen)
        assert not world.app.problems


async def test_an_agent_is_well_only_while_its_scheduler_turns(tmp_path: Path) -> None:
    async with agent(tmp_path, SITES) as world:
        app = world.app
        await until(lambda: app.health() is None)
        assert isinstance(app.clock, FakeClock)
        app.clock.advance(STILL_SECONDS + 1)
        assert str(app.health()).startswith("the scheduler has been stuck for ")
        assert app.problems == app.ready() == [app.health()]
        await until(lambda: app.health() is None)
        await app.drain()
        assert app.health() == "the scheduler has ended"


async def test_a_reload_that_hangs_in_a_file_is_refused_and_nothing_else_stops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    released = threading.Event()

    def hang() -> Chosen:
        released.wait(60)
        raise ConfigError(["too late"])

    monkeypatch.setattr(reading, "READING_SECONDS", 0.05)
    async with agent(tmp_path, SITES) as world:
        await until(lambda: not world.app.ready())
        assert not await world.app.reload(hang)
        assert not await world.app.reload(lambda: world.chosen)  # while that one hangs, no second thread
        assert world.app.problems == ["the config was refused on the last reload; see the log"]
        released.set()
        await until(lambda: not [each for each in threading.enumerate() if each.name == "reload"])
        assert await world.app.reload(lambda: world.chosen)
        assert not world.app.problems


def test_a_pipe_in_conf_d_or_for_a_secret_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    (tmp_path / "conf.d").mkdir()
    os.mkfifo(tmp_path / "conf.d" / "x.toml")
    os.mkfifo(tmp_path / "password")
    main = tmp_path / "replicator.toml"
    main.write_text(
        '[site.hub]\nurl = "https://hub.example.com"\nusername = "u"\npassword = { file = "password" }\n'
    )
    with pytest.raises(ConfigError) as caught:
        load(main, {"HOME": "/home/me"})
    assert [problem.endswith("is not a regular file") for problem in caught.value.problems] == [True, True]


async def test_a_run_without_progress_is_ended_told_of_and_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "DRAIN_SECONDS", 0.05)
    sites = {name: MemorySite(name) for name in ("hub", "fra")}
    put(sites["hub"].store, "app", "v1", image("v1"))
    held = sites["fra"].pause("write_manifest", subject="v1")
    async with agent(tmp_path, sites, stuck_after="10m") as world:
        await held.reached.wait()
        await until(lambda: any("made no progress" in each for each in world.app.ready()))
        assert "stuck: platform" in world.app.status()
        # The next run waits for the same destination, so it may be stuck by now as well.
        assert (world.scraped.value("replicator_stuck_runs_total", rule="platform") or 0) >= 1
        await until(lambda: [each for each in world.app.runs.recent if each.error])
        assert "no progress for 10 min" in str(world.app.runs.recent[0].error)
        held.release()
        await until(lambda: "v1" in sites["fra"].store.repositories["app"].tags)
        await until(lambda: not world.app.ready())
        await until(lambda: world.tags("in_step") == 1)
