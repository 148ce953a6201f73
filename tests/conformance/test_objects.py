"""What every object store must keep to."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from replicator.errors import Corrupt, NotFound, Rejected
from replicator.events import Event, Events, RequestDone
from replicator.flow.clock import SystemClock
from replicator.ports import ObjectInfo, ObjectStore
from replicator.sites.layouts.blobs import has_objects
from replicator.sites.objects.local import LocalStore
from replicator.sites.objects.s3 import S3Store
from replicator.sites.objects.settings import LocalSettings
from tests.fakes.s3 import raw_client, settings

PART = 8 << 20


@dataclass
class BucketAddress:
    """A store, others on the same root, and a look behind the scenes."""

    store: ObjectStore
    again: Callable[[], ObjectStore]
    sibling: ObjectStore
    leftovers: Callable[[], Awaitable[list[str]]]
    events: list[Event]


def _files(folder: Path, pattern: str) -> list[str]:
    return [str(path) for path in folder.glob(pattern) if path.is_file()]


@contextlib.asynccontextmanager
async def local_place(tmp_path: Path) -> AsyncIterator[BucketAddress]:
    seen: list[Event] = []
    events = Events()
    events.subscribe(seen.append)
    opened: list[LocalStore] = []

    def store(folder: str = "root") -> LocalStore:
        opened.append(
            LocalStore(LocalSettings(folder, tmp_path / folder), events=events, clock=SystemClock())
        )
        return opened[-1]

    async def leftovers() -> list[str]:
        return _files(tmp_path, "*/.replicator/**/*")

    try:
        yield BucketAddress(store(), store, store("sibling"), leftovers, seen)
    finally:
        for each in opened:
            await each.aclose()
    assert not _files(tmp_path, "*/.replicator/**/*"), "closing tidies up"


@contextlib.asynccontextmanager
async def s3_place(endpoint: str, bucket: str) -> AsyncIterator[BucketAddress]:
    seen: list[Event] = []
    events = Events()
    events.subscribe(seen.append)
    opened: list[S3Store] = []

    def store(prefix: str = "some/prefix") -> S3Store:
        opened.append(S3Store(settings(endpoint, bucket, prefix=prefix), events=events, clock=SystemClock()))
        return opened[-1]

    async def leftovers() -> list[str]:
        async with raw_client(endpoint) as client:
            found = await client.list_multipart_uploads(Bucket=bucket)
            return [upload["Key"] for upload in found.get("Uploads", ())]

    try:
        yield BucketAddress(store(), store, store("sibling"), leftovers, seen)
    finally:
        for each in opened:
            await each.aclose()


S3_ENDPOINTS = {"s3": "s3_endpoint", "versitygw": "versitygw_endpoint"}


@pytest.fixture(params=["local", "s3", pytest.param("versitygw", marks=pytest.mark.interop)])
async def place(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[BucketAddress]:
    if request.param == "local":
        async with local_place(tmp_path) as place:
            yield place
    else:
        endpoint = request.getfixturevalue(S3_ENDPOINTS[request.param])
        async with raw_client(endpoint) as client:
            bucket = f"conformance-{hashlib.sha256(str(tmp_path).encode()).hexdigest()[:12]}"
            await client.create_bucket(Bucket=bucket)
        async with s3_place(endpoint, bucket) as place:
            yield place


@pytest.fixture
def store(place: BucketAddress) -> ObjectStore:
    return place.store


async def keys_of(store: ObjectStore, prefix: str = "") -> list[str]:
    return [info.key async for page in store.list(prefix) for info in page.objects]


async def read_all(store: ObjectStore, key: str, offset: int = 0) -> bytes:
    async with store.read(key, offset) as chunks:
        return b"".join([chunk async for chunk in chunks])


async def upload(store: ObjectStore, key: str, data: bytes, size: int | None = None) -> None:
    async with store.upload(key, size) as target:
        for start in range(0, len(data), 100_000):
            await target.write(data[start : start + 100_000])
        await target.commit()


def some_bytes(count: int) -> bytes:
    block = hashlib.sha256(str(count).encode()).digest()
    return (block * (count // len(block) + 1))[:count]


# --- small objects ------------------------------------------------------------------------------------------


async def test_what_was_put_is_there(store: ObjectStore) -> None:
    version = await store.put("a/b", b"hello")
    info = await store.stat("a/b")
    assert await store.get("a/b", 5) == (b"hello", version)
    assert info == ObjectInfo("a/b", 5, version or "", info.modified if info else 0)
    assert info.modified > 1_600_000_000


async def test_several_are_looked_at_as_each_alone(store: ObjectStore) -> None:
    for key in ("a/b", "a/c", "d", "a/deep/er"):
        await store.put(key, key.encode())
    keys = ["a/b", "none/x", "a/c", "d", "a/deep", "a/deep/er", "a/none", "a/b"]
    there = [await store.stat(key) is not None for key in keys]
    assert await has_objects(store, [(key, None) for key in keys]) == there
    assert await has_objects(store, [(key, len(key)) for key in keys]) == there
    assert await has_objects(store, [("a/b", 4), ("a/c", 3), ("d", 0)]) == [False, True, False]
    assert await has_objects(store, []) == []


async def test_an_empty_object_is_one(store: ObjectStore) -> None:
    await store.put("empty", b"")
    assert (await store.get("empty", 0))[0] == b""
    assert await read_all(store, "empty") == b""
    await upload(store, "empty-too", b"", 0)
    assert (await store.get("empty-too", 0))[0] == b""


async def test_what_is_not_there_is_none_or_not_found(store: ObjectStore) -> None:
    await store.put("a/b", b"x")
    assert await store.stat("a") is None
    assert await store.stat("c/d") is None
    with pytest.raises(NotFound, match="c/d"):
        await store.get("c/d", 10)
    with pytest.raises(NotFound, match="c/d"):
        await read_all(store, "c/d")


async def test_a_larger_object_than_asked_for_is_corrupt(store: ObjectStore) -> None:
    await store.put("a", b"12345")
    with pytest.raises(Corrupt, match="5 bytes"):
        await store.get("a", 4)


async def test_a_new_content_is_a_new_version(store: ObjectStore) -> None:
    versions = {await store.put("a", data) for data in (b"1", b"2", b"3")}
    assert len(versions) == 3
    assert (await store.get("a", 1))[0] == b"3"


async def test_odd_names_are_kept(store: ObjectStore) -> None:
    names = ["a b", "a+b", "ä", "a%2Fb", "a?b#c", "~-_.'()", "sha256:00"]
    for name in names:
        await store.put(f"odd/{name}", name.encode())
    assert await keys_of(store, "odd/") == sorted((f"odd/{name}" for name in names), key=str.encode)
    for name in names:
        assert (await store.get(f"odd/{name}", 99))[0] == name.encode()
        await store.link(f"odd/{name}", f"even/{name}")


async def test_deleting_leaves_no_folder_and_no_error(store: ObjectStore) -> None:
    await store.put("a/b/c", b"1")
    await store.put("a/d", b"2")
    await store.delete("a/b/c")
    await store.delete("a/b/c")
    await store.delete("never/was")
    assert [page.prefixes async for page in store.list("a/", delimiter=True)] == [[]]
    await store.delete("a/d")
    assert [page async for page in store.list("", delimiter=True)] == []


@pytest.mark.parametrize(
    "key",
    ["", "/", "/etc/passwd", "..", "../x", "a/../x", "a//b", "a/.", "a\0b", ".replicator/x", "a" * 1100],
)
async def test_a_key_cannot_leave_the_root(place: BucketAddress, key: str) -> None:
    store = place.store
    await store.put("here", b"1")

    async def uploading() -> None:
        async with store.upload(key, 1) as target:
            await target.write(b"1")
            await target.commit()

    calls: list[Callable[[], Awaitable[Any]]] = [
        lambda: store.stat(key),
        lambda: store.get(key, 1),
        lambda: read_all(store, key),
        lambda: store.put(key, b"1"),
        lambda: store.put(key, b"1", if_absent=True),
        uploading,
        lambda: store.link("here", key),
        lambda: store.link(key, "there"),
        lambda: store.copy(place.sibling, key, "there"),
        lambda: store.delete(key),
    ]
    for call in calls:
        with pytest.raises(Rejected):
            await call()
    assert await keys_of(store) == ["here"]


@pytest.mark.parametrize("prefix", ["/", "../", "a/../", "a//", "..//x", "a\0/"])
async def test_a_prefix_cannot_leave_the_root(store: ObjectStore, prefix: str) -> None:
    await store.put("here", b"1")
    with pytest.raises(Rejected):
        await keys_of(store, prefix)


# --- conditions ---------------------------------------------------------------------------------------------


async def test_if_absent_writes_once(store: ObjectStore) -> None:
    assert await store.put("a", b"first", if_absent=True)
    assert await store.put("a", b"second", if_absent=True) is None
    assert (await store.get("a", 9))[0] == b"first"


async def test_if_match_writes_over_that_version_only(store: ObjectStore) -> None:
    first = await store.put("a", b"1")
    assert first
    second = await store.put("a", b"2", if_match=first)
    assert second
    assert await store.put("a", b"3", if_match=first) is None
    assert await store.put("b", b"3", if_match=first) is None
    assert await store.stat("b") is None
    assert await store.put("a", b"3", if_match=second)
    assert (await store.get("a", 9))[0] == b"3"


async def test_a_listed_version_is_good_for_if_match(store: ObjectStore) -> None:
    await store.put("a", b"1")
    (page,) = [page async for page in store.list("a")]
    assert await store.put("a", b"2", if_match=page.objects[0].version)


def _needs_conditions_against_others(request: pytest.FixtureRequest) -> None:
    if "versitygw" in request.node.name:
        # Seen: two writers with the same If-Match both succeeded, now and then. One writer is what it is good for.
        pytest.skip("versitygw's conditions do not hold against others at the same moment")


async def test_many_writers_lose_no_line(place: BucketAddress, request: pytest.FixtureRequest) -> None:
    """Two agents and index.json: each reads, adds its own and writes if nobody else did."""
    _needs_conditions_against_others(request)
    stores = [place.store, place.again(), place.again()]
    assert all(store.conditional for store in stores)
    await place.store.put("index", b"")

    async def add(store: ObjectStore, line: bytes) -> None:
        while True:
            data, version = await store.get("index", 10_000)
            if await store.put("index", data + line + b"\n", if_match=version):
                return

    async with asyncio.TaskGroup() as group:
        for number in range(12):
            group.create_task(add(stores[number % 3], b"%d" % number))
    data, _ = await place.store.get("index", 10_000)
    assert sorted(map(int, data.split())) == list(range(12))
    assert await place.leftovers() == []


async def test_of_many_creators_one_wins(place: BucketAddress, request: pytest.FixtureRequest) -> None:
    _needs_conditions_against_others(request)
    stores = [place.store, place.again()]
    async with asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(stores[number % 2].put("once", b"%d" % number, if_absent=True))
            for number in range(10)
        ]
    winners = [number for number, task in enumerate(tasks) if task.result()]
    assert len(winners) == 1
    assert (await place.store.get("once", 9))[0] == b"%d" % winners[0]


# --- large objects ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 100_000, PART - 1, PART, PART + 1, 2 * PART + 12_345])
async def test_an_upload_arrives_whole(place: BucketAddress, count: int) -> None:
    data = some_bytes(count)
    await upload(place.store, "blobs/x", data, count)
    assert await read_all(place.store, "blobs/x") == data
    assert await place.leftovers() == []


async def test_an_upload_of_unknown_size_arrives_whole(store: ObjectStore) -> None:
    await upload(store, "a", some_bytes(300_000))
    await upload(store, "b", some_bytes(PART + 5))
    assert await read_all(store, "a") == some_bytes(300_000)
    assert await read_all(store, "b") == some_bytes(PART + 5)


async def test_nothing_is_seen_before_the_commit(store: ObjectStore) -> None:
    await store.put("blobs/x", b"old")
    async with store.upload("blobs/x", PART + 1) as target:
        await target.write(some_bytes(PART + 1))
        assert (await store.get("blobs/x", 10))[0] == b"old"
        assert await keys_of(store) == ["blobs/x"]
        await target.commit()
    info = await store.stat("blobs/x")
    assert info
    assert info.size == PART + 1


@pytest.mark.parametrize("count", [10, PART + 1])
async def test_leaving_without_a_commit_leaves_nothing(place: BucketAddress, count: int) -> None:
    async with place.store.upload("blobs/x", count) as target:
        await target.write(some_bytes(count))
    await place.store.put("there", b"")  # so that the root is
    assert await keys_of(place.store) == ["there"]
    assert await place.leftovers() == []


async def test_an_error_of_the_source_goes_through_and_leaves_nothing(place: BucketAddress) -> None:
    trouble = RuntimeError("the source broke")

    async def half() -> None:
        async with place.store.upload("blobs/x", 3 * PART) as target:
            await target.write(some_bytes(2 * PART))
            raise trouble

    with pytest.raises(RuntimeError) as raised:
        await half()
    assert raised.value is trouble
    assert await place.store.stat("blobs/x") is None
    assert await place.leftovers() == []


@pytest.mark.parametrize("count", [9, 11, PART + 7])
async def test_another_size_than_announced_is_never_committed(place: BucketAddress, count: int) -> None:
    with pytest.raises(Corrupt, match="instead of 10"):
        await upload(place.store, "blobs/x", some_bytes(count), 10)
    assert await place.store.stat("blobs/x") is None
    assert await place.leftovers() == []


async def test_cancelled_at_any_turn_an_upload_is_whole_or_not_there(place: BucketAddress) -> None:
    data = some_bytes(PART + 1000)
    for turns in [0, 1, 2, 3, 5, 8, 13, 21, 34, 55, 89, 144]:
        key = f"blobs/{turns}"
        task = asyncio.create_task(upload(place.store, key, data, len(data)))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        info = await place.store.stat(key)
        assert info is None or info.size == len(data)
    await place.again().sweep(lambda _: True)
    assert await place.leftovers() == []


async def test_cancelled_at_any_turn_a_put_is_whole_or_not_there(place: BucketAddress) -> None:
    for turns in range(12):
        task = asyncio.create_task(place.store.put(f"a/{turns}", b"whole", if_absent=True))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        info = await place.store.stat(f"a/{turns}")
        assert info is None or info.size == 5
    assert await place.leftovers() == []


@pytest.mark.parametrize("offset", [0, 1, 1_500_000, 2_999_999, 3_000_000])
async def test_reading_starts_at_the_offset(store: ObjectStore, offset: int) -> None:
    data = some_bytes(3_000_000)
    await upload(store, "x", data, len(data))
    async with store.read("x", offset) as chunks:
        found = [chunk async for chunk in chunks]
    assert b"".join(found) == data[offset:]
    assert all(0 < len(chunk) <= 1 << 20 for chunk in found)


async def test_an_offset_beyond_the_end_is_refused(store: ObjectStore) -> None:
    await store.put("x", b"123")
    with pytest.raises(Rejected, match="only 3"):
        await read_all(store, "x", 4)


async def test_reading_may_stop_early(store: ObjectStore) -> None:
    await upload(store, "x", some_bytes(3_000_000), 3_000_000)
    for _ in range(3):
        async with store.read("x") as chunks:
            async for chunk in chunks:
                assert chunk
                break
    async with store.read("x"):
        pass
    assert len(await read_all(store, "x")) == 3_000_000


# --- copying ------------------------------------------------------------------------------------------------


async def test_a_link_is_the_same_content_under_a_second_name(place: BucketAddress) -> None:
    store = place.store
    await upload(store, "a/x", some_bytes(100_000), 100_000)
    await store.link("a/x", "b/c/x")
    await store.link("a/x", "b/c/x")
    await store.put("old", b"old")
    await store.link("a/x", "old")
    await store.delete("a/x")
    assert await read_all(store, "b/c/x") == some_bytes(100_000)
    assert await read_all(store, "old") == some_bytes(100_000)
    assert await place.leftovers() == []


async def test_a_change_under_one_name_is_none_under_the_other(store: ObjectStore) -> None:
    await store.put("a", b"1")
    await store.link("a", "b")
    await store.put("a", b"2")
    assert (await store.get("b", 1))[0] == b"1"


async def test_a_copy_from_a_sibling_is_whole(place: BucketAddress) -> None:
    await upload(place.sibling, "x", some_bytes(PART + 3), PART + 3)
    assert await place.store.copy(place.sibling, "x", "a/y")
    await place.sibling.delete("x")
    assert await read_all(place.store, "a/y") == some_bytes(PART + 3)
    assert await place.leftovers() == []


async def test_a_copy_of_what_is_not_there_is_not_found(place: BucketAddress) -> None:
    await place.sibling.put("y", b"")
    with pytest.raises(NotFound, match="x"):
        await place.store.copy(place.sibling, "x", "x")
    with pytest.raises(NotFound, match="x"):
        await place.store.link("x", "z")
    assert await place.store.stat("x") is None


# --- listing ------------------------------------------------------------------------------------------------


async def test_a_listing_of_thousands_is_complete_sorted_and_paged(store: ObjectStore) -> None:
    keys = sorted(f"t/{number % 40}/{number}" for number in range(1050))
    async with asyncio.TaskGroup() as group:
        for key in keys:
            group.create_task(store.put(key, b"x"))
    pages = [page async for page in store.list("t/")]
    assert len(pages) == 2
    assert [info.key for page in pages for info in page.objects] == keys
    folders = [page async for page in store.list("t/", delimiter=True)]
    assert [name for page in folders for name in page.prefixes] == sorted(
        f"t/{number}" for number in range(40)
    )
    assert not any(page.objects for page in folders)


async def test_a_listing_is_in_the_order_of_whole_keys(store: ObjectStore) -> None:
    keys = ["a", "a!", "a-b/c", "a.b", "a0", "b/a", "b/a-", "b/b/c", "b/b0"]
    for key in keys:
        await store.put(f"o/{key}", b"")
    assert await keys_of(store, "o/") == [f"o/{key}" for key in sorted(keys)]


async def test_a_prefix_may_end_within_a_name(store: ObjectStore) -> None:
    for key in ["abc/1", "abd/2", "abe", "b"]:
        await store.put(key, b"")
    assert await keys_of(store, "ab") == ["abc/1", "abd/2", "abe"]
    (page,) = [page async for page in store.list("ab", delimiter=True)]
    assert list(page.prefixes) == ["abc", "abd"]
    assert [info.key for info in page.objects] == ["abe"]


async def test_what_begins_with_nothing_known_lists_nothing(store: ObjectStore) -> None:
    await store.put("a/b", b"")
    assert [page async for page in store.list("nowhere/")] == []
    assert [page async for page in store.list("a/x")] == []


async def test_every_request_is_told(place: BucketAddress) -> None:
    await place.store.put("a", b"1")
    await place.store.get("a", 1)
    with contextlib.suppress(NotFound):
        await place.store.get("b", 1)
    told = [(event.operation, event.code) for event in place.events if isinstance(event, RequestDone)]
    assert [operation for operation, _ in told] == ["write object", "read object", "read object"]
    assert told[1][1] in {"ok", "200"}
    assert told[2][1] in {"enoent", "404"}
