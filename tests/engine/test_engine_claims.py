"""A blob that several agents want goes once to a destination, as far as they know of each other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from replicator.demo.images import BuiltImage, image, layer
from replicator.engine.engine import Engine
from replicator.engine.transfer.claims import CLAIMED_BLOB_BYTES
from replicator.events import DuplicateBytes
from replicator.model.digest import Digest
from replicator.model.shards import Shard, shard_of
from replicator.ports import Assignment
from tests.engine.test_engine_shards import Owned
from tests.engine.world import World, rule, until, world
from tests.fakes.clock import FakeClock

LARGE = layer("large", CLAIMED_BLOB_BYTES)
SMALL = layer("small", 100_000)


class Claims:
    """`ports.BlobClaims` of all agents. `stolen`: always claimed by an agent that never ends."""

    def __init__(self, *stolen: Digest) -> None:
        self.stolen = set(stolen)
        self.held: set[tuple[str, Digest]] = set()
        self.asked: list[Digest] = []

    @asynccontextmanager
    async def claim(self, destination: str, digest: Digest) -> AsyncIterator[bool]:
        """See `ports.BlobClaims`."""
        self.asked.append(digest)
        key = (destination, digest)
        if key in self.held or digest in self.stolen:
            yield False
            return
        self.held.add(key)
        try:
            yield True
        finally:
            self.held.discard(key)


def _agent(w: World, claims: Claims) -> Engine:
    return Engine(
        sites=w.sites, state=w.state, events=w.events, clock=w.clock, spool=None, blob_claims=claims
    )


def _shared() -> BuiltImage:
    return image("shared", [LARGE, SMALL])


def _fill(w: World) -> tuple[str, str]:
    """Two repositories of two shards, with one image."""
    first = "app-0"
    other = next(name for name in map("app-{}".format, range(99)) if shard_of(name, 2) != shard_of(first, 2))
    for name in (first, other):
        w.put(name, "v1", _shared())
    return first, other


async def _run(engine: Engine, repository: str) -> None:
    await engine.sync([rule()], assignment=Assignment(Shard(shard_of(repository, 2), 2), Owned()))


async def test_two_agents_bring_a_large_blob_once() -> None:
    async with world(clock=FakeClock()) as w:
        first, other = _fill(w)
        claims, large = Claims(), _shared().manifest.blobs[1].digest
        pause = w.left.pause("write_blob", subject=large)
        runs = [asyncio.create_task(_run(_agent(w, claims), name)) for name in (first, other)]
        await pause.reached.wait()
        await until(lambda: claims.asked.count(large) >= 2)
        pause.release()
        for run in runs:
            await run
        assert w.tags() == w.tags("source")
        assert w.source.count("open_blob", large) == 1
        assert w.left.count("mount", large) == 1
        assert set(claims.asked) == {large}  # small ones are sent sooner than asked about
        assert not [each for each in w.seen if isinstance(each, DuplicateBytes)]


async def test_what_another_agent_has_just_brought_is_not_sent_again() -> None:
    """It ended between this one's look into the state and its claim."""
    async with world(clock=FakeClock()) as w:
        first, other = _fill(w)
        claims, large = Claims(), _shared().manifest.blobs[1].digest
        at_the_door, may_claim = asyncio.Event(), asyncio.Event()
        late = Claims()
        late.held = claims.held
        claim = late.claim

        @asynccontextmanager
        async def slow(destination: str, digest: Digest) -> AsyncIterator[bool]:
            at_the_door.set()
            await may_claim.wait()
            async with claim(destination, digest) as mine:
                yield mine

        late.claim = slow  # type: ignore[method-assign]
        run = asyncio.create_task(_run(_agent(w, late), other))
        await at_the_door.wait()
        await _run(_agent(w, claims), first)
        may_claim.set()
        await run
        assert w.tags() == w.tags("source")
        assert w.source.count("open_blob", large) == 1


async def test_what_a_destination_has_lost_is_not_mounted_on_the_word_of_the_state() -> None:
    """Its word about other repositories is worth as little."""
    async with world(clock=FakeClock()) as w:
        first, other = _fill(w)
        claims, large = Claims(), _shared().manifest.blobs[1].digest
        for name in (first, other):
            await _run(_agent(w, claims), name)
        w.left.store.repositories[first].blobs.discard(large)
        w.clear_log()
        run = Assignment(Shard(shard_of(first, 2), 2), Owned())
        await _agent(w, claims).sync([rule()], recheck=True, assignment=run)
        assert large in w.left.store.repositories[first].blobs
        assert w.left.count("mount", large) == 0
        assert w.source.count("open_blob", large) == 1


async def test_without_mounts_it_is_read_from_the_repository_that_has_it() -> None:
    async with world(clock=FakeClock(), mount=False) as w:
        first, other = _fill(w)
        claims, large = Claims(), _shared().manifest.blobs[1].digest
        for name in (first, other):
            await _run(_agent(w, claims), name)
        assert w.tags() == w.tags("source")
        assert w.source.count("open_blob", large) == 1


async def test_what_another_agent_does_not_bring_in_time_is_brought_and_counted() -> None:
    async with world(clock=FakeClock()) as w:
        first, _ = _fill(w)
        large = _shared().manifest.blobs[1]
        claims = Claims(large.digest)
        await _run(_agent(w, claims), first)
        assert w.tags()[first] == w.tags("source")[first]
        assert [each for each in w.seen if isinstance(each, DuplicateBytes)] == [
            DuplicateBytes("left", large.size or 0)
        ]
        assert len(claims.asked) < 70


async def test_one_agent_alone_claims_nothing() -> None:
    async with world() as w:
        _fill(w)
        await w.sync()
        assert w.source.count("open_blob", _shared().manifest.blobs[1].digest) == 1
