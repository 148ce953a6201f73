"""Small blobs: one request to read one, and one to write it where the registry takes that."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiohttp import web
from aiohttp.typedefs import Middleware

from replicator.demo.images import image, layer, load
from replicator.engine.content.verified import BlobPlace, VerifiedBlob
from replicator.engine.engine import Engine
from replicator.errors import AuthFailed, Corrupt
from replicator.events import Events
from replicator.flow.clock import SystemClock
from replicator.flow.retry import Budget
from replicator.model.descriptor import Descriptor
from replicator.policy.pattern import Glob
from replicator.policy.rule import RepositorySelection, Rule, TagSelection
from replicator.ports import Clock
from replicator.sites.registry import uploads
from replicator.sites.registry.grants import MAX_GRANTS
from replicator.sites.registry.site import RegistrySite
from replicator.state.memory import MemoryState
from tests.fakes import faults, habits
from tests.fakes.auth import Bearer
from tests.fakes.clients import registry_site
from tests.fakes.clock import FakeClock
from tests.fakes.registry import Action, Exchange, FakeRegistry

UPLOADS = "/blobs/uploads/"


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "ATTEMPTS", Budget(attempts=3, wait_initial=0.0, wait_max=0.0))


class Pair:
    """A source and a destination."""

    def __init__(
        self, source: FakeRegistry, destination: FakeRegistry, here: RegistrySite, there: RegistrySite
    ) -> None:
        self.source, self.destination = source, destination
        self._here, self._there = here, there

    async def copy(self, data: bytes) -> None:
        """Copies one blob, and sees that it is there."""
        digest = self.source.store.put_blob("app", data)
        descriptor = Descriptor("application/octet-stream", digest, len(data))
        place = BlobPlace.at(self._here.repository("app"), descriptor)
        blob = VerifiedBlob(descriptor, [place], lambda _site, _count: None)
        assert await self._there.repository("app").write_blob(blob) == "copied"
        assert b"".join(self.destination.store.blob("app", digest).read()) == data
        assert not self.destination.store.uploads

    def sent(self) -> list[str]:
        """Methods of what the destination was asked, but for pings."""
        return [entry.method for entry in self.destination.find(target="/v2/app/")]


@asynccontextmanager
async def pair(
    *quirks: Middleware, auth: Bearer | None = None, clock: Clock | None = None, **capabilities: str
) -> AsyncIterator[Pair]:
    async with (
        FakeRegistry() as source,
        FakeRegistry(*quirks, auth=auth) as destination,
        registry_site(source.url) as here,
        registry_site(destination.url, capabilities, user="u", password="p", clock=clock) as there,
    ):
        yield Pair(source, destination, here, there)


async def test_where_the_post_takes_the_blob_it_is_the_only_request() -> None:
    async with pair() as both:
        await both.copy(b"first")
        assert both.sent() == ["POST", "HEAD"]  # whether it kept the blob is asked once
        await both.copy(b"second")
        await both.copy(b"third")
        assert both.sent() == ["POST", "HEAD", "POST", "POST"]
        assert both.source.count("GET", "/blobs/") == 3


async def test_a_registry_that_opens_a_session_instead_gets_the_blob_there_and_is_not_tried_again() -> None:
    async with pair(habits.no_single_post()) as both:
        await both.copy(b"first")
        await both.copy(b"second")
        assert both.sent() == ["POST", "PUT", "POST", "PUT"]
        assert [bool(entry.query) for entry in both.destination.find("POST")] == [True, False]


@pytest.mark.parametrize(
    "refusal", [faults.answer(400), faults.answer(404), faults.answer(405), faults.answer(501)]
)
async def test_a_registry_that_refuses_the_post_gets_the_blob_by_two_requests(refusal: Action) -> None:
    async with pair() as both:
        both.destination.fault("POST", r"\?digest=", refusal)
        await both.copy(b"first")
        await both.copy(b"second")
        assert both.sent() == ["POST", "POST", "PUT", "POST", "PUT"]


async def test_a_registry_that_refuses_the_post_from_some_day_on_gets_blobs_by_two_requests() -> None:
    """An agent that runs for months meets other versions."""
    async with pair() as both:
        await both.copy(b"first")
        both.destination.fault("POST", r"\?digest=", faults.answer(405), times=None)
        await both.copy(b"second")
        await both.copy(b"third")
        assert both.sent() == ["POST", "HEAD", "POST", "POST", "PUT", "POST", "PUT"]


async def test_a_registry_that_takes_the_post_and_keeps_nothing_is_found_out() -> None:
    async with pair(habits.no_single_post(lies=True)) as both:
        await both.copy(b"first")
        await both.copy(b"second")
        assert both.sent() == ["POST", "HEAD", "POST", "PUT", "POST", "PUT"]


async def test_the_config_decides() -> None:
    async with pair(single_post="no") as both:
        await both.copy(b"first")
        assert both.sent() == ["POST", "PUT"]
    async with pair(single_post="yes") as both:
        await both.copy(b"first")
        assert both.sent() == ["POST"]


async def test_a_put_that_is_lost_is_sent_again_without_reading_the_source_again() -> None:
    async with pair(single_post="no") as both:
        both.destination.fault("PUT", UPLOADS, faults.answer(502), times=1)
        await both.copy(b"first")
        assert both.source.count("GET", "/blobs/") == 1


async def test_a_put_that_breaks_off_on_a_kept_connection_is_not_repeated_into_its_session() -> None:
    """Where a kept connection breaks, aiohttp sends a PUT of bytes once more by itself."""
    async with pair(single_post="no") as both:
        await both.copy(b"first")
        both.destination.fault("PUT", UPLOADS, faults.reset_upload(3))
        await both.copy(b"second")
        assert both.sent() == ["POST", "PUT", "POST", "PUT", "GET", "PATCH", "PUT"]


async def test_a_post_that_breaks_off_on_a_kept_connection_is_sent_again_whole() -> None:
    async with pair(single_post="yes") as both:
        await both.copy(b"first")
        both.destination.fault("POST", UPLOADS, faults.reset_upload(3))
        await both.copy(b"second")
        assert both.sent() == ["POST", "POST", "POST"]
        assert both.source.count("GET", "/blobs/") == 2


def token_that_ends(auth: Bearer, clock: FakeClock, kept: bytes = b"") -> Action:
    """All tokens end, hours after they were issued; the session keeps a part of the body."""

    async def act(exchange: Exchange) -> web.StreamResponse:
        for upload in exchange.fake.store.uploads.values():
            upload.write(kept)
        clock.advance(3600)
        auth.expire()
        return await exchange.proceed()

    return act


@pytest.mark.parametrize("times", [1, 5])
async def test_a_put_whose_token_has_ended_is_sent_again_into_its_session(
    times: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its bytes are in hand: neither a new session nor any patience is needed."""
    monkeypatch.setattr(uploads, "ATTEMPTS", Budget(attempts=1))
    auth, clock = Bearer({"u": "p"}, ttl=9999), FakeClock()
    async with pair(auth=auth, clock=clock, single_post="no") as both:
        both.destination.fault("PUT", UPLOADS, token_that_ends(auth, clock), times=times)
        await both.copy(b"first")
        assert both.sent() == ["POST"] + ["PUT"] * (times + 1)
        assert auth.tokens == times + 1


async def test_a_session_that_kept_a_part_of_what_was_refused_for_its_token_is_left() -> None:
    """A proxy that passes a body on before it asks who sends it."""
    auth, clock = Bearer({"u": "p"}, ttl=9999), FakeClock()
    async with pair(auth=auth, clock=clock, single_post="no") as both:
        both.destination.fault("PUT", UPLOADS, token_that_ends(auth, clock, b"fi"))
        await both.copy(b"first")
        assert both.sent() == ["POST", "PUT", "PUT", "HEAD", "POST", "PUT", "DELETE"]


async def test_a_put_whose_every_token_has_ended_is_given_up() -> None:
    auth, clock = Bearer({"u": "p"}, ttl=9999), FakeClock()
    async with pair(auth=auth, clock=clock, single_post="no") as both:
        both.destination.fault("PUT", UPLOADS, token_that_ends(auth, clock), times=None)
        with pytest.raises(AuthFailed):
            await both.copy(b"first")
        assert both.sent() == ["POST"] + ["PUT"] * MAX_GRANTS + ["DELETE"]
        assert not both.destination.store.uploads


@pytest.mark.parametrize("damage", [faults.corrupt(), faults.shorten(3), faults.lengthen()])
async def test_wrong_content_asks_nothing_of_the_destination(damage: Action) -> None:
    async with pair() as both:
        both.source.fault("GET", "/blobs/", damage)
        with pytest.raises(Corrupt):
            await both.copy(b"right")
        assert both.sent() == []


async def test_the_rest_of_a_body_without_a_length_that_ends_early_is_requested() -> None:
    async def short(exchange: Exchange) -> web.StreamResponse:
        response = web.StreamResponse()
        response.enable_chunked_encoding()
        await response.prepare(exchange.request)
        await response.write(b"fir")
        await response.write_eof()
        return response

    async with pair() as both:
        both.source.fault("GET", "/blobs/", short)
        await both.copy(b"first")
        assert both.source.count("GET", "/blobs/") == 2
        assert both.source.blob_bytes_out == 2


def everything() -> Rule:
    day = 86_400.0
    return Rule(
        "all",
        "source",
        ("left",),
        RepositorySelection((Glob.parse("**"),)),
        tags=(TagSelection(),),
        recheck=day,
        verify_every=day,
        referrers_recheck=day,
    )


async def test_a_new_image_takes_three_readings_and_a_request_for_each_new_blob_and_one_for_the_manifest() -> (
    None
):
    """Into repositories that are new: 20 images of two blobs of their own, and one that those of a repository share."""
    async with FakeRegistry() as source, FakeRegistry() as destination:
        for number in range(20):
            name = f"app{number % 2}"
            layers = [layer(name, 500), layer(f"{number}", 500)]
            load(source.store, name, f"v{number}", image(f"{number}", layers))
        async with (
            registry_site(source.url, {"has_referrers": True}) as here,
            registry_site(destination.url, {"single_post": "yes"}) as there,
        ):
            state, clock = MemoryState(SystemClock()), SystemClock()
            engine = Engine(
                sites={"source": here, "left": there},
                state=state,
                events=Events(),
                clock=clock,
                spool=None,
                rules=[everything()],
            )
            await engine.sync([everything()])
            images, repositories = 20, 2
            blobs = 2 * images + repositories
            asked = Counter((entry.method, kind(entry.path)) for entry in source.requests)
            assert asked == {
                ("GET", "ping"): 1,
                ("GET", "_catalog"): 1,
                ("GET", "tags"): repositories,
                ("HEAD", "manifests"): images,
                ("GET", "manifests"): images,
                ("GET", "referrers"): images,
                ("GET", "blobs"): blobs,
            }
            written = Counter((entry.method, kind(entry.path)) for entry in destination.requests)
            assert written == {
                ("GET", "ping"): 1,
                ("GET", "tags"): repositories,
                ("POST", "uploads"): blobs,
                ("PUT", "manifests"): images,
            }


def kind(path: str) -> str:
    """What a request is about."""
    if path == "/v2/":
        return "ping"
    return next(
        word
        for word in ("uploads", "blobs", "manifests", "referrers", "tags", "_catalog")
        if f"/{word}" in path
    )
