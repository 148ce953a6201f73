"""`replicator why`, as a user runs it: from the state, from the sites, and through an agent."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from replicator.demo.images import image, load
from tests.acceptance.agent import running_agent, write_agent
from tests.acceptance.program import Program, rule
from tests.fakes.registry import FakeRegistry

TOKEN = "correct-horse"
FILTERED = rule(more='tags = { include = ["v*"], exclude = ["*-rc*"] }\ninterval = "1h"')


@dataclass
class World:
    program: Program
    hub: FakeRegistry
    fra: FakeRegistry

    @property
    def sites(self) -> dict[str, str]:
        return {"hub": self.hub.url, "fra": self.fra.url}


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with FakeRegistry() as hub, FakeRegistry() as fra:
        for tag in ("v1", "v2-rc1"):
            load(hub.store, "platform/app", tag, image(tag))
        made = World(Program(tmp_path), hub, fra)
        made.program.write_config(made.sites, FILTERED)
        yield made


async def test_why_exits_by_its_verdict_and_asks_no_site(world: World) -> None:
    assert (await world.program("sync")).code == 0
    asked = len(world.hub.requests) + len(world.fra.requests)
    there = await world.program("why", "hub/platform/app:v1")
    assert there.code == 0
    assert there.stdout.startswith("hub/platform/app:v1 -> fra (rule platform): IN STEP\n")
    filtered = await world.program("why", "platform/app:v2-rc1")
    assert filtered.code == 3
    assert "x tags: exclude *-rc*" in filtered.stdout
    unknown = await world.program("why", "hub/platform/app:v9", "--json")
    assert unknown.code == 1
    assert unknown.json["verdict"] == "unknown"
    elsewhere = await world.program("why", "other/app:v1")
    assert elsewhere.code == 1
    assert "no rule takes it anywhere" in elsewhere.stderr
    assert len(world.hub.requests) + len(world.fra.requests) == asked


async def test_why_fresh_sees_what_no_run_has_seen(world: World) -> None:
    assert (await world.program("sync")).code == 0
    load(world.hub.store, "platform/app", "v3", image("v3"))
    assert (await world.program("why", "hub/platform/app:v3")).code == 1
    fresh = await world.program("why", "hub/platform/app:v3", "--fresh", "--at", "fra", "--json")
    assert fresh.code == 3
    (explained,) = fresh.json["explanations"]
    assert (explained["verdict"], explained["next"]) == ("behind", "next run (every 1 h): copies it")
    assert "v3" not in world.fra.store.content("platform/app").tags


async def test_why_takes_the_host_of_a_site_a_digest_and_the_name_at_a_destination(world: World) -> None:
    assert (await world.program("sync")).code == 0
    digest = world.hub.store.content("platform/app").tags["v1"]
    for reference in (
        f"{world.fra.url.removeprefix('http://')}/platform/app:v1",
        "fra/platform/app:v1",
        digest,
        f"platform/app@{digest}",
    ):
        ended = await world.program("why", reference)
        assert ended.stdout.startswith("hub/platform/app:v1 -> fra"), reference
        assert ended.code == 0


async def test_why_says_after_one_sync_what_holds_a_tag(world: World) -> None:
    signed = rule(more='referrers = { require = ["signature"] }')
    world.program.write_config(world.sites, signed)
    assert (await world.program("sync", "--json")).json["totals"]["tags"]["held"] == 2
    asked = len(world.hub.requests) + len(world.fra.requests)
    digest = world.hub.store.content("platform/app").tags["v1"]
    for reference in ("hub/platform/app:v1", f"platform/app@{digest}", digest):
        held = await world.program("why", reference, "--json")
        assert held.code == 3, held.stdout
        (explained,) = held.json["explanations"]
        (stop,) = [step for step in explained["steps"] if step["verdict"] == "stop"]
        assert (explained["verdict"], explained["digest"], stop["what"]) == ("held", digest, "held")
        assert "signature" in stop["text"]
    assert len(world.hub.requests) + len(world.fra.requests) == asked
    status = (await world.program("status", "--json")).json
    (standing,) = [at for each in status["rules"] for at in each["destinations"]]
    assert (standing["tags"]["held"], standing["tags"]["pending"]) == (2, 0)
    world.program.write_config(world.sites, rule())
    assert (await world.program("sync")).code == 0
    assert (await world.program("why", "hub/platform/app:v1")).code == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["hub/UPPER:v1"], "expected [SITE/]REPOSITORY[:TAG][@DIGEST] or a digest"),
        (["sha256:12"], "expected [SITE/]REPOSITORY[:TAG][@DIGEST] or a digest"),
        (["hub/platform/app:v1", "--at", "mars"], "--at mars: unknown site; the config has fra, hub"),
    ],
)
async def test_why_refuses_what_is_no_question(world: World, arguments: list[str], said: str) -> None:
    ended = await world.program("why", *arguments)
    assert ended.code == 2
    assert said in ended.stderr


async def test_why_through_an_agent_knows_its_next_run(world: World) -> None:
    more = f'[http]\ntoken = "{TOKEN}"\n'
    write_agent(world.program, world.sites, FILTERED, more)
    async with running_agent(world.program) as agent:
        await agent.metric('replicator_tags{destination="fra",rule="platform",state="in_step"}', bool)
        there = await world.program("why", "hub/platform/app:v1", "--remote", agent.url)
        assert there.code == 0
        assert "next run 2" in there.stdout  # the time, not only the interval
        load(world.hub.store, "platform/app", "v3", image("v3"))
        fresh = await world.program("why", "hub/platform/app:v3", "--fresh", "--remote", agent.url)
        assert fresh.code == 3
        unknown = await world.program("why", "hub/platform/app:v3", "--at", "mars", "--remote", agent.url)
        assert unknown.code == 2
        assert "mars: unknown site" in unknown.stderr
        refused = await world.program(
            "why",
            "hub/platform/app:v3",
            "--fresh",
            "--remote",
            agent.url,
            environ={"REPLICATOR_TOKEN": "wrong"},
        )
        assert refused.code == 1
        assert (
            await agent.metric('replicator_tags{destination="fra",rule="platform",state="in_step"}', bool)
            == 1
        )
