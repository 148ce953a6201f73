"""A bucket as an object store, in front of a server that misbehaves."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from replicator.errors import (
    Advice,
    AuthFailed,
    ConfigError,
    Corrupt,
    Denied,
    Rejected,
    SiteError,
    Throttled,
    Unavailable,
)
from replicator.events import Event, Events, LimitChanged, RequestDone, RetryPlanned, Warned
from replicator.flow.clock import SystemClock
from replicator.flow.retry import Budget
from replicator.model.digest import digest_of
from replicator.sites.objects.s3 import S3Store, checksums
from replicator.sites.objects.s3.upload import (
    DEFAULT_PART_BYTES,
    MAX_PARTS,
    PARTS_AT_ONCE,
    S3Upload,
    Spare,
    part_bytes_for,
)
from replicator.sites.objects.settings import S3Keys
from tests.fakes.s3 import (
    KEYS,
    Faulty,
    Forward,
    broken_body,
    error,
    faulty,
    lost_answer,
    raw_client,
    reset,
    settings,
    without_conditions,
)

QUICK = Budget(attempts=4, seconds=30, wait_initial=0.001, wait_max=0.002)
PART = DEFAULT_PART_BYTES


class Stores:
    """Opens stores and closes them all; `seen` is what they told."""

    def __init__(self) -> None:
        self.seen: list[Event] = []
        self.events = Events()
        self.events.subscribe(self.seen.append)
        self.opened: list[S3Store] = []

    def open(self, endpoint: str, bucket: str, *, clock: Any = None, **more: Any) -> S3Store:
        whole = {"whole_copy_bytes": more.pop("whole_copy_bytes")} if "whole_copy_bytes" in more else {}
        store = S3Store(
            settings(endpoint, bucket, **more),
            events=self.events,
            clock=clock or SystemClock(),
            budget=QUICK,
            **whole,
        )
        self.opened.append(store)
        return store

    def of(self, kind: type[Any]) -> list[Any]:
        return [event for event in self.seen if isinstance(event, kind)]


@pytest.fixture
async def stores() -> AsyncIterator[Stores]:
    stores = Stores()
    yield stores
    for store in stores.opened:
        await store.aclose()


@pytest.fixture
async def proxy(s3_endpoint: str) -> AsyncIterator[Faulty]:
    async with faulty(s3_endpoint) as proxy:
        yield proxy


@pytest.fixture
def store(stores: Stores, proxy: Faulty, s3_bucket: str) -> S3Store:
    return stores.open(proxy.endpoint, s3_bucket)


async def upload(store: S3Store, key: str, data: bytes) -> None:
    async with store.upload(key, len(data)) as target:
        for start in range(0, len(data), 1 << 20):
            await target.write(data[start : start + (1 << 20)])
        await target.commit()


async def multiparts(endpoint: str, bucket: str) -> list[str]:
    async with raw_client(endpoint) as client:
        return [
            found["Key"] for found in (await client.list_multipart_uploads(Bucket=bucket)).get("Uploads", ())
        ]


# --- passing trouble ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fault",
    [error(500, "InternalError"), error(503, "SlowDown"), error(400, "RequestTimeout"), reset, lost_answer],
)
async def test_passing_trouble_is_tried_again(
    store: S3Store, proxy: Faulty, stores: Stores, fault: Any
) -> None:
    await store.put("a", b"old")
    proxy.on("PUT", "/a", fault, times=2)
    proxy.on("GET", "/a", fault)
    proxy.on("HEAD", "/a", error(500, "InternalError"))
    await store.put("a", b"new")
    assert (await store.get("a", 9))[0] == b"new"
    assert await store.stat("a")
    # Told or not: aiohttp itself sends again once where a kept connection breaks.
    assert [proxy.count(method, "/a") for method in ("PUT", "GET", "HEAD")] == [4, 2, 2]
    assert stores.of(RetryPlanned)


async def test_store_that_wants_to_be_left_alone_for_a_day_is_not_asked_for_the_next_object(
    store: S3Store, proxy: Faulty
) -> None:
    proxy.on("GET", "/a", error(503, "SlowDown", **{"Retry-After": "86400"}))
    with pytest.raises(Throttled, match=r"bucket: read object a: SlowDown"):
        await store.get("a", 9)
    with pytest.raises(
        Throttled, match=r"bucket: read object other: skipped: the site asked clients to wait"
    ):
        await store.get("other", 9)
    assert proxy.count("GET", "/other") == 0


async def test_slow_down_halves_the_gate_and_lasting_trouble_is_raised(
    store: S3Store, proxy: Faulty, stores: Stores
) -> None:
    proxy.on("GET", "/a", error(503, "SlowDown", "Please reduce your request rate."), times=99)
    with pytest.raises(Throttled, match=r"bucket: read object a: SlowDown \(503\): Please reduce"):
        await store.get("a", 9)
    assert proxy.count("GET", "/a") == QUICK.attempts
    assert any(event.kind == "requests" and event.limit == 8 for event in stores.of(LimitChanged))
    assert {event.code for event in stores.of(RequestDone)} == {"503"}


async def test_a_reset_in_mid_part_sends_that_part_again(
    store: S3Store, proxy: Faulty, s3_bucket: str, s3_endpoint: str
) -> None:
    proxy.on("PUT", "partNumber=1", reset)
    proxy.on("PUT", "partNumber=2", error(500, "InternalError"))
    data = bytes(range(256)) * (PART // 128)
    await upload(store, "blob", data + b"end")
    assert proxy.count("PUT", "partNumber=1") == 2
    assert proxy.count("PUT", "partNumber=3") == 1
    async with store.read("blob") as chunks:
        assert b"".join([chunk async for chunk in chunks]) == data + b"end"
    assert await multiparts(s3_endpoint, s3_bucket) == []


async def test_two_hundred_with_an_error_in_the_body_is_an_error_and_tried_again(
    store: S3Store, proxy: Faulty
) -> None:
    proxy.on("POST", "uploadId=", error(200, "InternalError", "We encountered an internal error"))
    await upload(store, "blob", b"x" * (PART + 1))
    assert proxy.count("POST", "uploadId=") == 2
    proxy.on("PUT", "/copied", error(200, "SlowDown"))
    await store.link("blob", "copied")
    assert proxy.count("PUT", "/copied") == 2
    found = await store.stat("copied")
    assert found
    assert found.size == PART + 1


async def test_two_hundred_with_an_error_in_the_body_for_good_leaves_nothing(
    store: S3Store, proxy: Faulty, s3_endpoint: str, s3_bucket: str
) -> None:
    proxy.on("POST", "uploadId=", error(200, "InternalError"), times=99)
    with pytest.raises(Unavailable, match="InternalError"):
        await upload(store, "blob", b"x" * (PART + 1))
    assert await store.stat("blob") is None
    assert await multiparts(s3_endpoint, s3_bucket) == []
    proxy.on("PUT", "/copied", error(200, "InternalError"), times=99)
    await store.put("small", b"1")
    with pytest.raises(Unavailable, match="InternalError"):
        await store.link("small", "copied")
    assert await store.stat("copied") is None


async def test_a_completion_whose_answer_was_lost_is_none_the_less_done(
    store: S3Store, proxy: Faulty
) -> None:
    proxy.on("POST", "uploadId=", lost_answer)
    proxy.on("POST", "uploadId=", error(404, "NoSuchUpload"))
    await upload(store, "blob", b"x" * (PART + 1))
    found = await store.stat("blob")
    assert found
    assert found.size == PART + 1


async def test_a_vanished_upload_is_an_error(store: S3Store, proxy: Faulty) -> None:
    proxy.on("POST", "uploadId=", error(404, "NoSuchUpload"))
    with pytest.raises(SiteError):
        await upload(store, "blob", b"x" * (PART + 1))


async def test_a_body_that_breaks_off_is_unavailable_and_can_be_resumed(
    store: S3Store, proxy: Faulty
) -> None:
    data = bytes(range(256)) * 10_000
    await upload(store, "blob", data)
    proxy.on("GET", "/blob", broken_body)
    got = bytearray()

    async def read() -> None:
        async with store.read("blob", len(got)) as chunks:
            async for chunk in chunks:
                got.extend(chunk)

    with pytest.raises(Unavailable, match="broke"):
        await read()
    assert 0 < len(got) < len(data)
    await read()
    assert got == data


async def test_a_small_object_whose_body_breaks_off_is_read_again(store: S3Store, proxy: Faulty) -> None:
    await store.put("a", b"x" * 10_000)
    proxy.on("GET", "/a", broken_body)
    assert (await store.get("a", 10_000))[0] == b"x" * 10_000


async def test_a_failing_part_fails_the_upload_and_aborts_it(
    store: S3Store, proxy: Faulty, s3_endpoint: str, s3_bucket: str
) -> None:
    proxy.on("PUT", "partNumber=2", error(403, "AccessDenied"), times=99)
    with pytest.raises(Denied, match="write object blob"):
        await upload(store, "blob", b"x" * (4 * PART))
    assert await store.stat("blob") is None
    assert await multiparts(s3_endpoint, s3_bucket) == []


async def test_nobody_listening_is_unavailable(stores: Stores, s3_bucket: str) -> None:
    store = stores.open("http://127.0.0.1:1", s3_bucket)
    with pytest.raises(Unavailable, match=r"cannot connect to http://127\.0\.0\.1:1"):
        await store.get("a", 1)


async def test_an_answer_that_is_no_s3_is_an_error(store: S3Store, proxy: Faulty) -> None:
    async def page(request: Any, _: Forward) -> Any:
        return web.Response(text="<html>welcome</html>", content_type="text/html")

    proxy.on("GET", "list-type", page, times=99)
    proxy.on("HEAD", "/a", page, times=99)
    proxy.on("PUT", "/a", page, times=99)

    async def listing() -> None:
        _ = [page async for page in store.list("")]

    for call in (listing(), store.stat("a"), store.put("a", b"1"), upload(store, "a", bytes(PART + 1))):
        with pytest.raises(Unavailable, match="does not answer as S3 does"):
            await call


# --- lasting trouble, by name -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "kind", "advice", "text"),
    [
        (error(404, "NoSuchBucket"), Rejected, Advice.STOP_SITE, "does not exist at"),
        (
            error(403, "AccessDenied", "Access Denied"),
            Denied,
            Advice.GIVE_UP,
            "AccessDenied (403): Access Denied",
        ),
        (
            error(400, "ExpiredToken", "has expired"),
            AuthFailed,
            Advice.STOP_SITE,
            "ExpiredToken (400): has expired",
        ),
        (error(403, "InvalidAccessKeyId"), AuthFailed, Advice.STOP_SITE, "InvalidAccessKeyId"),
        (error(403, "SignatureDoesNotMatch"), AuthFailed, Advice.STOP_SITE, "SignatureDoesNotMatch"),
        (error(403, "RequestTimeTooSkewed"), AuthFailed, Advice.STOP_SITE, "the clock of this machine"),
        (error(507, "XMinioStorageFull"), Unavailable, Advice.LATER, "XMinioStorageFull"),
        (error(400, "InvalidRequest", "a\x7fb\nc"), Rejected, Advice.GIVE_UP, "InvalidRequest (400): a b c"),
    ],
)
async def test_what_is_wrong_is_named(
    store: S3Store, proxy: Faulty, fault: Any, kind: type[SiteError], advice: Advice, text: str
) -> None:
    proxy.on("GET", "/a", fault, times=99)
    proxy.on("GET", "list-type", fault, times=99)
    proxy.on("PUT", "/a", fault, times=99)

    async def listing() -> None:
        _ = [page async for page in store.list("")]

    for call in (store.get("a", 9), store.put("a", b"1"), upload(store, "a", b"1"), listing()):
        with pytest.raises(kind, match=re.escape(text)) as raised:
            await call
        assert raised.value.advice is advice
        assert raised.value.site == "bucket"
    assert len(proxy.seen) <= 8


async def test_a_missing_bucket_is_not_an_empty_one(stores: Stores, s3_endpoint: str) -> None:
    store = stores.open(s3_endpoint, "never-made")
    with pytest.raises(Rejected, match="bucket never-made does not exist at"):
        _ = [page async for page in store.list("")]
    with pytest.raises(Rejected, match="bucket never-made does not exist at"):
        await store.put("a", b"1")


async def test_a_head_s_refusal_is_asked_again_for_its_reason(store: S3Store, proxy: Faulty) -> None:
    async def bare(request: Any, _: Forward) -> Any:
        return web.Response(status=400)

    proxy.on("HEAD", "/a", bare, times=99)
    proxy.on("GET", "/a", error(400, "ExpiredToken", "The provided token has expired."), times=99)
    with pytest.raises(AuthFailed, match="The provided token has expired"):
        await store.stat("a")


async def test_the_right_region_is_named(store: S3Store, proxy: Faulty) -> None:
    proxy.on("GET", "/a", error(301, "PermanentRedirect", inside="<Endpoint>elsewhere</Endpoint>"), times=99)
    proxy.on("HEAD", "", error(301, "", x_amz_bucket_region="eu-central-1"), times=99)
    with pytest.raises(Rejected, match="another region") as raised:
        await store.get("a", 9)
    assert raised.value.advice is Advice.STOP_SITE


async def test_refused_credentials_are_read_again_once(stores: Stores, proxy: Faulty, s3_bucket: str) -> None:
    current = ["OLDKEY"]
    keys = S3Keys(lambda: current[0], lambda: "secret")
    used: list[str] = []

    async def by_key(request: Any, forward: Forward) -> Any:
        key = request.headers["Authorization"].split("Credential=")[1].split("/")[0]
        used.append(key)
        if key == "OLDKEY":
            return await error(403, "InvalidAccessKeyId")(request, forward)
        status, headers, body = await forward()
        return web.Response(status=status, headers=headers, body=body)

    proxy.on("PUT", "/a", by_key, times=99)
    store = stores.open(proxy.endpoint, s3_bucket, keys=keys)
    with pytest.raises(AuthFailed):
        await store.put("a", b"1")
    assert used == ["OLDKEY"], "the same credentials are not tried twice"
    current[0] = "NEWKEY"
    await store.put("a", b"2")
    await store.put("a", b"3")
    assert used == ["OLDKEY", "OLDKEY", "NEWKEY", "NEWKEY"]


async def test_a_secret_that_cannot_be_read_is_said_and_not_shown(stores: Stores, s3_endpoint: str) -> None:
    def unreadable() -> str:
        raise ConfigError(["site.bucket.secret_key: no file /run/key"])

    store = stores.open(s3_endpoint, "any", keys=S3Keys(lambda: "AKIAEXAMPLE", unreadable))
    with pytest.raises(AuthFailed, match="no file /run/key"):
        await store.put("a", b"1")


async def test_no_credentials_at_all_is_said(
    stores: Stores, s3_endpoint: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    store = stores.open(s3_endpoint, "any", keys=None)
    with pytest.raises(AuthFailed, match="no credentials"):
        await store.put("a", b"1")
    store = stores.open(s3_endpoint, "any", keys=None, profile="nobody")
    with pytest.raises(AuthFailed, match="nobody"):
        await store.put("a", b"1")


async def test_a_profile_s_credentials_are_found(
    stores: Stores, s3_endpoint: str, s3_bucket: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "credentials").write_text(
        "[mirror]\naws_access_key_id = AKIAEXAMPLE\naws_secret_access_key = secret\n"
    )
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    store = stores.open(s3_endpoint, s3_bucket, keys=None, profile="mirror")
    assert await store.put("a", b"1")


@pytest.mark.parametrize("content", [None, "no certificate in here\n"])
async def test_an_unusable_ca_bundle_is_named(
    stores: Stores, s3_endpoint: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: str | None
) -> None:
    bundle = tmp_path / "ca.pem"
    if content is not None:
        bundle.write_text(content)
    monkeypatch.setenv("AWS_CA_BUNDLE", str(bundle))
    store = stores.open(s3_endpoint, "any")
    with pytest.raises(Unavailable, match="AWS_CA_BUNDLE") as raised:
        await store.put("a", b"1")
    assert raised.value.advice is Advice.STOP_SITE


# --- conditions ---------------------------------------------------------------------------------------------


async def test_a_store_that_refuses_conditions_is_done_without_and_said_once(
    store: S3Store, proxy: Faulty, stores: Stores
) -> None:
    async def refused(request: Any, forward: Forward) -> Any:
        if "If-None-Match" in request.headers or "If-Match" in request.headers:
            return await error(501, "NotImplemented", "A header you provided implies")(request, forward)
        return await without_conditions(request, forward)

    proxy.on("PUT", "", refused, times=99)
    version = await store.put("a", b"1", if_absent=True)
    assert store.conditional is False
    assert await store.put("a", b"2", if_absent=True) is None
    assert await store.put("a", b"2", if_match="other") is None
    assert await store.put("a", b"2", if_match=version)
    (warned,) = stores.of(Warned)
    assert "refuses conditional writes" in warned.text


async def test_a_store_that_ignores_conditions_is_found_out(
    store: S3Store, proxy: Faulty, stores: Stores
) -> None:
    proxy.on("PUT", "", without_conditions, times=99)
    version = await store.put("a", b"1", if_absent=True)
    assert version
    assert not store.conditional
    assert await store.put("a", b"2", if_absent=True) is None
    assert (await store.get("a", 9))[0] == b"1"
    (warned,) = stores.of(Warned)
    assert "ignores conditional writes" in warned.text


async def test_conditions_are_proven_once(store: S3Store, proxy: Faulty) -> None:
    await store.put("a", b"1", if_absent=True)
    assert proxy.count("PUT") == 2
    await store.put("b", b"1", if_absent=True)
    assert proxy.count("PUT") == 3
    assert store.conditional


async def test_our_own_write_whose_answer_was_lost_is_found_by_reading_again(
    store: S3Store, proxy: Faulty
) -> None:
    """Nothing tells it from another's: aiohttp itself sends a PUT again when a kept connection broke."""
    proxy.on("PUT", "/a", lost_answer)
    assert await store.put("a", b"mine", if_absent=True) is None
    data, version = await store.get("a", 9)
    assert data == b"mine"
    assert await store.put("a", b"new", if_match=version)


# --- copying ------------------------------------------------------------------------------------------------


async def test_copies_and_links_move_no_payload_through_us(
    stores: Stores, proxy: Faulty, s3_bucket: str, s3_endpoint: str
) -> None:
    data = bytes(range(256)) * (PART // 128)
    direct = stores.open(s3_endpoint, s3_bucket, prefix="one")
    await upload(direct, "blob", data)
    origin = stores.open(proxy.endpoint, s3_bucket, prefix="one")
    store = stores.open(proxy.endpoint, s3_bucket, prefix="two", whole_copy_bytes=5 << 20)
    assert await store.copy(origin, "blob", "blob")
    assert proxy.count("GET") == 0
    assert proxy.count("PUT", "partNumber=") == -(-len(data) // (5 << 20))
    async with store.read("blob") as chunks:
        assert b"".join([chunk async for chunk in chunks]) == data
    assert await multiparts(s3_endpoint, s3_bucket) == []


async def test_a_checksum_of_the_store_that_contradicts_the_digest_is_damage(
    stores: Stores, s3_bucket: str, s3_endpoint: str
) -> None:
    async with raw_client(s3_endpoint) as client:
        await client.put_object(
            Bucket=s3_bucket, Key="one/rotten", Body=b"rotten", ChecksumAlgorithm="SHA256"
        )
        await client.put_object(Bucket=s3_bucket, Key="one/good", Body=b"good", ChecksumAlgorithm="SHA256")
    origin = stores.open(s3_endpoint, s3_bucket, prefix="one")
    store = stores.open(s3_endpoint, s3_bucket, prefix="two")
    with pytest.raises(Corrupt, match="SHA256"):
        await store.copy(origin, "rotten", "x", digest=digest_of(b"of the right size"))
    assert await store.stat("x") is None
    assert await store.copy(origin, "good", "x", digest=digest_of(b"good"))


async def test_a_copy_with_another_checksum_than_its_origin_is_removed(
    stores: Stores, s3_bucket: str, s3_endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = stores.open(s3_endpoint, s3_bucket)
    await store.put("a", b"1")
    replies = iter([{"CRC64NVME": "AAA=", "CRC32": "x"}, {"CRC64NVME": "AAB="}])
    monkeypatch.setattr("replicator.sites.objects.s3.checksums.of_whole", lambda _: next(replies))
    with pytest.raises(Corrupt, match="CRC64NVME"):
        await store.copy(store, "a", "b")
    assert await store.stat("b") is None


def test_only_checksums_of_the_whole_object_count() -> None:
    assert checksums.of_whole({"ChecksumSHA256": "abc=", "ChecksumType": "FULL_OBJECT", "ETag": "x"}) == {
        "SHA256": "abc="
    }
    assert checksums.of_whole({"ChecksumSHA256": "abc=-3"}) == {}
    assert checksums.of_whole({"ChecksumSHA256": "abc=", "ChecksumType": "COMPOSITE"}) == {}
    assert checksums.differ({"CRC32": "a"}, {"SHA256": "b"}) is None


async def test_a_failed_copy_by_parts_leaves_nothing(
    stores: Stores, proxy: Faulty, s3_bucket: str, s3_endpoint: str
) -> None:
    store = stores.open(proxy.endpoint, s3_bucket, whole_copy_bytes=5 << 20)
    await upload(store, "blob", b"x" * (PART * 2))
    proxy.on("PUT", "partNumber=2", error(500, "InternalError"), times=99)
    with pytest.raises(Unavailable):
        await store.link("blob", "again")
    assert await store.stat("again") is None
    assert await multiparts(s3_endpoint, s3_bucket) == []


async def test_another_endpoint_or_identity_is_another_store(
    stores: Stores, proxy: Faulty, s3_endpoint: str, s3_bucket: str
) -> None:
    store = stores.open(s3_endpoint, s3_bucket)
    await store.put("a", b"1")
    others = [
        stores.open(proxy.endpoint, s3_bucket),
        stores.open(s3_endpoint, s3_bucket, keys=S3Keys(lambda: "OTHER", lambda: "secret")),
    ]
    for other in others:
        assert not await store.copy(other, "a", "b")
    assert await store.stat("b") is None


async def test_a_refused_copy_is_left_to_streaming(store: S3Store, proxy: Faulty) -> None:
    await store.put("a", b"1")
    proxy.on("PUT", "/b", error(403, "AccessDenied"))
    assert not await store.copy(store, "a", "b")


# --- parts and memory ---------------------------------------------------------------------------------------


@given(st.integers(0, 5 << 40))
def test_parts_are_few_enough_and_large_enough(size: int) -> None:
    part = part_bytes_for(size)
    assert part >= DEFAULT_PART_BYTES
    assert part * MAX_PARTS >= size
    assert part <= max(DEFAULT_PART_BYTES, size // MAX_PARTS + (1 << 20))


async def test_parts_go_in_parallel_within_bounds(stores: Stores, proxy: Faulty, s3_bucket: str) -> None:
    now = 0
    most = 0

    async def counted(request: Any, forward: Forward) -> Any:
        nonlocal now, most
        now += 1
        most = max(most, now)
        try:
            status, headers, _ = await forward()
        finally:
            now -= 1
        return web.Response(status=status, headers=headers)

    proxy.on("PUT", "partNumber=", counted, times=99)
    store = stores.open(proxy.endpoint, s3_bucket)
    await upload(store, "blob", bytes(7 * PART))
    assert 1 < most <= PARTS_AT_ONCE + 1


async def test_without_spare_buffers_an_upload_goes_on_one_part_at_a_time(
    store: S3Store, proxy: Faulty, stores: Stores
) -> None:
    spare = Spare(0)
    upload = S3Upload(store._bucket, "blob", size=3 * PART, extra={}, spare=spare)
    try:
        for _ in range(3):
            await upload.write(bytes(PART))
            assert len(upload._sending) == 0
        await upload.commit()
    finally:
        await upload.aclose()
    assert not spare.take()


async def test_spare_buffers_come_back(store: S3Store, proxy: Faulty) -> None:
    await upload(store, "good", bytes(5 * PART))
    proxy.on("PUT", "partNumber=3", error(403, "AccessDenied"))
    with pytest.raises(Denied):
        await upload(store, "bad", bytes(5 * PART))
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(0.05):
            await upload(store, "cancelled", bytes(9 * PART))
    assert store._spare._left == Spare()._left


async def test_a_small_object_is_one_request(store: S3Store, proxy: Faulty) -> None:
    await upload(store, "small", bytes(PART))
    assert [method for method, _ in proxy.seen] == ["PUT"]


async def test_cancelled_while_the_upload_is_begun_it_is_aborted(
    store: S3Store, proxy: Faulty, s3_endpoint: str, s3_bucket: str
) -> None:
    begun = asyncio.Event()

    async def slow(request: Any, forward: Forward) -> Any:
        status, headers, body = await forward()
        begun.set()
        await asyncio.sleep(0.05)
        return web.Response(status=status, headers=headers, body=body)

    proxy.on("POST", "uploads", slow)
    task = asyncio.create_task(upload(store, "blob", bytes(2 * PART)))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await multiparts(s3_endpoint, s3_bucket) == []


# --- what goes along, and what stays behind -----------------------------------------------------------------


async def test_encryption_and_storage_class_go_with_everything_written(
    stores: Stores, proxy: Faulty, s3_bucket: str
) -> None:
    heads: list[dict[str, str]] = []

    async def noted(request: Any, forward: Forward) -> Any:
        heads.append({name.lower(): value for name, value in request.headers.items()})
        status, headers, body = await forward()
        return web.Response(status=status, headers=headers, body=body)

    proxy.on("PUT", "/put", noted, times=9)
    proxy.on("PUT", "/copied", noted, times=9)
    proxy.on("POST", "uploads", noted, times=9)
    store = stores.open(
        proxy.endpoint, s3_bucket, sse="aws:kms", kms_key="key-1", storage_class="STANDARD_IA"
    )
    await store.put("put", b"1")
    await store.put("put2", b"1", if_absent=True)
    await upload(store, "large", bytes(PART + 1))
    await store.link("put", "copied")
    assert len(heads) == 5
    for head in heads:
        assert head["x-amz-server-side-encryption"] == "aws:kms"
        assert head["x-amz-server-side-encryption-aws-kms-key-id"] == "key-1"
        assert head["x-amz-storage-class"] == "STANDARD_IA"
        assert "x-amz-checksum-crc32" not in head, "many S3-compatible stores refuse botocore's own default"


async def test_a_sweep_aborts_the_stale_and_leaves_the_rest(
    stores: Stores, s3_endpoint: str, s3_bucket: str
) -> None:
    class Back(SystemClock):
        """So long after moto's multiparts were begun: they all say 2010-11-10T20:48:33Z."""

        def __init__(self, hours: float) -> None:
            begun = dt.datetime(2010, 11, 10, 20, 48, 33, tzinfo=dt.UTC)
            self._now = begun.timestamp() + hours * 3600

        def now(self) -> float:
            return self._now

    def is_ours(key: str) -> bool:
        return key.startswith("blobs/")

    async with raw_client(s3_endpoint) as client:
        for key in ["our/blobs/x", "our/blobs/y", "our/a/_uploads/1/data", "our/dump", "their/blobs/x"]:
            await client.create_multipart_upload(Bucket=s3_bucket, Key=key)
    await stores.open(s3_endpoint, s3_bucket, prefix="our", clock=Back(23)).sweep(is_ours)
    assert len(await multiparts(s3_endpoint, s3_bucket)) == 5
    await stores.open(s3_endpoint, s3_bucket, prefix="our", clock=Back(25)).sweep(is_ours)
    left = await multiparts(s3_endpoint, s3_bucket)
    assert sorted(left) == ["our/a/_uploads/1/data", "our/dump", "their/blobs/x"]


async def test_folder_markers_and_other_prefixes_are_not_listed(
    stores: Stores, s3_endpoint: str, s3_bucket: str
) -> None:
    async with raw_client(s3_endpoint) as client:
        for key in ["our/", "our/a/", "our/a/x", "ours/y", "z"]:
            await client.put_object(Bucket=s3_bucket, Key=key, Body=b"")
    store = stores.open(s3_endpoint, s3_bucket, prefix="our")
    assert [info.key async for page in store.list("") for info in page.objects] == ["a/x"]
    assert [name async for page in store.list("", delimiter=True) for name in page.prefixes] == ["a"]


async def test_a_listing_that_says_it_goes_on_but_not_where_is_no_complete_one(
    store: S3Store, proxy: Faulty
) -> None:
    async def endless(request: Any, _: Forward) -> Any:
        text = (
            "<ListBucketResult><IsTruncated>true</IsTruncated>"
            "<NextContinuationToken>same</NextContinuationToken></ListBucketResult>"
        )
        return web.Response(text=text, content_type="application/xml")

    proxy.on("GET", "list-type", endless, times=99)
    with pytest.raises(Corrupt, match="goes on"):
        _ = [page async for page in store.list("")]


def test_the_settings_show_no_secret() -> None:
    assert "secret" not in repr(settings("http://x", "b")).replace("secret_key", "")
    assert KEYS.secret_key() == "secret"
