"""Real processes that are killed in the middle of writing a layout, or write one at the same time."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from aiohttp import web

from replicator.config.load import load as load_config
from replicator.demo.images import AMD64, ARM64, image, index, layer, load
from replicator.errors import NotFound, Unsupported
from replicator.events import Events
from replicator.flow.clock import SystemClock
from replicator.model.digest import digest_of
from replicator.ports import Repository, Site
from replicator.sites.open import open_site
from replicator.sites.registry.site import RegistrySite
from tests.acceptance.program import Program
from tests.acceptance.stores import ENVIRON, bucket, directory, everything, s3_driver
from tests.fakes.distribution import distribution
from tests.fakes.process import require
from tests.fakes.registry import Exchange, FakeRegistry

SHARED = layer("shared", 200_000)
IMAGES = {
    "one": image("one", [SHARED, layer("one's own")]),
    "two": image("two", [SHARED, layer("two's own", 120_000)]),
    "multi": index([image("amd", [SHARED], platform=AMD64), image("arm", [layer("arm")], platform=ARM64)]),
}
REQUESTS = 40
"""About so many the source gets in one run that copies all."""


@dataclass
class Countdown:
    """An action that tells when so many requests have come."""

    left: int
    reached: asyncio.Event = field(default_factory=asyncio.Event)

    async def __call__(self, exchange: Exchange) -> web.StreamResponse:
        self.left -= 1
        if self.left <= 0:
            self.reached.set()
        return await exchange.proceed()


@asynccontextmanager
async def opened(program: Program, name: str) -> AsyncIterator[Site]:
    """A site of the program's config."""
    environ = ENVIRON | {"HOME": str(program.folder)}
    settings = load_config(program.folder / "replicator.toml", environ).sites[name]
    site = open_site(settings, events=Events(), clock=SystemClock())
    try:
        yield site
    finally:
        await site.aclose()


async def whole_tags(site: Site) -> Mapping[str, Mapping[str, str]]:
    """What the site has. Every tag must lead to all that it names, byte by byte."""
    found: dict[str, dict[str, str]] = {}
    with contextlib.suppress(
        NotFound, Unsupported
    ):  # killed before there was a directory, or a first index in it
        async for page in site.repositories():
            for name in page:
                found[name] = await whole_tags_of(site.repository(name))
    return {name: tags for name, tags in found.items() if tags}


async def whole_tags_of(repository: Repository) -> dict[str, str]:
    try:
        tags = [tag async for page in repository.tags() for tag in page]
    except NotFound:
        return {}
    for tag in tags:
        await read_whole(repository, tag)
    return {tag: (await repository.resolve(tag)).digest for tag in tags}


async def read_whole(repository: Repository, reference: str) -> None:
    manifest = await repository.read_manifest(reference)
    for child in manifest.children:
        await read_whole(repository, child.digest)
    for blob in manifest.blobs:
        async with repository.blob(blob).open() as chunks:
            data = b"".join([chunk async for chunk in chunks])
        assert digest_of(data) == blob.digest


@dataclass
class World:
    program: Program
    hub: FakeRegistry
    near: str
    registry: RegistrySite | None

    async def kill_once(self, dice: random.Random) -> None:
        """Starts a run and kills it after so many of the source's answers."""
        countdown = Countdown(dice.randint(1, REQUESTS))
        self.hub.fault("GET", "", countdown, times=None)
        async with self.program.started("sync", environ=ENVIRON) as running:
            ended = asyncio.create_task(running.process.wait())
            reached = asyncio.create_task(countdown.reached.wait())
            await asyncio.wait([ended, reached], return_when=asyncio.FIRST_COMPLETED)
            await asyncio.sleep(dice.random() * 0.05)
            if running.process.returncode is None:
                running.process.kill()
            await ended
            reached.cancel()

    async def look(self) -> Mapping[str, Mapping[str, str]]:
        """What is there, through our own eyes and a registry's."""
        async with opened(self.program, "near") as site:
            ours = await whole_tags(site)
        if self.registry is not None:
            for name, tags in ours.items():
                assert await whole_tags_of(self.registry.repository(name)) == tags
        return ours


@pytest.fixture
async def world(
    request: pytest.FixtureRequest, tmp_path: Path, s3_endpoint: str, s3_bucket: str
) -> AsyncIterator[World]:
    """A hub, and a site "near" of the kind that the test's parameter says; with docker-registry on it, if it can."""
    kind, layout = request.param
    near = directory("near", tmp_path / "near", layout)
    driver: Mapping[str, object] = {"filesystem": {"rootdirectory": str(tmp_path / "near")}}
    if kind == "s3":
        near = bucket("near", s3_endpoint, f"s3://{s3_bucket}", layout)
        driver = {"s3": s3_driver(s3_endpoint, s3_bucket), "redirect": {"disable": True}}
    async with AsyncExitStack() as stack:
        hub = await stack.enter_async_context(FakeRegistry())
        for name, built in IMAGES.items():
            for repository in ("team/app", "other"):
                load(hub.store, repository, name, built)
        registry = None
        if layout == "distribution":
            require("docker-registry")
            (tmp_path / "registry").mkdir()
            (tmp_path / "near").mkdir()
            server = stack.enter_context(distribution(tmp_path / "registry", driver=driver))
            registry = RegistrySite(server.settings(), events=Events(), clock=SystemClock())
            stack.push_async_callback(registry.aclose)
        (tmp_path / "home").mkdir()
        program = Program(tmp_path / "home")
        program.write_config({"hub": hub.url}, near + everything("hub", "near"))
        yield World(program, hub, near, registry)


KINDS = [(store, layout) for store in ("dir", "s3") for layout in ("oci", "distribution")]


@pytest.mark.parametrize("world", KINDS, indirect=True, ids="-".join)
@pytest.mark.parametrize("kills", [3, pytest.param(20, marks=[pytest.mark.soak, pytest.mark.timeout(600)])])
async def test_killed_at_any_moment_no_tag_is_broken_and_the_next_run_completes(
    world: World, kills: int
) -> None:
    dice = random.Random(f"{kills} {world.near}")
    expected = {tag: built.digest for tag, built in IMAGES.items()}
    for _ in range(kills):
        await world.kill_once(dice)
        for tags in (await world.look()).values():
            assert tags.items() <= expected.items()
    ended = await world.program("sync", "--json", environ=ENVIRON)
    assert ended.code == 0, ended.stderr
    assert await world.look() == {"team/app": expected, "other": expected}
    left = [path for path in (world.program.folder.parent / "near").glob(".*/**/*") if path.is_file()]
    assert not left


@pytest.mark.parametrize("kind", ["dir", "s3"])
async def test_two_agents_that_write_one_layout_at_once_lose_no_tag(
    tmp_path: Path, s3_endpoint: str, s3_bucket: str, kind: str
) -> None:
    near = directory("near", tmp_path / "near")
    if kind == "s3":
        near = bucket("near", s3_endpoint, f"s3://{s3_bucket}", "oci")
    async with AsyncExitStack() as stack:
        programs, expected = [], {}
        for agent in ("a", "b"):
            hub = await stack.enter_async_context(FakeRegistry())
            for number in range(25):
                built = image(f"{agent}{number}", [SHARED])
                load(hub.store, "team/app", f"{agent}{number}", built)
                expected[f"{agent}{number}"] = built.digest
            (tmp_path / agent).mkdir()
            programs.append(Program(tmp_path / agent))
            programs[-1].write_config({"hub": hub.url}, near + everything("hub", "near"))
        async with asyncio.TaskGroup() as group:
            runs = [group.create_task(program("sync", environ=ENVIRON)) for program in programs]
        assert [run.result().code for run in runs] == [0, 0], [run.result().stderr for run in runs]
        async with opened(programs[0], "near") as site:
            assert await whole_tags(site) == {"team/app": expected}
