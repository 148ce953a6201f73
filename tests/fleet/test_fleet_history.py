"""Runs as people see them: the same at whichever agent is asked, whoever did them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from replicator.cli.client import remote_agent
from replicator.daemon.app import App
from replicator.daemon.http.api.facts import Facts
from replicator.daemon.http.api.live import Live
from replicator.daemon.http.api.shapes import SyncOrder
from replicator.daemon.http.page.page import render
from replicator.daemon.http.server import listen
from replicator.daemon.sharing import sharing
from replicator.demo.images import image
from replicator.demo.images import load as put
from replicator.errors import SiteError
from replicator.fleet import runs
from replicator.fleet.connections import Connection
from replicator.fleet.history import PastRun
from tests.fakes.memory import MemorySite
from tests.fakes.process import free_port
from tests.fleet.agents import until
from tests.fleet.test_fleet_daemon import agents, sites, tags
from tests.postgres import Database

__all__ = ["sites"]


def past(app: App) -> list[PastRun]:
    assert app.sharing is not None
    return list(app.sharing.history().past)


def facts(app: App) -> Facts:
    return Facts(app, Live(app.clock))


async def test_a_run_is_one_whichever_agents_did_its_shards(
    tmp_path: Path, database: Database, sites: dict[str, MemorySite], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "replicator")
    held = sites["fra"].pause("write_manifest")
    async with agents(tmp_path, database, sites, ["a", "b"]) as apps:
        await until(lambda: all(app.runs.running for app in apps))
        held.release()
        await until(lambda: tags(sites["fra"]) == tags(sites["sgp"]) == 30)
        await until(lambda: all(past(app) for app in apps))
        told = [list(facts(app).runs.ended()) for app in apps]
        assert [each.id for each in told[0]] == [each.id for each in told[1]]
        (run,) = told[0]
        assert (run.rule, run.agents, run.outcome, run.repositories) == ("apps", ["a", "b"], "ok", None)
        assert run.shards is not None
        assert (run.shards.count, run.shards.ended) == (16, 16)
        for app in apps:
            detail = await facts(app).runs.detail(run.id)
            assert detail is not None
            assert detail.report is not None
            (rule,) = detail.report.rules
            assert {each.destination: each.totals.tags.copied for each in rule.destinations} == {
                "fra": 30,
                "sgp": 30,
            }
            assert len(rule.destinations[0].actions) == 30
            assert detail.report.totals.bytes.written > 0
            text = render(facts(app).status(), app.clock.now())
            assert "last run: ok, by a, b" in text
            await until(lambda app=app: facts(app).status().running == [])  # type: ignore[misc]  # by the next heartbeat
        assert await facts(apps[0]).runs.detail("nowhere-1") is None
    (started,) = [vars(each)["fields"] for each in caplog.records if each.message == "run started"]
    assert (started["rule"], started["shards"], started["cause"]) == ("apps", 16, "start")
    (ended,) = [vars(each)["fields"] for each in caplog.records if each.message == "run ended"]
    assert (ended["agents"], ended["outcome"], ended["copied"], ended["shards"]) == ("a,b", "ok", 60, 16)
    assert "joined the fleet; agents: a, b" in caplog.messages
    assert "agent b joined; agents: 2" in caplog.messages, "what a says"


async def test_a_run_in_progress_tells_at_each_agent_how_many_shards_are_through(
    tmp_path: Path, database: Database, sites: dict[str, MemorySite]
) -> None:
    held = sites["fra"].pause("write_manifest", subject="v1")
    async with agents(tmp_path, database, sites, ["a", "b"]) as apps:
        await held.reached.wait()
        await until(lambda: any(run.shards and run.shards.ended > 0 for run in facts(apps[1]).runs.running()))
        await until(
            lambda: all(
                any(run.shard and run.agents == [other] for run in facts(app).runs.running())
                for app, other in ((apps[0], "b"), (apps[1], "a"))
            )
        )
        rule = facts(apps[1]).rule("apps")
        assert rule is not None
        assert rule.latest is not None
        assert rule.latest.shards is not None
        assert 0 < rule.latest.shards.ended < rule.latest.shards.count == 16
        assert all(each.running for each in rule.destinations)
        assert "of 16 shards" in render(facts(apps[1]).status(), apps[1].clock.now())
        held.release()
        await until(lambda: bool(past(apps[1])))


async def test_what_fails_at_one_agent_is_shown_at_the_other(
    tmp_path: Path, database: Database, sites: dict[str, MemorySite]
) -> None:
    sites["sgp"].fail("write_manifest", SiteError("sgp", "write manifest", "no space"), times=1_000_000)
    async with agents(tmp_path, database, sites, ["a", "b"], serves={"a": ("fra", "sgp"), "b": ()}) as apps:
        await until(lambda: bool(past(apps[1])), 40)
        assert apps[1].runs.recent == (), "the other one did all of it"
        found = list(facts(apps[1]).runs.failures())
        assert {(each.destination, each.cause) for each in found} == {("sgp", "no space")}
        (run,) = facts(apps[1]).runs.ended()
        assert run.outcome == "partial"


async def test_a_run_for_one_repository_is_shown_at_each_agent(
    tmp_path: Path, database: Database, sites: dict[str, MemorySite]
) -> None:
    async with agents(tmp_path, database, sites, ["a", "b"]) as apps:
        await until(lambda: all(past(app) for app in apps))
        put(sites["hub"].store, "app3", "v2", image("new"))
        apps[0].triggers.hint("hub", "app3", "v2")
        await until(lambda: all(len(past(app)) == 2 for app in apps))
        for app in apps:
            run = next(iter(facts(app).runs.ended()))
            assert (run.cause, run.repositories, run.outcome, run.shards) == ("webhook", ["app3"], "ok", None)
            assert run.id.startswith(tuple(f"{name}-" for name in run.agents))


async def test_a_request_to_one_agent_waits_for_all_that_do_a_part_of_it(
    tmp_path: Path, database: Database, sites: dict[str, MemorySite]
) -> None:
    """As `sync --remote` does."""
    (tmp_path / "token").write_text("correct-horse")
    more = f"""interval = "30d"
[http]
token = {{ file = "{tmp_path}/token" }}
[agent]
listen = "127.0.0.1:{free_port()}\"
"""
    async with agents(tmp_path, database, sites, ["a", "b"], rule=more) as apps:
        await until(lambda: all(past(app) for app in apps))
        put(sites["hub"].store, "app3", "v2", image("new"))
        put(sites["hub"].store, "app7", "v2", image("newer"))
        async with listen(apps[1]) as url, remote_agent(url, "correct-horse") as remote:
            accepted = await remote.sync(SyncOrder())
            async with asyncio.timeout(30):
                (run,) = await remote.finished(accepted)
        assert run.report is not None
        assert [each.totals.tags.copied for each in run.report.rules[0].destinations] == [2, 2]
        assert run.run.shards is not None


async def test_a_paused_rule_ends_the_run_in_progress_and_what_is_left_of_it_is_not_waited_for(
    tmp_path: Path, database: Database, sites: dict[str, MemorySite]
) -> None:
    held = sites["fra"].pause("write_manifest", subject="v1")
    async with agents(tmp_path, database, sites, ["a"]) as (app,):
        await held.reached.wait()
        await app.pause("apps")
        held.release()
        await until(lambda: bool(past(app)))
        assert app.sharing is not None
        assert list(app.sharing.history().looks) == []
        assert tags(sites["fra"]) < 30


async def test_a_look_that_its_command_refuses_is_a_failed_run(
    tmp_path: Path, database: Database, sites: dict[str, MemorySite]
) -> None:
    rule = 'interval = "30d"\nhooks.before = ["/bin/false"]'
    async with agents(tmp_path, database, sites, ["a", "b"], rule=rule) as apps:
        await until(lambda: all(past(app) for app in apps))
        assert {past(app)[0].outcome for app in apps} == {"failed"}
        (failure, _) = facts(apps[1]).runs.failures()
        assert "false" in failure.cause


async def test_runs_that_the_database_does_not_take_are_written_later(
    tmp_path: Path, database: Database, sites: dict[str, MemorySite], monkeypatch: pytest.MonkeyPatch
) -> None:
    keep, tries = runs.keep, []

    async def failing_twice(connection: Connection, noted: Sequence[PastRun]) -> None:
        tries.append(len(noted))
        if len(tries) <= 2:
            raise OSError("is away")
        await keep(connection, noted)

    monkeypatch.setattr(runs, "keep", failing_twice)
    monkeypatch.setattr(sharing, "_AGAIN_SECONDS", 0.1)
    async with agents(tmp_path, database, sites, ["a"]) as (app,):
        await until(lambda: bool(past(app)))
        assert len(past(app)) == 1
    assert tries[:3] == [1, 1, 1]
