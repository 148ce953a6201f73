"""Which requests a copy into a new repository leaves out, and which of its writes wait for each other."""

from __future__ import annotations

import asyncio

import pytest

from replicator.demo.images import ARM64, image, index
from tests.acceptance.wired import wired
from tests.fakes.faults import Hold

MANIFEST = "/app/manifests/"


@pytest.mark.parametrize("more", [1, 12])
async def test_nothing_is_looked_for_in_a_repository_known_to_be_new(more: int) -> None:
    async with wired() as w:
        for number in range(more):
            w.put("app", f"more-{number}", image(f"more-{number}"))
        result = await w.sync_one()
        assert result.outcome == "ok", result.failures
        assert w.tags() == w.whole
        assert w.target.count("HEAD|GET", "/manifests/") == 0
        # Of whichever blobs come first, until it is known what the registry does with a single POST; no more with more images.
        assert w.target.count("HEAD", "/blobs/") <= 2
        assert w.target.count("PUT", "/manifests/") == 2 + more


@pytest.mark.parametrize("held", ["v1", "v2"])
async def test_the_next_tag_does_not_wait_for_the_manifest_of_the_last(held: str) -> None:
    other = {"v1": "v2", "v2": "v1"}[held]
    async with wired() as w:
        w.put("app", "v2", image("second"))
        first, second = Hold(), Hold()
        w.target.fault("PUT", f"{MANIFEST}{held}", first)
        w.target.fault("PUT", f"{MANIFEST}{other}", second)
        async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
            syncing = tasks.create_task(w.sync_one())
            await first.reached.wait()
            second.release()
            await second.reached.wait()  # though the first is not answered
            first.release()
        assert syncing.result().outcome == "ok"
        assert w.tags() == w.whole


async def test_children_of_an_index_do_not_wait_for_each_other_and_it_waits_for_both() -> None:
    children = [image("one"), image("two", platform=ARM64)]
    async with wired() as w:
        w.put("app", "v1", index(children))
        holds = [Hold(), Hold()]
        for child, hold in zip(children, holds, strict=True):
            w.target.fault("PUT", f"{MANIFEST}{child.manifest.digest}", hold)
        async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
            syncing = tasks.create_task(w.sync_one())
            for hold in holds:
                await hold.reached.wait()
            assert w.target.count("PUT", f"{MANIFEST}v1") == 0
            for hold in holds:
                hold.release()
        assert syncing.result().outcome == "ok"
        puts = [entry.path.rpartition("/")[2] for entry in w.target.find("PUT", MANIFEST)]
        assert puts[-1] == "v1"
        assert set(puts[:-1]) == {str(child.manifest.digest) for child in children}
