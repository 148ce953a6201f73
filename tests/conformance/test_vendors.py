"""Every vendor as source and as destination of 300 tags: cold, with nothing to do, one change, short tokens, fixed tags.

With nothing to do a run costs the pages of the vendor's listing, and not one request for each tag; where the vendor lists
no digests, a source is asked for each tag, and a destination for the pages of its tags.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace

import pytest
from aiohttp import web
from aiohttp.typedefs import Handler

from replicator.demo.images import BuiltImage, image, layer, load
from replicator.engine.context import RunScope
from replicator.engine.engine import Engine
from replicator.engine.result import DestinationResult
from replicator.events import Events
from replicator.policy.pattern import Glob
from replicator.policy.rule import RepositorySelection, Rule
from replicator.ports import Clock, Site
from replicator.sites.registry.identity.settings import EcrIdentity
from replicator.sites.registry.site import RegistrySite
from replicator.sites.registry.uploads import ATTEMPTS
from replicator.state.memory import MemoryState
from tests.fakes.auth import Bearer
from tests.fakes.clock import SteppedClock
from tests.fakes.memory import MemorySite
from tests.fakes.vendors.ecr import Ecr
from tests.fakes.vendors.gitea import Tokens
from tests.fakes.vendors.known import ALL, BULK
from tests.fakes.vendors.vendor import VendorRegistry

TAGS = 300
IMAGES = 60
LAYER = layer("shared", 100)

each_vendor = pytest.mark.parametrize("vendor", ALL, ids=lambda vendor: vendor.kind)


def built(number: int) -> BuiltImage:
    return image(f"image {number}", [LAYER])


def tag_of(number: int) -> str:
    return f"v1.{number}"


@pytest.fixture(autouse=True)
def aws(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys, so that nobody looks for a role; `Pair` sets the endpoint."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not-to-be-told")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")


class Pair:
    """A vendor's registry and a memory site, one the source of a rule and one its destination."""

    def __init__(
        self,
        fake: VendorRegistry,
        site: RegistrySite,
        memory: MemorySite,
        events: Events,
        clock: Clock,
        ends: Ends,
    ) -> None:
        self.ends = ends
        self.fake = fake
        self.memory = memory
        self.sites: Mapping[str, Site] = {"vendor": site, "memory": memory}
        self.events = events
        self.clock = clock
        self.state = MemoryState(self.clock)
        self.is_source = memory.name == "memory" and memory.store.repositories == {}

    def fill(self, *, vendor: bool) -> None:
        store = self.fake.store if vendor else self.memory.store
        images = [built(number) for number in range(IMAGES)]
        for number in range(TAGS):
            load(store, self.fake.repository, tag_of(number), images[number % IMAGES])
        self.is_source = vendor

    async def sync(self, scope: RunScope | None = None) -> DestinationResult:
        source, destination = ("vendor", "memory") if self.is_source else ("memory", "vendor")
        rule = Rule("rule", source, (destination,), RepositorySelection((Glob.parse(self.fake.repository),)))
        self.fake.requests.clear()
        engine = Engine(
            sites=self.sites, state=self.state, events=self.events, clock=self.clock, spool=None, rules=()
        )
        return (await engine.sync([rule], scope=scope))[0].destinations[0]

    async def cold_sync(self) -> None:
        """Everything is copied, though tokens end in mid-run, and nobody notices that."""
        self.ends.fake = self.fake
        cold = await self.sync()
        self.ends.fake = None
        assert (cold.totals.tags.copied, cold.failures, cold.warnings) == (TAGS, [], [])
        assert self.tags(vendor=not self.is_source) == self.tags(vendor=self.is_source)
        assert self.ends.times >= 1
        if isinstance(self.fake, Ecr):
            assert len(self.fake.passwords.issued) >= 2
            assert self.fake.passwords.refused == []
        else:
            assert [one for one in self.fake.find(status=401) if "Authorization" in one.headers]

    def tags(self, *, vendor: bool) -> dict[str, str]:
        store = self.fake.store if vendor else self.memory.store
        content = store.repositories.get(self.fake.repository)
        return dict(content.tags) if content else {}

    @property
    def others(self) -> list[str]:
        """Requests of the latest sync that were not for a page of the vendor's listing."""
        pages = self.fake.find(target=self.fake.listing_path)
        return [f"{one.method} {one.path}" for one in self.fake.requests if one not in pages]

    @property
    def pages(self) -> int:
        """How many pages a listing of all tags has."""
        entries = IMAGES if self.fake.kind in {"harbor", "ghcr", "ecr"} else TAGS
        return math.ceil(entries / self.fake.page)


class Ends:
    """Has tokens end in mid-run: all of a registry with every 70 requests, by the hours that pass then; ECR's last twelve.

    All of a registry five times at most: with 128 requests under way the same one may be refused each time, and a blob is
    begun six times.
    """

    def __init__(self, clock: SteppedClock) -> None:
        self.clock = clock
        self.fake: VendorRegistry | None = None
        self.times = 0
        self._seen = 0

    @web.middleware
    async def quirk(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        self._seen += 1
        if self.fake is not None and self._seen % 70 == 0:
            self.times += 1
            self.clock.advance(2 * 3600)
            if isinstance(self.fake.tokens, Bearer | Tokens) and self.times < ATTEMPTS.attempts:
                self.fake.tokens.expire()
        return await handler(request)


@asynccontextmanager
async def pair(vendor: type[VendorRegistry], monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Pair]:
    async with AsyncExitStack() as stack:
        clock = SteppedClock()
        ends = Ends(clock)
        fake = await stack.enter_async_context(vendor(ends.quirk))
        monkeypatch.setenv("AWS_ENDPOINT_URL_ECR", fake.url)
        settings, events = fake.settings("vendor"), Events()
        if isinstance(fake, Ecr):
            fake.passwords.now = clock.now
            settings = replace(settings, login=None, identity=EcrIdentity())
        site = RegistrySite(settings, events=events, clock=clock)
        stack.push_async_callback(site.aclose)
        yield Pair(fake, site, MemorySite("memory"), events, clock, ends)


def only_pages(found: Pair) -> None:
    """The latest sync cost the pages of the listing, at Docker Hub the token for it, and at GitHub, once, whose it is."""
    if type(found.fake) not in BULK:
        heads = [one for one in found.others if one.startswith("HEAD ")]
        assert len(heads) == (TAGS if found.is_source else 0)
        assert set(found.others) - set(heads) == {f"GET /v2/{found.fake.repository}/tags/list"}
        assert len(found.others) - len(heads) == 1
        return
    more = {"dockerhub": ["POST /v2/auth/token"], "ghcr": found.others[:1]}.get(found.fake.kind, [])
    assert found.others == more
    assert all(one.startswith(("GET /orgs/team/", "POST ")) for one in more)
    assert len(found.fake.requests) == found.pages + len(more)


@each_vendor
async def test_in(vendor: type[VendorRegistry], monkeypatch: pytest.MonkeyPatch) -> None:
    async with pair(vendor, monkeypatch) as found:
        found.fill(vendor=True)
        await found.cold_sync()

        await found.sync()  # with new tokens
        idle = await found.sync()
        assert idle.totals.tags.unchanged == TAGS
        only_pages(found)

        load(found.fake.store, found.fake.repository, tag_of(7), built(1000))
        changed = await found.sync()
        assert (changed.totals.tags.copied, changed.totals.tags.unchanged) == (1, TAGS - 1)
        assert found.tags(vendor=False)[tag_of(7)] == built(1000).digest
        if type(found.fake) in BULK:
            assert len(found.fake.find("HEAD", "/manifests/")) <= 1


@each_vendor
async def test_out(vendor: type[VendorRegistry], monkeypatch: pytest.MonkeyPatch) -> None:
    async with pair(vendor, monkeypatch) as found:
        found.fill(vendor=False)
        await found.cold_sync()

        await found.sync()  # with new tokens
        idle = await found.sync()
        assert idle.totals.tags.unchanged == TAGS
        only_pages(found)

        load(found.memory.store, found.fake.repository, tag_of(7), built(1000))
        held = 0
        if found.fake.can_fix:
            held = 1
            found.fake.fixed |= {f"{found.fake.repository}:{tag_of(number)}" for number in (8, 9)}
            load(found.memory.store, found.fake.repository, tag_of(8), built(1001))
        changed = await found.sync()
        tags = changed.totals.tags
        assert (tags.copied, tags.held, tags.failed, tags.unchanged) == (1, held, 0, TAGS - 1 - held)
        assert found.tags(vendor=True)[tag_of(7)] == built(1000).digest
        assert found.tags(vendor=True)[tag_of(8)] == built(8).digest
