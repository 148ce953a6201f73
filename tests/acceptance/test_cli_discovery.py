"""`replicator diff` and `inspect`, as a user runs them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from replicator.demo.images import ARM64, image, index, layer, load
from replicator.model.companion import fallback_tag, legacy_tags
from replicator.model.descriptor import Platform
from replicator.model.digest import digest_of
from tests.acceptance.program import Program, rule
from tests.fakes.faults import answer
from tests.fakes.kinds import sha512_manifest
from tests.fakes.referrers import referrer
from tests.fakes.registry import FakeRegistry


@dataclass
class World:
    program: Program
    hub: FakeRegistry
    fra: FakeRegistry


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with FakeRegistry() as hub, FakeRegistry() as fra:
        program = Program(tmp_path)
        program.write_config({"hub": hub.url, "fra": fra.url}, rule())
        yield World(program, hub, fra)


async def test_diff_names_each_tag_that_is_not_the_same(world: World) -> None:
    load(world.hub.store, "team/app", "same", image("same"))
    load(world.fra.store, "team/app", "same", image("same"))
    load(world.hub.store, "team/app", "moved", image("new"))
    load(world.fra.store, "team/app", "moved", image("old"))
    load(world.hub.store, "team/app", "new", image("x"))
    load(world.fra.store, "team/gone", "v1", image("y"))
    ended = await world.program("diff", "hub", "fra", "--json")
    assert ended.code == 3
    assert ended.json["same"] == 1
    assert {(each["repository"], each["tag"], each["difference"]) for each in ended.json["differences"]} == {
        ("team/app", "moved", "different"),
        ("team/app", "new", "only_here"),
        ("team/gone", "v1", "only_there"),
    }
    told = await world.program("diff", "hub", "fra", "team/gone")
    assert (told.code, told.stdout) == (3, "team/gone:v1  only at fra\n")


async def test_diff_of_what_is_the_same_exits_0_and_asks_for_no_manifest_body(world: World) -> None:
    for registry in (world.hub, world.fra):
        load(registry.store, "team/app", "v1", image("same"))
    load(world.hub.store, "team/app", fallback_tag(image("same").digest), image("what refers to it"))
    ended = await world.program("diff", "hub", "fra", "team/app")
    assert (ended.code, ended.stdout) == (0, "")
    assert not [each for each in world.hub.requests if each.method == "GET" and "/manifests/" in each.path]


async def test_diff_that_cannot_ask_is_a_failure_and_no_difference(world: World) -> None:
    load(world.hub.store, "team/app", "v1", image("same"))
    world.fra.fault("GET", "/v2/team/app/tags/list", answer(403))
    ended = await world.program("diff", "hub", "fra", "team/app")
    assert ended.code == 1
    assert "fra" in ended.stderr
    assert not ended.stdout


async def test_inspect_shows_platforms_shared_layers_config_and_referrers(world: World) -> None:
    shared = layer("shared", 2_000)
    built = index([image("a", [shared, layer("own")]), image("b", [shared], platform=ARM64)])
    load(world.hub.store, "team/app", "v1", built)
    load(world.hub.store, "team/app", legacy_tags(built.digest)[0], image("signature"))
    ended = await world.program("inspect", "hub/team/app:v1", "--json")
    assert (ended.code, ended.stderr) == (0, "")
    found = ended.json
    assert found["digest"] == built.digest
    assert [each["platform"] for each in found["platforms"]] == ["linux/amd64", "linux/arm64"]
    users = {each["digest"]: len(each["images"]) for each in found["layers"]}
    assert users[digest_of(shared.data)] == 2
    assert sorted(users.values()) == [1, 2]
    assert [(each["type"], each["tag"][-4:]) for each in found["referrers"]] == [("cosign .sig", ".sig")]
    told = await world.program("inspect", "hub/team/app:v1")
    assert "all platforms" in told.stdout
    assert built.digest in told.stdout


async def test_inspect_finds_what_refers_to_an_image_by_sha512(world: World) -> None:
    """Tags have at most 128 characters, so those of its companions have a part of the digest."""
    built = sha512_manifest()
    load(world.hub.store, "team/app", "v1", built)
    tag = "sha512-" + built.digest.removeprefix("sha512:")[:64] + ".sig"
    load(world.hub.store, "team/app", tag, image("signature"))
    ended = await world.program("inspect", f"hub/team/app@{built.digest}", "--json")
    assert (ended.code, ended.stderr) == (0, "")
    assert [each["tag"] for each in ended.json["referrers"]] == [tag]


async def test_inspect_prints_no_control_characters_of_an_image(world: World) -> None:
    evil = "\x1b[2J\x9b31m\u202e\nDigest forged"
    built = index([image("x", platform=Platform("amd64", evil), created=evil)])
    digest = load(world.hub.store, "team/app", "v1", built)
    load(world.hub.store, "team/app", None, referrer(built, f"text/{evil}"))
    told = (await world.program("inspect", f"hub/team/app@{digest}")).stdout
    assert "forged" in told
    assert all(line.isprintable() and not line.startswith("Digest forged") for line in told.splitlines())
    assert told.startswith(f"hub: team/app@{digest}\n")


async def test_inspect_takes_a_host_and_says_what_is_not_there(world: World) -> None:
    load(world.hub.store, "team/app", "v1", image("x"))
    host = world.hub.url.partition("://")[2]
    assert (await world.program("inspect", f"{host}/team/app:v1")).code == 0
    missing = await world.program("inspect", f"{host}/team/app:v2")
    assert missing.code == 1
    assert "team/app" in missing.stderr


async def test_inspect_of_an_image_that_lacks_a_part_says_which(world: World) -> None:
    child = image("a")
    load(world.hub.store, "team/app", "v1", index([child, image("b", platform=ARM64)]))
    world.hub.fault("GET", f"/manifests/{child.digest}", answer(404))
    ended = await world.program("inspect", "hub/team/app:v1", "--json")
    assert ended.code == 0, "a sparse index is no fault"
    absent = {each["digest"]: each["absent"] for each in ended.json["platforms"]}
    assert absent.pop(str(child.digest)) is True
    assert list(absent.values()) == [False]


async def synced(world: World) -> None:
    load(world.hub.store, "platform/app", "v1", image("one"))
    load(world.hub.store, "platform/app", "v2", image("two"))
    assert (await world.program("sync")).code == 0


async def test_search_answers_from_what_runs_have_seen_without_a_request(world: World) -> None:
    await synced(world)
    before = len(world.hub.requests) + len(world.fra.requests)
    ended = await world.program("search", "app", "tag:v1", "--json")
    assert (ended.code, ended.stderr) == (0, "")
    (found,) = ended.json["images"]
    assert (found["repository"], found["tag"], found["source"]) == ("platform/app", "v1", "hub")
    assert {site: each["state"] for site, each in found["sites"].items()} == {"hub": "held", "fra": "held"}
    assert found["facts"]["platforms"] == ["linux/amd64"]
    assert len(found["facts"]["layers"]) >= 1
    assert len(world.hub.requests) + len(world.fra.requests) == before
    told = await world.program("search", "app")
    assert [line.split()[0] for line in told.stdout.splitlines()] == [
        "IMAGE",
        "platform/app:v1",
        "platform/app:v2",
    ]


async def test_what_a_site_lacks_is_one_line(world: World) -> None:
    world.fra.fault("PUT", "/manifests/v2", answer(403), times=None)
    load(world.hub.store, "platform/app", "v1", image("one"))
    load(world.hub.store, "platform/app", "v2", image("two"))
    assert (await world.program("sync")).code == 1
    ended = await world.program("search", "app", "--missing-at", "fra")
    assert [line.split()[0] for line in ended.stdout.splitlines()] == ["IMAGE", "platform/app:v2"]
    nothing = await world.program("search", "nowhere")
    assert (nothing.code, nothing.stdout, nothing.stderr.strip()) == (1, "", "nothing found")


async def test_fresh_asks_the_sites(world: World) -> None:
    await synced(world)
    load(world.hub.store, "platform/app", "v3", image("three"))
    assert (await world.program("search", "tag:v3")).code == 1
    ended = await world.program("search", "tag:v3", "platform:linux/amd64", "--fresh", "--json")
    (found,) = ended.json["images"]
    assert {site: each["state"] for site, each in found["sites"].items()} == {"hub": "held", "fra": "missing"}


async def test_where_takes_names_digests_and_layers(world: World) -> None:
    await synced(world)
    one = image("one")
    for reference in ("hub/platform/app:v1", "platform/app:v1", one.digest):
        ended = await world.program("where", reference)
        assert ended.code == 0, reference
        places = [line.split()[:3] for line in ended.stdout.splitlines()]
        assert sorted(places) == [
            ["fra/platform/app:v1", one.digest, "yes"],
            ["hub/platform/app:v1", one.digest, "yes"],
        ]
    layer_digest = one.manifest.blobs[-1].digest
    by_layer = await world.program("where", layer_digest, "--json")
    assert {each["tag"] for each in by_layer.json["images"]} >= {"v1"}
    assert (await world.program("where", "platform/app:v9")).code == 1
