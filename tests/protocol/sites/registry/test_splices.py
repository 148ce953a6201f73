"""A large blob from registry to registry: a thread moves it from socket to socket, and every rule holds all the same."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from replicator.engine.content.spool import READ_BYTES, Spool
from replicator.engine.content.verified import BlobPlace, VerifiedBlob
from replicator.errors import Corrupt, SiteError
from replicator.flow.retry import Budget
from replicator.flow.settings import LimitSettings
from replicator.model.descriptor import Descriptor
from replicator.model.digest import digest_of
from replicator.ports import BlobSource, Repository
from replicator.sites.registry import uploads
from replicator.sites.timeouts import Timeouts
from tests.fakes import faults
from tests.fakes.clients import registry_site
from tests.fakes.registry import Action, FakeRegistry

DATA = random.Random(11).randbytes(3_000_000)
BLOB = digest_of(DATA)
PATH = f"/v2/app/blobs/{BLOB}"
UPLOADS = "/v2/app/blobs/uploads/"
ORDINARY_BYTES = 256 * 1024
"""The first piece, by which all is decided, passes through the event loop."""


@dataclass
class Rig:
    source: FakeRegistry
    destination: FakeRegistry
    repository: Repository
    blob: VerifiedBlob
    read: list[int]
    reached: dict[int, asyncio.Event]

    async def copy(self) -> None:
        assert await self.repository.write_blob(self.blob) == "copied"
        assert b"".join(self.destination.store.blob("app", BLOB).read()) == DATA

    async def fails(self, error: type[SiteError]) -> SiteError:
        with pytest.raises(error) as raised:
            await self.repository.write_blob(self.blob)
        assert not self.destination.store.repositories
        assert not self.destination.store.uploads
        return raised.value


@asynccontextmanager
async def rig(
    *,
    timeouts: Timeouts | None = None,
    limits: tuple[LimitSettings, LimitSettings] = (LimitSettings(), LimitSettings()),
    retries: int = 3,
    **capabilities: bool | int | str,
) -> AsyncIterator[Rig]:
    patched = pytest.MonkeyPatch()
    patched.setattr(uploads, "ATTEMPTS", Budget(attempts=retries, wait_initial=0.0, wait_max=0.0))
    async with AsyncExitStack() as stack:
        stack.callback(patched.undo)
        source, destination = [await stack.enter_async_context(FakeRegistry()) for _ in range(2)]
        source.store.put_blob("app", DATA)
        origin = await stack.enter_async_context(
            registry_site(source.url, timeouts=timeouts, limits=limits[0])
        )
        target = await stack.enter_async_context(
            registry_site(destination.url, capabilities, timeouts=timeouts, limits=limits[1])
        )
        read: list[int] = []
        reached: dict[int, asyncio.Event] = {}

        def on_read(_: str, count: int) -> None:
            read.append(count)
            for position, event in reached.items():
                if sum(read) >= position:
                    event.set()

        place = BlobPlace.at(origin.repository("app"), Descriptor("text/plain", BLOB, len(DATA)))
        blob = VerifiedBlob(Descriptor("text/plain", BLOB, len(DATA)), [place], on_read)
        yield Rig(source, destination, target.repository("app"), blob, read, reached)


@pytest.mark.parametrize("upload", ["put", "patch"])
async def test_the_event_loop_sees_the_first_piece_and_the_last_byte(
    by_the_loop: list[int], upload: str
) -> None:
    async with rig(upload=upload) as here:
        await here.copy()
        assert sum(here.read) == here.source.blob_bytes_out == here.destination.uploaded_bytes == len(DATA)
        assert max(here.read) <= 1 << 20, "counters move at least every MiB"
    assert by_the_loop[-1] == 1
    assert sum(by_the_loop) <= ORDINARY_BYTES + 1


async def test_each_chunk_of_an_upload_in_chunks_is_spliced(by_the_loop: list[int]) -> None:
    async with rig(upload="chunks", chunk_bytes=1_000_000) as here:
        await here.copy()
        assert here.destination.count("PATCH") == 3
        assert here.source.blob_gets(BLOB) == 1
        assert here.destination.uploaded_bytes == len(DATA)
    assert sum(by_the_loop) <= 3 * (ORDINARY_BYTES + 1)


@pytest.mark.parametrize("limited", [(1e9, None), (None, 1e9)], ids=["source", "destination"])
async def test_where_bytes_wait_for_their_turn_each_of_them_does(
    by_the_loop: list[int], limited: tuple[float | None, float | None]
) -> None:
    source, destination = (LimitSettings(bytes_per_second=each) for each in limited)
    async with rig(limits=(source, destination)) as here:
        await here.copy()
    assert sum(by_the_loop) == len(DATA)


POSITIONS = st.one_of(
    st.integers(1, len(DATA) - 1),
    st.sampled_from([1, ORDINARY_BYTES, ORDINARY_BYTES + 1, len(DATA) - 2, len(DATA) - 1]),
)
_EACH = settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@_EACH
@given(POSITIONS, st.sampled_from(["put", "patch", "chunks"]))
async def test_a_source_that_breaks_off_anywhere_goes_on_there(at: int, upload: str) -> None:
    async with rig(upload=upload, chunk_bytes=1_000_000) as here:
        here.source.fault("GET", PATH, faults.truncate(at))
        await here.copy()
        ranges = [asked.headers.get("Range") for asked in here.source.find("GET", PATH)]
        assert ranges == [None, f"bytes={at}-{len(DATA) - 1}"]
        assert sum(here.read) == len(DATA)
        assert here.destination.uploaded_bytes == len(DATA)
        assert here.destination.count("POST") == 1


@_EACH
@given(POSITIONS, st.sampled_from([faults.reset, faults.truncate]))
async def test_a_source_that_fails_for_good_is_told_as_the_sources(
    at: int, cut: Callable[[int], Action]
) -> None:
    async with rig() as here:
        here.source.fault("GET", PATH, cut(at))
        here.source.fault("GET", PATH, faults.refuse(404, "BLOB_UNKNOWN"), times=None)
        error = await here.fails(SiteError)
        assert error is here.blob.failure
        assert error.operation == "read blob"


@_EACH
@given(POSITIONS)
async def test_a_wrong_byte_anywhere_never_makes_a_whole_blob(at: int) -> None:
    async with rig() as here:
        here.source.fault("GET", PATH, faults.corrupt(at), times=None)
        error = await here.fails(Corrupt)
        assert error.operation == "read blob"
        assert here.destination.uploaded_bytes < len(DATA)


@pytest.mark.parametrize("lie", [faults.lengthen(), faults.shorten(len(DATA) - 1)], ids=["long", "short"])
async def test_another_number_of_bytes_is_told_as_the_sources(lie: Action) -> None:
    async with rig() as here:
        here.source.fault("GET", PATH, lie, times=None)
        assert (await here.fails(Corrupt)).operation == "read blob"


@_EACH
@given(POSITIONS, st.sampled_from(["put", "patch"]))
async def test_an_upload_that_is_reset_anywhere_is_done_in_the_end(at: int, upload: str) -> None:
    async with rig(upload=upload) as here:
        here.destination.fault("PUT|PATCH", UPLOADS, faults.reset_upload(at))
        await here.copy()
        assert here.blob.failure is None


async def test_an_answer_in_the_middle_ends_the_sending_and_is_the_destinations() -> None:
    async with rig(retries=1) as here:
        here.destination.fault("PUT|PATCH", UPLOADS, faults.answer(403), times=None)
        error = await here.fails(SiteError)
        assert error.operation == "upload blob"
        assert here.blob.failure is None


async def test_a_source_that_falls_silent_is_late_by_the_rules_of_any_reading() -> None:
    async with rig(timeouts=Timeouts(read=2.0)) as here:
        here.source.fault("GET", PATH, faults.hang_after(2_000_000))
        await here.copy()
        ranges = [asked.headers.get("Range") for asked in here.source.find("GET", PATH)]
        assert ranges == [None, f"bytes=2000000-{len(DATA) - 1}"]
        assert here.destination.uploaded_bytes == sum(here.read) == len(DATA)


async def test_cancelled_while_the_source_is_silent_the_threads_end() -> None:
    async with rig() as here:
        here.source.fault("GET", PATH, faults.hang_after(2_000_000))
        reached = here.reached[2_000_000] = asyncio.Event()
        copying = asyncio.create_task(here.repository.write_blob(here.blob))
        await reached.wait()
        copying.cancel()
        with pytest.raises(asyncio.CancelledError):
            await copying
        assert not here.destination.store.uploads


async def test_a_blob_of_the_spool_goes_into_each_destination_by_the_kernel(
    by_the_loop: list[int], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    by_kernel: list[int] = []
    sendfile = os.sendfile

    def counted(out: int, into: int, offset: int, count: int) -> int:
        by_kernel.append(sent := sendfile(out, into, offset, count))
        return sent

    monkeypatch.setattr(os, "sendfile", counted)
    spool = Spool(tmp_path, 10_000_000)
    try:
        async with rig() as here, rig() as there:
            for one in (here, there):
                assert await one.repository.write_blob(spool.follow(here.blob)) == "copied"
                assert one.destination.uploaded_bytes == len(DATA)
                assert b"".join(one.destination.store.blob("app", BLOB).read()) == DATA
            assert here.source.blob_bytes_out == sum(here.read) == len(DATA)
            assert there.source.blob_bytes_out == 0
    finally:
        await spool.aclose()
    assert sum(by_the_loop) + sum(by_kernel) == 2 * len(DATA)
    assert sum(by_kernel) >= len(DATA) - READ_BYTES - 1, "of the second, whose file is whole, at least"


async def test_a_destination_that_fails_leaves_the_other_its_read(tmp_path: Path) -> None:
    spool = Spool(tmp_path, 10_000_000)
    try:
        async with rig(retries=1) as here, rig() as there:
            here.destination.fault("PUT|PATCH", UPLOADS, faults.answer(403), times=None)
            follower = spool.follow(here.blob)
            async with asyncio.TaskGroup() as tasks:
                failing = tasks.create_task(_outcome(here.repository, follower))
                going = tasks.create_task(_outcome(there.repository, spool.follow(here.blob)))
            assert isinstance(failing.result(), SiteError)
            assert follower.failure is None
            assert going.result() == "copied"
            assert here.source.blob_bytes_out == len(DATA)
    finally:
        await spool.aclose()


async def _outcome(repository: Repository, blob: BlobSource) -> str | SiteError:
    try:
        return await repository.write_blob(blob)
    except SiteError as error:
        return error
