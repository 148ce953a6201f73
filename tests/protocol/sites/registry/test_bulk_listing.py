"""Listing in bulk when it is refused, lags, or is elsewhere; what it reveals of tags that may not be moved."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
from msgspec.structs import replace

from replicator.demo.images import BuiltImage, image, layer, load
from replicator.engine.context import RunScope
from replicator.engine.engine import Engine
from replicator.engine.result import DestinationResult
from replicator.errors import SiteError
from replicator.events import Events
from replicator.model.digest import Digest
from replicator.policy.pattern import Glob
from replicator.policy.rule import RepositorySelection, Rule, TagSelection
from replicator.ports import State
from replicator.sites.registry.identity.aws import EcrAccess, EcrHost
from replicator.sites.registry.identity.settings import EcrIdentity
from replicator.sites.registry.refusedlistings import AGAIN_SECONDS
from replicator.sites.registry.site import RegistrySite
from replicator.sites.registry.vendors.creating.google import location_of
from replicator.sites.registry.vendors.dockerhub import DOCKER_HUB
from replicator.sites.registry.vendors.google import ManifestMap
from replicator.state.memory import MemoryState
from replicator.state.store import open_state
from tests.fakes import faults
from tests.fakes.clock import FakeClock
from tests.fakes.memory import MemorySite
from tests.fakes.vendors.acr import Acr
from tests.fakes.vendors.artifactory import Artifactory
from tests.fakes.vendors.dockerhub import DockerHub
from tests.fakes.vendors.ecr import Ecr
from tests.fakes.vendors.google import Google
from tests.fakes.vendors.known import BULK
from tests.fakes.vendors.quay import Quay
from tests.fakes.vendors.vendor import VendorRegistry

LAYER = layer("shared", 100)
TAGS = [f"v{number}" for number in range(5)]
OTHER = image("another", [layer("another", 2_000)])


@pytest.fixture(autouse=True)
def aws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not-to-be-told")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")


class World:
    """A vendor's registry `fake`, the site that reaches it, and a memory site."""

    def __init__(self, fake: VendorRegistry, site: RegistrySite, clock: FakeClock, events: Events) -> None:
        self.fake = fake
        self.site = site
        self.clock = clock
        self.memory = MemorySite("memory")
        self.state: State = MemoryState(clock)
        self._events = events

    def fill(self, *, vendor: bool = True, repository: str = "") -> None:
        store = self.fake.store if vendor else self.memory.store
        for tag in TAGS:
            load(store, repository or self.fake.repository, tag, image(tag, [layer("shared", 100)]))

    def put(self, tag: str, built: BuiltImage = OTHER, *, vendor: bool = True) -> None:
        load(self.fake.store if vendor else self.memory.store, self.fake.repository, tag, built)

    async def sync(
        self,
        *,
        out: bool = False,
        scope: RunScope | None = None,
        repositories: str = "",
        selection: TagSelection | None = None,
        dry: bool = False,
    ) -> DestinationResult:
        source, destination = ("memory", "vendor") if out else ("vendor", "memory")
        glob = Glob.parse(repositories or self.fake.repository)
        tags = (selection or TagSelection(),)
        rule = Rule("rule", source, (destination,), RepositorySelection((glob,)), tags=tags)
        self.fake.requests.clear()
        engine = Engine(
            sites={"vendor": self.site, "memory": self.memory},
            state=self.state,
            events=self._events,
            clock=self.clock,
            spool=None,
            rules=(),
        )
        run = engine.plan if dry else engine.sync
        return (await run([rule], scope=scope))[0].destinations[0]

    def tags(self, *, vendor: bool) -> Mapping[str, Digest]:
        store = self.fake.store if vendor else self.memory.store
        return store.repositories[self.fake.repository].tags

    @property
    def heads(self) -> int:
        return self.fake.count("HEAD", "/manifests/")

    @property
    def listings(self) -> int:
        return self.fake.count(target=self.fake.listing_path)


@asynccontextmanager
async def world(
    vendor: type[VendorRegistry], monkeypatch: pytest.MonkeyPatch, token_uses: int | None = None
) -> AsyncIterator[World]:
    async with AsyncExitStack() as stack:
        fake = await stack.enter_async_context(vendor(token_uses=token_uses))
        monkeypatch.setenv("AWS_ENDPOINT_URL_ECR", fake.url)
        clock, events = FakeClock(time.time()), Events()
        site = RegistrySite(fake.settings("vendor"), events=events, clock=clock)
        stack.push_async_callback(site.aclose)
        yield World(fake, site, clock, events)


# --- refused ---


@pytest.mark.parametrize(("status", "tries"), [(401, 3), (403, 3), (404, 3), (405, 1), (429, 1)])
async def test_a_refused_listing_is_tried_once_a_day(
    status: int, tries: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What may be refused for one repository alone counts for all after three in a row."""
    async with world(Quay, monkeypatch) as w:
        w.fake.api_status = status
        for name in ("team/app", "team/b", "team/c", "team/d", "team/e"):
            w.fill(repository=name)
        first = await w.sync(repositories="team/*")
        assert (first.totals.tags.copied, first.failures) == (25, [])
        assert w.listings == tries
        assert w.heads == 25
        assert len(first.warnings) == tries
        for text in first.warnings:
            assert "Quay's API is of no use" in text
            assert f"HTTP {status}" in text

        await w.sync(repositories="team/*")
        assert (w.listings, w.heads) == (0, 25)

        w.fake.api_status = 200
        w.clock.advance(AGAIN_SECONDS + 1)
        again = await w.sync(repositories="team/*")
        assert (w.listings, again.warnings) == (5, [])
        assert w.heads <= 25  # whatever the recheck of a day asks for


@pytest.mark.parametrize("status", [401, 403, 404])
async def test_a_private_repository_does_not_keep_others_from_being_listed(
    status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world(Quay, monkeypatch) as w:
        names = [f"team/{letter}" for letter in "abcdefgh"]
        for name in names:
            w.fill(repository=name)
        private = [*names[:2], *names[5:]]
        for name in private:
            w.fake.fault("GET", f"/api/v1/repository/{name}/tag/", faults.answer(status), times=None)
        first = await w.sync(repositories="team/*")
        assert first.totals.tags.copied == 40
        assert w.heads == 25
        assert len(first.warnings) == len(private)
        assert f"is of no use for {names[0]} (HTTP {status}" in "".join(first.warnings)

        assert (await w.sync(repositories="team/*")).totals.tags.unchanged == 40
        assert (w.listings, w.heads) == (3, 25)


@pytest.mark.parametrize("status", [403, 429])
async def test_a_refusal_is_remembered_for_other_processes(
    status: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """`sync` from a timer is a process of its own each time."""
    async with world(Quay, monkeypatch) as w:
        w.fake.api_status = status
        w.fill()

        async def once() -> DestinationResult:
            site = w.site
            w.site = RegistrySite(w.fake.settings("vendor"), events=Events(), clock=w.clock)
            w.state = await open_state(tmp_path / "state.db", clock=w.clock)
            result = await w.sync()
            await w.state.aclose()
            await w.site.aclose()
            w.site = site
            return result

        found = await once()
        assert (w.listings, found.totals.tags.copied) == (1, 5)
        found = await once()
        assert (w.listings, w.heads) == (0, 5)
        assert "Quay's API is of no use" in found.warnings[0]
        w.clock.advance(AGAIN_SECONDS + 1)
        w.fake.api_status = 200
        found = await once()
        assert (w.listings, found.warnings) == (1, [])


async def test_a_repository_that_is_too_large_is_asked_tag_by_tag_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Google's map of manifests cannot be continued."""
    monkeypatch.setattr(ManifestMap, "page_tags", 6)
    async with world(Google, monkeypatch) as w:
        w.fill()
        w.fill(repository="project/team/large")
        for tag in ("w1", "w2"):
            load(w.fake.store, "project/team/large", tag, image(tag, [LAYER]))
        found = await w.sync(repositories="project/**")
        assert found.totals.tags.copied == 12
        assert ["cut off" in text for text in found.warnings] == [True]
        await w.sync(repositories="project/**")
        assert w.heads == 7


@pytest.mark.parametrize("body", ["<html>", "[]", '{"tags":[{"nam":1}]}', "{}", '{"tags":null}'])
async def test_an_answer_of_another_shape_is_a_refusal(body: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with world(Quay, monkeypatch) as w:
        w.fill()
        w.fake.fault("GET", w.fake.listing_path, faults.answer(200, body), times=None)
        found = await w.sync()
        assert (found.totals.tags.copied, w.listings, w.heads) == (5, 1, 5)
        assert "is of no use" in found.warnings[0]


async def test_a_listing_that_breaks_off_is_completed_by_the_standard(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Quay, "page", 2)
    async with world(Quay, monkeypatch) as w:
        w.fill()
        w.fake.fault("GET", r"&page=2", faults.answer(403), times=None)
        found = await w.sync()
        assert (found.totals.tags.copied, found.failures) == (5, [])
        assert w.heads == 3


async def test_what_googles_map_cannot_hold_is_listed_by_its_api(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ManifestMap, "page_tags", 5)
    monkeypatch.setattr("replicator.sites.registry.vendors.google.location_of", lambda _: "europe")
    async with world(Google, monkeypatch) as w:
        w.fill()
        found = await w.sync()
        assert (found.totals.tags.copied, found.warnings) == (5, [])
        idle = await w.sync()
        assert (idle.totals.tags.unchanged, idle.warnings, w.heads) == (5, [], 0)
        assert w.listings == 1
        assert w.fake.count("GET", "/packages/team%2Fapp/tags") == 0
        assert (
            w.fake.count("GET", "/v1/projects/project/locations/europe/repositories/team/packages/app/tags")
            == 3
        )


def test_the_location_of_google_follows_from_the_host_name() -> None:
    hosts = ("europe-docker.pkg.dev", "us-west1-docker.pkg.dev", "gcr.io", "docker.pkg.dev", "x.example")
    assert [location_of(host) for host in hosts] == ["europe", "us-west1", "", "", ""]


PAGED = [vendor for vendor in BULK if vendor.kind != "google"]
"""Google's map of manifests has a single page."""


@pytest.mark.parametrize("vendor", PAGED, ids=lambda vendor: vendor.kind)
async def test_a_server_may_give_smaller_pages_than_were_asked_for(
    vendor: type[VendorRegistry], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vendor, "page", 2)
    async with world(vendor, monkeypatch) as w:
        w.fill()
        found = await w.sync()
        assert (found.totals.tags.copied, found.failures, found.warnings) == (5, [], [])
        assert w.listings <= 4


async def test_a_listing_that_repeats_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    async with world(Quay, monkeypatch) as w:
        w.fill()
        entry = {"name": "v1", "manifest_digest": w.tags(vendor=True)["v1"]}
        body = json.dumps({"tags": [entry], "page": 1, "has_additional": True})
        w.fake.fault("GET", w.fake.listing_path, faults.answer(200, body), times=None)
        found = await w.sync()
        assert (found.totals.tags.copied, w.listings) == (5, 2)
        assert "it repeats" in found.warnings[0]


async def test_no_tags_at_all_are_believed_from_the_standard_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A virtual repository of Artifactory has no items of its own."""
    async with world(Artifactory, monkeypatch) as w:
        w.fill()
        w.fake.lag[w.fake.repository] = {}
        found = await w.sync()
        assert found.totals.tags.copied == 5
        assert "has no tag of docker-local/team/app, which has some" in found.warnings[0]


async def test_a_listing_that_is_down_for_a_moment_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    async with world(Quay, monkeypatch) as w:
        w.fill()
        w.fake.api_status = 503
        assert "each tag is asked for" in (await w.sync()).warnings[0]
        w.fake.api_status = 200
        assert (await w.sync()).warnings == []
        assert (w.listings, w.heads) == (1, 0)


async def test_a_repository_that_is_missing_blames_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    async with world(Quay, monkeypatch) as w:
        w.fill(vendor=False)
        found = await w.sync(out=True)
        assert (found.totals.tags.copied, found.warnings) == (5, [])
        await w.sync(out=True)
        assert (w.listings, w.heads) == (1, 0)


async def test_list_images_serves_where_describe_images_is_forbidden(monkeypatch: pytest.MonkeyPatch) -> None:
    async with world(Ecr, monkeypatch) as w:
        assert isinstance(w.fake, Ecr)
        w.fill()
        w.fake.denied = {"DescribeImages"}
        assert (await w.sync()).warnings == []
        assert w.fake.asked == ["DescribeImages", "ListImages"]
        w.fake.denied = {"DescribeImages", "ListImages"}
        found = await w.sync()
        assert "needed: ecr:ListImages" in found.warnings[0]


async def test_check_says_how_tags_are_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    async with world(Quay, monkeypatch) as w:
        w.fill()
        found = dict((await w.site.check(repositories=["team/app"])).findings)
        assert found["registry"] == 'Quay (kind = "quay" in the config)'
        assert found["digests"] == "listed by Quay's API, at most 100 tags a request"
    async with world(Quay, monkeypatch) as w:
        w.fill()
        w.fake.api_status = 403
        found = dict((await w.site.check(repositories=["team/app"])).findings)
        assert found["digests"].startswith(
            "one request a tag: vendor: Quay's API is of no use for team/app (HTTP 403"
        )


async def test_quay_is_asked_for_no_token_to_push_by_who_only_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would create the repository."""
    async with world(Quay, monkeypatch) as w:
        assert isinstance(w.fake, Quay)
        w.fill()
        await w.sync(repositories="team/*")
        await w.site.check(repositories=["team/app", "team/absent"])
        with pytest.raises(SiteError):
            await w.site.repository("team/absent").resolve("v1")
        w.fill(vendor=False, repository="team/other")
        engine = await w.sync(out=True, repositories="team/other", dry=True)
        assert engine.failures == []
        assert w.fake.created_by_tokens == set()
        await w.sync(out=True, repositories="team/other")
        assert w.fake.created_by_tokens == {"team/other"}


# --- lagging ---


async def test_an_announced_tag_is_not_hidden_by_a_listing_that_lags(monkeypatch: pytest.MonkeyPatch) -> None:
    selection = TagSelection(latest=3)
    async with world(DockerHub, monkeypatch) as w:
        for tag in ("1.0", "1.1"):
            w.put(tag, image(tag, [layer("shared", 100)]))
        assert (await w.sync(selection=selection)).totals.tags.copied == 2
        w.fake.lag["team/app"] = dict(w.tags(vendor=True))
        w.put("1.1")
        found = await w.sync(selection=selection, scope=RunScope({"team/app": frozenset({"1.1"})}))
        assert found.totals.tags.copied == 1
        assert w.tags(vendor=False)["1.1"] == OTHER.digest


async def test_a_listing_that_lags_takes_nothing_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was copied since is newer than what the listing says: the registry is asked."""
    async with world(DockerHub, monkeypatch) as w:
        w.fill()
        await w.sync()
        w.fake.lag["team/app"] = dict(w.tags(vendor=True))
        w.put("v1")
        await w.sync(scope=RunScope({"team/app": frozenset({"v1"})}))
        assert w.tags(vendor=False)["v1"] == OTHER.digest
        found = await w.sync()
        assert (found.totals.tags.copied, w.heads) == (0, 1)
        assert w.tags(vendor=False)["v1"] == OTHER.digest


async def test_a_destination_that_lags_is_asked_before_it_is_written_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with world(DockerHub, monkeypatch) as w:
        w.fill(vendor=False)
        await w.sync(out=True)
        w.fake.lag["team/app"] = {tag: digest for tag, digest in w.tags(vendor=True).items() if tag != "v4"}
        w.put("v1", vendor=False)
        assert (await w.sync(out=True)).totals.tags.copied == 1
        found = await w.sync(out=True)
        assert (found.totals.tags.copied, found.totals.tags.unchanged) == (0, 5)
        assert w.heads == 2  # of the tag that moved, and of the one that is not listed yet
        assert w.fake.count("PUT", "/manifests/") == 0


async def test_old_tags_without_a_digest_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    async with world(DockerHub, monkeypatch) as w:
        assert isinstance(w.fake, DockerHub)
        w.fill()
        w.fake.old = {"v0"}
        await w.sync()
        await w.sync()
        assert w.heads == 1


# --- what may not be moved, what cannot be read ---


async def test_a_locked_tag_is_held_before_anything_is_uploaded(monkeypatch: pytest.MonkeyPatch) -> None:
    async with world(Acr, monkeypatch) as w:
        w.fill(vendor=False)
        await w.sync(out=True)
        w.fake.fixed.add("team/app:v1")
        assert (await w.sync(out=True)).totals.tags.unchanged == 5
        w.put("v1", vendor=False)
        found = await w.sync(out=True)
        assert (found.totals.tags.held, found.totals.tags.failed, found.totals.tags.unchanged) == (1, 0, 4)
        held = [row for row in found.actions if row.outcome == "held"]
        assert [(row.reason, row.hold) for row in held] == [
            ("locked at the destination, with another digest", "immutable")
        ]
        assert w.fake.count("POST|PUT|PATCH") == 0


async def test_a_refused_tag_is_not_tried_again_that_day(monkeypatch: pytest.MonkeyPatch) -> None:
    async with world(Google, monkeypatch) as w:
        w.fill(vendor=False)
        await w.sync(out=True)
        w.fake.fixed.add("project/team/app:v1")
        w.put("v1", vendor=False)
        found = await w.sync(out=True)
        assert (found.totals.tags.held, found.totals.tags.failed) == (1, 0)
        w.memory.operations.clear()
        again = await w.sync(out=True)
        assert (again.totals.tags.held, w.fake.count("POST|PUT|PATCH")) == (1, 0)
        assert not [one for one in w.memory.operations if one.method == "read_manifest"]
        w.fake.fixed.clear()
        w.clock.advance(90_000)
        assert (await w.sync(out=True)).totals.tags.copied == 1


async def test_an_archived_image_of_ecr_is_held(monkeypatch: pytest.MonkeyPatch) -> None:
    async with world(Ecr, monkeypatch) as w:
        w.fill()
        w.fake.archived.add("team/app:v1")
        found = await w.sync()
        assert (found.totals.tags.copied, found.totals.tags.held, found.totals.tags.failed) == (4, 1, 0)
        held = [(row.reason, row.hold) for row in found.actions if row.outcome == "held"]
        assert held == [("archived", "archived")]
        assert w.fake.count("GET", "/manifests/") == 4


@pytest.mark.parametrize("known", [True, False], ids=["state kept", "state lost"])
async def test_an_archived_image_at_the_destination_is_no_hole(
    monkeypatch: pytest.MonkeyPatch, *, known: bool
) -> None:
    """A lifecycle rule may archive what was copied: it cannot be read, and is not copied again."""
    async with world(Ecr, monkeypatch) as w:
        w.fill(vendor=False)
        await w.sync(out=True)
        w.fake.archived |= {"team/app:v1", "team/app:v2"}
        if not known:
            w.state = MemoryState(w.clock)
        w.clock.advance(30 * 86_400)  # everything is to be verified
        found = await w.sync(out=True)
        assert (found.totals.tags.copied, found.totals.tags.unchanged, found.failures) == (0, 5, [])
        digests = {w.tags(vendor=True)[tag] for tag in ("v1", "v2")}
        assert not [one for one in w.fake.requests if one.path.rpartition("/")[2] in digests | {"v1", "v2"}]
        assert w.fake.count("PUT|POST|PATCH", "/v2/") == 0

        w.put("v1", vendor=False)
        moved = await w.sync(out=True)
        assert (moved.totals.tags.copied, moved.totals.tags.unchanged, moved.failures) == (1, 4, [])
        assert w.tags(vendor=True)["v1"] == OTHER.digest


@pytest.mark.parametrize(
    ("vendor", "name", "says"),
    [
        (DockerHub, "app", "1 part, names there are NAMESPACE/NAME"),
        (DockerHub, "a/b/c", "3 parts, names there are NAMESPACE/NAME"),
        (Google, "app", "names there are PROJECT/REPOSITORY/IMAGE"),
    ],
)
async def test_a_name_that_cannot_be_held_is_refused_in_the_plan(
    vendor: type[VendorRegistry], name: str, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world(vendor, monkeypatch) as w:
        w.fill(vendor=False, repository=name)
        found = await w.sync(out=True, repositories=name)
        assert [failure.operation for failure in found.failures] == ["name repository"]
        assert says in found.failures[0].cause
        assert "set `rename` in rule rule" in found.failures[0].cause
        assert w.fake.requests == []


# --- elsewhere, and for long ---


async def test_an_api_on_another_host_gets_the_credentials_that_are_for_it_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Docker Hub's registry and its API are apart; the registry's own token never goes there."""
    async with DockerHub() as api, world(DockerHub, monkeypatch) as w:
        knowledge = w.site._registry.knowledge
        vendor = knowledge.vendor = replace(DOCKER_HUB, api=api.url, hosts=("127.0.0.1",))
        assert vendor.owns("127.0.0.1")
        w.fill()
        api.store.repositories.update(w.fake.store.repositories)
        found = await w.sync()
        assert (found.totals.tags.copied, found.warnings) == (5, [])
        assert (api.count("POST", "/v2/auth/token"), api.count("GET", "/v2/namespaces/")) == (1, 1)
        assert w.listings == 0
        assert {one.headers.get("Authorization") for one in api.requests} == {None, "Bearer of-the-hub"}


@pytest.mark.parametrize("vendor", [Quay, Acr, Google], ids=lambda vendor: vendor.kind)
async def test_tokens_that_expire_in_mid_run_are_not_noticed(
    vendor: type[VendorRegistry], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vendor, "page", 2 if vendor is not Google else 10_000)
    async with world(vendor, monkeypatch, token_uses=3) as w:
        w.fill()
        found = await w.sync()
        assert (found.totals.tags.copied, found.failures, found.warnings) == (5, [], [])


async def test_ecr_is_listed_as_moto_has_it(s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another's word on the shape of `DescribeImages`."""
    async with world(Ecr, monkeypatch) as w:
        monkeypatch.setenv("AWS_ENDPOINT_URL_ECR", s3_endpoint)
        name = f"team/{uuid.uuid4().hex}"
        access = EcrAccess("vendor", EcrHost("-", "eu-west-1"), EcrIdentity())
        async with access.client("ecr") as client:
            await client.create_repository(repositoryName=name)
            pushed = {}
            for number in range(3):
                body = image(f"image {number}", [LAYER]).manifest.body
                done = await client.put_image(
                    repositoryName=name, imageManifest=body.decode(), imageTag=f"v{number}"
                )
                pushed[f"v{number}"] = done["image"]["imageId"]["imageDigest"]
        found = {one.tag: one.digest async for page in w.site.repository(name).listed({}) for one in page}
        assert found == pushed
        assert w.fake.requests == []
