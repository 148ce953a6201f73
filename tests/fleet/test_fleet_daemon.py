"""Agents that divide rules: the daemon's own path, with sites in memory and the queue in PostgreSQL."""

from __future__ import annotations

import asyncio
import dataclasses
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import pytest
from msgspec.structs import replace

from replicator.config.load import load
from replicator.daemon.app import App
from replicator.daemon.generation import Chosen
from replicator.daemon.sharing import division
from replicator.daemon.sharing.due import DueRules
from replicator.daemon.sharing.sharing import FleetPlace
from replicator.daemon.sharing.splitting import Much
from replicator.demo.images import image
from replicator.demo.images import load as put
from replicator.errors import SiteError, StateError
from replicator.events import Event, Events, Observed
from replicator.events.agent import DatabaseSeen
from replicator.fleet.work import Work
from replicator.flow.clock import SystemClock
from replicator.policy.pattern import Glob
from replicator.policy.rule import RepositorySelection, Rule
from replicator.runs.wiring import Equipment
from replicator.state.place import Claim
from replicator.state.store import open_state
from tests.fakes.memory import MemorySite
from tests.fleet.agents import QUICK, LightAgent, joined, until
from tests.fleet.conftest import place
from tests.postgres import Database

RULE = Rule("apps", "hub", ("fra", "sgp"), RepositorySelection((Glob.parse("**"),)), interval=30 * 86_400.0)
LONG_AGO = "UPDATE fleet_facts SET at = at - interval '1 hour'"
"""The agents have had their rules for an hour."""
WAITS_TO_WRITE_RUNS = "SELECT 1 FROM pg_locks WHERE relation = 'fleet_runs'::regclass AND NOT granted"
CONFIG = """
[site.hub]
url = "https://hub.example.com"
[site.fra]
url = "https://fra.example.com"
[site.sgp]
url = "https://sgp.example.com"
[[rule]]
name = "apps"
source = "hub"
destinations = ["fra", "sgp"]
repositories = ["**"]
{rule}
"""


@asynccontextmanager
async def agents(
    folder: Path,
    database: Database,
    sites: Mapping[str, MemorySite],
    names: Sequence[str],
    *,
    rule: str = 'interval = "30d"',  # no tick comes by itself
    shards: int = 16,
    serves: Mapping[str, tuple[str, ...]] | None = None,
    much: Much = Much(10**12),  # noqa: B008  # frozen
) -> AsyncIterator[list[App]]:
    """Agents with one config, one state and one queue."""
    config = folder / "replicator.toml"
    config.write_text(CONFIG.format(rule=rule))
    loaded = load(config, {"HOME": str(folder)})
    clock = SystemClock()
    apps = []
    async with AsyncExitStack() as stack:
        for name in names:
            state = await open_state(place(database), clock=clock, claim=Claim("fleet"))
            stack.push_async_callback(state.aclose)
            mine = dataclasses.replace(loaded, agent=replace(loaded.agent, name=name))
            at = FleetPlace(database.dsn, shards, 4, (serves or {}).get(name), much, QUICK)
            app = App.start(
                Chosen(mine, mine.rules),
                Equipment(state, Events(), clock, None),
                state,
                lambda settings: sites[settings.name],
                at,
            )
            apps.append(await stack.enter_async_context(app))
        try:
            yield apps
        finally:
            for site in sites.values():
                site.release()  # a test that failed does not wait for what it held


@pytest.fixture
def sites() -> dict[str, MemorySite]:
    made = {name: MemorySite(name) for name in ("hub", "fra", "sgp")}
    for number in range(30):
        put(made["hub"].store, f"app{number}", "v1", image(f"{number}"))
    return made


def tags(site: MemorySite) -> int:
    return sum(len(repository.tags) for repository in site.store.repositories.values())


async def test_agents_divide_a_rule_and_nothing_is_done_twice(
    tmp_path: Path, database: Database, sites: dict[str, MemorySite]
) -> None:
    held = sites["fra"].pause("write_manifest")
    async with agents(tmp_path, database, sites, ["a", "b"]) as apps:
        await until(lambda: all(app.runs.running for app in apps))
        held.release()
        await until(lambda: tags(sites["fra"]) == tags(sites["sgp"]) == 30)
        ran = [{run.shard for run in (*app.runs.recent, *app.runs.running)} for app in apps]
    assert all(ran), "both agents had a part in it"
    for name in ("fra", "sgp"):
        assert sites[name].count("write_manifest") == 30
    assert sites["hub"].count("read_manifest") == 30, "read once for both destinations"
    assert sites["hub"].count("repositories") <= 2, "each agent lists the catalog once a tick"


class Limited(MemorySite):
    """Has the part of its limits that its agent keeps to."""

    share = 0.0

    def limit_to(self, share: float) -> None:
        self.share = share


async def test_agents_at_work_with_a_site_divide_its_limits(
    tmp_path: Path, database: Database, sites: dict[str, MemorySite]
) -> None:
    fra, theirs = (Limited("fra", sites["fra"].store) for _ in range(2))
    held, held_too = fra.pause("write_manifest"), theirs.pause("write_manifest")
    async with agents(tmp_path, database, sites | {"fra": fra}, ["a"]):
        await held.reached.wait()
        await until(lambda: fra.share == 1.0)
        async with agents(tmp_path, database, sites | {"fra": theirs}, ["b"]):
            await held_too.reached.wait()
            await until(lambda: fra.share == theirs.share == 0.5)
            held_too.release()
        await until(lambda: fra.share == 1.0)
        held.release()


async def test_an_event_is_looked_at_by_whoever_has_time(
    tmp_path: Path, database: Database, sites: dict[str, MemorySite]
) -> None:
    async with agents(tmp_path, database, sites, ["a", "b"]) as apps:
        await until(lambda: tags(sites["fra"]) == tags(sites["sgp"]) == 30)
        put(sites["hub"].store, "app3", "v2", image("new"))
        assert apps[0].triggers.hint("hub", "app3", "v2")
        await until(lambda: tags(sites["fra"]) == tags(sites["sgp"]) == 31)
    assert sites["fra"].count("write_manifest") == 31


async def test_each_agent_knows_when_a_look_of_all_has_ended(
    tmp_path: Path, database: Database, sites: dict[str, MemorySite]
) -> None:
    """An event that stands for a whole site, as many events become, is answered by that."""

    def note(heard: list[Observed], event: Event) -> None:
        if isinstance(event, Observed):
            heard.append(event)

    seen: dict[str, list[Observed]] = {"a": [], "b": []}
    async with agents(tmp_path, database, sites, list(seen), rule='interval = "1s"') as apps:
        for app in apps:
            app.events.subscribe(partial(note, seen[app.config.agent.name]))
        await until(lambda: all(len(heard) >= 2 for heard in seen.values()), 60)
    for heard in seen.values():
        assert {event.rule for event in heard} == {"apps"}
        assert heard[0].at < heard[1].at


async def test_a_pause_counts_at_every_agent_at_once(
    tmp_path: Path, database: Database, sites: dict[str, MemorySite]
) -> None:
    async with agents(tmp_path, database, sites, ["a", "b"]) as (first, second):
        await until(lambda: tags(sites["fra"]) == tags(sites["sgp"]) == 30)
        await first.pause("apps")
        put(sites["hub"].store, "app3", "v2", image("new"))
        second.triggers.hint("hub", "app3", "v2")
        await until(lambda: second.rules[0].paused)
        assert tags(sites["fra"]) == 30
        await second.resume("apps")
        await until(lambda: tags(sites["fra"]) == tags(sites["sgp"]) == 31)


async def test_an_agent_that_stops_leaves_its_work_to_the_others(
    tmp_path: Path, database: Database, sites: dict[str, MemorySite]
) -> None:
    held = sites["fra"].pause("write_manifest", subject="v1")
    async with agents(tmp_path, database, sites, ["a"]) as (first,):
        await held.reached.wait()
        stopping = asyncio.get_running_loop().create_task(first.drain())
        await asyncio.sleep(0)
        held.release()
        await stopping
    async with agents(tmp_path, database, sites, ["b"]):
        await until(lambda: tags(sites["fra"]) == tags(sites["sgp"]) == 30)
    assert sites["fra"].count("write_manifest") == 30


async def test_commands_around_a_rule_run_once_a_look(
    tmp_path: Path, database: Database, sites: dict[str, MemorySite]
) -> None:
    told = tmp_path / "told"
    rule = f"""interval = "30d"
hooks.before = ["/bin/sh", "-c", "echo before >> {told}"]
hooks.after = ["/bin/sh", "-c", "cat >> {told}; echo >> {told}"]"""
    async with agents(tmp_path, database, sites, ["a", "b"], rule=rule):
        await until(lambda: told.exists() and "after" in told.read_text())
    before, after = told.read_text().splitlines()
    assert before == "before"
    assert after.count('"copied":30') == 2, "what all shards did, at each destination"


async def test_an_agent_that_stops_kills_its_commands_and_another_runs_them(
    tmp_path: Path, database: Database, sites: dict[str, MemorySite]
) -> None:
    begun, told = tmp_path / "begun", tmp_path / "told"
    rule = f"""interval = "30d"
hooks.before = ["/bin/sh", "-c", "echo $$ > {begun}; exec sleep 300"]
hooks.timeout = "10m"
"""
    async with agents(tmp_path, database, sites, ["a"], rule=rule):
        await until(lambda: begun.exists() and begun.read_text().endswith("\n"))
    with pytest.raises(ProcessLookupError):
        os.kill(int(begun.read_text()), 0)
    rule = f"""interval = "30d"
hooks.before = ["/bin/sh", "-c", "echo before >> {told}"]"""
    async with agents(tmp_path, database, sites, ["b"], rule=rule):
        await until(lambda: tags(sites["fra"]) == tags(sites["sgp"]) == 30)
    assert told.read_text() == "before\n"


async def test_an_idle_fleet_does_not_read_at_each_heartbeat_where_rules_stand(
    tmp_path: Path, database: Database, sites: dict[str, MemorySite]
) -> None:
    beats = dict.fromkeys("ab", 0)

    def note(name: str, event: Event) -> None:
        if isinstance(event, DatabaseSeen):
            beats[name] += 1

    async def read(name: str, refresh: Callable[..., Awaitable[None]], *args: Any, **options: Any) -> None:
        beats[name] = 0
        await refresh(*args, **options)

    async with agents(tmp_path, database, sites, list(beats)) as apps:
        for app in apps:
            app.events.subscribe(partial(note, app.config.agent.name))
            app._standings.refresh = partial(read, app.config.agent.name, app._standings.refresh)  # type: ignore[method-assign]
        await until(lambda: tags(sites["fra"]) == tags(sites["sgp"]) == 30)
        await until(lambda: min(beats.values()) >= 10)


async def test_a_notification_is_sent_once_and_not_by_each_agent(
    tmp_path: Path, database: Database, sites: dict[str, MemorySite]
) -> None:
    told = tmp_path / "told"
    notify = f"""interval = "1s"
[notify.ops]
command = ["/bin/sh", "-c", "cat >> {told}; echo >> {told}"]
on = ["failure"]"""
    sites["sgp"].fail("write_manifest", SiteError("sgp", "write manifest", "no space"), times=1_000_000)
    async with agents(tmp_path, database, sites, ["a", "b"], rule=notify) as (first, second):
        await until(lambda: told.exists() and told.read_text().count("\n") >= 1, 30)
        await until(lambda: first.sharing is not None and second.sharing is not None)
        leader = next(app for app in (first, second) if app.sharing and app.sharing.fleet.leads)
        await leader.drain()
        for _ in range(20):
            await asyncio.sleep(0.1)  # time for the other one, had it something to tell
    assert told.read_text().count('"event":"failure"') == 1


async def test_who_leads_anew_knows_what_was_notified_before_it_notifies(
    tmp_path: Path, database: Database, sites: dict[str, MemorySite]
) -> None:
    """The database may be away at just that moment: then it does not lead yet."""
    async with agents(tmp_path, database, sites, ["a"]) as (app,):
        await until(lambda: app._leads)
        assert app._notifier is not None
        recall, led = app._notifier.recall, []

        async def failing_first() -> None:
            led.append(app._leads)
            if len(led) == 1:
                raise StateError("state: is away")
            await recall()

        app._notifier.recall = failing_first  # type: ignore[method-assign]
        app._leads = False
        app._changed.set()
        await until(lambda: len(led) == 2 and app._leads)
    assert led == [False, False]


async def reloaded(app: App, **changed: object) -> None:
    """The agent goes by another config from now on: its rule, with other fields."""
    rules = tuple(replace(rule, **changed) for rule in app.config.rules)
    assert await app.reload(lambda: Chosen(dataclasses.replace(app.config, rules=rules), rules))


async def test_a_rule_that_is_changed_and_changed_back_is_looked_at_each_time(
    tmp_path: Path, database: Database, sites: dict[str, MemorySite]
) -> None:
    """Once, though each agent reads the config again. An interval of a day shows that no tick does it."""
    async with agents(tmp_path, database, sites, ["a", "b"], rule='interval = "1d"') as apps:
        await until(lambda: tags(sites["fra"]) == tags(sites["sgp"]) == 30)
        for number, recheck in enumerate((7_200.0, 86_400.0), 1):
            put(sites["hub"].store, f"app{number}", "v2", image(f"changed {number}"))
            for app in apps:
                await reloaded(app, recheck=recheck)
            await until(lambda wanted=30 + number: tags(sites["fra"]) == tags(sites["sgp"]) == wanted)  # type: ignore[misc]
        await until(lambda: looks(apps) == 3 * 16)
    assert sites["hub"].count("repositories") <= 10, (
        "once a look, and once more by an agent that reads its config in mid-look"
    )


async def test_a_rule_that_is_changed_back_before_the_agent_has_handed_over_the_change_is_looked_at(
    tmp_path: Path, database: Database, sites: dict[str, MemorySite]
) -> None:
    """The database keeps the agent waiting. A destination that was left out meanwhile has missed an event."""
    async with agents(tmp_path, database, sites, ["a"]) as (app,):
        await until(lambda: looks([app]) == 16)
        with (
            psycopg.connect(database.dsn) as busy,
            psycopg.connect(database.dsn, autocommit=True) as watching,
        ):
            watching.execute(LONG_AGO)
            busy.execute("LOCK TABLE fleet_runs IN SHARE MODE")
            app.triggers.hint("hub", "app1", "v1")  # its run is written down before anything is handed over
            await until(lambda: bool(watching.execute(WAITS_TO_WRITE_RUNS).fetchall()))
            await reloaded(app, destinations=("fra",))
            put(sites["hub"].store, "app3", "v2", image("new"))
            app.triggers.hint("hub", "app3", "v2")
            await reloaded(app, destinations=("fra", "sgp"))
        await until(lambda: tags(sites["fra"]) == tags(sites["sgp"]) == 31)
        await until(lambda: looks([app]) == 2 * 16)


async def test_of_agents_that_all_changed_a_rule_back_one_has_it_looked_at(shared: str) -> None:
    changed = replace(RULE, destinations=("fra",))
    async with joined(shared, LightAgent("a")) as one, joined(shared, LightAgent("b")) as other:
        known = [DueRules(each.fleet) for each in (one, other)]
        for due in known:
            await due.ticks(RULE, [])
        with psycopg.connect(shared) as long_ago:
            long_ago.execute(LONG_AGO)
        for due in known:
            due.follow([RULE], {RULE.name: changed})
            due.follow([changed], {RULE.name: RULE})
        now = one.fleet.now()
        ticks = [(await due.ticks(RULE, [])).due(now, is_failing=False) for due in (*known, known[0])]
    assert [tick and tick.cause for tick in ticks] == ["start", None, "start"], "until it is handed over"


async def test_work_of_a_rule_that_only_one_agent_has_waits_for_that_agent(
    tmp_path: Path, database: Database, sites: dict[str, MemorySite], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One agent has read the new config, the others have not yet. An interval of a day shows that no tick does it."""
    monkeypatch.setattr(division, "LEFT_DELAYS", (0.1, 0.3))
    async with agents(tmp_path, database, sites, ["a", "b", "c"], rule='interval = "1d"') as apps:
        await until(lambda: tags(sites["fra"]) == tags(sites["sgp"]) == 30)
        for number in range(30):
            put(sites["hub"].store, f"app{number}", "v2", image(f"new {number}"))
        await reloaded(apps[0], name="newcomer")
        await until(lambda: tags(sites["fra"]) == tags(sites["sgp"]) == 60)
        ran = {run.rule for app in apps[1:] for run in (*app.runs.recent, *app.runs.running)}
    assert ran <= {"apps"}


async def test_a_destination_that_only_one_agent_has_waits_for_that_agent(
    tmp_path: Path, database: Database, sites: dict[str, MemorySite], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(division, "LEFT_DELAYS", (0.1, 0.3))
    async with agents(tmp_path, database, sites, ["a", "b", "c"], rule='interval = "1d"') as apps:
        await until(lambda: tags(sites["fra"]) == tags(sites["sgp"]) == 30)
        for app in apps:
            await reloaded(app, destinations=("fra",))
        for number in range(30):
            put(sites["hub"].store, f"app{number}", "v2", image(f"new {number}"))
        await reloaded(apps[0], destinations=("fra", "sgp"))
        await until(lambda: tags(sites["fra"]) == tags(sites["sgp"]) == 60)


def test_work_that_no_agent_knows_waits_ever_longer_and_an_hour_in_all() -> None:
    work, now, offered = Work("gone", ("fra",), "interval", shard=1, of=2, ticks=(7,)), 1_000.0, 0
    while (done := division.left(work, now)) is not None:
        assert done.again is not None
        assert done.again.ticks == work.ticks, "the look waits for it"
        work, now, offered = done.again, now + done.delay, offered + 1
    assert now - 1_000.0 < division.LEFT_SECONDS + 2 * division.LEFT_DELAYS[1]
    assert 10 < offered < 25, "few times for each of thousands of jobs"


def test_work_that_is_wanted_anew_does_not_count_as_waiting_for_long() -> None:
    work = Work("apps", ("fra",), "interval", left=1_000.0)
    assert work.merge(replace(work, left=0.0)).left == 0.0


def looks(apps: Sequence[App]) -> int:
    """How many shards were looked at, by all agents."""
    return sum(run.scope is None and run.ended_at is not None for app in apps for run in app.runs.recent)


async def test_a_rule_without_a_schedule_is_looked_at_when_the_first_agent_starts(
    tmp_path: Path, database: Database, sites: dict[str, MemorySite]
) -> None:
    """Nobody heard events while none was up. An agent that joins others has missed nothing."""
    async with agents(tmp_path, database, sites, ["a"], rule=""):
        await until(lambda: tags(sites["fra"]) == tags(sites["sgp"]) == 30)
    put(sites["hub"].store, "app1", "v2", image("new"))
    async with agents(tmp_path, database, sites, ["a"], rule="") as first:
        await until(lambda: tags(sites["fra"]) == tags(sites["sgp"]) == 31)
        await until(lambda: looks(first) == 16)
        async with agents(tmp_path, database, sites, ["b"], rule="") as second:
            await until(lambda: len(second[0].sharing.fleet.living) == 2 if second[0].sharing else False)
            await second[0].resume("apps")
            for _ in range(20):
                await asyncio.sleep(0.1)  # time for a look, had it one in mind
            assert looks(first) + looks(second) == 16


async def test_a_destination_that_keeps_failing_is_left_out_for_a_while(
    tmp_path: Path, database: Database, sites: dict[str, MemorySite]
) -> None:
    sites["sgp"].fail("write_manifest", SiteError("sgp", "write manifest", "no space"), times=1_000_000)
    sites["sgp"].fail("tags", SiteError("sgp", "list tags", "down"), times=1_000_000)
    async with agents(tmp_path, database, sites, ["a", "b"], rule='interval = "1s"') as apps:
        await until(lambda: any(run.destinations == ("fra",) for app in apps for run in app.runs.recent), 40)
        assert apps[0].sharing is not None
        failed = await apps[0].sharing.fleet.failures("apps", ())
        assert failed["sgp"][0] >= 2
        assert "fra" not in failed
