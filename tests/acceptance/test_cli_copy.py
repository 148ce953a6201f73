from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from replicator.demo.images import AMD64, ARM64, BuiltImage, image, index, layer, load
from tests.acceptance.program import Program
from tests.fakes.registry import FakeRegistry


@dataclass
class World:
    program: Program
    hub: FakeRegistry
    fra: FakeRegistry
    app: BuiltImage
    multi: BuiltImage

    @property
    def source(self) -> str:
        return f"{self.hub.url.removeprefix('http://')}/platform/app"

    @property
    def target(self) -> str:
        return f"{self.fra.url.removeprefix('http://')}/mirror/app"

    def tags(self) -> dict[str, str]:
        return dict(self.fra.store.content("mirror/app").tags)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with FakeRegistry() as hub, FakeRegistry() as fra:
        app = image("app")
        multi = index([image("amd64", platform=AMD64), image("arm64", platform=ARM64)])
        load(hub.store, "platform/app", "latest", app)
        load(hub.store, "platform/app", "v1", app)
        load(hub.store, "platform/app", "multi", multi)
        yield World(Program(tmp_path), hub, fra, app, multi)


async def test_no_tag_means_latest_and_the_destination_gets_the_same(world: World) -> None:
    ended = await world.program("copy", world.source, world.target)
    assert ended.code == 0
    assert world.tags() == {"latest": world.app.digest}
    assert f"copied  {world.target}:latest  {world.app.digest}\n" in ended.stdout
    again = await world.program("copy", world.source, world.target)
    assert (again.code, again.stdout.split(";")[0]) == (0, "ok: 0 tags copied, 1 unchanged, 0 failed")
    assert not list(world.program.folder.glob("**/*.db"))


async def test_image_may_be_named_by_digest_and_gets_another_tag(world: World) -> None:
    ended = await world.program("copy", f"{world.source}@{world.app.digest}", f"{world.target}:mine")
    assert ended.code == 0
    assert world.tags() == {"mine": world.app.digest}


async def test_all_tags_come_under_their_own_names(world: World) -> None:
    ended = await world.program("copy", "--all-tags", world.source, world.target, "--json")
    assert ended.code == 0
    assert ended.json["totals"]["tags"]["copied"] == 3
    assert world.tags() == {
        "latest": world.app.digest,
        "v1": world.app.digest,
        "multi": world.multi.digest,
    }


async def test_platform_copies_that_child_alone_and_says_that_the_digest_differs(world: World) -> None:
    ended = await world.program("copy", f"{world.source}:multi", world.target, "--platform", "linux/arm64/v8")
    assert ended.code == 0
    child = world.multi.children[1].digest
    assert world.tags() == {"multi": child}
    assert set(world.fra.store.content("mirror/app").manifests) == {child}
    assert f"which is {child}; the index is {world.multi.digest}" in ended.stderr


async def test_platform_that_is_not_there_fails_and_names_those_that_are(world: World) -> None:
    ended = await world.program("copy", f"{world.source}:multi", world.target, "--platform", "plan9/mips")
    assert (ended.code, ended.stdout) == (1, "")
    assert "does not have plan9/mips; it has linux/amd64, linux/arm64" in ended.stderr


async def test_tag_without_the_platform_leaves_the_others_alone(world: World) -> None:
    ended = await world.program(
        "copy", "--all-tags", "--platform", "linux/s390x", world.source, world.target, "--json"
    )
    assert ended.code == 1
    assert ended.json["outcome"] == "partial"
    [failure] = ended.json["rules"][0]["destinations"][0]["failures"]
    assert failure["cause"].startswith("tag multi: the index does not have linux/s390x")
    assert world.tags().keys() == {"latest", "v1"}


async def test_image_that_is_not_there_is_one_line_and_exit_code_1(world: World) -> None:
    ended = await world.program("copy", f"{world.source}:absent", world.target, "--json")
    assert ended.code == 1
    assert ended.json["outcome"] == "failed"
    assert len(ended.stderr.splitlines()) == 1
    assert "platform/app: resolve: absent: 404" in ended.stderr


async def test_within_one_registry_blobs_are_mounted_not_moved(world: World) -> None:
    big = layer("big", 300_000)
    load(world.hub.store, "platform/big", "v1", image("big", [big]))
    source = world.source.replace("app", "big")
    ended = await world.program("copy", f"{source}:v1", source.replace("platform", "mirror"), "--json")
    assert ended.code == 0
    assert ended.json["totals"]["blobs"]["mounted"] == 1  # small ones are not worth the asking
    assert world.hub.blob_bytes_out < len(big.data)


async def test_host_that_does_not_resolve_is_named_and_not_the_tag(world: World) -> None:
    ended = await world.program("copy", "nowhere.invalid/app:v1", world.target)
    assert ended.code == 1
    assert ended.stderr.startswith("error: nowhere.invalid: ping: cannot resolve nowhere.invalid: ")
