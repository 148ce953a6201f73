"""The demo's registry, spoken to by a plain client: the OCI distribution-spec, line by line."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator

import aiohttp
import pytest

from replicator.demo.images import BuiltImage, image, load
from replicator.demo.registry import DemoRegistry
from replicator.demo.store import Store
from replicator.model.digest import Digest, digest_of
from replicator.model.mediatypes import OCI_INDEX, OCI_MANIFEST


@pytest.fixture
async def registry() -> AsyncIterator[DemoRegistry]:
    async with DemoRegistry.serve(Store(max_blob_bytes=100_000)) as registry:
        yield registry


@pytest.fixture
async def client(registry: DemoRegistry) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(base_url=registry.url) as client:
        yield client


@pytest.fixture
def built(registry: DemoRegistry) -> BuiltImage:
    built = image("a")
    load(registry.store, "team/app", "v1", built)
    return built


async def code(response: aiohttp.ClientResponse) -> tuple[int, str]:
    return response.status, (await response.json())["errors"][0]["code"]


async def test_ping_says_what_it_is(client: aiohttp.ClientSession) -> None:
    async with client.get("/v2/") as response:
        assert response.status == 200
        assert response.headers["Docker-Distribution-Api-Version"] == "registry/2.0"


async def test_manifest_is_served_byte_for_byte(client: aiohttp.ClientSession, built: BuiltImage) -> None:
    for reference in ("v1", built.digest):
        async with client.get(f"/v2/team/app/manifests/{reference}") as response:
            assert await response.read() == built.manifest.body
            assert response.headers["Docker-Content-Digest"] == built.digest
            assert response.headers["Content-Type"] == OCI_MANIFEST
            tag = response.headers["ETag"]
        async with client.head(f"/v2/team/app/manifests/{reference}") as response:
            assert response.headers["Content-Length"] == str(len(built.manifest.body))
            assert response.headers["Docker-Content-Digest"] == built.digest
        async with client.get(
            f"/v2/team/app/manifests/{reference}", headers={"If-None-Match": tag}
        ) as response:
            assert response.status == 304


async def test_what_is_not_there_has_the_specs_codes(
    client: aiohttp.ClientSession, built: BuiltImage
) -> None:
    other = digest_of(b"other")
    expected = {
        "/v2/team/app/manifests/v2": (404, "MANIFEST_UNKNOWN"),
        f"/v2/team/app/manifests/{other}": (404, "MANIFEST_UNKNOWN"),
        "/v2/none/manifests/v1": (404, "NAME_UNKNOWN"),
        "/v2/none/tags/list": (404, "NAME_UNKNOWN"),
        f"/v2/team/app/blobs/{other}": (404, "BLOB_UNKNOWN"),
        "/v2/team/app/blobs/sha256:1": (400, "DIGEST_INVALID"),
        "/v2/team/app/blobs/uploads/x": (404, "BLOB_UPLOAD_UNKNOWN"),
        "/v2/Team/manifests/v1": (400, "NAME_INVALID"),
        "/v2/team/app/tags/list?n=x": (400, "PAGINATION_NUMBER_INVALID"),
        "/v2/nothing": (404, "UNSUPPORTED"),
    }
    for path, answer in expected.items():
        async with client.get(path) as response:
            assert await code(response) == answer, path


async def test_blob_is_served_from_any_offset(client: aiohttp.ClientSession, built: BuiltImage) -> None:
    digest, data = next(iter(built.blobs.items()))
    path = f"/v2/team/app/blobs/{digest}"
    async with client.get(path) as response:
        assert await response.read() == data
        assert response.headers["Content-Length"] == str(len(data))
    async with client.get(path, headers={"Range": "bytes=10-"}) as response:
        assert response.status == 206
        assert response.headers["Content-Range"] == f"bytes 10-{len(data) - 1}/{len(data)}"
        assert await response.read() == data[10:]
    async with client.get(path, headers={"Range": "bytes=10-19"}) as response:
        assert await response.read() == data[10:20]
    async with client.get(path, headers={"Range": f"bytes={len(data)}-"}) as response:
        assert response.status == 416
    async with client.head(path) as response:
        assert response.headers["Content-Length"] == str(len(data))


async def test_listings_are_paged_to_the_end(client: aiohttp.ClientSession, registry: DemoRegistry) -> None:
    built = image("a")
    tags = {f"v{number}" for number in range(5)}
    for tag in tags:
        load(registry.store, "team/app", tag, built)
    for name in ("b", "c"):
        load(registry.store, name, "v1", built)
    assert await pages(client, "/v2/team/app/tags/list?n=2", "tags") == sorted(tags)
    assert await pages(client, "/v2/_catalog?n=1", "repositories") == ["b", "c", "team/app"]
    async with client.get("/v2/team/app/tags/list?n=0") as response:
        assert (await response.json())["tags"] == []
        assert "Link" not in response.headers


async def pages(client: aiohttp.ClientSession, path: str, key: str) -> list[str]:
    names: list[str] = []
    following: str | None = path
    while following is not None:
        async with client.get(following) as response:
            names += (await response.json())[key]
            following = str(response.links["next"]["url"]) if "next" in response.links else None
    return names


async def put(
    client: aiohttp.ClientSession, location: str, digest: Digest, data: bytes
) -> aiohttp.ClientResponse:
    return await client.put(f"{location}?digest={digest}", data=data)


async def test_blob_comes_in_one_piece_or_in_chunks(
    client: aiohttp.ClientSession, registry: DemoRegistry
) -> None:
    data = b"0123456789"
    async with client.post("/v2/app/blobs/uploads/") as response:
        assert response.status == 202
        location = response.headers["Location"]
    async with await put(client, location, digest_of(data), data) as response:
        assert response.status == 201
        assert response.headers["Docker-Content-Digest"] == digest_of(data)
    async with client.post(f"/v2/app/blobs/uploads/?digest={digest_of(b'whole')}", data=b"whole") as response:
        assert response.status == 201
    async with client.post("/v2/app/blobs/uploads/") as response:
        location = response.headers["Location"]
    async with client.patch(location, data=b"abc", headers={"Content-Range": "0-2"}) as response:
        assert response.status == 202
        assert response.headers["Range"] == "0-2"
    async with client.patch(location, data=b"xyz", headers={"Content-Range": "9-11"}) as response:
        assert response.status == 416
        assert response.headers["Range"] == "0-2"
    async with client.get(location) as response:
        assert (response.status, response.headers["Range"]) == (204, "0-2")
    async with await put(client, location, digest_of(b"abcdef"), b"def") as response:
        assert response.status == 201
    assert registry.store.content("app").blobs == {digest_of(b"abcdef"), digest_of(b"whole"), digest_of(data)}
    assert registry.store.uploads == {}


async def test_wrong_digest_leaves_nothing(client: aiohttp.ClientSession, registry: DemoRegistry) -> None:
    async with client.post("/v2/app/blobs/uploads/") as response:
        location = response.headers["Location"]
    async with await put(client, location, digest_of(b"other"), b"data") as response:
        assert await code(response) == (400, "DIGEST_INVALID")
    async with client.post(f"/v2/app/blobs/uploads/?digest={digest_of(b'other')}", data=b"data") as response:
        assert await code(response) == (400, "DIGEST_INVALID")
    assert registry.store.repositories == {}
    assert registry.store.uploads == {}


async def test_upload_is_bounded_and_can_be_cancelled(
    client: aiohttp.ClientSession, registry: DemoRegistry
) -> None:
    async with client.post("/v2/app/blobs/uploads/") as response:
        location = response.headers["Location"]
    async with client.patch(location, data=bytes(100_001)) as response:
        assert await code(response) == (413, "SIZE_INVALID")
    async with client.delete(location) as response:
        assert response.status == 204
    assert registry.store.uploads == {}


async def test_broken_upload_keeps_what_came_and_goes_on(
    client: aiohttp.ClientSession, registry: DemoRegistry
) -> None:
    arrived = asyncio.Event()

    async def body() -> AsyncIterator[bytes]:
        yield b"abc"
        while registry.store.upload("app", location.rpartition("/")[2]).size < 3:  # noqa: ASYNC110 -- the server tells of no arrivals
            await asyncio.sleep(0)
        arrived.set()
        await asyncio.Event().wait()

    async with client.post("/v2/app/blobs/uploads/") as response:
        location = response.headers["Location"]
    patching = asyncio.create_task(client.patch(location, data=body()))
    await arrived.wait()
    patching.cancel()
    with pytest.raises(asyncio.CancelledError):
        await patching
    async with client.get(location) as response:
        assert response.headers["Range"] == "0-2"
    async with await put(client, location, digest_of(b"abcdef"), b"def") as response:
        assert response.status == 201


async def test_mount_shares_or_opens_a_session(client: aiohttp.ClientSession, registry: DemoRegistry) -> None:
    digest = registry.store.put_blob("one", b"data")
    async with client.post(f"/v2/two/blobs/uploads/?mount={digest}&from=one") as response:
        assert response.status == 201
    async with client.post(f"/v2/two/blobs/uploads/?mount={digest}&from=none") as response:
        assert response.status == 202
        assert response.headers["Location"].startswith("/v2/two/blobs/uploads/")
    assert registry.store.content("two").blobs == {digest}


async def test_manifest_is_taken_only_with_all_it_names(
    client: aiohttp.ClientSession, registry: DemoRegistry
) -> None:
    built = image("a")
    headers = {"Content-Type": OCI_MANIFEST}
    async with client.put("/v2/app/manifests/v1", data=built.manifest.body, headers=headers) as response:
        assert response.status == 400
        errors = (await response.json())["errors"]
        assert {error["detail"]["digest"] for error in errors} == set(built.blobs)
    for data in built.blobs.values():
        registry.store.put_blob("app", data)
    wrong = digest_of(b"other")
    async with client.put(
        f"/v2/app/manifests/{wrong}", data=built.manifest.body, headers=headers
    ) as response:
        assert await code(response) == (400, "DIGEST_INVALID")
    async with client.put("/v2/app/manifests/v1", data=b"{", headers=headers) as response:
        assert await code(response) == (400, "MANIFEST_INVALID")
    async with client.put(
        "/v2/app/manifests/v1", data=io.BytesIO(bytes(5 * 1024**2)), headers=headers
    ) as response:
        assert response.status == 413
    for reference in (built.digest, "v1"):
        path = f"/v2/app/manifests/{reference}"
        async with client.put(path, data=built.manifest.body, headers=headers) as response:
            assert response.status == 201
            assert response.headers["Docker-Content-Digest"] == built.digest
            assert "OCI-Subject" not in response.headers


async def test_referrers_are_listed_and_filtered(
    client: aiohttp.ClientSession, registry: DemoRegistry, built: BuiltImage
) -> None:
    signature = image("signature", subject=built.manifest.descriptor)
    load(registry.store, "team/app", None, signature)
    headers = {"Content-Type": OCI_MANIFEST}
    path = f"/v2/team/app/manifests/{signature.digest}"
    async with client.put(path, data=signature.manifest.body, headers=headers) as response:
        assert response.headers["OCI-Subject"] == built.digest
    path = f"/v2/team/app/referrers/{built.digest}"
    async with client.get(path) as response:
        assert response.headers["Content-Type"] == OCI_INDEX
        (entry,) = (await response.json())["manifests"]
        assert entry["digest"] == signature.digest
        assert entry["artifactType"] == "application/vnd.oci.image.config.v1+json"
    async with client.get(f"{path}?artifactType=x/y") as response:
        assert response.headers["OCI-Filters-Applied"] == "artifactType"
        assert (await response.json())["manifests"] == []
    async with client.get(f"/v2/team/app/referrers/{digest_of(b'none')}") as response:
        assert (await response.json())["manifests"] == []


async def test_deleting_a_tag_leaves_the_manifest_and_a_manifest_takes_its_tags(
    client: aiohttp.ClientSession, registry: DemoRegistry, built: BuiltImage
) -> None:
    for tag in ("v2", "v3"):
        load(registry.store, "team/app", tag, built)
    async with client.delete("/v2/team/app/manifests/v2") as response:
        assert response.status == 202
    assert set(registry.store.content("team/app").tags) == {"v1", "v3"}
    async with client.delete(f"/v2/team/app/manifests/{built.digest}") as response:
        assert response.status == 202
    assert registry.store.content("team/app").tags == {}
    digest = built.manifest.blobs[0].digest
    async with client.delete(f"/v2/team/app/blobs/{digest}") as response:
        assert response.status == 202
    assert digest not in registry.store.blobs
