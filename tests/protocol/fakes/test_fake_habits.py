"""The fake's vendors and token service, seen by a plain client."""

from __future__ import annotations

import aiohttp
from yarl import URL

from replicator.demo.images import image, layer, load
from replicator.model.digest import digest_of
from tests.fakes import habits, places
from tests.fakes.auth import Basic, Bearer
from tests.fakes.registry import FakeRegistry
from tests.fakes.vendors import acr, ecr, ghcr


async def test_basic_lets_in_who_has_the_password() -> None:
    async with FakeRegistry(auth=Basic({"me": "secret"})) as fake, aiohttp.ClientSession(fake.url) as client:
        async with client.get("/v2/") as response:
            assert response.status == 401
            assert response.headers["WWW-Authenticate"] == 'Basic realm="fake"'
        async with client.get(
            "/v2/", headers={"Authorization": aiohttp.encode_basic_auth("me", "secret")}
        ) as response:
            assert response.status == 200


async def test_token_is_good_for_its_scopes_until_it_expires() -> None:
    bearer = Bearer(
        {"me": "secret"}, grant=lambda user, scope: scope if user or "push" not in scope else "", good_for=3
    )
    async with FakeRegistry(auth=bearer) as fake, aiohttp.ClientSession(fake.url) as client:
        load(fake.store, "app", "v1", image("a"))
        async with client.get("/v2/app/manifests/v1") as response:
            assert 'scope="repository:app:pull"' in response.headers["WWW-Authenticate"]
        async with client.get("/token?service=fake&scope=repository:app:pull") as response:
            token = {"Authorization": f"Bearer {(await response.json())['token']}"}
        statuses = []
        for _ in range(3):
            async with client.get("/v2/app/manifests/v1", headers=token) as response:
                statuses.append(response.status)
            async with client.post("/v2/app/blobs/uploads/", headers=token) as response:
                statuses.append(response.status)
        async with client.get("/v2/app/manifests/v1", headers=token) as response:
            statuses.append(response.status)
        assert statuses == [200, 401, 200, 401, 200, 401, 401]
        form = {
            "grant_type": "password",
            "username": "me",
            "password": "secret",
            "scope": "repository:app:pull,push",
        }
        async with client.post("/token", data=form) as response:
            token = {"Authorization": f"Bearer {(await response.json())['token']}"}
        async with client.post("/v2/app/blobs/uploads/", headers=token) as response:
            assert response.status == 202
        bearer.expire()
        async with client.post("/v2/app/blobs/uploads/", headers=token) as response:
            assert 'error="invalid_token"' in response.headers["WWW-Authenticate"]
        form["password"] = "wrong"
        async with client.post("/token", data=form) as response:
            assert response.status == 401
    assert [granted.status for granted in bearer.grants] == [200, 200, 401]


async def test_harbor_switches_its_challenge() -> None:
    async with FakeRegistry(auth=Bearer(harbor=True)) as fake, aiohttp.ClientSession(fake.url) as client:
        async with client.get("/v2/") as response:
            assert response.headers["WWW-Authenticate"].startswith("Bearer ")
        async with client.get("/v2/", headers={"Authorization": "Bearer old"}) as response:
            assert response.headers["WWW-Authenticate"].startswith("Basic ")


async def test_state_in_the_location_is_exact_and_new() -> None:
    async with FakeRegistry(places.stateful_locations()) as fake, aiohttp.ClientSession(fake.url) as client:
        async with client.post("/v2/app/blobs/uploads/") as response:
            first = response.headers["Location"]
        async with client.patch(URL(first), data=b"ab") as response:  # decoded and encoded again
            assert response.status == 400
        async with client.patch(URL(first, encoded=True), data=b"ab") as response:
            second = response.headers["Location"]
        digest = digest_of(b"ab")
        async with client.put(URL(f"{first}&digest={digest}", encoded=True)) as response:
            assert response.status == 416
        async with client.put(URL(f"{second}&digest={digest}", encoded=True)) as response:
            assert response.status == 201


async def test_chunks_as_the_vendors_have_them() -> None:
    quirks = [ghcr.habits(largest_chunk=4), acr.habits(largest_put=4), ecr.habits("app")]
    async with FakeRegistry(*quirks) as fake, aiohttp.ClientSession(fake.url) as client:
        async with client.post("/v2/none/blobs/uploads/") as response:
            assert response.status == 404
        async with client.post("/v2/app/blobs/uploads/") as response:
            location = response.headers["Location"]
        async with client.patch(location, data=b"01234", headers={"Content-Range": "0-4"}) as response:
            assert response.status == 416
        async with client.patch(location, data=b"0123", headers={"Content-Range": "bytes 0-3/*"}) as response:
            assert response.status == 400
        for start in (0, 4):
            chunk = {"Content-Range": f"{start}-{start + 3}"}
            async with client.patch(location, data=b"0123", headers=chunk) as response:
                assert (response.status, response.headers["Range"]) == (201, "0-3")
        async with client.put(f"{location}?digest={digest_of(b'0')}", data=b"01234") as response:
            assert response.status == 413


async def test_unkind_transfer_encodings_still_carry_the_content() -> None:
    built = image("a", [layer("x", 100_000)])
    digest = built.manifest.blobs[1].digest
    for quirk in (habits.no_content_length(), habits.gzipped_unasked()):
        async with FakeRegistry(quirk) as fake, aiohttp.ClientSession(fake.url) as client:
            load(fake.store, "app", "v1", built)
            async with client.get(f"/v2/app/blobs/{digest}") as response:
                assert await response.read() == built.blobs[digest]
                assert (
                    response.headers.get("Transfer-Encoding") == "chunked"
                    or response.headers["Content-Encoding"]
                )


async def test_pages_links_and_null() -> None:
    built = image("a")
    links = {
        "relative": '</v2/app/tags/list?last=v1&n=2>; rel="next"',
        "several": '; rel="previous", </v2/app/tags/list?last=v1&n=2>; rel="next"',
        "same": '</v2/app/tags/list?last=&n=2>; rel="next"',
        "foreign": "http://example.invalid/",
    }
    for kind, expected in links.items():
        quirk = habits.page_size(2, link=kind)
        async with FakeRegistry(quirk) as fake, aiohttp.ClientSession(fake.url) as client:
            for tag in ("v0", "v1", "v2"):
                load(fake.store, "app", tag, built)
            async with client.get("/v2/app/tags/list?n=1000") as response:
                assert (await response.json())["tags"] == ["v0", "v1"]
                assert expected in response.headers["Link"]
    async with FakeRegistry(habits.distribution_tags()) as fake, aiohttp.ClientSession(fake.url) as client:
        load(fake.store, "app", None, built)
        async with client.get("/v2/app/tags/list") as response:
            assert (await response.json())["tags"] is None


async def test_second_origin_takes_uploads_without_authorization() -> None:
    async with FakeRegistry(places.uploads_in_storage()) as fake, aiohttp.ClientSession(fake.url) as client:
        async with client.post("/v2/app/blobs/uploads/") as response:
            location = response.headers["Location"]
        assert location.startswith(fake.storage_url)
        target = f"{location}?digest={digest_of(b'data')}"
        async with client.put(target, data=b"data", headers={"Authorization": "Bearer x"}) as response:
            assert response.status == 400
        async with client.put(target, data=b"data") as response:
            assert response.status == 201
        assert fake.uploaded_bytes == 4
