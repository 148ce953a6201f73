"""The spool: one read on disk for several destinations, each at its own pace."""

from __future__ import annotations

import asyncio
import fcntl
import gc
import os
import threading
import weakref
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest

from replicator.engine.content import spool as module
from replicator.engine.content.spool import Spool, SpoolFull
from replicator.errors import ReplicatorError, Unavailable
from replicator.ports import BlobSource
from tests.fakes.source import BytesSource

MIB = 1 << 20
BROKEN = Unavailable("source", "read blob", "reset")


@asynccontextmanager
async def spooling(path: Path, max_bytes: int = 64 * MIB) -> AsyncIterator[Spool]:
    spool = Spool(path, max_bytes)
    try:
        yield spool
    finally:
        await spool.aclose()
    assert _folders(path) == []


def _folders(path: Path) -> list[Path]:
    return list(path.iterdir())


def _blobs(path: Path) -> list[Path]:
    """The files of all spools below the folder."""
    return list(path.glob("*/[0-9]*"))


async def _read(source: BlobSource, offset: int = 0) -> bytes:
    async with source.open(offset) as chunks:
        return b"".join([chunk async for chunk in chunks])


def _data(seed: int = 1, size: int = 3 * MIB + 17) -> bytes:
    return bytes([seed]) * size


async def test_followers_share_one_read(tmp_path: Path) -> None:
    data = _data()
    sources = [BytesSource(data) for _ in range(3)]
    async with spooling(tmp_path) as spool, asyncio.TaskGroup() as tasks:
        reading = [tasks.create_task(_read(spool.follow(source))) for source in sources]
    assert [task.result() == data for task in reading] == [True] * 3
    assert sorted(len(source.opened) for source in sources) == [0, 0, 1]


async def test_slow_follower_holds_up_neither_the_read_nor_the_others(tmp_path: Path) -> None:
    data = _data()
    async with spooling(tmp_path) as spool, spool.follow(BytesSource(data)).open() as slow:
        first = await anext(aiter(slow))
        assert await _read(spool.follow(BytesSource(data))) == data
        assert b"".join([first, *[chunk async for chunk in slow]]) == data


async def test_follower_sees_the_file_while_it_grows(tmp_path: Path) -> None:
    gate = asyncio.Event()

    class Slow(BytesSource):
        async def _chunks(self, offset: int) -> AsyncIterator[bytes]:
            yield _data()[: 2 * MIB]
            await gate.wait()
            yield _data()[2 * MIB :]

    async with spooling(tmp_path) as spool, spool.follow(Slow(_data())).open() as chunks:
        iterator, came = aiter(chunks), 0
        while came < 2 * MIB:
            came += len(await anext(iterator))
        gate.set()
        assert came + sum([len(chunk) async for chunk in iterator]) == len(_data())


async def test_chunks_are_bounded(tmp_path: Path) -> None:
    source = BytesSource(_data(), chunk_bytes=10 * MIB)
    async with spooling(tmp_path) as spool, spool.follow(source).open() as chunks:
        assert max([len(chunk) async for chunk in chunks]) <= MIB


async def test_late_follower_finds_the_whole_file(tmp_path: Path) -> None:
    data, late = _data(), BytesSource(_data())
    async with spooling(tmp_path) as spool:
        await _read(spool.follow(BytesSource(data)))
        assert spool.has(late.descriptor.digest)
        assert await _read(spool.follow(late)) == data
        assert await _read(spool.follow(late), 5) == data[5:]
        assert late.opened == []


async def test_least_recently_used_goes_when_room_is_needed(tmp_path: Path) -> None:
    blobs = [BytesSource(_data(seed, MIB)) for seed in range(4)]
    async with spooling(tmp_path, 3 * MIB) as spool:
        for blob in (*blobs[:3], blobs[0], blobs[3]):
            await _read(spool.follow(blob))
        kept = [spool.has(blob.descriptor.digest) for blob in blobs]
        assert kept == [True, False, True, True]
        assert len(blobs[0].opened) == 1
        assert [file.stat().st_size for file in _blobs(tmp_path)] == [MIB] * 3


async def test_number_of_files_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_FILES", 3)
    async with spooling(tmp_path) as spool:
        sources = [BytesSource(bytes([number])) for number in range(5)]
        for source in sources:
            await _read(spool.follow(source))
        assert [spool.has(source.descriptor.digest) for source in sources] == [False, False, True, True, True]
        assert len(_blobs(tmp_path)) == 3


async def test_asking_for_room_that_is_not_used_evicts_nothing(tmp_path: Path) -> None:
    """A follower is made for every transfer; the one that ends in a mount never opens it."""
    first, second = BytesSource(_data(1, MIB)), BytesSource(_data(2, MIB))
    async with spooling(tmp_path, MIB) as spool:
        await _read(spool.follow(first))
        spool.follow(second)
        assert spool.has(first.descriptor.digest)


async def test_what_is_followed_is_never_evicted(tmp_path: Path) -> None:
    async with spooling(tmp_path, 3 * MIB) as spool:
        async with spool.follow(BytesSource(_data(1, 2 * MIB))).open():
            with pytest.raises(SpoolFull, match="in use"):
                spool.follow(BytesSource(_data(2, 2 * MIB)))
        await _read(spool.follow(BytesSource(_data(2, 2 * MIB))))


@pytest.mark.parametrize("size", [2 * MIB, None])
async def test_blob_that_cannot_fit_is_refused_at_once(tmp_path: Path, size: int | None) -> None:
    source = BytesSource(b"x")
    source.descriptor = type(source.descriptor)("text/plain", source.descriptor.digest, size)
    async with spooling(tmp_path, MIB) as spool:
        with pytest.raises(SpoolFull):
            spool.follow(source)


async def test_failure_of_the_source_reaches_every_follower_as_the_sources(tmp_path: Path) -> None:
    source = BytesSource(_data(), breaks=BROKEN, breaks_at=2 * MIB)
    async with spooling(tmp_path) as spool:
        followers = [spool.follow(source) for _ in range(3)]
        for outcome in await _outcomes(followers):
            assert outcome is BROKEN
        assert [follower.failure for follower in followers] == [BROKEN] * 3
        assert not spool.has(source.descriptor.digest)
        assert await _read(spool.follow(source)) == _data()  # a failure is not remembered


async def _outcomes(followers: list[BlobSource]) -> list[object]:
    async def read(follower: BlobSource) -> object:
        try:
            return await _read(follower)
        except Exception as error:  # noqa: BLE001 - that is what is asked
            return error

    async with asyncio.TaskGroup() as tasks:
        reading = [tasks.create_task(read(follower)) for follower in followers]
    return [task.result() for task in reading]


async def test_fault_of_ours_in_a_source_reaches_the_followers_too(tmp_path: Path) -> None:
    class Faulty(BytesSource):
        async def _chunks(self, offset: int) -> AsyncIterator[bytes]:
            yield b"x"
            raise ZeroDivisionError

    async with spooling(tmp_path) as spool, asyncio.timeout(30):
        outcomes = await _outcomes([spool.follow(Faulty(_data())), spool.follow(Faulty(_data()))])
    assert [type(outcome) for outcome in outcomes] == [SpoolFull, SpoolFull]
    assert "ZeroDivisionError" in str(outcomes[0])


async def test_last_follower_that_leaves_ends_an_unfinished_read(tmp_path: Path) -> None:
    left = asyncio.Event()

    class Endless(BytesSource):
        async def _chunks(self, offset: int) -> AsyncIterator[bytes]:
            try:
                yield _data(1, MIB)
                await asyncio.Event().wait()
            finally:
                left.set()

    async with spooling(tmp_path) as spool:
        async with spool.follow(Endless(_data())).open() as chunks:
            await anext(aiter(chunks))
        assert left.is_set()
        assert _blobs(tmp_path) == []


async def test_newcomer_starts_anew_while_an_abandoned_read_is_dying(tmp_path: Path) -> None:
    """The last follower left, its read is being cancelled, and somebody comes in that very moment."""
    dying, die = asyncio.Event(), asyncio.Event()

    class Dying(BytesSource):
        async def _chunks(self, offset: int) -> AsyncIterator[bytes]:
            yield _data(1, MIB)
            try:
                await asyncio.Event().wait()
            finally:
                dying.set()
                await die.wait()

    async def leave(spool: Spool) -> None:
        async with spool.follow(Dying(_data())).open() as chunks:
            await anext(aiter(chunks))

    async with spooling(tmp_path) as spool:
        leaving = asyncio.create_task(leave(spool))
        await dying.wait()
        source = BytesSource(_data())
        newcomer = asyncio.create_task(_read(spool.follow(source)))
        await asyncio.sleep(0)
        die.set()
        assert await newcomer == _data()
        await leaving
        assert await _read(spool.follow(source)) == _data()
        assert source.opened == [0]


async def test_cancelled_follower_leaves_the_read_to_the_others(tmp_path: Path) -> None:
    gate = asyncio.Event()

    class Slow(BytesSource):
        async def _chunks(self, offset: int) -> AsyncIterator[bytes]:
            await gate.wait()
            yield _data()

    async with spooling(tmp_path) as spool:
        source = Slow(_data())
        one, other = (asyncio.create_task(_read(spool.follow(source))) for _ in range(2))
        for _ in range(3):
            await asyncio.sleep(0)
        one.cancel()
        gate.set()
        assert await other == _data()
        with pytest.raises(asyncio.CancelledError):
            await one
        assert source.opened == [0]


async def test_file_is_not_closed_under_a_thread_that_writes_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A closed descriptor's number is the next connection's: the rest of the blob would go down that socket."""
    began, go = threading.Event(), threading.Event()
    survived: list[bool] = []

    def slow_write(descriptor: int, data: memoryview, at: int) -> int:
        began.set()
        go.wait(10)
        survived.append(os.path.samestat(os.fstat(descriptor), _blobs(tmp_path)[0].stat()))
        return len(data)

    monkeypatch.setattr(os, "pwrite", slow_write)
    async with spooling(tmp_path) as spool:
        reading = asyncio.create_task(_read(spool.follow(BytesSource(_data()))))
        await asyncio.to_thread(began.wait, 10)
        reading.cancel()
        for _ in range(5):
            await asyncio.sleep(0)
        go.set()
        with pytest.raises(asyncio.CancelledError):
            await reading
    assert survived == [True]


async def test_full_disk_is_the_spools_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int, data: memoryview, at: int) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    async with spooling(tmp_path) as spool:
        with pytest.raises(SpoolFull, match="No space left"):
            await _read(spool.follow(BytesSource(_data())))


async def test_folder_that_vanished_is_the_spools_failure(tmp_path: Path) -> None:
    async with spooling(tmp_path) as spool:
        folder = _folders(tmp_path)[0]
        (folder / "lock").unlink()
        folder.rmdir()
        with pytest.raises(SpoolFull):
            await _read(spool.follow(BytesSource(_data())))


async def test_file_that_was_cut_short_is_the_spools_failure(tmp_path: Path) -> None:
    async with spooling(tmp_path) as spool, asyncio.timeout(30):
        await _read(spool.follow(BytesSource(_data())))
        os.truncate(_blobs(tmp_path)[0], 100)
        with pytest.raises(SpoolFull, match="lost its bytes"):
            await _read(spool.follow(BytesSource(_data())))


async def test_failed_blobs_free_their_room(tmp_path: Path) -> None:
    async with spooling(tmp_path, 2 * MIB) as spool:
        for seed in range(5):
            with pytest.raises(Unavailable):
                await _read(spool.follow(BytesSource(_data(seed, 2 * MIB), breaks=BROKEN, breaks_at=MIB)))
        await _read(spool.follow(BytesSource(_data(9, 2 * MIB))))


async def test_source_is_not_kept_beyond_its_read(tmp_path: Path) -> None:
    async with spooling(tmp_path) as spool:
        source = BytesSource(_data())
        await _read(spool.follow(source))
        gone = weakref.ref(source)
        del source
        await asyncio.sleep(0)
        gc.collect()
        assert gone() is None


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    lock = os.open(folder / "lock", os.O_CREAT | os.O_RDWR)
    fcntl.flock(lock, fcntl.LOCK_EX)
    try:
        yield
    finally:
        os.close(lock)


async def test_folders_of_killed_processes_go_and_those_of_living_ones_stay(tmp_path: Path) -> None:
    killed, living = tmp_path / "spool-killed", tmp_path / "spool-living"
    for folder in (killed, living):
        folder.mkdir()
        (folder / "0").write_bytes(b"blob")
    with _locked(living):
        spool = Spool(tmp_path, MIB)
        assert not killed.exists()
        assert (living / "0").exists()
        await spool.aclose()


async def test_folder_that_another_process_is_just_making_is_left_alone(tmp_path: Path) -> None:
    """Between making its folder and locking it, a process holds the parent; who comes then waits."""
    made = threading.Event()
    result: list[Spool] = []

    def start() -> None:
        made.set()
        result.append(Spool(tmp_path, MIB))

    parent = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(parent, fcntl.LOCK_EX)
    young = tmp_path / "spool-young"
    young.mkdir()
    thread = threading.Thread(target=start)
    thread.start()
    made.wait(10)
    with _locked(young):
        os.close(parent)
        thread.join(10)
        assert young.exists()
    await result[0].aclose()


def test_folder_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("in the way")
    with pytest.raises(ReplicatorError, match=f"{file}"):
        Spool(file / "cache", MIB)
