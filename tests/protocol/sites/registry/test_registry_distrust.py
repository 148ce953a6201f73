"""What a HEAD or a refused listing says is not believed until a GET, or the one tag asked for, said so."""

from __future__ import annotations

import pytest

from replicator.demo.images import image, load
from replicator.errors import AuthFailed, Denied, NotFound, SiteError, Unavailable, Unsupported
from tests.fakes import faults, habits
from tests.fakes.clients import registry_site
from tests.fakes.registry import FakeRegistry

pytestmark = pytest.mark.usefixtures("moved")

HEADS = {
    **{
        str(status): (status, False)
        for status in (400, 401, 403, 404, 405, 406, 410, 412, 500, 501, 502, 504)
    },
    "200 as HTML": (200, True),
    "404 as HTML": (404, True),
    "200 that tells nothing": (200, False),
    "204": (204, False),
}


@pytest.mark.parametrize(("status", "html"), HEADS.values(), ids=HEADS)
async def test_get_decides_where_head_is_not_good(status: int, *, html: bool) -> None:
    async with (
        FakeRegistry(habits.heads_answered(status, html=html)) as fake,
        registry_site(fake.url) as site,
    ):
        built = image("a")
        load(fake.store, "app", "v1", built)
        repository = site.repository("app")
        assert (await repository.resolve("v1")).digest == built.digest
        assert [entry.method for entry in fake.find(target="/manifests/")][-1] == "GET"
        for _ in range(4):
            assert (await repository.resolve("v1")).digest == built.digest
        # Three times in vain is enough: from then on the manifest is read at once.
        assert fake.count("HEAD", "/manifests/") == 3
        assert fake.count("GET", "/manifests/") == 5


async def test_head_that_is_not_answered_at_all_is_asked_again_by_one_get() -> None:
    async with FakeRegistry() as fake, registry_site(fake.url) as site:
        built = image("a")
        load(fake.store, "app", "v1", built)
        fake.fault("HEAD", "/manifests/", faults.reset_unanswered(), times=None)
        assert (await site.repository("app").resolve("v1")).digest == built.digest
        assert fake.count("GET", "/manifests/") == 1


async def test_tag_is_missing_only_once_get_said_so() -> None:
    async with FakeRegistry() as fake, registry_site(fake.url) as site:
        load(fake.store, "app", "v1", image("a"))
        with pytest.raises(NotFound) as raised:
            await site.repository("app").resolve("v2")
        assert raised.value.operation == "resolve"
        assert [entry.method for entry in fake.find(target="/manifests/")] == ["HEAD", "GET"]


async def test_manifest_that_may_not_be_pulled_is_denied_with_the_registrys_words() -> None:
    async with FakeRegistry(habits.pull_policy()) as fake, registry_site(fake.url) as site:
        load(fake.store, "app", "v1", image("a"))
        with pytest.raises(Denied, match="7 vulnerabilities"):
            await site.repository("app").resolve("v1")


@pytest.mark.parametrize("status", [400, 401, 405, 412, 500, 501, 502, 504])
async def test_blob_is_not_known_to_be_there_where_head_is_refused(status: int) -> None:
    async with FakeRegistry() as fake, registry_site(fake.url) as site:
        built = image("a")
        load(fake.store, "app", "v1", built)
        fake.fault("HEAD", "/blobs/", faults.answer(status), times=None)
        assert not await site.repository("app").has_blob(built.manifest.blobs[0].digest)
        assert fake.count("HEAD", "/blobs/") == 1


async def _tags(site_url: str) -> list[str]:
    async with registry_site(site_url) as site:
        return [tag async for page in site.repository("app").tags() for tag in page]


REFUSALS: dict[int, type[SiteError]] = {401: AuthFailed, 403: Denied, 405: Unsupported, 501: Unsupported}


@pytest.mark.parametrize(("status", "error"), REFUSALS.items())
async def test_refused_listing_is_not_asked_for_again_where_the_repository_exists(
    status: int, error: type[SiteError]
) -> None:
    async with FakeRegistry(habits.no_tags_list(status)) as fake, registry_site(fake.url) as site:
        load(fake.store, "app", "v1", image("a"))
        repository = site.repository("app")
        with pytest.raises(error):
            await anext(repository.tags())
        await repository.resolve("v1")
        with pytest.raises(Unsupported):
            await anext(site.repository("app").tags())
        # One that is not supported is asked for once more, without a page size.
        assert fake.count("GET", "/tags/list") == (2 if error is Unsupported else 1)


async def test_refused_listing_of_what_may_not_exist_yet_is_asked_for_again() -> None:
    async with FakeRegistry(habits.hides_unknown_repositories()) as fake, registry_site(fake.url) as site:
        repository = site.repository("app")
        with pytest.raises(AuthFailed):
            await anext(repository.tags())
        with pytest.raises(AuthFailed):
            await repository.resolve("v1")
        load(fake.store, "app", "v1", image("a"))
        assert await anext(site.repository("app").tags()) == ["v1"]


async def test_a_failing_get_after_a_failing_head_is_told_in_the_gets_words() -> None:
    async with FakeRegistry() as fake, registry_site(fake.url) as site:
        fake.fault("HEAD", "/manifests/", faults.answer(500), times=None)
        fake.fault(
            "GET",
            "/manifests/",
            faults.answer(502, "<title>Bad gateway of ours</title>", html=True),
            times=None,
        )
        with pytest.raises(Unavailable, match="Bad gateway of ours"):
            await site.repository("app").resolve("v1")
