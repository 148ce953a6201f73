"""The JSON API, health, and metrics, of an agent that stands still."""

import datetime as dt
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import aiohttp
import jsonschema
import pytest

from replicator.cli.client import remote_agent
from replicator.cli.fleet import lines
from replicator.daemon.http.api.agents import infos
from replicator.daemon.http.api.shapes import SyncOrder
from replicator.daemon.http.server import listen
from replicator.engine.context import RunScope
from replicator.engine.result import DestinationResult, Failure, RuleResult
from replicator.errors import Rejected
from replicator.events import (
    BytesWritten,
    ImagePrepared,
    QuotaSeen,
    RunStarted,
    TagDone,
    TagPlanned,
    TagPostponed,
)
from replicator.ports import Standing
from tests.fakes.agent import TOKEN, FakeAgent, config, simple_rule
from tests.fakes.fleet import FakeSharing, roster

BEARER = {"Authorization": f"Bearer {TOKEN}"}


@dataclass
class World:
    agent: FakeAgent
    url: str
    session: aiohttp.ClientSession
    document: dict[str, Any]

    async def get(self, path: str, expected: int = 200) -> Any:
        """The answer, which must be as the OpenAPI document says."""
        async with self.session.get(path) as answer:
            assert answer.status == expected, await answer.text()
            body = await answer.json(content_type=None)
        self._check(path.partition("?")[0], "get", expected, body)
        return body

    async def post(self, path: str, body: Any, expected: int) -> Any:
        async with self.session.post(path, json=body, headers=BEARER) as answer:
            assert answer.status == expected, await answer.text()
            told = await answer.json(content_type=None)
        self._check(path, "post", expected, told)
        return told

    def _check(self, path: str, method: str, status: int, body: Any) -> None:
        template = next(each for each in self.document["paths"] if _matches(each, path))
        answer = self.document["paths"][template][method]["responses"][str(status)]
        (content,) = answer["content"].values()
        schema = {**content["schema"], "components": self.document["components"]}
        jsonschema.Draft202012Validator(schema).validate(body)


def _matches(template: str, path: str) -> bool:
    wanted, found = template.split("/"), path.split("/")
    return len(wanted) == len(found) and all(
        each.startswith("{") or each == part for each, part in zip(wanted, found, strict=True)
    )


@pytest.fixture
async def world() -> AsyncIterator[World]:
    loaded = config(sites={"hub": "https://hub.example"})
    agent = FakeAgent(
        simple_rule(destinations=("fra", "sin"), mirrors=("near",)),
        simple_rule("relay", "fra", ("edge",)),
        loaded=loaded,
    )
    async with listen(agent) as url, aiohttp.ClientSession(url) as session:
        async with session.get("/api/v1/openapi.json") as answer:
            document = await answer.json()
        yield World(agent, str(url), session, document)


async def test_document_describes_every_route_and_no_other(world: World) -> None:
    assert world.document["openapi"] == "3.1.0"
    described = {(path, method) for path, methods in world.document["paths"].items() for method in methods}
    assert ("/api/v1/sync", "post") in described
    assert ("/webhooks/{name}", "post") in described
    assert ("/", "get") not in described
    ids = [
        operation["operationId"] for path in world.document["paths"].values() for operation in path.values()
    ]
    assert len(ids) == len(set(ids))
    for path, method in described:
        filled = path.replace("{name}", "platform").replace("{id}", "1")
        async with world.session.request(method, filled) as answer:
            assert answer.status != 405, path


async def test_rules_tell_where_they_stand(world: World) -> None:
    now = world.agent.clock.now()
    world.agent.known = [
        Standing(
            "platform", "fra", now - 1000, last_look=now - 20, last_success=now - 500,
            in_step=7, pending=3, failed=1, oldest_pending=now - 90, last_error="hub: refused",
        ),
    ]  # fmt: skip
    world.agent.next_runs["platform"] = now + 60
    world.agent.backing_off["platform"] = {"fra": now + 30}
    first, second = (await world.get("/api/v1/rules"))["rules"]
    assert (first["rule"], first["source"], first["mirrors"]) == ("platform", "hub", ["near"])
    assert first["schedule"] == "every 5 min"
    assert first["next_run"] == "2023-11-14T22:14:20Z"
    fra, sin = first["destinations"]
    assert fra["lag_seconds"] == 90
    assert fra["tags"] == {"in_step": 7, "held": 0, "pending": 2, "failed": 1, "unknown": 0}  # each tag once
    assert fra["last_error"] == "hub: refused"
    assert fra["backing_off_until"] == "2023-11-14T22:13:50Z"
    assert (sin["lag_seconds"], sin["tags"], sin["last_look"]) == (None, None, None)
    assert await world.get("/api/v1/rules/relay") == second
    await world.get("/api/v1/rules/nothing", 404)
    assert (await world.get("/api/v1/lag"))["lag"] == [
        {"rule": "platform", "destination": "fra", "lag_seconds": 90.0}
    ]


async def test_runs_are_told_under_way_and_with_their_report(world: World) -> None:
    agent, now = world.agent, world.agent.clock.now()
    ended = agent.runs.begin(
        rule="relay", source="fra", destinations=("edge",), cause="interval", scope=None, at=now - 20
    )
    failure = Failure("edge", "platform/app", "write blob", "reset")
    agent.runs.end(
        ended,
        RuleResult("relay", "fra", [DestinationResult("edge", "failed", failures=[failure])]),
        at=now - 10,
    )
    run = agent.runs.begin(
        rule="platform", source="hub", destinations=("fra", "sin"), cause="webhook",
        scope=RunScope({"platform/b": None, "platform/a": frozenset({"v1"})}), at=now,
    )  # fmt: skip
    agent.events.emit(BytesWritten("hub", "fra", 700))  # of a run before this one
    agent.clock.advance(60)
    agent.events.emit(RunStarted("platform", "hub", ("fra", "sin")))
    agent.events.emit(ImagePrepared("platform", "fra", "platform/b", "v2", (("sha256:1", 8_000),)))
    agent.events.emit(TagPlanned("platform", "fra"))
    agent.events.emit(TagPostponed("platform", "fra"))
    agent.events.emit(TagPlanned("platform", "fra"))
    agent.events.emit(TagDone("platform", "fra", "platform/a", "v1", "copy", "failed"))
    agent.events.emit(BytesWritten("hub", "fra", 5_000, "platform/b", "sha256:1", 5_000))
    agent.clock.advance(5)
    run.left.discard("sin")

    first, second = (await world.get("/api/v1/runs"))["runs"]
    assert (first["id"], first["outcome"], first["repositories"]) == (
        run.id,
        None,
        ["platform/a", "platform/b"],
    )
    fra, sin = first["progress"]
    assert fra == {
        "destination": "fra", "done": False, "tags_planned": 2, "tags_done": 1, "tags_failed": 1,
        "bytes_planned": 8_000, "bytes_moved": 5_000, "bytes_per_second": 1_000.0, "seconds_left": 3.0, "scan": None,
        "tags_postponed": 1,
    }  # fmt: skip
    assert sin["done"]
    assert (second["outcome"], second["progress"]) == ("failed", [])
    assert (await world.get("/api/v1/runs?rule=relay&limit=1"))["runs"] == [second]

    detail = await world.get(f"/api/v1/runs/{ended.id}")
    assert detail["report"]["rules"][0]["destinations"][0]["failures"][0]["cause"] == "reset"
    assert (await world.get(f"/api/v1/runs/{run.id}"))["report"] is None
    await world.get("/api/v1/runs/nothing", 404)

    status = await world.get("/api/v1/status")
    assert [(each["destination"], each["bytes_moved"]) for each in status["moving"]] == [("fra", 5_000)]
    assert [(each["digest"], each["moved"]) for each in status["transfers"]] == [("sha256:1", 5_000)]
    assert status["waits"] == []
    assert status["failures"][0]["cause"] == "reset"
    assert [each["id"] for each in status["running"]] == [run.id]


@pytest.mark.parametrize("limit", ["0", "201", "x", "-1", "", "99999999999999999999", "²"])
async def test_limit_that_is_none_is_refused(world: World, limit: str) -> None:
    await world.get(f"/api/v1/runs?limit={limit}", 400)


async def test_sites_tell_their_roles(world: World) -> None:
    world.agent.events.emit(QuotaSeen("hub", 76))
    sites = {each["site"]: each for each in (await world.get("/api/v1/sites"))["sites"]}
    assert sites["hub"] == {
        "site": "hub",
        "url": "https://hub.example",
        "roles": ["source"],
        "pulls_left": 76,
    }
    assert sites["fra"]["roles"] == ["source", "destination"]
    assert sites["near"]["roles"] == ["mirror"]


async def test_throughput_ends_with_the_window(world: World) -> None:
    world.agent.events.emit(BytesWritten("hub", "fra", 1_000))
    world.agent.clock.advance(4)
    world.agent.events.emit(BytesWritten("hub", "fra", 1_000))
    flows = {
        (each["source"], each["destination"]): each for each in (await world.get("/api/v1/status"))["flows"]
    }
    assert flows["hub", "fra"]["bytes_per_second"] == 200
    assert flows["near", "sin"]["mirror"]
    world.agent.clock.advance(7)
    assert (await world.get("/api/v1/status"))["flows"][0]["bytes_per_second"] == 100
    world.agent.clock.advance(7)
    assert (await world.get("/api/v1/status"))["flows"][0]["bytes_per_second"] == 0


async def test_sync_of_everything(world: World) -> None:
    told = await world.post("/api/v1/sync", {}, 202)
    assert told["at"] == "2023-11-14T22:13:20Z"
    assert told["rules"] == [
        {"rule": "platform", "destinations": ["fra", "sin"]},
        {"rule": "relay", "destinations": ["edge"]},
    ]
    want = world.agent.wanted("platform", "sin")
    assert want is not None
    assert (want.whole, want.cause, want.recheck) == (True, "api", False)


async def test_who_waits_for_a_sync_is_told_where_a_pause_or_restart_took_it_away(world: World) -> None:
    async with remote_agent(world.url, TOKEN) as agent:
        accepted = await agent.sync(SyncOrder(rules=["relay"]))
        await world.agent.pause("relay")
        with pytest.raises(Rejected, match="rule relay: paused after"):
            await agent.finished(accepted)
        accepted = await agent.sync(SyncOrder(rules=["platform"]))
        world.agent.started_at = world.agent.clock.now() + 1
        with pytest.raises(Rejected, match="was restarted after"):
            await agent.finished(accepted)


async def test_run_that_an_event_narrowed_is_not_taken_for_the_sync_that_was_asked_for(world: World) -> None:
    runs, at = world.agent.runs, world.agent.clock.now()
    async with remote_agent(world.url, TOKEN) as agent:
        accepted = await agent.sync(SyncOrder(rules=["relay"]))
        begun = [
            runs.begin(
                rule="relay",
                source="fra",
                destinations=("edge",),
                cause="webhook",
                scope=scope,
                at=at + number,
            )
            for number, scope in enumerate([RunScope({"platform/app": frozenset({"v1"})}), None])
        ]
        for run in begun:
            runs.end(run, RuleResult("relay", "fra", [DestinationResult("edge", "ok")]), at=at + 5)
        (done,) = await agent.finished(accepted)
    assert done.run.id == begun[1].id


async def test_sync_of_one_tag_to_one_place(world: World) -> None:
    order = {"repository": "platform/app", "tags": ["v1"], "destinations": ["fra"], "recheck": True}
    told = await world.post("/api/v1/sync", order, 202)
    assert told["rules"] == [{"rule": "platform", "destinations": ["fra"]}]
    assert told["skipped"] == ["relay"]
    want = world.agent.wanted("platform", "fra")
    assert want is not None
    assert want.repositories == {"platform/app": frozenset({"v1"})}
    assert want.recheck
    assert not want.whole
    assert world.agent.wanted("platform", "sin") is None


async def test_sync_of_one_rule(world: World) -> None:
    assert (await world.post("/api/v1/rules/relay/sync", {}, 202))["rules"][0]["rule"] == "relay"
    assert (await world.post("/api/v1/sync", {"rules": ["relay"]}, 202))["rules"][0]["rule"] == "relay"
    assert world.agent.wanted("platform", "fra") is None


@pytest.mark.parametrize(
    ("path", "order", "status"),
    [
        ("/api/v1/sync", {"rules": ["nothing"]}, 404),
        ("/api/v1/rules/nothing/sync", {}, 404),
        ("/api/v1/sync", {"rules": []}, 400),
        ("/api/v1/sync", {"rule": "platform"}, 400),
        ("/api/v1/sync", {"tags": ["v1"]}, 400),
        ("/api/v1/sync", {"repository": "UPPER"}, 400),
        ("/api/v1/sync", {"repository": "platform/app", "tags": ["not a tag"]}, 400),
        ("/api/v1/sync", {"recheck": "yes"}, 400),
        ("/api/v1/sync", [], 400),
        ("/api/v1/rules/platform/sync", {"rules": ["relay"]}, 400),
        ("/api/v1/rules/platform/pause", {"for": 7}, 400),
        ("/api/v1/sync", {"repository": "other/app"}, 409),
        ("/api/v1/sync", {"destinations": ["nowhere"]}, 409),
    ],
)
async def test_orders_that_mean_nothing_are_refused(world: World, path: str, order: Any, status: int) -> None:
    assert (await world.post(path, order, status))["status"] == status
    assert not len(world.agent.triggers)


async def test_pause_and_resume(world: World) -> None:
    assert (await world.post("/api/v1/rules/platform/pause", {}, 200))["paused"]
    assert world.agent.paused == {"platform"}
    assert (await world.post("/api/v1/sync", {}, 202))["skipped"] == ["platform"]
    await world.post("/api/v1/rules/platform/sync", {}, 409)
    assert not (await world.post("/api/v1/rules/platform/resume", {}, 200))["paused"]
    assert not world.agent.paused
    await world.post("/api/v1/rules/nothing/pause", {}, 404)
    await world.post("/api/v1/rules/nothing/resume", {}, 404)


async def test_body_beyond_its_bound_is_refused(world: World) -> None:
    await world.post("/api/v1/sync", {"rules": ["x" * 70_000]}, 413)


async def test_health_is_the_process_and_readiness_its_work(world: World) -> None:
    async with world.session.get("/healthz") as answer:
        assert (answer.status, await answer.text()) == (200, "ok\n")
    async with world.session.get("/readyz") as answer:
        assert (answer.status, await answer.text()) == (200, "ready\n")
    world.agent.problems = ["the state cannot be written"]
    async with world.session.get("/readyz") as answer:
        assert (answer.status, await answer.text()) == (503, "not ready\nthe state cannot be written\n")
    async with world.session.get("/healthz") as answer:
        assert answer.status == 200
    world.agent.problem = "the scheduler stands still"
    async with world.session.get("/healthz") as answer:
        assert answer.status == 503


async def test_metrics_come_in_the_format_that_is_accepted(world: World) -> None:
    async with world.session.get("/metrics") as answer:
        assert answer.content_type == "text/plain"
        text = await answer.text()
    assert "replicator_build_info" in text
    assert not text.endswith("# EOF\n")
    accept = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"
    async with world.session.get("/metrics", headers={"Accept": accept}) as answer:
        assert answer.content_type == "application/openmetrics-text"
        assert (await answer.text()).endswith("# EOF\n")


async def test_unknown_paths_and_methods_are_problems_too(world: World) -> None:
    async with world.session.get("/api/v1/nothing") as answer:
        assert (answer.status, answer.content_type) == (404, "application/problem+json")
    async with world.session.delete("/api/v1/rules") as answer:
        assert (answer.status, answer.content_type) == (405, "application/problem+json")
        assert "GET" in answer.headers["Allow"]


async def test_agents_of_the_fleet_are_told_as_the_command_tells_them(world: World) -> None:
    assert await world.get("/api/v1/agents") == {"agents": []}, "not part of a fleet"
    now = world.agent.clock.now()
    world.agent.sharing = FakeSharing(roster(now))
    told = await world.get("/api/v1/agents")
    assert (await world.get("/api/v1/status"))["agents"] == told["agents"]
    agents = {each["agent"]: each for each in told["agents"]}
    assert {name: each["state"] for name, each in agents.items()} == {
        "a": "working",
        "b": "draining",
        "c": "lost",
    }
    assert agents["a"]["doing"][1]["repositories"] == ["platform/<b>app</b>"]
    assert (agents["a"]["doing"][0]["shard"], agents["a"]["doing"][0]["run"]) == ("3/64", "a-1-1")
    told_started = dt.datetime.fromisoformat(agents["b"]["started_at"]).timestamp()
    assert told_started == pytest.approx(now - 60), "its clock is ten minutes ahead, ours is not"
    shown = lines(infos(world.agent.sharing.roster), now)
    assert [line.split() for line in shown[1:4]] == [
        ["a", "1.0.0", *["2.0", "s", "ago"], "fra", "working", "2"],
        ["b", "1.0.1", *["1.0", "s", "ago"], "all", "draining", "0"],
        ["c", "1.0.0", "1", "min", "30", "s", "ago", "all", "lost", "-"],
    ]
    assert shown[-1] == "b: its clock is +600 s off the database's"
    assert "  platform  -> fra  platform/<b>app</b>  10 s" in shown
