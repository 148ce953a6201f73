"""A large blob between a registry and a directory or bucket: a thread moves it, and every rule holds all the same."""

from __future__ import annotations

import asyncio
import errno
import os
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from replicator.engine.content.verified import BlobPlace, VerifiedBlob
from replicator.errors import Corrupt, SiteError, Unavailable
from replicator.events import Events
from replicator.flow.clock import SystemClock
from replicator.flow.settings import LimitSettings
from replicator.model.descriptor import Descriptor
from replicator.model.digest import digest_of, encoded
from replicator.ports import ObjectStore, Repository
from replicator.sites.layouts.oci.site import OciSite
from replicator.sites.objects.local.files import OpenFile
from replicator.sites.objects.local.store import LocalStore
from replicator.sites.objects.local.upload import LocalUpload
from replicator.sites.objects.local.workspace import Temporary
from replicator.sites.objects.s3 import S3Store
from replicator.sites.objects.s3.upload import DEFAULT_PART_BYTES, S3Upload
from replicator.sites.objects.settings import LocalSettings
from tests.fakes import faults, s3
from tests.fakes.clients import registry_site
from tests.fakes.registry import FakeRegistry

DATA = random.Random(12).randbytes(3_000_000)
BLOB = digest_of(DATA)
PATH = f"/v2/app/blobs/{BLOB}"
FIRST_BYTES = 256 * 1024
"""The first piece, by which all is decided, passes through the event loop."""
FILE = f"app/blobs/sha256/{encoded(BLOB)}"
_EACH = settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.too_slow])


class Rig:
    """A registry and a store, of which one has a blob and the other an empty repository for it."""

    def __init__(
        self, registry: FakeRegistry, origin: Repository, repository: Repository, data: bytes
    ) -> None:
        self.registry = registry
        self.repository = repository
        descriptor = Descriptor("text/plain", digest_of(data), len(data))
        self.blob = VerifiedBlob(descriptor, [BlobPlace.at(origin, descriptor)], self._on_read)
        self.read: list[int] = []
        self.reached: dict[int, asyncio.Event] = {}

    def _on_read(self, _: str, count: int) -> None:
        self.read.append(count)
        for position, event in self.reached.items():
            if sum(self.read) >= position:
                event.set()


@asynccontextmanager
async def out_of_a_registry(store: ObjectStore, data: bytes = DATA) -> AsyncIterator[Rig]:
    async with AsyncExitStack() as stack:
        stack.push_async_callback(store.aclose)
        registry = await stack.enter_async_context(FakeRegistry())
        registry.store.put_blob("app", data)
        origin = await stack.enter_async_context(registry_site(registry.url))
        shelf = OciSite(store, events=Events())
        yield Rig(registry, origin.repository("app"), shelf.repository("app"), data)


def directory(path: Path, limits: LimitSettings | None = None) -> LocalStore:
    place = LocalSettings("shelf", path, limits or LimitSettings())
    return LocalStore(place, events=Events(), clock=SystemClock())


def left_in(path: Path) -> list[Path]:
    return [each for each in path.rglob("*") if each.is_file() and each.stat().st_size > 1000]


@pytest.fixture
def ordinary(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of the chunks that the event loop had in its hands on their way into a store."""
    sizes: list[int] = []
    for kind in (LocalUpload, S3Upload):
        write = kind.write

        async def counted(upload: object, chunk: bytes | memoryview, write: object = write) -> None:
            sizes.append(len(chunk))
            await write(upload, chunk)  # type: ignore[operator]

        monkeypatch.setattr(kind, "write", counted)
    return sizes


async def test_into_a_directory_the_event_loop_sees_the_first_piece_and_the_last_byte(
    ordinary: list[int], tmp_path: Path
) -> None:
    async with out_of_a_registry(directory(tmp_path)) as here:
        assert await here.repository.write_blob(here.blob) == "copied"
        assert sum(here.read) == here.registry.blob_bytes_out == len(DATA)
        assert max(here.read) <= 1 << 20, "counters move at least every MiB"
    assert (tmp_path / FILE).read_bytes() == DATA
    assert ordinary[-1] == 1
    assert sum(ordinary) <= FIRST_BYTES + 1


async def test_into_a_bucket_a_thread_fills_each_part(
    ordinary: list[int], s3_endpoint: str, s3_bucket: str
) -> None:
    data = random.Random(13).randbytes(2 * DEFAULT_PART_BYTES + 3_000_000)
    store = S3Store(s3.settings(s3_endpoint, s3_bucket), events=Events(), clock=SystemClock())
    async with out_of_a_registry(store, data) as here:
        assert await here.repository.write_blob(here.blob) == "copied"
        assert sum(here.read) == here.registry.blob_bytes_out == len(data)
        async with store.read(f"app/blobs/sha256/{encoded(digest_of(data))}") as chunks:
            assert b"".join([bytes(chunk) async for chunk in chunks]) == data
    assert sum(ordinary) <= 3 * FIRST_BYTES + 1, "a piece of each part"


async def test_where_bytes_wait_for_their_turn_each_of_them_does(ordinary: list[int], tmp_path: Path) -> None:
    store = directory(tmp_path, LimitSettings(bytes_per_second=1e9))
    async with out_of_a_registry(store) as here:
        assert await here.repository.write_blob(here.blob) == "copied"
    assert sum(ordinary) == len(DATA)


@_EACH
@given(st.integers(1, len(DATA) - 1))
async def test_a_source_that_breaks_off_anywhere_goes_on_there(
    tmp_path_factory: pytest.TempPathFactory, at: int
) -> None:
    folder = tmp_path_factory.mktemp("shelf")
    async with out_of_a_registry(directory(folder)) as here:
        here.registry.fault("GET", PATH, faults.truncate(at))
        assert await here.repository.write_blob(here.blob) == "copied"
        ranges = [asked.headers.get("Range") for asked in here.registry.find("GET", PATH)]
        assert ranges == [None, f"bytes={at}-{len(DATA) - 1}"]
    assert (folder / FILE).read_bytes() == DATA


@_EACH
@given(st.integers(1, len(DATA) - 1))
async def test_a_wrong_byte_anywhere_is_never_visible(
    tmp_path_factory: pytest.TempPathFactory, at: int
) -> None:
    folder = tmp_path_factory.mktemp("shelf")
    async with out_of_a_registry(directory(folder)) as here:
        here.registry.fault("GET", PATH, faults.corrupt(at), times=None)
        with pytest.raises(Corrupt) as raised:
            await here.repository.write_blob(here.blob)
        assert raised.value.operation == "read blob"
    assert not left_in(folder)


async def test_a_disk_that_gets_full_is_the_directorys_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, written = Temporary.write, 0

    def full(file: Temporary, *chunks: bytes | memoryview) -> None:
        nonlocal written
        written += sum(map(len, chunks))
        if written > 2_000_000:
            raise OSError(errno.ENOSPC, "full")
        write(file, *chunks)

    monkeypatch.setattr(Temporary, "write", full)
    async with out_of_a_registry(directory(tmp_path)) as here:
        with pytest.raises(Unavailable, match="no space left on the device") as raised:
            await here.repository.write_blob(here.blob)
        assert raised.value.site == "shelf"
        assert here.blob.failure is None
    assert not left_in(tmp_path)


async def test_cancelled_while_the_source_is_silent_nothing_is_left(tmp_path: Path) -> None:
    async with out_of_a_registry(directory(tmp_path)) as here:
        here.registry.fault("GET", PATH, faults.hang_after(2_000_000))
        reached = here.reached[2_000_000] = asyncio.Event()
        copying = asyncio.create_task(here.repository.write_blob(here.blob))
        await reached.wait()
        copying.cancel()
        with pytest.raises(asyncio.CancelledError):
            await copying
    assert not left_in(tmp_path)


# --- out of a directory ---


@asynccontextmanager
async def into_a_registry(folder: Path) -> AsyncIterator[Rig]:
    """A directory that has the blob, and an empty registry."""
    (folder / FILE).parent.mkdir(parents=True)
    (folder / FILE).write_bytes(DATA)
    async with AsyncExitStack() as stack:
        store = directory(folder)
        stack.push_async_callback(store.aclose)
        registry = await stack.enter_async_context(FakeRegistry())
        target = await stack.enter_async_context(registry_site(registry.url))
        shelf = OciSite(store, events=Events())
        yield Rig(registry, shelf.repository("app"), target.repository("app"), DATA)


async def test_out_of_a_directory_the_event_loop_sees_the_first_piece_and_the_last_byte(
    tmp_path: Path, by_the_loop: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    pieces: list[int] = []
    read = OpenFile.next

    def counted(file: OpenFile) -> bytes:
        pieces.append(len(data := read(file)))
        return data

    monkeypatch.setattr(OpenFile, "next", counted)
    async with into_a_registry(tmp_path) as here:
        assert await here.repository.write_blob(here.blob) == "copied"
        assert b"".join(here.registry.store.blob("app", BLOB).read()) == DATA
        assert sum(here.read) == len(DATA)
        assert max(here.read) <= 1 << 20
    assert by_the_loop[-1] == 1
    assert sum(by_the_loop) <= 3 * FIRST_BYTES + 1, "a thread that was held up comes back for another piece"
    assert (pieces[0], pieces[-1]) == (FIRST_BYTES, 1), (
        "no trip to a thread to find the end, which its size tells"
    )


@_EACH
@given(st.integers(0, len(DATA) - 1), st.sampled_from(["rotten", "cut"]))
async def test_a_file_that_is_not_the_blob_never_makes_a_whole_one(
    tmp_path_factory: pytest.TempPathFactory, at: int, how: str
) -> None:
    folder = tmp_path_factory.mktemp("shelf")
    async with into_a_registry(folder) as here:
        if how == "cut":
            os.truncate(folder / FILE, at)
        else:
            with (folder / FILE).open("r+b") as file:
                file.seek(at)
                file.write(bytes([DATA[at] ^ 1]))
        with pytest.raises(Corrupt) as raised:
            await here.repository.write_blob(here.blob)
        assert raised.value.site == "shelf"
        assert not here.registry.store.repositories
        assert here.registry.uploaded_bytes < len(DATA)


async def test_an_answer_in_the_middle_is_the_registrys(tmp_path: Path) -> None:
    async with into_a_registry(tmp_path) as here:
        here.registry.fault("PUT|PATCH", "/v2/app/blobs/uploads/", faults.answer(403), times=None)
        with pytest.raises(SiteError) as raised:
            await here.repository.write_blob(here.blob)
        assert raised.value.operation == "upload blob"
        assert here.blob.failure is None
