"""A real Prometheus watches a real agent that replicates, fails and recovers; promtool tests the alerts."""

from __future__ import annotations

import asyncio
import math
import re
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml

from replicator.demo.images import image, layer, load
from tests.acceptance.agent import Agent, running_agent, write_agent
from tests.acceptance.program import Program, rule
from tests.fakes.faults import answer, header, refuse
from tests.fakes.process import free_port, require, running
from tests.fakes.registry import FakeRegistry
from tests.prometheus.queries import (
    ALERTS,
    ROOT,
    RULES,
    Query,
    alerts,
    panel_queries,
    recorded,
    substituted,
    variable_queries,
    without_conditions,
)

PATIENCE_SECONDS = 60.0
SCRAPE_SECONDS = 0.5
TOKEN = "agent-token"
VALUES = {
    "__rate_interval": "4s",
    "__range": "1m",
    "agent": ".*",
    "destination": ".*",
    "site": ".*",
    "rule": "platform",
}
HASTE = ((r"for: \w+", "for: 0s"), (r"> 900$", "> 2"), (r"> 86400\)", "> 2)"))
"""The alerts as they are, but for how long anything must last."""


class Prometheus:
    """One that scrapes the agent."""

    def __init__(self, url: str, session: aiohttp.ClientSession) -> None:
        self._url = url
        self._session = session
        self.began = time.time()

    async def ask(self, path: str, **parameters: str | float) -> Any:
        async with self._session.get(f"{self._url}/api/v1/{path}", params=parameters) as response:
            answer = await response.json()
        assert answer["status"] == "success", answer
        return answer["data"]

    async def has_seen(self, expression: str) -> list[dict[str, str]]:
        """Labels of all series that the expression ever gave a number for."""
        found = await self.ask(
            "query_range", query=expression, start=self.began, end=time.time(), step=SCRAPE_SECONDS
        )
        return [
            series["metric"]
            for series in found["result"]
            if any(math.isfinite(float(value)) for _, value in series["values"])
        ]

    async def see(self, expressions: Iterable[Query]) -> None:
        """Returns once all of them have given a number: what is recorded comes some scrapes after what it is from."""
        missing = list(expressions)
        for _ in range(int(PATIENCE_SECONDS / SCRAPE_SECONDS)):
            missing = [each for each in missing if not await self.has_seen(each.expression)]
            if not missing:
                return
            await asyncio.sleep(SCRAPE_SECONDS)
        raise AssertionError(f"no data: {missing}")

    async def is_scraping(self) -> None:
        """Returns once a sample is there: what changes from now on is seen to change."""
        for _ in range(int(PATIENCE_SECONDS / SCRAPE_SECONDS)):
            if await self.has_seen("replicator_lag_seconds"):
                return
            await asyncio.sleep(SCRAPE_SECONDS)
        raise AssertionError(f"nothing was scraped: {await self.ask('targets')}")

    async def firing(self) -> set[str]:
        found = await self.ask("alerts")
        return {each["labels"]["alertname"] for each in found["alerts"] if each["state"] == "firing"}

    async def fires(self, wanted: Iterable[str] = (), *, without: Iterable[str] = ()) -> None:
        """Returns once all of `wanted` fire and none of `without`."""
        wanted, without = set(wanted), set(without)
        firing: set[str] = set()
        for _ in range(int(PATIENCE_SECONDS / SCRAPE_SECONDS)):
            firing = await self.firing()
            if wanted <= firing and not without & firing:
                return
            await asyncio.sleep(SCRAPE_SECONDS)
        raise AssertionError(f"firing: {firing}; missing: {wanted - firing}; too many: {without & firing}")


def write_prometheus(folder: Path, target: str) -> None:
    """The config of a Prometheus that is in a hurry."""
    folder.mkdir()
    text = ALERTS.read_text()
    for pattern, hasty in HASTE:
        text = re.sub(pattern, hasty, text, flags=re.MULTILINE)
    (folder / "alerts.yml").write_text(text)
    (folder / "rules.yml").write_text(RULES.read_text().replace("interval: 1m", "interval: 1s"))
    config = {
        "global": {"scrape_interval": f"{SCRAPE_SECONDS * 1000:.0f}ms", "evaluation_interval": "500ms"},
        "rule_files": ["alerts.yml", "rules.yml"],
        "scrape_configs": [
            {
                "job_name": "replicator",
                "scrape_timeout": "400ms",
                "static_configs": [{"targets": [target]}],
            }
        ],
    }
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))


@asynccontextmanager
async def watching(agent: Agent, folder: Path) -> AsyncIterator[Prometheus]:
    write_prometheus(folder, agent.url.removeprefix("http://"))
    port = free_port()
    command = [
        require("prometheus"),
        f"--config.file={folder}/prometheus.yml",
        f"--storage.tsdb.path={folder}/data",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    with running(command, folder / "log") as process:
        process.wait_until_listening(port)
        async with aiohttp.ClientSession() as session:
            yield Prometheus(f"http://127.0.0.1:{port}", session)


@dataclass
class World:
    program: Program
    hub: FakeRegistry
    fra: FakeRegistry

    def push(self, repository: str, tag: str) -> None:
        built = image(f"{repository}:{tag}", [layer("shared", 50_000), layer(f"{repository}:{tag}", 50_000)])
        load(self.hub.store, f"platform/{repository}", tag, built)

    def grants(self, pulls: int) -> None:
        self.hub.fault(
            "GET|HEAD", "/manifests/", header("RateLimit-Remaining", f"{pulls};w=21600"), times=None
        )

    def write(self) -> Path:
        more = f'[http]\ntoken = "{TOKEN}"\n[webhook.hub]\nsite = "hub"\ntoken = "hook-token"\n'
        sites = {"hub": self.hub.url, "fra": self.fra.url}
        path = write_agent(self.program, sites, rule(more='interval = "1s"'), more)
        text = path.read_text().replace("[agent]\n", "[agent]\nmetrics_per_repository = 5\n", 1)
        path.write_text(text)
        return path


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with FakeRegistry() as hub, FakeRegistry() as fra:
        world = World(Program(tmp_path), hub, fra)
        world.push("app", "v1")
        yield world


async def post(url: str, body: Mapping[str, object], token: str) -> int:
    headers = {"Authorization": f"Bearer {token}"}
    async with aiohttp.ClientSession() as session, session.post(url, json=body, headers=headers) as answered:
        return answered.status


LAG = 'replicator_lag_seconds{destination="fra",rule="platform"}'
TROUBLE = {
    "ReplicatorLagHigh",
    "ReplicatorNoSuccess",
    "ReplicatorTagsFailing",
    "ReplicatorAuthFailed",
    "ReplicatorQuotaLow",
    "ReplicatorConfigReloadFailed",
    "ReplicatorWebhooksRefused",
}
OVER = TROUBLE - {"ReplicatorAuthFailed", "ReplicatorWebhooksRefused"}  # those two look back half an hour


def rewrite(config: Path, old: str, new: str) -> None:
    config.write_text(config.read_text().replace(old, new))


async def fail(world: World, agent: Agent, config: Path) -> None:
    """All that the alerts are about, at once."""
    world.hub.fault("GET", "/tags/list", answer(503))
    world.hub.fault("GET", "/tags/list", answer(429, headers={"Retry-After": "0"}))
    world.grants(7)
    world.fra.fault("PUT", "platform/web/manifests/", refuse(403, "DENIED"), times=None)
    for tag in ("v1", "v2"):
        world.push("web", tag)
    for tag in ("v2", "v3"):
        world.push("app", tag)
    assert await post(f"{agent.url}/webhooks/hub", {"events": []}, "wrong") == 401
    rewrite(config, 'source = "hub"', 'source = "hup"')
    agent.signal(signal.SIGHUP)


async def recover(world: World, agent: Agent, config: Path) -> None:
    world.hub.clear_faults()
    world.fra.clear_faults()
    world.grants(150)
    rewrite(config, 'source = "hup"', 'source = "hub"')
    agent.signal(signal.SIGHUP)
    assert await post(f"{agent.url}/api/v1/sync", {"recheck": True}, TOKEN) == 202
    world.push("app", "v4")


def everything_asked() -> list[Query]:
    """By dashboard, alerts and recording rules; of alerts, what they look at, as not all can be made to fire here."""
    dashboard = [*panel_queries(), *(query for query, _ in variable_queries().values())]
    return [
        *(Query(each.place, substituted(each.expression, VALUES)) for each in dashboard),
        *(Query(name, side) for name, each in alerts().items() for side in without_conditions(each["expr"])),
        *(Query("recorded", name) for name in recorded()),
    ]


ELSEWHERE = (
    "replicator_credential",
    "replicator_fleet_",
    "replicator_queue_jobs",
    "replicator_job_wait",
    "replicator_takeovers",
    "replicator_split_off",
    "replicator_duplicate_bytes",
)
"""No cloud issues credentials here, and one agent is no fleet; tests/prometheus/alerts_test.yml has what asks for these."""


@pytest.mark.timeout(240)
async def test_every_query_has_data_of_an_agent_that_replicated_failed_and_recovered(
    world: World, tmp_path: Path
) -> None:
    config = world.write()
    async with running_agent(world.program) as agent, watching(agent, tmp_path / "prometheus") as prometheus:
        await agent.metric(LAG, lambda lag: lag == 0)
        await prometheus.is_scraping()
        await prometheus.fires(without=TROUBLE)  # an agent that had no turn for two seconds was late
        await fail(world, agent, config)
        await prometheus.fires(TROUBLE)
        await recover(world, agent, config)
        await prometheus.fires(without=OVER)
        await agent.metric(LAG, lambda lag: lag == 0)

        asked = [
            each for each in everything_asked() if not any(name in each.expression for name in ELSEWHERE)
        ]
        await prometheus.see(asked)
        for query, label in variable_queries().values():
            seen = await prometheus.has_seen(substituted(query.expression, VALUES))
            assert all(label in labels for labels in seen), query

        agent.signal(signal.SIGTERM)
        assert (await agent.end()).code == 0
        await prometheus.fires({"ReplicatorAgentDown"})


# --- promtool ---

TESTED = sorted((ROOT / "tests" / "prometheus").glob("*_test.yml"))


def promtool(*arguments: str | Path) -> None:
    done = subprocess.run(
        [require("promtool"), *map(str, arguments)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_promtool_accepts_alerts_and_rules() -> None:
    promtool("check", "rules", ALERTS, RULES)


def test_alerts_and_rules_do_what_their_tests_say() -> None:
    promtool("test", "rules", *TESTED)


def test_every_alert_is_tested_firing_and_silent() -> None:
    firing: set[str] = set()
    silent: set[str] = set()
    for path in TESTED:
        for test in yaml.safe_load(path.read_text())["tests"]:
            for each in test.get("alert_rule_test", []):
                (firing if each["exp_alerts"] else silent).add(each["alertname"])
    assert firing == silent == set(alerts())
