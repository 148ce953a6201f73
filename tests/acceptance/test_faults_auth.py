"""Credentials that run out, or might go astray: renewed in time, and told to nobody but their own registry."""

from __future__ import annotations

import logging

import pytest
from aiohttp import web

from tests.acceptance.wired import PASSWORD, USER, only_app_failed, wired
from tests.fakes import faults, places
from tests.fakes.auth import Basic, Bearer
from tests.fakes.registry import Action, Exchange, FakeRegistry
from tests.fakes.watched import WatchedStore

USERS = {USER: PASSWORD}
UPLOADS = "/app/blobs/uploads/"


def guarded(auth: Bearer | Basic) -> FakeRegistry:
    """A registry that wants credentials, and believes whatever manifest it gets."""
    return FakeRegistry(auth=auth, store=WatchedStore(refuses_dangling=False))


def expiring(auth: Bearer) -> Action:
    """The request's own token ends just before it is looked at."""

    async def act(exchange: Exchange) -> web.StreamResponse:
        auth._tokens.pop(exchange.request.headers["Authorization"].partition(" ")[2], None)
        return await auth.guard(exchange.request, exchange.handler)

    return act


@pytest.mark.parametrize("method", ["POST", "PUT"])
async def test_token_that_expires_in_mid_upload_is_renewed(method: str) -> None:
    auth = Bearer(USERS)
    async with wired(target=guarded(auth), with_login=True) as w:
        # Not at its first use: a token that is refused as fresh as that is refused for another reason than its age.
        w.target.fault(method, UPLOADS, expiring(auth), after=1)
        result = await w.sync_one()
        assert result.outcome == "ok", result.failures
        assert w.tags() == w.whole
        assert w.target.count(method, UPLOADS, status=401) >= 1


@pytest.mark.parametrize("target", ["/app/manifests/v1", "/app/manifests/sha256", "/app/blobs/"])
async def test_token_that_expires_while_reading_is_renewed(target: str) -> None:
    auth = Bearer(USERS)
    async with wired(source=guarded(auth), with_login=True) as w:
        w.source.fault("HEAD|GET", target, expiring(auth))
        result = await w.sync_one()
        assert result.outcome == "ok", result.failures
        assert w.tags() == w.whole


async def test_token_that_expires_before_the_tag_is_put_is_renewed() -> None:
    auth = Bearer(USERS)
    async with wired(target=guarded(auth), with_login=True) as w:
        w.target.fault("PUT", "/app/manifests/v1", expiring(auth))
        result = await w.sync_one()
        assert result.outcome == "ok", result.failures
        assert w.tags() == w.whole


async def test_tokens_of_a_few_requests_are_enough() -> None:
    good_for = 3  # more than there are at once, so that each token is seen to be good before it is not
    source, target = Bearer(USERS, good_for=good_for), Bearer(USERS, good_for=good_for)
    async with wired(source=guarded(source), target=guarded(target), with_login=True) as w:
        result = await w.sync_one()
        assert result.outcome == "ok", result.failures
        assert w.tags() == w.whole
        assert w.target.count("POST|PUT|HEAD", "/app/", status=401) >= 1


async def test_upload_refused_as_unauthorized_for_ever_ends_and_leaves_the_other_image_alone() -> None:
    auth = Bearer(USERS)
    async with wired(target=guarded(auth), with_login=True) as w:
        challenge = f'Bearer realm="{w.target.url}/token",service="fake",scope="repository:app:pull,push"'
        refusal = faults.answer(401, headers={"WWW-Authenticate": challenge})
        w.target.fault("PUT", UPLOADS, refusal, times=None)
        assert only_app_failed(w, await w.sync_one(), "target").startswith("auth: 401")
        await w.must_heal()


async def test_wrong_password_is_asked_for_once_and_named_without_the_secret() -> None:
    auth = Bearer({USER: "another"})
    async with wired(target=guarded(auth), with_login=True) as w:
        result = await w.sync_one()
        assert result.outcome == "failed"
        assert {failure.site for failure in result.failures} == {"target"}
        assert {failure.reason for failure in result.failures} == {"auth"}
        assert PASSWORD not in str(result.failures)
        assert w.tags() == {}
        assert len(auth.grants) <= 4  # accounts get locked
        auth.users[USER] = PASSWORD
        await w.must_heal()


@pytest.mark.parametrize("auth", [Bearer(USERS), Basic(USERS)], ids=["bearer", "basic"])
async def test_credentials_do_not_go_along_with_a_redirect(auth: Bearer | Basic) -> None:
    async with wired(source=guarded(auth), with_login=True) as w:
        for target in ("/app/blobs/", "/app/manifests/sha256"):
            w.source.fault("GET", target, faults.redirect_to_storage(), times=None)
        result = await w.sync_one()
        assert result.outcome == "ok", result.failures
        stored = w.source.find(host="storage")
        assert len(stored) == 1 + len(w.app.blobs)
        assert not any("Authorization" in entry.headers for entry in stored)


async def test_credentials_do_not_come_back_with_a_redirect_by_way_of_another_host() -> None:
    async with FakeRegistry() as stranger, wired(source=guarded(Basic(USERS)), with_login=True) as w:
        back = f"{w.source.url}/v2/app/blobs/{w.blob}?back"
        stranger.fault("GET", "/elsewhere", faults.redirect(back), times=None)
        away = faults.redirect(f"{stranger.url}/elsewhere")
        w.source.fault("GET", f"/app/blobs/{w.blob}$", away, times=None)
        result = await w.sync_one()
        assert "401" in only_app_failed(w, result, "source")
        assert all("Authorization" not in entry.headers for entry in stranger.requests)
        returned = w.source.find("GET", r"\?back")
        assert returned
        assert all("Authorization" not in entry.headers for entry in returned)


@pytest.mark.parametrize("header", ["Link", "Location"])
async def test_registry_that_points_elsewhere_gets_no_credentials_sent_there(header: str) -> None:
    async with FakeRegistry() as stranger, wired(target=guarded(Basic(USERS)), with_login=True) as w:
        if header == "Link":
            link = f'<{stranger.url}/v2/app/tags/list?last=v1>; rel="next"'
            w.target.store.put_manifest("app", w.web.manifest)
            w.target.fault("GET", "/app/tags/list", faults.header("Link", link), times=None)
        else:
            where = f"{stranger.url}/v2/app/blobs/uploads/1"
            w.target.fault("POST", UPLOADS, faults.header("Location", where), times=None)
        only_app_failed(w, await w.sync_one(), "target")
        assert all("Authorization" not in entry.headers for entry in stranger.requests)
        w.target.store.uploads.clear()  # where they are was not told


async def test_signature_of_an_upload_is_not_told_when_its_body_breaks_off(
    caplog: pytest.LogCaptureFixture,
) -> None:
    fake = FakeRegistry(places.stateful_locations(), store=WatchedStore(refuses_dangling=False))
    with caplog.at_level(logging.DEBUG):
        async with wired(target=fake) as w:
            w.target.fault("PUT|PATCH", r"_state=", faults.reset_upload(0), times=None)
            result = await w.sync_one()
            w.target.store.uploads.clear()
    assert result.failures
    states = {entry.query.partition("_state=")[2][:11] for entry in fake.find("PUT|PATCH", "_state=")}
    assert states
    told = str(result) + str(w.seen) + caplog.text
    assert not [state for state in states if state in told]


async def test_no_secret_is_in_logs_nor_in_errors(caplog: pytest.LogCaptureFixture) -> None:
    auth = Bearer(USERS)
    with caplog.at_level(logging.DEBUG):
        async with wired(source=guarded(auth), target=guarded(Basic(USERS)), with_login=True) as w:
            w.source.fault("GET", "/app/blobs/", faults.redirect_to_storage(), times=None)
            w.source.fault("GET", "/app/blobs/", faults.answer(500, "broken"), times=None, host="storage")
            result = await w.sync_one()
    told = str(result) + str(w.seen) + caplog.text
    secrets = [PASSWORD, "X-Sig", *auth._tokens]
    assert not [secret for secret in secrets if secret in told]
    assert result.outcome == "partial"
