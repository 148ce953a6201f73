"""Vendors whose listing tells what refers to images: new signatures are found by it, without a request to look for them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

import pytest

from replicator.demo.images import BuiltImage, image, index, load
from replicator.engine.engine import Engine
from replicator.engine.result import DestinationResult
from replicator.events import Events
from replicator.model.companion import legacy_tags
from replicator.model.digest import Digest
from replicator.policy.pattern import Glob
from replicator.policy.rule import RepositorySelection, Rule
from replicator.sites.registry.identity.settings import EcrIdentity
from replicator.sites.registry.site import RegistrySite
from replicator.state.memory import MemoryState
from tests.fakes.clock import SteppedClock
from tests.fakes.memory import MemorySite
from tests.fakes.referrers import bundle
from tests.fakes.vendors.ecr import Ecr
from tests.fakes.vendors.gitlab import GitLab
from tests.fakes.vendors.harbor import Harbor
from tests.fakes.vendors.vendor import VendorRegistry
from tests.fakes.vendors.zot import Zot

TAGS = 5


@pytest.fixture(autouse=True)
def aws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not-to-be-told")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")


@dataclass
class Source:
    """A vendor's registry with `TAGS` images of two platforms, and a destination that is in step."""

    fake: VendorRegistry
    destination: MemorySite
    engine: Engine

    @property
    def roots(self) -> list[BuiltImage]:
        return [index([image(f"amd {number}"), image(f"arm {number}")]) for number in range(TAGS)]

    async def run(self) -> DestinationResult:
        self.fake.requests.clear()
        rule = Rule(
            "rule",
            "vendor",
            ("memory",),
            RepositorySelection((Glob.parse(self.fake.repository),)),
        )
        [done] = await self.engine.sync([rule])
        return done.destinations[0]

    def put(self, tag: str | None, built: BuiltImage) -> None:
        load(self.fake.store, self.fake.repository, tag, built)

    def arrived(self, digest: Digest) -> bool:
        return digest in self.destination.store.repositories[self.fake.repository].manifests

    @property
    def asked(self) -> list[str]:
        """What was asked beside the pages of the listing."""
        pages = self.fake.find(target=self.fake.listing_path)
        return [f"{one.method} {one.path}" for one in self.fake.requests if one not in pages]


@asynccontextmanager
async def source(vendor: type[VendorRegistry], monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Source]:
    async with vendor() as fake:
        monkeypatch.setenv("AWS_ENDPOINT_URL_ECR", fake.url)
        settings, events, clock = fake.settings("vendor"), Events(), SteppedClock()
        if isinstance(fake, Ecr):
            fake.passwords.now = clock.now
            settings = replace(settings, login=None, identity=EcrIdentity())
        site, memory = RegistrySite(settings, events=events, clock=clock), MemorySite("memory")
        engine = Engine(
            sites={"vendor": site, "memory": memory},
            state=MemoryState(clock),
            events=events,
            clock=clock,
            spool=None,
            rules=(),
        )
        found = Source(fake, memory, engine)
        for number, root in enumerate(found.roots):
            found.put(f"v{number}", root)
        try:
            first = await found.run()
            assert first.totals.tags.copied == TAGS
            await found.run()
            assert found.asked == [], "nothing to do costs the listing"
            yield found
        finally:
            await site.aclose()


@pytest.mark.parametrize("vendor", [Harbor, GitLab, Zot, Ecr], ids=lambda vendor: vendor.kind)
async def test_a_new_signature_is_found_by_the_listing(
    vendor: type[VendorRegistry], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with source(vendor, monkeypatch) as found:
        first, second = bundle(found.roots[2]), bundle(found.roots[2], seed="second")
        for signature in (first, second):
            found.put(None, signature)
            done = await found.run()
            assert [one.tag for one in done.actions if one.outcome == "copied"] == ["v2"]
            assert found.arrived(signature.digest)
            referrers = [one for one in found.asked if "/referrers/" in one]
            assert {one.rpartition("/")[2] for one in referrers}.isdisjoint(
                root.digest for root in found.roots if root != found.roots[2]
            ), "no other image is asked about"
            await found.run()
            assert found.asked == []


@pytest.mark.parametrize("vendor", [Zot, Ecr], ids=lambda vendor: vendor.kind)
async def test_a_new_signature_of_a_platform_is_found_by_the_listing(
    vendor: type[VendorRegistry], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with source(vendor, monkeypatch) as found:
        signature = bundle(image("arm 3"))
        found.put(None, signature)
        done = await found.run()
        assert [one.tag for one in done.actions if one.outcome == "copied"] == ["v3"]
        assert found.arrived(signature.digest)
        await found.run()
        assert found.asked == []


@pytest.mark.parametrize("vendor", [Harbor, Zot], ids=lambda vendor: vendor.kind)
async def test_older_signatures_travel_though_the_listing_hides_their_tags(
    vendor: type[VendorRegistry], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the index, and of its platforms (`cosign sign --recursive`)."""
    async with source(vendor, monkeypatch) as found:
        root = found.roots[1]
        signed = {legacy_tags(each.digest)[0]: image(f"signature of {each.digest}") for each in root.walk()}
        for tag, signature in signed.items():
            found.put(tag, signature)
        done = await found.run()
        assert [one.tag for one in done.actions if one.outcome == "copied"] == ["v1"]
        content = found.destination.store.repositories[found.fake.repository]
        assert {tag: content.tags.get(tag) for tag in signed} == {
            tag: signature.digest for tag, signature in signed.items()
        }
        await found.run()
        assert found.asked == []


async def test_ecr_lists_referrers_only_where_one_answer_has_everything(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A repository with more images than that is listed by its tags from then on, at as many requests as they need."""
    async with source(Ecr, monkeypatch) as found:
        for number in range(30):
            found.put(None, image(f"untagged {number}"))
        found.put(None, bundle(found.roots[2]))
        large = await found.run()
        assert len(found.fake.find(target=found.fake.listing_path)) == 2
        assert large.totals.tags.copied == 0
        await found.run()
        assert len(found.fake.find(target=found.fake.listing_path)) == 1
        assert found.asked == []
