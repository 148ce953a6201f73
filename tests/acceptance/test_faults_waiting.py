"""Registries that ask to wait, or never answer: waited for as long as is right, and no longer."""

from __future__ import annotations

import asyncio
import email.utils
import time

import pytest
from aiohttp import web

from replicator.events import RetryPlanned
from replicator.flow import limits
from tests.acceptance.wired import (
    BLOB_BYTES,
    CHUNK_BYTES,
    SHORT,
    SHORT_BUT_FOR_UPLOADS,
    SHORT_FOR_UPLOADS,
    Wired,
    wired,
)
from tests.fakes import faults
from tests.fakes.auth import Bearer
from tests.fakes.registry import Action, Exchange, FakeRegistry

SOURCE = {
    "list repositories": ("GET", "/v2/_catalog"),
    "list tags": ("GET", "/app/tags/list"),
    "resolve": ("HEAD|GET", "/app/manifests/v1"),
    "read manifest": ("GET", "/app/manifests/sha256"),
    "read blob": ("GET", "/app/blobs/"),
}
TARGET = {
    "list tags": ("GET", "/app/tags/list"),
    "check blob": ("HEAD", "/app/blobs/"),
    "start upload": ("POST", "/app/blobs/uploads/"),
    "upload": ("PUT", "/app/blobs/uploads/"),
    "write manifest": ("PUT", "/app/manifests/"),
}
EVERYWHERE = [("source", *one) for one in SOURCE.values()] + [("target", *one) for one in TARGET.values()]
NAMES = [f"source: {name}" for name in SOURCE] + [f"target: {name}" for name in TARGET]
everywhere = pytest.mark.parametrize(("site", "method", "target"), EVERYWHERE, ids=NAMES)


def fault(w: Wired, site: str, method: str, target: str, action: Action, *, times: int | None = 1) -> None:
    """Applies a fault at the source or the destination."""
    (w.source if site == "source" else w.target).fault(method, target, action, times=times)


async def must_end_well(w: Wired) -> None:
    result = await w.sync_one()
    assert result.outcome == "ok", result.failures
    assert w.tags() == w.whole


@everywhere
@pytest.mark.parametrize("status", [429, 503])
async def test_refusal_for_the_moment_is_asked_again(
    site: str, method: str, target: str, status: int
) -> None:
    async with wired() as w:
        fault(w, site, method, target, faults.answer(status))
        await must_end_well(w)


@everywhere
@pytest.mark.parametrize("status", [429, 503])
async def test_refusal_for_ever_fails_and_says_so(site: str, method: str, target: str, status: int) -> None:
    async with wired() as w:
        fault(w, site, method, target, faults.answer(status, "busy"), times=None)
        result = await w.sync_one()
        assert result.outcome in {"partial", "failed"}
        assert {failure.site for failure in result.failures} == {site}
        assert all(f"{status} " in failure.cause for failure in result.failures)
        assert "app" not in w.tags()
        await w.must_heal()


def in_a_second() -> dict[str, dict[str, str]]:
    """The forms in which a registry may say "in a second or two"; dates are whole seconds."""
    now = time.time()
    return {
        "seconds": {"Retry-After": "1"},
        "date": {"Retry-After": email.utils.formatdate(now + 2, usegmt=True)},
        "date by a clock of its own": {
            "Date": "Mon, 01 Jan 2001 00:00:00 GMT",
            "Retry-After": "Mon, 01 Jan 2001 00:00:01 GMT",
        },
        "epoch": {"X-Retry-After": str(int(now) + 2)},
        "seconds, the other header": {"X-Retry-After": "1"},
    }


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("form", in_a_second())
async def test_time_that_a_registry_asks_for_is_waited(form: str, status: int) -> None:
    async with wired() as w:

        async def refusing(exchange: Exchange) -> web.StreamResponse:
            return await faults.answer(status, headers=in_a_second()[form])(exchange)

        w.source.fault("GET", "/app/manifests/sha256", refusing)
        await must_end_well(w)
        [wait] = [event.wait for event in w.seen if isinstance(event, RetryPlanned)]
        assert 0.1 < wait <= 2


@pytest.mark.parametrize("told", ["0", "-5", "soon", "", "Mon, 01 Jan 2001 00:00:00 GMT"])
async def test_time_that_makes_no_sense_never_holds_a_run_up(told: str) -> None:
    async with wired() as w:
        w.source.fault("GET", "/app/manifests/sha256", faults.answer(503, headers={"Retry-After": told}))
        await must_end_well(w)


@pytest.mark.parametrize("told", ["86400", "9" * 40])
@pytest.mark.parametrize(("status", "reason"), [(429, "throttled"), (503, "unavailable")])
async def test_site_that_asks_for_a_wait_longer_than_patience_is_left_alone_but_for_a_while(
    status: int, reason: str, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "MAX_HOLD_SECONDS", 0.2)
    async with wired() as w:
        refusal = faults.answer(status, headers={"Retry-After": told})
        w.source.fault("GET", "/app/manifests/sha256", refusal, times=None)
        result = await w.sync_one()
        first, *rest = result.failures
        assert (first.site, first.repository, first.operation) == ("source", "app", "read manifest")
        assert f"{first.reason}: {first.cause}".startswith(f"{reason}: {status} ")
        assert all(each.cause.startswith("skipped: the site asked clients to wait") for each in rest)
        assert all(each.repository and each.operation != "send request" for each in rest)
        assert w.source.count("GET", "/app/manifests/sha256") == 1
        w.source.clear_faults()
        async with asyncio.timeout(20):
            while (await w.sync_one()).outcome != "ok":
                pass
        await w.must_heal()


# --- no bytes ---


@everywhere
async def test_request_that_hangs_once_is_sent_again(site: str, method: str, target: str) -> None:
    async with wired() as w:
        fault(w, site, method, target, faults.hang())
        result = await w.sync_one({site: SHORT if site == "source" else SHORT_FOR_UPLOADS})
        assert result.outcome == "ok", result.failures
        assert w.tags() == w.whole


@everywhere
async def test_request_that_always_hangs_fails_in_time(site: str, method: str, target: str) -> None:
    async with wired() as w:
        fault(w, site, method, target, faults.hang(), times=None)
        begins = site == "target" and method != "POST"  # uploads, of the neighbour at least
        result = await w.sync_one({site: SHORT_BUT_FOR_UPLOADS if begins else SHORT})
        assert result.outcome in {"partial", "failed"}
        assert {failure.site for failure in result.failures} == {site}
        assert all(
            any(words in failure.cause for words in ("in time", "no progress", " within "))
            for failure in result.failures
        )
        assert "app" not in w.tags()
        if target != "/v2/_catalog":
            assert w.tags() == {"web": {"v1": w.web.digest}}
        await w.must_heal()


@pytest.mark.parametrize("at", [0, 1, CHUNK_BYTES, BLOB_BYTES - 1])
async def test_blob_that_stops_coming_goes_on_elsewhere(at: int) -> None:
    async with wired() as w:
        w.source.fault("GET", f"/app/blobs/{w.blob}", faults.hang_after(at))
        result = await w.sync_one({"source": SHORT})
        assert result.outcome == "ok", result.failures
        assert w.tags() == w.whole


async def test_manifest_that_stops_coming_is_read_again() -> None:
    async with wired() as w:
        w.source.fault("GET", "/app/manifests/sha256", faults.hang_after(100))
        result = await w.sync_one({"source": SHORT})
        assert result.outcome == "ok", result.failures
        assert w.tags() == w.whole


@pytest.mark.parametrize("at", [1, CHUNK_BYTES, BLOB_BYTES])
async def test_upload_that_is_taken_no_further_goes_on_anew(at: int) -> None:
    async with wired() as w:
        w.target.fault("PUT", f"/app/blobs/uploads/.*{w.blob.partition(':')[2]}", faults.hang_upload(at))
        result = await w.sync_one({"target": SHORT_FOR_UPLOADS})
        assert result.outcome == "ok", result.failures
        assert w.tags() == w.whole


@pytest.mark.parametrize("target", ["/v2/$", "/token"])
@pytest.mark.parametrize("times", [1, None])
async def test_hanging_ping_or_token_service_is_no_end_of_the_world(target: str, times: int | None) -> None:
    users = {"mirror": "not-to-be-told"}
    async with wired(source=FakeRegistry(auth=Bearer(users)), with_login=True) as w:
        w.source.fault("GET|POST", target, faults.hang(), times=times)
        result = await w.sync_one({"source": SHORT})
        if times is None:
            assert result.outcome == "failed"
            assert {failure.site for failure in result.failures} == {"source"}
            assert w.tags() == {}
        else:
            assert result.outcome == "ok", result.failures
        await w.must_heal()
