"""What `check` says of a registry: everything at once, and nothing that was not tried."""

from __future__ import annotations

import re

import pytest

from replicator.demo.images import image, layer, load
from replicator.events import Events
from replicator.flow.clock import SystemClock
from replicator.ports import SiteCheck
from replicator.sites.registry.settings import RegistrySettings
from replicator.sites.registry.site import RegistrySite
from replicator.sites.registry.vendors.known import VENDORS
from replicator.sites.registry.vendors.vendor import Vendor
from tests.fakes import faults, habits
from tests.fakes.auth import Basic, Bearer
from tests.fakes.clients import registry_site
from tests.fakes.registry import FakeRegistry


async def check(
    fake: FakeRegistry, *repositories: str, push: str | None = None, user: str = "", password: str = ""
) -> SiteCheck:
    async with registry_site(fake.url, user=user, password=password) as site:
        return await site.check(repositories=repositories, push=push)


def fill(fake: FakeRegistry) -> None:
    load(fake.store, "app", "v1", image("a", [layer("a", 10)]))


async def test_a_good_registry_passes() -> None:
    async with FakeRegistry(auth=Bearer({"u": "p"})) as fake:
        fill(fake)
        found = await check(fake, "app", push="app", user="u", password="p")
        assert found.problems == ()
        assert dict(found.findings) == {
            "reachable": "yes",
            "credentials": "good",
            "clock": "in step",
            "pull app": "yes",
            "catalog": "yes",
            "referrers": "yes",
            "registry": "not recognized, as usual for docker-registry and registry:2; set `kind` if it is another",
            "mount": "yes, as far as known",
            "chunks": "yes, of 16384 KiB, as far as known",
            "push app": "yes",
        }
        assert not fake.store.uploads


async def test_nothing_is_written_unasked() -> None:
    async with FakeRegistry(auth=Bearer({"u": "p"})) as fake:
        fill(fake)
        found = await check(fake, "app", user="u", password="p")
        assert dict(found.findings)["push"] == "unknown until the first push"
        assert {entry.method for entry in fake.requests} <= {"GET", "HEAD"}
        auth = fake._auth
        assert isinstance(auth, Bearer)
        assert not any("push" in scope for grant in auth.grants for scope in grant.scopes)


async def test_a_registry_that_is_not_there_is_one_problem() -> None:
    async with FakeRegistry() as fake:
        url = fake.url
    async with registry_site(url) as site:
        found = await site.check(repositories=["app"], push="app")
    assert len(found.problems) == 1
    assert found.findings[0][0] == "reachable"
    assert found.problems[0].startswith("there: ")
    assert "\n" not in found.problems[0]


async def test_what_is_no_registry_is_said_so() -> None:
    async with FakeRegistry() as fake:
        fake.fault("GET", "/v2/", faults.answer(200, "<html>", html=True), times=None)
        found = await check(fake)
        assert "not a registry" in found.problems[0]


@pytest.mark.parametrize("kind", [Basic, Bearer])
async def test_wrong_credentials_are_a_problem_that_does_not_tell_them(kind: type[Basic | Bearer]) -> None:
    async with FakeRegistry(auth=kind({"u": "p"})) as fake:
        found = await check(fake, "app", user="u", password="hunter2")
        assert found.findings[0][0] == "credentials"
        assert len(found.problems) == 1
        assert "hunter2" not in str(found)


async def test_credentials_that_nobody_asked_for_are_not_called_good() -> None:
    async with FakeRegistry() as fake:
        found = await check(fake, user="u", password="wrong")
        assert dict(found.findings)["credentials"] == "not tried: none were asked for"


async def test_each_repository_that_cannot_be_read_is_a_problem() -> None:
    async with FakeRegistry() as fake:
        fill(fake)
        found = await check(fake, "no", "app", "nor")
        assert [re.split(": ", problem)[1] for problem in found.problems] == ["no", "nor"]
        assert dict(found.findings)["pull app"] == "yes"


async def test_no_catalog_and_no_referrers_are_findings_and_no_problems() -> None:
    async with FakeRegistry(habits.no_catalog(), habits.no_referrers()) as fake:
        fill(fake)
        found = await check(fake, "app")
        assert found.problems == ()
        assert dict(found.findings)["catalog"].startswith("no: ")
        assert dict(found.findings)["referrers"] == "no"


async def test_referrers_are_asked_about_where_something_is_to_be_asked_about() -> None:
    async with FakeRegistry() as fake:
        assert dict((await check(fake)).findings)["referrers"] == "unknown: no repository to ask about"
        load(fake.store, "aaa/untagged", None, image("a"))
        fill(fake)
        assert dict((await check(fake)).findings)["referrers"] == "yes"  # one of the catalog's
        assert dict((await check(fake, "no-such")).findings)["referrers"] == "yes"


async def test_a_repository_that_cannot_be_read_leaves_referrers_unknown_and_says_which() -> None:
    async with FakeRegistry(habits.no_catalog()) as fake:
        found = await check(fake, "no-such")
        assert dict(found.findings)["referrers"].startswith("unknown: no-such: 404")


async def test_a_clock_that_is_off_is_a_problem() -> None:
    class LateClock(SystemClock):
        def now(self) -> float:
            return super().now() - 600

    async with FakeRegistry() as fake, registry_site(fake.url, clock=LateClock()) as site:
        found = await site.check()
        assert re.search(r"clock: ours is (599|600|601) s behind", found.problems[0])


async def test_who_may_not_push_has_a_problem() -> None:
    auth = Bearer({"u": "p"}, grant=lambda _, scope: scope.replace(",push", ""))
    async with FakeRegistry(auth=auth) as fake:
        fill(fake)
        found = await check(fake, "app", push="app", user="u", password="p")
        assert len(found.problems) == 1
        assert dict(found.findings)["push app"].startswith("no: ")


@pytest.mark.parametrize("vendor", VENDORS, ids=lambda vendor: vendor.kind)
async def test_a_refusal_names_the_right_that_is_missing(vendor: Vendor) -> None:
    async with FakeRegistry() as fake:
        fill(fake)
        fake.fault("GET", "/tags/list", faults.refuse(403, "DENIED"), times=None)
        fake.fault("POST", "/uploads/", faults.refuse(403, "DENIED"), times=None)
        settings = RegistrySettings(
            "there", fake.url, docker_config=False, proxy="", kind=vendor.kind, create=None
        )
        site = RegistrySite(settings, events=Events(), clock=SystemClock())
        try:
            found = await site.check(repositories=["app"], push="app")
        finally:
            await site.aclose()
    needed = [("pull app", vendor.read_right), ("push app", vendor.write_right)]
    for (what, right), problem in zip(needed, found.problems, strict=True):
        told = f"; needed: {right}" if right else ""
        assert dict(found.findings)[what].partition("; needed: ")[2] == right
        assert problem.endswith(told)


async def test_an_upload_that_may_not_be_cancelled_is_no_problem() -> None:
    async with FakeRegistry() as fake:
        fill(fake)
        fake.fault("DELETE", "/uploads/", faults.refuse(401, "UNAUTHORIZED"), times=None)
        found = await check(fake, "app", push="app")
        assert found.problems == ()
        assert dict(found.findings)["push app"].startswith("yes (the upload")


async def test_it_says_what_the_registry_is_and_why() -> None:
    realm = "https://harbor.invalid/service/token"
    challenge = {"WWW-Authenticate": f'Basic realm="{realm}",service="harbor-registry"'}
    async with FakeRegistry() as fake:
        fake.fault("GET", "/v2/$", faults.answer(401, "{}", headers=challenge), times=1)
        fill(fake)
        found = await check(fake, "app")
    assert dict(found.findings)["registry"] == "Harbor (header WWW-Authenticate)"
