"""Parts of one blob, read from a registry side by side: what is asked for, what comes, and what a registry may get wrong."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web

from replicator.engine.content.parted import Crowd, PartedBlob, PartSizes
from replicator.engine.content.spool import Spool
from replicator.engine.content.verified import BlobPlace, VerifiedBlob
from replicator.errors import Corrupt
from replicator.events import Event, InFlight
from replicator.flow.settings import LimitSettings
from replicator.model.descriptor import Descriptor
from replicator.model.digest import digest_of
from replicator.ports import ReadsRanges, Repository
from tests.fakes import faults
from tests.fakes.clients import registry_site
from tests.fakes.registry import Exchange, FakeRegistry

DATA = random.Random(12).randbytes(6_000_000)
BLOB = digest_of(DATA)
PATH = f"/v2/app/blobs/{BLOB}"
SIZES = PartSizes(least=1, first=1_000_000, stage=2_000_000, part=1_000_000)


class Rig:
    def __init__(
        self, source: FakeRegistry, destination: FakeRegistry, target: Repository, blob: ReadsRanges
    ) -> None:
        self.source = source
        self.destination = destination
        self.target = target
        self.blob = blob

    def asked(self) -> list[str | None]:
        return [entry.headers.get("Range") for entry in self.source.find("GET", PATH)]

    async def copy(self, folder: Path, at_once: int | None) -> int:
        """Copies the blob in parts; the bytes that were counted as read."""
        spool, counts = Spool(folder, 100_000_000), [0]
        blob = Parallel(self.blob, at_once)

        def count(_: str, size: int) -> None:
            counts[0] += size

        parted = PartedBlob("there", blob, spool.scratch, Crowd(), SIZES)
        verified = VerifiedBlob(self.blob.descriptor, [BlobPlace("there", "app", parted)], count)
        try:
            assert await self.target.write_blob(verified) == "copied"
        finally:
            await spool.aclose()
        assert b"".join(self.destination.store.blob("app", BLOB).read()) == DATA
        return counts[0]


class Parallel:
    """The blob of a site whose `parallel_reads` is `at_once`."""

    def __init__(self, blob: ReadsRanges, at_once: int | None) -> None:
        self.parallel_reads = at_once
        self.bytes_per_second = blob.bytes_per_second
        self.descriptor = blob.descriptor
        self.failure = None
        self.open = blob.open
        self.open_range = blob.open_range


@asynccontextmanager
async def rig(limits: LimitSettings | None = None, seen: list[Event] | None = None) -> AsyncIterator[Rig]:
    async with (
        FakeRegistry() as source,
        FakeRegistry() as destination,
        registry_site(source.url, limits=limits, seen=seen) as origin,
        registry_site(destination.url) as target,
    ):
        source.store.put_blob("app", DATA)
        blob = origin.repository("app").blob(Descriptor("text/plain", BLOB, len(DATA)))
        assert isinstance(blob, ReadsRanges)
        yield Rig(source, destination, target.repository("app"), blob)


async def test_each_part_is_asked_for_once_and_no_byte_comes_twice(tmp_path: Path) -> None:
    async with rig() as here:
        assert await here.copy(tmp_path, 3) == len(DATA)
        ranges = sorted(str(one) for one in here.asked())
        assert ranges == [f"bytes={at}-{at + 999_999}" for at in range(0, 6_000_000, 1_000_000)]
        assert here.source.blob_bytes_out == len(DATA)
        assert here.destination.uploaded_bytes == len(DATA)


async def test_parts_are_reads_of_the_site_like_any_other(tmp_path: Path) -> None:
    seen: list[Event] = []
    async with rig(LimitSettings(concurrency=2), seen) as here:
        assert await here.copy(tmp_path, 5) == len(DATA)
    changes = [one.change for one in seen if isinstance(one, InFlight) and one.kind == "reads"]
    assert max(itertools.accumulate(changes)) == 2


async def test_for_several_destinations_each_part_is_read_once_whatever_breaks(tmp_path: Path) -> None:
    spool = Spool(tmp_path, 100_000_000)
    async with rig() as here, rig() as there:
        parted = PartedBlob("there", Parallel(here.blob, 3), spool.scratch, Crowd(), SIZES)
        verified = VerifiedBlob(here.blob.descriptor, [BlobPlace("there", "app", parted)], lambda _, __: None)
        there.destination.fault("PUT|PATCH", "/blobs/uploads/", faults.reset_upload(2_500_000))
        try:
            async with asyncio.TaskGroup() as tasks:
                for one in (here, there):
                    tasks.create_task(one.target.write_blob(spool.follow(verified)))
        finally:
            await spool.aclose()
        for one in (here, there):
            assert b"".join(one.destination.store.blob("app", BLOB).read()) == DATA
        assert here.source.blob_bytes_out == len(DATA)


async def test_a_part_that_breaks_off_goes_on_there(tmp_path: Path) -> None:
    async with rig() as here:
        here.source.fault("GET", PATH, faults.truncate(400_000))
        here.source.fault("GET", PATH, faults.truncate(300_000))
        assert await here.copy(tmp_path, 3) == len(DATA)
        assert here.source.blob_bytes_out == len(DATA)


async def test_a_registry_that_ignores_ranges_is_asked_once(tmp_path: Path) -> None:
    async def whole(_: Exchange) -> web.StreamResponse:
        return web.Response(body=DATA)

    async with rig() as here:
        here.source.fault("GET", PATH, whole, times=None)
        assert await here.copy(tmp_path, 3) == len(DATA)
        assert here.asked() == ["bytes=0-999999"]


async def test_a_registry_whose_ranges_are_wrong_is_asked_for_the_whole_blob(tmp_path: Path) -> None:
    async with rig() as here:
        here.source.fault("GET", PATH, faults.header("Content-Range", "bytes 7-9/10"))
        assert await here.copy(tmp_path, 3) == len(DATA)
        assert here.asked() == ["bytes=0-999999", None]


async def test_more_than_was_asked_for_is_corrupt() -> None:
    async def more(_: Exchange) -> web.StreamResponse:
        return web.Response(status=206, body=DATA[:20], headers={"Content-Range": f"bytes 0-19/{len(DATA)}"})

    async with rig() as here:
        here.source.fault("GET", PATH, more)
        async with here.blob.open_range(0, 10) as (chunks, end):
            assert end == 10
            with pytest.raises(Corrupt, match="more than the 10 bytes that were asked for"):
                await anext(aiter(chunks))


async def test_a_range_without_its_end_is_read_on(tmp_path: Path) -> None:
    async def less(_: Exchange) -> web.StreamResponse:
        headers = {"Content-Range": f"bytes 0-499999/{len(DATA)}"}
        return web.Response(status=206, body=DATA[:500_000], headers=headers)

    async with rig() as here:
        here.source.fault("GET", PATH, less)
        assert await here.copy(tmp_path, 3) == len(DATA)
