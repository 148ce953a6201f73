"""The queue of one rule at one destination: reads ahead, but not without end."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from replicator.demo.images import image
from replicator.engine.observe.wanted import WantedTag
from replicator.engine.plan.action import Action
from replicator.engine.queue import COPIES_AT_ONCE, WINDOW_IMAGES, Copies, CopyQueue, Prepared
from replicator.model.digest import digest_of
from replicator.model.image import Image
from replicator.model.manifest import Manifest
from tests.engine.world import settled

DIGEST = digest_of(b"any")


class Work:
    """A dispatch whose copies wait until they may go on."""

    def __init__(self, manifest_bytes: int = 100) -> None:
        self.body = image("any").manifest
        self.body = msgspec.structs.replace(self.body, body=b"x" * manifest_bytes)
        self.prepared = 0
        self.copied = 0
        self.running = 0
        self.most = 0
        self.go = asyncio.Event()
        self.draining = asyncio.Event()
        self.copies = Copies(CopyQueue(), self._prepare, self._copy, self.draining)

    def add(self, count: int) -> None:
        for number in range(count):
            wanted = WantedTag(f"v{number}", f"v{number}", DIGEST)
            self.copies.add(Action("app", "app", wanted, DIGEST, "", 0.0, 0.0))

    async def _prepare(self, action: Action) -> Image | None:
        self.prepared += 1
        await asyncio.sleep(0)
        manifests: dict[str, Manifest] = {DIGEST: self.body}
        return Image(self.body, manifests, {})  # type: ignore[arg-type]

    async def _copy(self, _: Prepared) -> None:
        self.running += 1
        self.most = max(self.most, self.running)
        await self.go.wait()
        self.running -= 1
        self.copied += 1


async def test_no_more_images_are_in_hand_than_the_window_and_the_copies_hold() -> None:
    work = Work()
    work.add(500)
    run = asyncio.create_task(work.copies.run())
    await settled()
    assert work.prepared <= WINDOW_IMAGES + COPIES_AT_ONCE
    work.go.set()
    work.copies.close()
    await run
    assert (work.copied, work.most) == (500, COPIES_AT_ONCE)


async def test_large_manifests_are_not_read_ahead_without_end() -> None:
    work = Work(6 * 1024 * 1024)
    work.add(300)
    run = asyncio.create_task(work.copies.run())
    await settled()
    assert work.prepared <= WINDOW_IMAGES + COPIES_AT_ONCE + 3
    before = work.prepared
    await settled()
    assert work.prepared == before
    work.go.set()
    work.copies.close()
    await run
    assert work.copied == 300


async def test_empty_queue_ends_when_it_is_closed() -> None:
    work = Work()
    run = asyncio.create_task(work.copies.run())
    await settled()
    assert not run.done()
    work.copies.close()
    async with asyncio.timeout(30):
        await run


async def test_queue_that_is_drained_ends_without_being_closed() -> None:
    work = Work()
    work.add(200)
    run = asyncio.create_task(work.copies.run())
    await settled()
    work.draining.set()
    work.go.set()
    async with asyncio.timeout(30):
        await run
    assert work.copied == COPIES_AT_ONCE


async def test_fault_in_a_copy_ends_the_queue_with_it() -> None:
    work = Work()

    async def broken(_: Prepared) -> None:
        raise ZeroDivisionError

    copies = Copies(CopyQueue(), work._prepare, broken, work.draining)
    copies.add(Action("app", "app", WantedTag("v1", "v1", DIGEST), DIGEST, "", 0.0, 0.0))
    with pytest.raises(ExceptionGroup):
        await copies.run()
