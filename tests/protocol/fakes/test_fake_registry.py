"""The fake's faults, each seen by a plain client: what the registry adapter's tests rest on."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator

import aiohttp
import pytest
from yarl import URL

from replicator.demo.images import BuiltImage, image, layer, load
from replicator.model.digest import Digest, digest_of
from tests.fakes import faults
from tests.fakes.registry import FakeRegistry, upload_digest


@pytest.fixture
async def fake() -> AsyncIterator[FakeRegistry]:
    async with FakeRegistry() as fake:
        yield fake


@pytest.fixture
async def client(fake: FakeRegistry) -> AsyncIterator[aiohttp.ClientSession]:
    # One connection a request: what a fault does to one must not be seen by the next.
    connector = aiohttp.TCPConnector(force_close=True)
    async with aiohttp.ClientSession(base_url=fake.url, connector=connector, auto_decompress=False) as client:
        yield client


@pytest.fixture
def built(fake: FakeRegistry) -> BuiltImage:
    built = image("a", [layer("big", 600_000)])
    load(fake.store, "app", "v1", built)
    return built


@pytest.fixture
def digest(built: BuiltImage) -> Digest:
    return built.manifest.blobs[1].digest


async def test_requests_and_bytes_are_logged(
    fake: FakeRegistry, client: aiohttp.ClientSession, built: BuiltImage, digest: Digest
) -> None:
    async with client.get(f"/v2/app/blobs/{digest}") as response:
        assert await response.read() == built.blobs[digest]
    async with client.head(f"/v2/app/blobs/{digest}"):
        pass
    async with client.post("/v2/app/blobs/uploads/") as response:
        location = response.headers["Location"]
    async with client.put(
        URL(f"{location}?digest={digest_of(b'data').replace(':', '%3A')}", encoded=True), data=b"data"
    ):
        pass
    assert fake.count() == 4
    assert fake.count("HEAD", r"/blobs/") == 1
    assert fake.blob_gets(digest) == 1
    assert fake.blob_bytes_out == len(built.blobs[digest])
    assert fake.uploaded_bytes == 4
    assert [upload_digest(entry) for entry in fake.find("PUT")] == [digest_of(b"data")]
    assert [entry.status for entry in fake.requests] == [200, 200, 202, 201]


@pytest.mark.parametrize("after", [0, 1, 300_000])
async def test_reset_and_truncation_break_the_reading(
    fake: FakeRegistry, client: aiohttp.ClientSession, built: BuiltImage, digest: Digest, after: int
) -> None:
    for action in (faults.reset(after), faults.truncate(after)):
        fake.fault("GET", "/blobs/", action)
        got = await read_until_broken(client, f"/v2/app/blobs/{digest}")
        assert built.blobs[digest].startswith(got)
        # A reset overtakes what was sent before it; a close in good order does not.
        assert len(got) == after or (action.__qualname__.startswith("reset") and len(got) < after)
    async with client.get(f"/v2/app/blobs/{digest}") as response:
        assert await response.read() == built.blobs[digest]


async def read_until_broken(client: aiohttp.ClientSession, path: str) -> bytes:
    got = bytearray()
    try:
        async with client.get(path) as response:
            async for chunk in response.content.iter_any():
                got += chunk
    except aiohttp.ClientError:
        return bytes(got)
    pytest.fail("nothing broke")


async def test_manifests_are_damaged_alike(
    fake: FakeRegistry, client: aiohttp.ClientSession, built: BuiltImage
) -> None:
    path, body = "/v2/app/manifests/v1", built.manifest.body
    fake.fault("GET", path, faults.truncate(10))
    with pytest.raises(aiohttp.ClientError):
        await (await client.get(path)).read()
    for action, expected in (
        (faults.corrupt(2), body[:2] + bytes([body[2] ^ 0xFF]) + body[3:]),
        (faults.shorten(7), body[:7]),
        (faults.lengthen(3), body + bytes(3)),
    ):
        fake.fault("GET", path, action)
        async with client.get(path) as response:
            assert await response.read() == expected
    fake.fault("HEAD", path, faults.header("Docker-Content-Digest", None))
    async with client.head(path) as response:
        assert "Docker-Content-Digest" not in response.headers


async def test_blobs_are_lengthened_and_corrupted(
    fake: FakeRegistry, client: aiohttp.ClientSession, built: BuiltImage, digest: Digest
) -> None:
    fake.fault("GET", "/blobs/", faults.lengthen(5))
    async with client.get(f"/v2/app/blobs/{digest}") as response:
        assert await response.read() == built.blobs[digest] + bytes(5)
    fake.fault("GET", "/blobs/", faults.corrupt(500_000))
    async with client.get(f"/v2/app/blobs/{digest}") as response:
        got = await response.read()
    assert [at for at, byte in enumerate(got) if byte != built.blobs[digest][at]] == [500_000]


async def test_rules_strike_in_order_and_in_number(fake: FakeRegistry, client: aiohttp.ClientSession) -> None:
    fake.fault("GET", "/v2/$", faults.answer(503, headers={"Retry-After": "1"}), times=2, after=1)
    fake.fault("GET", "/v2/$", faults.answer(429, "<html>", html=True), times=None, after=1)
    statuses = []
    for _ in range(5):
        async with client.get("/v2/") as response:
            statuses.append(response.status)
    assert statuses == [200, 503, 503, 429, 429]
    fake.clear_faults()
    async with client.get("/v2/") as response:
        assert response.status == 200


async def test_hanging_requests_end_with_the_fake() -> None:
    async with asyncio.TaskGroup() as group, FakeRegistry() as fake:
        load(fake.store, "app", "v1", image("a"))
        fake.fault("GET", "/v2/$", faults.hang())
        fake.fault("GET", "/manifests/", faults.hang_after(5))
        fake.fault("PUT", "/uploads/", faults.hang_upload(5))
        hold = faults.Hold()
        fake.fault("GET", "/tags/", hold)
        session = fake.store.start_upload("app").id

        async def get(method: str, path: str, data: bytes | None = None) -> None:
            async with aiohttp.ClientSession(base_url=fake.url) as client:
                with pytest.raises(aiohttp.ClientError):
                    async with client.request(method, path, data=data) as response:
                        await response.read()

        group.create_task(get("GET", "/v2/"))
        group.create_task(get("GET", "/v2/app/manifests/v1"))
        group.create_task(
            get("PUT", f"/v2/app/blobs/uploads/{session}?digest={digest_of(b'data')}", b"datadata")
        )
        async with aiohttp.ClientSession(base_url=fake.url) as client:
            held = asyncio.create_task(client.get("/v2/app/tags/list"))
            await hold.reached.wait()
            hold.release()
            assert (await held).status == 200
        while fake.count() < 4 or fake.store.upload("app", session).size < 5:  # noqa: ASYNC110 -- no event tells
            await asyncio.sleep(0)


async def test_broken_uploads(fake: FakeRegistry, client: aiohttp.ClientSession) -> None:
    upload = fake.store.start_upload("app")
    path, data = f"/v2/app/blobs/uploads/{upload.id}", bytes(300_000)
    fake.fault("PATCH", "/uploads/", faults.reset_upload(1_000))
    with pytest.raises(aiohttp.ClientError):
        await client.patch(path, data=io.BytesIO(data))
    assert upload.size == 1_000
    fake.fault("PUT", "/uploads/", faults.lose_answer(), times=2)  # aiohttp itself sends a PUT once more
    digest = digest_of(bytes(1_003))
    with pytest.raises(aiohttp.ClientError):
        await client.put(f"{path}?digest={digest}", data=bytes(3))
    assert digest in fake.store.content("app").blobs
    upload = fake.store.start_upload("app")
    fake.fault("PATCH", "/uploads/", faults.lose_session())
    async with client.patch(f"/v2/app/blobs/uploads/{upload.id}", data=b"x") as response:
        assert response.status == 404
    fake.fault("PUT", "/manifests/", faults.answer_late(500))
    load(fake.store, "app", "v1", image("a"))
    headers = {"Content-Type": image("a").manifest.media_type}
    async with client.put("/v2/app/manifests/v2", data=image("a").manifest.body, headers=headers) as response:
        assert response.status == 500
    assert "v2" in fake.store.content("app").tags


async def test_unanswered_reset_reaches_no_handler(fake: FakeRegistry, client: aiohttp.ClientSession) -> None:
    fake.fault("POST", "/uploads/", faults.reset_unanswered())
    with pytest.raises(aiohttp.ClientError):
        await client.post("/v2/app/blobs/uploads/")
    assert fake.store.uploads == {}


async def test_redirects_lead_in_circles_or_to_a_strict_second_host(
    fake: FakeRegistry, client: aiohttp.ClientSession, built: BuiltImage, digest: Digest
) -> None:
    path = f"/v2/app/blobs/{digest}"
    fake.fault("GET", path, faults.redirect(""))
    async with client.get(path, allow_redirects=False) as response:
        assert (response.status, response.headers["Location"]) == (307, path)
    fake.fault("GET|HEAD", path, faults.redirect_to_storage(), times=2)
    async with client.get(path, allow_redirects=False) as response:
        location = URL(response.headers["Location"], encoded=True)
    async with client.get(location) as response:
        assert await response.read() == built.blobs[digest]
    async with client.get(location, headers={"Authorization": "Bearer x"}) as response:
        assert response.status == 400
    async with client.get(URL(str(location))) as response:  # decoded and encoded again
        assert response.status == 403
    async with client.head(location) as response:
        assert response.status == 403
    assert fake.blob_gets(digest) == 1
    assert fake.count(host="storage") == 4


async def test_mounts_are_refused_and_blobs_are_lost(
    fake: FakeRegistry, client: aiohttp.ClientSession, built: BuiltImage, digest: Digest
) -> None:
    fake.fault("POST", "mount=", faults.ignore_mount())
    fake.fault("POST", "mount=", faults.refuse(403, "DENIED"))
    statuses = []
    for _ in range(3):
        async with client.post(f"/v2/two/blobs/uploads/?mount={digest}&from=app") as response:
            statuses.append(response.status)
    assert statuses == [202, 403, 201]
    fake.fault("PUT", "/manifests/", faults.lose_blob("app", digest))
    headers = {"Content-Type": built.manifest.media_type}
    async with client.put("/v2/app/manifests/v2", data=built.manifest.body, headers=headers) as response:
        assert response.status == 400
        assert (await response.json())["errors"][0]["detail"] == {"digest": digest}
    assert fake.store.dangling() != []
