"""Large blobs read in parts at once: the same bytes in the same order, none of them twice."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from replicator.engine.content import parted, source
from replicator.engine.content.parted import Crowd, Pace, PartedBlob, PartSizes, width
from replicator.engine.content.spool import Spool, SpoolFull
from replicator.engine.content.verified import BlobPlace, VerifiedBlob
from replicator.engine.referrers import ReferrersAPIs
from replicator.errors import Advice, Corrupt, NotFound, SiteError, Unavailable
from replicator.events import Events
from replicator.model.descriptor import Descriptor
from replicator.model.digest import digest_of
from tests.fakes.clock import FakeClock
from tests.fakes.source import BytesSource

DATA = random.Random(5).randbytes(10_000)
SIZES = PartSizes(least=1, first=1_000, stage=3_000, part=700, most=8, width=4)
SLOW = Pace(1_000, 1.0, 1.0)


class RangedSource(BytesSource):
    """Takes ranges. `asked` are those that were asked for, `gave` counts the bytes that were given out."""

    def __init__(
        self, data: bytes = DATA, *, parallel_reads: int | None = 4, takes_ranges: bool = True
    ) -> None:
        super().__init__(data, chunk_bytes=100)
        self.parallel_reads = parallel_reads
        self.bytes_per_second: float | None = None
        self.takes_ranges = takes_ranges
        self.asked: list[tuple[int, int]] = []
        self.gave = 0
        self.at_once = self.most_at_once = 0
        self.faults: dict[int, SiteError] = {}
        """Raised, once, at these positions."""
        self.together = asyncio.Event()
        self.waits_for = 0
        """No range but the first gives anything before so many are open."""

    @asynccontextmanager
    async def open_range(self, start: int, stop: int) -> AsyncIterator[tuple[AsyncIterator[bytes], int]]:
        self.asked.append((start, stop))
        end = stop if self.takes_ranges else len(self._data)
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        if self.at_once >= self.waits_for:
            self.together.set()
        try:
            yield self._pieces(start, end), end
        finally:
            self.at_once -= 1

    async def _pieces(self, start: int, stop: int) -> AsyncIterator[bytes]:
        if start:
            await self.together.wait()
        while start < stop:
            end = min(stop, start + 100)
            broken = [at for at in self.faults if start <= at < end]
            end = min([end, *broken])
            if end > start:
                self.gave += end - start
                yield self._data[start:end]
            if broken:
                raise self.faults.pop(broken[0])
            start = end
            await asyncio.sleep(0)


class Here:
    def __init__(self, folder: Path, source: RangedSource, *, room: int = 1_000_000) -> None:
        self.source = source
        self.spool = Spool(folder, room)
        self.crowd = Crowd()
        self.parted = PartedBlob("source", source, self.spool.scratch, self.crowd, SIZES)
        self.counted = 0

        def on_read(_: str, count: int) -> None:
            self.counted += count

        descriptor = Descriptor("text/plain", digest_of(DATA), len(DATA))
        self.blob = VerifiedBlob(descriptor, [BlobPlace("source", "app", self.parted)], on_read)

    async def read(self, offset: int = 0) -> bytes:
        async with self.blob.open(offset) as chunks:
            return b"".join([bytes(chunk) async for chunk in chunks])


@asynccontextmanager
async def here(folder: Path, source: RangedSource, *, room: int = 1_000_000) -> AsyncIterator[Here]:
    made = Here(folder, source, room=room)
    before = asyncio.all_tasks()
    try:
        yield made
    finally:
        assert asyncio.all_tasks() == before, "a part is still being read"
        assert made.crowd.reading == 0
        assert source.at_once == 0
        await made.spool.aclose()


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("spool")


async def test_after_the_first_part_as_many_as_configured_are_read_at_once(folder: Path) -> None:
    source = RangedSource(parallel_reads=4)
    source.waits_for = 4
    async with here(folder, source) as rig:
        assert await rig.read() == DATA
    assert source.most_at_once == 4
    assert source.gave == rig.counted == len(DATA)
    assert source.asked[0] == (0, 1_000)
    assert sorted(source.asked[1:]) == [(at, min(at + 700, 10_000)) for at in range(1_000, 10_000, 700)]
    assert source.opened == []


async def test_a_site_that_ignores_ranges_has_given_the_whole_blob_already(folder: Path) -> None:
    source = RangedSource(takes_ranges=False)
    async with here(folder, source) as rig:
        assert await rig.read() == DATA
    assert source.asked == [(0, 1_000)]
    assert source.opened == []
    assert source.gave == len(DATA)


@pytest.mark.parametrize("error", [Corrupt, NotFound])
async def test_a_site_whose_ranges_are_wrong_is_asked_for_the_whole_blob(
    folder: Path, error: type[SiteError]
) -> None:
    source = RangedSource()
    source.faults[0] = error("source", "read blob", "no such range", advice=Advice.LATER)
    async with here(folder, source) as rig:
        if error is NotFound:
            with pytest.raises(NotFound):
                await rig.read()
        else:
            assert await rig.read() == DATA
            assert source.opened == [0]


async def test_a_site_that_takes_ranges_no_longer_is_read_on_by_one_connection(folder: Path) -> None:
    source = RangedSource()
    async with here(folder, source) as rig, rig.blob.open() as chunks:
        came = [bytes(await anext(chunks))]
        source.takes_ranges = False
        came += [bytes(chunk) async for chunk in chunks]
    assert b"".join(came) == DATA
    assert source.opened == [1_000]


_EACH = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@_EACH
@given(at=st.lists(st.integers(0, len(DATA) - 1), max_size=5), offset=st.integers(0, len(DATA)))
async def test_parts_that_break_go_on_where_they_broke(folder: Path, at: list[int], offset: int) -> None:
    source = RangedSource()
    source.faults = {one: Unavailable("source", "read blob", "reset") for one in at}
    async with here(folder, source) as rig:
        assert await rig.read() == DATA
        assert source.gave == len(DATA)
        assert await rig.read(offset) == DATA[offset:]


async def test_a_part_that_fails_for_good_is_the_sites_failure(folder: Path) -> None:
    source = RangedSource()
    gone = source.faults[5_000] = NotFound("source", "read blob", "gone")
    async with here(folder, source) as rig:
        with pytest.raises(NotFound) as raised:
            await rig.read()
    assert raised.value is gone
    assert rig.blob.failure is gone


async def test_no_more_is_read_ahead_than_there_is_room_for(folder: Path) -> None:
    source = RangedSource(parallel_reads=2)
    async with here(folder, source) as rig, rig.blob.open() as chunks:
        async for _ in chunks:
            if source.gave > 1_000:
                break
        for _ in range(1_000):
            await asyncio.sleep(0)
        assert source.gave <= 1_000 + 700 * (2 * 2 + 1)


@contextmanager
def _full(size: int) -> Iterator[int]:
    if size:
        raise SpoolFull("full")
    yield size


@pytest.mark.parametrize("room", [100, 1_000_000])
async def test_without_room_on_the_disk_one_connection_reads(folder: Path, room: int) -> None:
    source = RangedSource()

    async with here(folder, source, room=room) as rig:
        if room > 100:
            rig.parted = PartedBlob("source", source, _full, rig.crowd, SIZES)
            descriptor = Descriptor("text/plain", digest_of(DATA), len(DATA))
            place = BlobPlace("source", "app", rig.parted)
            rig.blob = VerifiedBlob(descriptor, [place], lambda *_: None)
        assert await rig.read() == DATA
    assert source.opened == [1_000]


async def test_left_early_nothing_goes_on(folder: Path) -> None:
    source = RangedSource()
    async with here(folder, source) as rig, rig.blob.open() as chunks:
        async for _ in chunks:
            if source.at_once > 2:
                break


async def test_after_a_broken_destination_only_what_was_read_ahead_is_read_again(folder: Path) -> None:
    source = RangedSource(parallel_reads=4)
    async with here(folder, source) as rig:
        came = b""
        async with rig.blob.open() as chunks:
            async for chunk in chunks:
                came += bytes(chunk)
                if len(came) > 4_000:
                    break
            for _ in range(1_000):
                await asyncio.sleep(0)
        assert came + await rig.read(len(came)) == DATA
    assert len(DATA) < source.gave <= len(DATA) + 2 * 4 * 700


async def test_a_connection_that_is_fast_reads_alone_in_few_requests(folder: Path) -> None:
    source = RangedSource(parallel_reads=None)
    async with here(folder, source) as rig:
        rig.crowd.reading = 8  # nobody has a connection to spare
        assert await rig.read() == DATA
        rig.crowd.reading = 0
    assert source.asked == [(0, 1_000), (1_000, 4_000), (4_000, 7_000), (7_000, 10_000)]


@pytest.mark.parametrize(
    ("configured", "pace", "free", "most", "expected"),
    [
        (3, SLOW, 0, 1_000, 3),
        (None, SLOW, 8, None, 4),
        (None, SLOW, 3, None, 3),
        (None, SLOW, 1, None, 1),
        (None, SLOW, -5, None, 1),
        (None, Pace(100_000_000, 1.0, 1.0), 8, None, 1),
        (None, Pace(1_000, 1.0, 0.2), 8, None, 1),
        (None, Pace(1_000, 0.0, 0.0), 8, None, 1),
        (None, SLOW, 8, 1_100, 1),
        (None, SLOW, 8, 5_000, 4),
    ],
    ids=[
        "configured",
        "slow",
        "few free",
        "none free",
        "crowded",
        "fast",
        "slow destination",
        "no time",
        "limited",
        "within its limit",
    ],
)
def test_how_many_parts_are_read_at_once(
    configured: int | None, pace: Pace, free: int, most: float | None, expected: int
) -> None:
    assert width(configured, pace, free, SIZES, most) == expected


async def test_a_site_that_gives_all_that_it_is_limited_to_is_read_by_one_connection(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More connections would share the limit, and the parts go over the disk."""
    asked = []
    for limit in (150.0, 10_000.0):
        source = RangedSource(parallel_reads=None)
        source.bytes_per_second = limit
        # 100 bytes a second, all of it spent waiting for the source
        monkeypatch.setattr(parted, "monotonic", lambda source=source: source.gave / 100)
        async with here(folder, source) as rig:
            assert await rig.read() == DATA
        asked.append(len(source.asked))
    assert asked == [4, 14]


class Place:
    """A site with one repository that has one blob."""

    def __init__(self, site: str) -> None:
        self.site, self.name = site, "app"
        self.source = RangedSource(parallel_reads=None)

    def repository(self, _: str) -> Place:
        return self

    def blob(self, _: Descriptor) -> RangedSource:
        return self.source


async def test_who_reads_from_a_mirror_takes_no_connection_from_the_source(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirror, origin = Place("mirror"), Place("source")
    sites: dict[str, Any] = {"mirror": mirror, "source": origin}
    monkeypatch.setattr(source, "PARTS", PartSizes(least=1, first=1_000, part=700, most=2))
    monkeypatch.setattr(parted, "monotonic", lambda: origin.source.gave / 100)
    spool = Spool(folder, 1_000_000)
    try:
        content = _content(sites, spool)
        descriptor = Descriptor("text/plain", digest_of(DATA), len(DATA))
        async with content.direct("app", descriptor, ["mirror"], lambda _: None).open() as busy:
            await anext(busy)
            async with content.direct("app", descriptor, [], lambda _: None).open() as chunks:
                assert b"".join([bytes(chunk) async for chunk in chunks]) == DATA
    finally:
        await spool.aclose()
    assert origin.source.most_at_once == 2


@pytest.mark.parametrize(
    ("spooled", "parallel_reads", "least"), [(False, 4, 1), (True, 1, 1), (True, 4, len(DATA) + 1)]
)
async def test_a_blob_is_not_parted_without_a_spool_nor_where_it_is_small_or_the_site_has_it_so(
    folder: Path, monkeypatch: pytest.MonkeyPatch, parallel_reads: int, least: int, *, spooled: bool
) -> None:
    origin = Place("source")
    origin.source.parallel_reads = parallel_reads
    monkeypatch.setattr(source, "PARTS", PartSizes(least=least, first=1_000, part=700))
    spool = Spool(folder, 1_000_000)
    try:
        content = _content({"source": origin}, spool if spooled else None)
        descriptor = Descriptor("text/plain", digest_of(DATA), len(DATA))
        async with content.direct("app", descriptor, [], lambda _: None).open() as chunks:
            assert b"".join([bytes(chunk) async for chunk in chunks]) == DATA
    finally:
        await spool.aclose()
    assert (origin.source.asked, origin.source.opened) == ([], [0])


def _content(sites: dict[str, Any], spool: Spool | None) -> source.SourceContent:
    return source.SourceContent(
        sites,
        "source",
        spool=spool,
        share=lambda: False,
        events=Events(),
        warn=lambda _: None,
        apis=ReferrersAPIs(FakeClock()),
    )
