"""A blob from its places: resumed, verified, and nothing given out that is not its bytes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicator.engine.content import verified
from replicator.engine.content.verified import BlobPlace, VerifiedBlob
from replicator.errors import Advice, Corrupt, NotFound, SiteError, TooSlow, Unavailable
from replicator.model.descriptor import Descriptor
from replicator.model.digest import digest_of
from replicator.ports import BlobSource
from tests.fakes.clock import FakeClock
from tests.fakes.source import BytesSource

DATA = bytes(range(256)) * 40
RESET = Unavailable("near", "read blob", "reset")


class Reading:
    """A verified blob over sources called "0", "1" ..., and what it told."""

    def __init__(self, *sources: BlobSource, size: int | None = len(DATA)) -> None:
        self.count = 0
        self.lost: list[str] = []
        places = [BlobPlace(str(number), "app", source) for number, source in enumerate(sources)]
        descriptor = Descriptor("text/plain", digest_of(DATA), size)
        self.blob = VerifiedBlob(descriptor, places, self._read, self._lose)

    def _read(self, _: str, count: int) -> None:
        self.count += count

    def _lose(self, place: BlobPlace, _: SiteError) -> None:
        self.lost.append(place.site)

    async def all(self, offset: int = 0) -> bytes:
        async with self.blob.open(offset) as chunks:
            return b"".join([chunk async for chunk in chunks])

    async def until_it_breaks(self, offset: int = 0) -> tuple[bytes, SiteError]:
        came = bytearray()

        async def read() -> None:
            async with self.blob.open(offset) as chunks:
                async for chunk in chunks:
                    came.extend(chunk)

        with pytest.raises(SiteError) as caught:
            await read()
        assert self.blob.failure is caught.value
        return bytes(came), caught.value


def _source(data: bytes = DATA, **options: object) -> BytesSource:
    return BytesSource(data, chunk_bytes=1_000, **options)  # type: ignore[arg-type]


async def test_whole_blob_is_given_out() -> None:
    reading = Reading(_source())
    assert await reading.all() == DATA
    assert reading.count == len(DATA)
    assert reading.blob.failure is None


class Hanging(BytesSource):
    """Breaks each reading, `seconds` later, after so many more bytes."""

    def __init__(self, clock: FakeClock, seconds: float, *, step: int = 0) -> None:
        super().__init__(DATA, chunk_bytes=1_000)
        self.readings = 0
        self._clock = clock
        self._seconds = seconds
        self._step = step

    @asynccontextmanager
    async def open(self, offset: int = 0) -> AsyncIterator[AsyncIterator[bytes]]:
        self.readings += 1
        yield self._some(offset)

    async def _some(self, offset: int) -> AsyncIterator[bytes]:
        if self._step:
            yield DATA[offset : offset + self._step]
        if offset + self._step < len(DATA):
            self._clock.advance(self._seconds)
            raise RESET


@pytest.mark.parametrize(("seconds", "readings"), [(0.1, 5), (60, 2), (120, 2), (600, 2)])
async def test_source_that_hangs_is_tried_again_but_not_for_long(
    seconds: float, readings: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = FakeClock()
    monkeypatch.setattr(verified, "monotonic", clock.monotonic)
    source = Hanging(clock, seconds)
    _, error = await Reading(source).until_it_breaks()
    assert error is RESET
    assert source.readings == readings


async def test_source_has_a_patience_of_its_own_after_a_mirror_that_hung(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = FakeClock()
    monkeypatch.setattr(verified, "monotonic", clock.monotonic)
    mirror, source = Hanging(clock, 60), Hanging(clock, 60)
    await Reading(mirror, source).until_it_breaks()
    assert (mirror.readings, source.readings) == (1, 2)


async def test_source_that_hangs_after_each_of_its_bytes_is_read_to_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = FakeClock()
    monkeypatch.setattr(verified, "monotonic", clock.monotonic)
    assert await Reading(Hanging(clock, 60, step=1_000)).all() == DATA


class Trickling:
    """A source that gives a few bytes a reading, and then is called too slow."""

    def __init__(self, step: int) -> None:
        self.descriptor = Descriptor("text/plain", digest_of(DATA), len(DATA))
        self.failure: SiteError | None = None
        self.opened: list[int] = []
        self._step = step

    @asynccontextmanager
    async def open(self, offset: int = 0) -> AsyncGenerator[AsyncIterator[bytes], None]:
        self.opened.append(offset)

        async def chunks() -> AsyncGenerator[bytes, None]:
            yield DATA[offset : offset + self._step]
            if offset + self._step < len(DATA):
                raise TooSlow("near", "read blob", "sends 10 bytes a second")

        async with aclosing(chunks()) as giving:
            yield giving


async def test_source_that_trickles_is_resumed_and_then_given_up() -> None:
    source = Trickling(100)
    _, error = await Reading(source).until_it_breaks()
    assert isinstance(error, TooSlow)
    assert source.opened == [0, 100, 200]


async def test_source_that_trickles_is_left_for_the_next_place() -> None:
    mirror, source = Trickling(100), _source()
    reading = Reading(mirror, source)
    assert await reading.all() == DATA
    assert reading.lost == ["0"]
    assert source.opened == [100]


async def test_broken_reading_goes_on_at_its_offset_with_the_hash_kept() -> None:
    source = _source(breaks=RESET, breaks_at=3_000)
    reading = Reading(source)
    assert await reading.all() == DATA
    assert source.opened == [0, 3_000]
    assert reading.count == len(DATA)


async def test_upload_that_resumes_is_given_the_rest_and_the_hash_still_counts() -> None:
    source = _source()
    reading = Reading(source)
    async with reading.blob.open() as chunks:
        given_out = await anext(aiter(chunks))
    assert await reading.all(len(given_out)) == DATA[len(given_out) :]
    assert source.opened == [0, len(given_out)]


async def test_upload_that_resumes_before_what_was_read_hashes_nothing_twice() -> None:
    reading = Reading(_source())
    async with reading.blob.open() as chunks:
        iterator = aiter(chunks)
        for _ in range(2):
            await anext(iterator)
    assert await reading.all(1_500) == DATA[1_500:]


async def test_upload_that_resumes_beyond_what_was_read_costs_a_whole_reading() -> None:
    source = _source()
    reading = Reading(source)
    assert await reading.all(5_000) == DATA[5_000:]
    assert source.opened == [0]


@pytest.mark.parametrize("offset", [0, 1, 999, 1_000, 5_432, len(DATA) - 1, len(DATA)])
async def test_every_offset_gives_exactly_the_rest(offset: int) -> None:
    assert await Reading(_source()).all(offset) == DATA[offset:]
    again = Reading(_source())
    await again.all()
    assert await again.all(offset) == DATA[offset:]


async def test_site_is_not_asked_for_what_comes_after_the_last_byte() -> None:
    source = _source(breaks=RESET, breaks_at=10**9)
    reading = Reading(source)
    await reading.all()
    assert await reading.all(len(DATA)) == b""
    assert source.opened == [0]


@pytest.mark.parametrize("wrong", [DATA[:-1] + b"!", b"!" + DATA[1:], DATA[:-1], DATA[:-1_000], DATA + b"!"])
async def test_end_of_a_wrong_blob_is_held_back(wrong: bytes) -> None:
    came, error = await Reading(_source(wrong)).until_it_breaks()
    assert isinstance(error, Corrupt)
    assert len(came) < len(DATA)
    assert (error.site, error.repository, error.operation) == ("0", "app", "read blob")


async def test_blob_that_never_ends_is_not_read_for_ever() -> None:
    reading = Reading(_source(DATA * 100))
    _, error = await reading.until_it_breaks()
    assert "more than" in error.cause
    assert reading.count <= len(DATA) + 1_000


async def test_wrong_blob_of_unknown_size_is_held_back_too() -> None:
    came, error = await Reading(_source(DATA + b"!"), size=None).until_it_breaks()
    assert isinstance(error, Corrupt)
    assert len(came) < len(DATA)


async def test_wrong_bytes_may_be_the_wires_fault_once_and_no_more() -> None:
    reading = Reading(_source(b"!" + DATA[1:]))
    advice = [(await reading.until_it_breaks())[1].advice for _ in range(2)]
    assert advice == [Advice.RETRY, Advice.LATER]


async def test_place_that_lies_twice_is_left_for_the_next() -> None:
    reading = Reading(_source(b"!" + DATA[1:]), _source())
    for _ in range(2):
        assert (await reading.until_it_breaks())[1].advice is Advice.RETRY
    assert await reading.all() == DATA
    assert reading.lost == ["0"]


@pytest.mark.parametrize(
    "error", [RESET, NotFound("near", "read blob", "gone"), Corrupt("near", "read", "long")]
)
async def test_place_that_fails_is_left_where_it_broke(error: SiteError) -> None:
    second = _source()
    reading = Reading(_source(breaks=error, breaks_at=4_000), second)
    assert await reading.all() == DATA
    assert second.opened == [4_000]
    assert reading.lost == ["0"]
    assert reading.count == len(DATA)


async def test_place_that_lied_before_it_broke_does_not_cost_the_next_one_its_chance() -> None:
    reading = Reading(_source(b"!" + DATA[1:], breaks=RESET, breaks_at=4_000), _source())
    _, error = await reading.until_it_breaks()
    assert error.advice is Advice.RETRY
    assert await reading.all() == DATA


async def test_place_that_lied_once_and_then_breaks_leaves_the_next_one_both_its_chances() -> None:
    class Liar(BytesSource):
        async def _chunks(self, offset: int) -> AsyncIterator[bytes]:
            yield b"!" + DATA[1:4_000]
            if len(self.opened) > 1:
                raise RESET
            yield DATA[4_000:]

    reading = Reading(Liar(DATA), _source())
    for _ in range(2):  # what the first place gave, then that with the second place's rest
        assert (await reading.until_it_breaks())[1].advice is Advice.RETRY
    assert await reading.all() == DATA


async def test_last_places_failure_is_raised_as_it_is() -> None:
    gone = NotFound("far", "read blob", "gone")
    assert (await Reading(_source(breaks=gone)).until_it_breaks())[1] is gone


async def test_reading_that_gets_nowhere_ends() -> None:
    class Stuck(BytesSource):
        async def _chunks(self, offset: int) -> AsyncIterator[bytes]:
            if self.opened:
                raise RESET
            yield b""

    source = Stuck(DATA)
    assert (await Reading(source).until_it_breaks())[1] is RESET
    assert len(source.opened) == 5


async def test_reading_that_is_left_early_is_closed_at_once() -> None:
    """Not when a collector comes by: until then it would hold a slot of the source."""

    class Slot(BytesSource):
        taken = 0

        @asynccontextmanager
        async def open(self, offset: int = 0) -> AsyncIterator[AsyncIterator[bytes]]:
            self.taken += 1
            try:
                async with super().open(offset) as chunks:
                    yield chunks
            finally:
                await asyncio.sleep(0)
                self.taken -= 1

    source = Slot(DATA, chunk_bytes=1_000)
    async with Reading(source).blob.open() as chunks:
        await anext(aiter(chunks))
        assert source.taken == 1
    assert source.taken == 0


@given(
    data=st.binary(max_size=200),
    chunk=st.integers(1, 60),
    breaks=st.lists(st.integers(0, 200), max_size=3),
    resumes=st.lists(st.integers(0, 200), max_size=3),
)
def test_whatever_breaks_what_is_given_out_is_the_blob(
    data: bytes, chunk: int, breaks: list[int], resumes: list[int]
) -> None:
    async def run() -> None:
        places = [
            BlobPlace(str(at), "app", BytesSource(data, chunk_bytes=chunk, breaks=RESET, breaks_at=at))
            for at in breaks
        ] + [BlobPlace("last", "app", BytesSource(data, chunk_bytes=chunk))]
        blob = VerifiedBlob(Descriptor("text/plain", digest_of(data), len(data)), places, lambda *_: None)
        for offset in (0, *(min(at, len(data)) for at in resumes)):
            async with blob.open(offset) as chunks:
                assert b"".join([part async for part in chunks]) == data[offset:]

    asyncio.run(run())
