"""What a destination lost behind our back is found and copied again, whichever way it is looked for."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest

from replicator.demo.images import AMD64, ARM64, image, index, load
from tests.acceptance.program import Ended, Program
from tests.acceptance.stores import directory, everything
from tests.fakes.distribution import Server, distribution
from tests.fakes.process import clean_environment, require
from tests.fakes.registry import FakeRegistry

CHILDREN = [image("amd64", 1, platform=AMD64), image("arm64", 1, platform=ARM64)]
INDEX = index(CHILDREN)


@dataclass
class World:
    program: Program
    hub: FakeRegistry
    server: Server
    session: aiohttp.ClientSession

    def collect(self) -> None:
        """Runs the registry's own garbage collection beside it, as its operators do."""
        config = self.server.storage.parent / "config.yml"
        command = [require("docker-registry"), "garbage-collect", "--delete-untagged", str(config)]
        subprocess.run(command, check=True, capture_output=True, env=clean_environment())

    async def has(self, what: str) -> bool:
        headers = {
            "Accept": "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json"
        }
        url = f"{self.server.url}/v2/app/{what}"
        with contextlib.suppress(aiohttp.ClientPayloadError):  # remembered, but not there
            async with self.session.get(url, headers=headers) as answer:
                await answer.read()
                return answer.status == 200
        return False

    async def whole(self) -> bool:
        """Whether a client could pull all of `v1`."""
        parts = ["manifests/v1", *(f"manifests/{child.digest}" for child in CHILDREN)]
        parts += [f"blobs/{digest}" for child in CHILDREN for digest in child.blobs]
        return all([await self.has(part) for part in parts])


@contextmanager
def serving(folder: Path, *, cached: bool) -> Iterator[Server]:
    storage: dict[str, object] = {"filesystem": {"rootdirectory": str(folder / "storage")}}
    if cached:
        storage["cache"] = {"blobdescriptor": "inmemory"}
    with distribution(folder, driver=storage) as server:
        yield server


@pytest.fixture(params=[False, True], ids=["plain", "blob descriptors cached"])
async def world(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[World]:
    folder = tmp_path / "registry"
    folder.mkdir()
    with serving(folder, cached=request.param) as server:
        async with FakeRegistry() as hub, aiohttp.ClientSession() as session:
            load(hub.store, "app", "v1", INDEX)
            program = Program(tmp_path)
            program.write_config({"hub": hub.url, "fra": server.url}, everything("hub", "fra"))
            world = World(program, hub, server, session)
            first = await program("sync", "--json")
            assert first.code == 0, first.stderr
            assert await world.whole()
            yield world


async def by_recheck(world: World) -> Ended:
    return await world.program("sync", "--recheck", "--json")


async def without_state(world: World) -> Ended:
    (world.program.folder / "state.db").unlink()
    return await world.program("sync", "--json")


async def by_hand(world: World) -> Ended:
    places = [f"{url.removeprefix('http://')}/app:v1" for url in (world.hub.url, world.server.url)]
    return await world.program("copy", *places, "--json")


@pytest.mark.parametrize("way", [by_recheck, without_state, by_hand])
async def test_children_that_the_registrys_garbage_collection_took_are_copied_again(
    world: World, way: Callable[[World], Awaitable[Ended]]
) -> None:
    world.collect()
    assert not await world.whole()
    ended = await way(world)
    assert (ended.code, ended.json["totals"]["tags"]["copied"]) == (0, 1), ended.stdout
    assert await world.whole()


async def test_tag_that_was_deleted_with_all_its_content_is_copied_again(world: World) -> None:
    """A registry that remembers what its garbage collection took answers HEAD with 200, and PUT with 201."""
    for reference in (INDEX.digest, *(child.digest for child in CHILDREN)):
        async with world.session.delete(f"{world.server.url}/v2/app/manifests/{reference}") as answer:
            assert answer.status == 202
    world.collect()
    ended = await world.program("sync", "--json")
    if ended.code:  # then it says so, and the tag is not called in step
        assert "clear its cache of blob descriptors" in ended.stdout
        assert ended.json["totals"]["tags"]["failed"] == 1
    else:
        assert await world.whole()


@pytest.mark.parametrize("layout", ["oci", "distribution"])
async def test_root_manifest_whose_file_was_deleted_is_written_again(tmp_path: Path, layout: str) -> None:
    async with FakeRegistry() as hub:
        load(hub.store, "app", "v1", INDEX)
        program = Program(tmp_path)
        site = directory("fra", tmp_path / "fra", layout)
        program.write_config({"hub": hub.url}, site + everything("hub", "fra"))
        assert (await program("sync")).code == 0
        files = [
            path
            for path in (tmp_path / "fra").rglob("*")
            if path.is_file() and path.read_bytes() == INDEX.manifest.body
        ]
        assert files
        for path in files:
            path.unlink()
        ended = await program("sync", "--recheck", "--json")
    assert (ended.code, ended.json["totals"]["tags"]["copied"]) == (0, 1), ended.stdout
    assert all(path.read_bytes() == INDEX.manifest.body for path in files)
