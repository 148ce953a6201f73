from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest

from replicator.demo.images import BuiltImage, image, load
from tests.acceptance.program import Program, rule
from tests.fakes.faults import answer
from tests.fakes.registry import FakeRegistry


@dataclass
class World:
    """Two registries, two images in the first, and the program with a config from one to the other."""

    program: Program
    hub: FakeRegistry
    fra: FakeRegistry
    images: dict[str, BuiltImage]


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with FakeRegistry() as hub, FakeRegistry() as fra:
        images = {name: image(name) for name in ("app", "web")}
        for name, built in images.items():
            load(hub.store, f"platform/{name}", "v1", built)
        program = Program(tmp_path)
        program.write_config({"hub": hub.url, "fra": fra.url}, rule())
        yield World(program, hub, fra, images)


async def test_sync_brings_the_destination_in_step_and_then_has_nothing_to_do(world: World) -> None:
    first = await world.program("sync", "--json")
    assert first.code == 0
    assert first.json["outcome"] == "ok"
    assert first.json["totals"]["tags"] == {"copied": 2, "unchanged": 0, "deleted": 0, "held": 0, "failed": 0}
    assert first.json["totals"]["requests"] > 0
    for name, built in world.images.items():
        assert world.fra.store.content(f"platform/{name}").tags == {"v1": built.digest}
    second = await world.program("sync", "--json")
    assert second.code == 0
    assert second.json["totals"]["tags"]["unchanged"] == 2
    assert second.json["totals"]["bytes"] == {"read": 0, "written": 0, "saved": 0}


async def test_requests_are_counted_for_the_run_and_for_each_destination(world: World) -> None:
    async with FakeRegistry() as sin:
        load(sin.store, "other", "v1", image("other"))  # so that the two differ in what they are asked
        urls = {"hub": world.hub.url, "fra": world.fra.url, "sin": sin.url}
        world.program.write_config(urls, rule(destinations=("fra", "sin")))
        assert (await world.program("sync")).code == 0
        load(world.hub.store, "platform/app", "v2", image("new"))
        load(sin.store, "platform/app", "v2", image("new"))
        sites = (world.hub, world.fra, sin)
        before = [len(site.requests) for site in sites]
        ended = await world.program("sync", "--json")
        hub, fra, there = (len(site.requests) - begun for site, begun in zip(sites, before, strict=True))
    assert ended.json["totals"]["requests"] == hub + fra + there
    counts = [each["totals"]["requests"] for each in ended.json["rules"][0]["destinations"]]
    reads = sum(counts) - fra - there  # of the image at the source, each by whoever came first
    assert 0 < reads < hub
    assert counts[0] >= fra > there
    assert counts[1] >= there > 0


async def test_results_go_to_stdout_and_plain_lines_without_errors_to_stderr(world: World) -> None:
    ended = await world.program("sync")
    assert ended.code == 0
    assert ended.stdout.splitlines()[-1].startswith("ok: 2 tags copied")
    assert ended.stdout.isascii()
    lines = ended.stderr.splitlines()
    assert [line.split(" ", 2)[1] for line in lines] == ["INFO", "INFO"]
    assert "run started rule=platform source=hub destinations=fra" in lines[0]
    assert "run ended rule=platform destination=fra outcome=ok" in lines[1]


async def test_json_log_has_one_object_a_line(world: World) -> None:
    ended = await world.program("sync", "--log-format", "json", "-vv")
    records = [msgspec.json.decode(line) for line in ended.stderr.splitlines()]
    assert {record["level"] for record in records} == {"info", "debug", "trace"}
    requests = [record for record in records if record["message"] == "request"]
    assert {request["site"] for request in requests} == {"hub", "fra"}


async def test_failure_is_told_once_and_the_rest_is_done(world: World) -> None:
    world.fra.fault("PUT", "platform/app/manifests/", answer(403, "no"), times=None)
    ended = await world.program("sync", "--json")
    assert ended.code == 1
    assert ended.json["outcome"] == "partial"
    [destination] = ended.json["rules"][0]["destinations"]
    [failure] = destination["failures"]
    assert (failure["site"], failure["repository"]) == ("fra", "platform/app")
    assert failure["operation"]
    assert "403" in failure["cause"]
    assert sum(" ERROR " in line for line in ended.stderr.splitlines()) == 1
    assert world.fra.store.content("platform/web").tags == {"v1": world.images["web"].digest}

    status = await world.program("status", "--json")
    [standing] = status.json["rules"][0]["destinations"]
    assert standing["tags"]["in_step"] == 1
    assert (standing["tags"]["pending"], standing["tags"]["failed"]) == (0, 1)  # each tag once
    assert standing["last_success"] is None
    assert "403" in standing["last_error"]


async def test_plan_changes_nothing_and_tells_drift_by_its_exit_code(world: World) -> None:
    before = await world.program("plan", "--json", "--exit-code")
    assert before.code == 3
    [destination] = before.json["rules"][0]["destinations"]
    assert {(action["repository"], action["outcome"]) for action in destination["actions"]} == {
        ("platform/app", "planned"),
        ("platform/web", "planned"),
    }
    assert before.json["rules"][0]["filters"] is not None
    assert not world.fra.store.repositories
    assert world.fra.count("POST|PUT|PATCH|DELETE") == 0
    assert not (world.program.folder / "state.db").exists()

    assert (await world.program("plan")).code == 0
    assert (await world.program("sync")).code == 0
    after = await world.program("plan", "--exit-code")
    assert after.code == 0
    assert "0 to copy, 2 unchanged" in after.stdout


async def test_metrics_file_holds_the_run(world: World) -> None:
    path = world.program.folder / "replicator.prom"
    assert (await world.program("sync", "--metrics-file", str(path))).code == 0
    text = path.read_text()
    assert 'replicator_runs_total{destination="fra",outcome="ok",rule="platform"} 1.0' in text
    assert 'replicator_tags{destination="fra",rule="platform",state="in_step"} 2.0' in text
    assert 'replicator_lag_seconds{destination="fra",rule="platform"} 0.0' in text
    written = sum(sum(map(len, each.blobs.values())) for each in world.images.values())
    line = next(line for line in text.splitlines() if line.startswith("replicator_bytes_total{"))
    assert float(line.split()[1]) >= written


async def test_metrics_file_that_cannot_be_written_leaves_the_report_and_exits_1(world: World) -> None:
    ended = await world.program("sync", "--json", "--metrics-file", "/proc/replicator.prom")
    assert ended.code == 1
    assert ended.json["outcome"] == "ok"
    assert "ERROR metrics file /proc/replicator.prom: " in ended.stderr


async def test_status_shows_rules_that_never_ran_and_writes_nothing(world: World) -> None:
    never = await world.program("status")
    assert never.code == 0
    assert "never run" in never.stdout
    assert not (world.program.folder / "state.db").exists()
    await world.program("sync")
    asked = len(world.hub.requests) + len(world.fra.requests)
    ran = await world.program("status", "--json")
    [standing] = ran.json["rules"][0]["destinations"]
    assert standing["tags"] == {"in_step": 2, "held": 0, "pending": 0, "failed": 0, "unknown": 0}
    assert standing["lag_seconds"] == 0
    assert standing["last_success"] is not None
    assert len(world.hub.requests) + len(world.fra.requests) == asked


async def test_only_the_rules_and_destinations_that_are_asked_for_run(world: World) -> None:
    async with FakeRegistry() as sin:
        world.program.write_config(
            {"hub": world.hub.url, "fra": world.fra.url, "sin": sin.url},
            rule("both", destinations=["fra", "sin"]) + rule("other"),
        )
        ended = await world.program("sync", "--json", "--rule", "both", "--destination", "sin")
        assert ended.code == 0
        [ran] = ended.json["rules"]
        assert [each["destination"] for each in ran["destinations"]] == ["sin"]
        assert "platform/app" in sin.store.repositories
    assert not world.fra.requests
