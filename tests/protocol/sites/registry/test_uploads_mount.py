"""Mounting a blob from another repository of the same registry, and what becomes of it where that is refused."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from aiohttp import web

from replicator.errors import SiteError, Throttled
from replicator.model.digest import digest_of
from replicator.sites.registry.site import RegistrySite
from tests.fakes import faults
from tests.fakes.auth import Bearer
from tests.fakes.clients import CountedSource, registry_site
from tests.fakes.registry import Action, Exchange, FakeRegistry

DATA = b"layer" * 10_000
MOUNT = r"/v2/app/blobs/uploads/\?mount="


@pytest.fixture
async def fake() -> AsyncIterator[FakeRegistry]:
    async with FakeRegistry() as fake:
        fake.store.put_blob("near/base", DATA)
        yield fake


@pytest.fixture
async def site(fake: FakeRegistry) -> AsyncIterator[RegistrySite]:
    async with registry_site(fake.url) as site:
        yield site


def stored(fake: FakeRegistry, data: bytes = DATA) -> bool:
    return not fake.store.uploads and digest_of(data) in fake.store.content("app").blobs


async def test_a_mount_moves_nothing(fake: FakeRegistry, site: RegistrySite) -> None:
    source = CountedSource(DATA)
    assert await site.repository("app").write_blob(source, origin="near/base") == "mounted"
    assert stored(fake)
    assert source.opened == []
    assert fake.find("POST")[0].query == f"mount={digest_of(DATA)}&from=near/base"
    assert fake.count() == 2  # the ping, and the mount


async def test_the_session_of_a_refused_mount_is_used(fake: FakeRegistry, site: RegistrySite) -> None:
    fake.fault("POST", MOUNT, faults.ignore_mount())
    assert await site.repository("app").write_blob(CountedSource(DATA), origin="near/base") == "copied"
    assert stored(fake)
    assert [entry.method for entry in fake.find(target="/uploads/")] == ["POST", "PUT"]


@pytest.mark.parametrize("refusal", [faults.ignore_mount(), faults.answer(405)])
async def test_a_blob_that_is_there_already_is_not_sent_after_a_refused_mount(
    fake: FakeRegistry, site: RegistrySite, refusal: Action
) -> None:
    fake.store.put_blob("app", DATA)
    fake.fault("POST", MOUNT, refusal)
    source = CountedSource(DATA)
    assert await site.repository("app").write_blob(source, origin="near/base") == "present"
    assert source.opened == []
    assert not fake.store.uploads


async def test_a_registry_that_will_not_say_what_is_there_after_a_refused_mount_is_sent_the_blob(
    fake: FakeRegistry, site: RegistrySite
) -> None:
    fake.fault("POST", MOUNT, faults.ignore_mount())
    fake.fault("HEAD", "/v2/app/blobs/", faults.answer(403), times=None)
    assert await site.repository("app").write_blob(CountedSource(DATA), origin="near/base") == "copied"
    assert stored(fake)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 500])
async def test_a_mount_answered_with_an_error_is_followed_by_a_plain_upload(
    fake: FakeRegistry, site: RegistrySite, status: int
) -> None:
    fake.fault("POST", MOUNT, faults.answer(status), times=None)
    assert await site.repository("app").write_blob(CountedSource(DATA), origin="near/base") == "copied"
    assert stored(fake)
    assert fake.find("POST")[-1].query == ""


async def test_a_registry_that_refuses_mounts_is_soon_not_asked_for_them(
    fake: FakeRegistry, site: RegistrySite
) -> None:
    fake.fault("POST", MOUNT, faults.answer(405), times=None)
    for number in range(5):
        await site.repository("app").write_blob(CountedSource(b"%d" % number), origin="near/base")
    assert fake.count("POST", MOUNT) == 3
    assert not site.capabilities.mount


async def test_single_refusals_do_not_end_mounting(fake: FakeRegistry, site: RegistrySite) -> None:
    for number in range(4):
        fake.clear_faults()
        fake.fault("POST", MOUNT, faults.answer(404), times=2)
        for data in (b"a%d" % number, b"b%d" % number):
            await site.repository("app").write_blob(CountedSource(data), origin="near/base")
        fake.store.put_blob("near/base", b"c%d" % number)
        assert await site.repository("app").write_blob(
            CountedSource(b"c%d" % number), origin="near/base"
        ) == ("mounted")


async def test_a_registry_that_cannot_mount_is_not_asked(fake: FakeRegistry) -> None:
    async with registry_site(fake.url, {"mount": False}) as site:
        assert not site.capabilities.mount
        assert await site.repository("app").write_blob(CountedSource(DATA), origin="near/base") == "copied"
    assert fake.count("POST", MOUNT) == 0


async def test_a_throttled_mount_is_no_reason_to_send_the_blob(
    fake: FakeRegistry, site: RegistrySite
) -> None:
    fake.fault("POST", MOUNT, faults.answer(429), times=None)
    source = CountedSource(DATA)
    with pytest.raises(Throttled):
        await site.repository("app").write_blob(source, origin="near/base")
    assert source.opened == []


async def test_a_mount_asks_to_read_the_origin_too() -> None:
    auth = Bearer({"u": "p"})
    async with FakeRegistry(auth=auth) as fake:
        fake.store.put_blob("near/base", DATA)
        async with registry_site(fake.url, user="u", password="p") as site:
            await site.repository("app").write_blob(CountedSource(DATA), origin="near/base")
    assert auth.grants[-1].scopes == ("repository:app:pull,push", "repository:near/base:pull")


@pytest.mark.parametrize("ignored", [False, True])
async def test_a_cancelled_mount_leaves_no_session(
    fake: FakeRegistry, site: RegistrySite, *, ignored: bool
) -> None:
    reached, go_on = asyncio.Event(), asyncio.Event()

    async def slow(exchange: Exchange) -> web.StreamResponse:
        reached.set()
        await go_on.wait()
        return await (faults.ignore_mount()(exchange) if ignored else exchange.proceed())

    fake.fault("POST", MOUNT, slow)
    writing = asyncio.create_task(site.repository("app").write_blob(CountedSource(DATA), origin="near/base"))
    await reached.wait()
    writing.cancel()
    await asyncio.sleep(0)
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await writing
    assert not fake.store.uploads
    assert fake.count("DELETE") == (1 if ignored else 0)


async def test_a_session_from_a_mount_is_cancelled_when_the_upload_fails(
    fake: FakeRegistry, site: RegistrySite
) -> None:
    fake.fault("POST", MOUNT, faults.ignore_mount())
    fake.fault("PUT", "/uploads/", faults.refuse(403, "DENIED"))
    with pytest.raises(SiteError):
        await site.repository("app").write_blob(CountedSource(DATA), origin="near/base")
    assert not fake.store.uploads
