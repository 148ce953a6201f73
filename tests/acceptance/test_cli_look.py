from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from replicator.demo.images import image, load
from tests.acceptance.program import Program, rule
from tests.fakes.faults import answer
from tests.fakes.registry import FakeRegistry


@dataclass
class World:
    program: Program
    hub: FakeRegistry
    fra: FakeRegistry


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with FakeRegistry() as hub, FakeRegistry() as fra:
        for tag in ("v1", "v2"):
            load(hub.store, "platform/app", tag, image(tag))
        program = Program(tmp_path)
        program.write_config({"hub": hub.url, "fra": fra.url}, rule())
        yield World(program, hub, fra)


async def test_list_shows_repositories_and_tags(world: World) -> None:
    repositories = await world.program("list", "hub")
    assert (repositories.code, repositories.stdout) == (0, "platform/app\n")
    tags = await world.program("list", "hub", "platform/app")
    assert (tags.code, tags.stdout.split()) == (0, ["v1", "v2"])
    digests = await world.program("list", "hub", "platform/app", "--digests", "--json")
    assert {each["tag"]: each["digest"] for each in digests.json["tags"]} == dict(
        world.hub.store.content("platform/app").tags
    )


@pytest.mark.parametrize("options", [[], ["--digests"]])
async def test_list_puts_versions_in_their_order_whatever_order_the_registry_has(
    world: World, options: list[str]
) -> None:
    for tag in ("v1.10.0", "latest", "v1.9.0", "10"):
        load(world.hub.store, "platform/app", tag, image(tag))
        load(world.hub.store, f"platform/{tag}", "v1", image(tag))
    ordered = ["10", "latest", "v1", "v1.9.0", "v1.10.0", "v2"]
    listed = await world.program("list", "hub", "platform/app", *options)
    assert [line.split()[0] for line in listed.stdout.splitlines()] == ordered
    as_json = await world.program("list", "hub", "platform/app", "--json", *options)
    assert [each["tag"] for each in as_json.json["tags"]] == ordered
    repositories = await world.program("list", "hub")
    assert repositories.stdout.split() == [
        f"platform/{name}" for name in ("10", "app", "latest", "v1.9.0", "v1.10.0")
    ]


async def test_list_takes_a_host_where_there_is_no_config(world: World) -> None:
    (world.program.folder / "replicator.toml").unlink()
    ended = await world.program("list", world.hub.url.removeprefix("http://"), "platform/app", "--json")
    assert ended.code == 0
    assert [each["tag"] for each in ended.json["tags"]] == ["v1", "v2"]


async def test_list_that_breaks_off_is_no_empty_list(world: World) -> None:
    world.hub.fault("GET", "tags/list", answer(403), times=None)
    ended = await world.program("list", "hub", "platform/app", "--json")
    assert ended.code == 1
    assert ended.json["outcome"] == "failed"
    assert "tags" not in ended.json
    assert (await world.program("list", "hub", "platform/app")).stdout == ""


async def test_list_tells_a_tag_that_cannot_be_resolved_beside_the_others(world: World) -> None:
    world.hub.fault("HEAD|GET", "manifests/v1", answer(403), times=None)
    ended = await world.program("list", "hub", "platform/app", "--digests")
    assert ended.code == 1
    assert [line.split()[0] for line in ended.stdout.splitlines()] == ["v2"]
    assert ended.stderr.startswith("error: v1: hub: platform/app")


async def test_check_reaches_every_site_and_changes_none(world: World) -> None:
    ended = await world.program("check", "--json")
    assert ended.code == 0
    assert ended.json["outcome"] == "ok"
    assert {site["site"]: site["ok"] for site in ended.json["sites"]} == {"hub": True, "fra": True}
    assert all(site["findings"]["reachable"] == "yes" for site in ended.json["sites"])
    for site in (world.hub, world.fra):
        assert site.count() > 0
        assert site.count("POST|PUT|PATCH|DELETE") == 0


async def test_check_tries_to_push_at_destinations_alone(world: World) -> None:
    load(world.fra.store, "platform/app", "v1", image("v1"))
    ended = await world.program("check", "--push", "platform/app")
    assert ended.code == 0
    assert world.fra.count("POST", "platform/app/blobs/uploads/") == 1
    assert world.hub.count("POST") == 0


async def test_check_that_finds_one_site_gone_tells_all_and_exits_1(world: World) -> None:
    world.program.write_config({"hub": world.hub.url, "fra": "http://127.0.0.1:1"}, rule())
    ended = await world.program("check")
    assert ended.code == 1
    assert ended.stdout.startswith("hub: ok\n")
    assert "\nfra: failed\n" in ended.stdout
    assert "\n  problem: " in ended.stdout


async def test_check_fails_for_a_directory_that_must_exist_and_does_not(world: World) -> None:
    folder = world.program.folder / "mount"
    config = world.program.folder / "replicator.toml"
    hub = f'[site.hub]\nurl = "{world.hub.url}"\n'
    shelf = f'[site.shelf]\nurl = "file://{folder}"\nmust_exist = true\n'
    config.write_text(
        f'{hub}{shelf}[[rule]]\nname = "all"\nsource = "hub"\ndestinations = ["shelf"]\nrepositories = ["**"]\n'
    )
    ended = await world.program("check")
    assert ended.code == 1
    assert f"shelf: check directory: {folder} does not exist, though must_exist = true" in ended.stdout
    assert not folder.exists()


async def test_config_show_masks_secrets_and_schema_is_json(world: World) -> None:
    config = world.program.folder / "replicator.toml"
    config.write_text(
        config.read_text().replace("[site.fra]\n", '[site.fra]\nusername = "u"\npassword = "hunter2"\n')
    )
    shown = await world.program("config", "show")
    assert shown.code == 0
    assert 'username = "u"' in shown.stdout
    assert "hunter2" not in shown.stdout + shown.stderr
    assert shown.stderr.startswith("warning: ")
    schema = await world.program("config", "schema")
    assert (schema.code, "rule" in schema.json["properties"]) == (0, True)
