"""Listings of tags and repositories in every form of paging; what might be silently short is an error."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from replicator.demo.images import image, layer, load
from replicator.errors import AuthFailed, Corrupt, NotFound, SiteError, Unavailable, Unsupported
from replicator.events import Event, Warned
from replicator.sites.registry import listing
from replicator.sites.registry.links import next_link
from tests.fakes import faults, habits
from tests.fakes.auth import Bearer
from tests.fakes.clients import registry_site
from tests.fakes.registry import Action, Exchange, FakeRegistry

TAGS = [f"v{number:03}" for number in range(25)]


def fill(fake: FakeRegistry, tags: Sequence[str] = TAGS) -> None:
    built = image("a", [layer("a", 100)])
    for tag in tags:
        load(fake.store, "app", tag, built)


async def collect(pages: AsyncIterator[Sequence[str]]) -> list[str]:
    return [name async for page in pages for name in page]


async def tags_of(
    fake: FakeRegistry, *, seen: list[Event] | None = None, tags_per_page: int = 1000
) -> list[str]:
    async with registry_site(fake.url, {"tags_per_page": tags_per_page}, seen=seen) as site:
        return await collect(site.repository("app").tags())


async def fails(fake: FakeRegistry, error: type[SiteError], *, tags_per_page: int = 1000) -> SiteError:
    with pytest.raises(error) as raised:
        await tags_of(fake, tags_per_page=tags_per_page)
    assert (raised.value.site, raised.value.operation) == ("there", "list tags")
    return raised.value


def page(tags: object, link: str = "", **more: object) -> Action:
    headers = {"Link": f'<{link}>; rel="next"'} if link else {}
    return faults.answer(200, json.dumps({"name": "app", "tags": tags, **more}), headers)


# --- ways of paging ---


@pytest.mark.parametrize("link", ["relative", "absolute", "several"])
async def test_links_of_every_form_are_followed_to_the_end(link: str) -> None:
    async with FakeRegistry(habits.page_size(10, link=link)) as fake:
        fill(fake)
        assert await tags_of(fake) == TAGS
        assert fake.count("GET", "/tags/list") == 3


async def test_several_link_headers_are_read() -> None:
    async with FakeRegistry() as fake:

        async def two_headers(_: Exchange) -> web.StreamResponse:
            response = web.json_response({"name": "app", "tags": ["a"]})
            response.headers.add("Link", '</v2/app/tags/list?last=0>; rel="previous"')
            response.headers.add("Link", '</v2/app/tags/list?last=a>; rel="next"')
            return response

        fake.fault("GET", "/tags/list", two_headers)
        fake.fault("GET", "/tags/list", page(["b"]))
        assert await tags_of(fake) == ["a", "b"]


async def test_a_server_that_ignores_n_and_order_is_read_in_one_request() -> None:
    async with FakeRegistry(habits.distribution_tags()) as fake:
        fill(fake)
        assert sorted(await tags_of(fake, tags_per_page=10)) == TAGS
        assert fake.count("GET", "/tags/list") == 1


async def test_a_server_that_ignores_n_may_have_exactly_n_tags() -> None:
    async with FakeRegistry(habits.distribution_tags()) as fake:
        fill(fake)
        assert sorted(await tags_of(fake, tags_per_page=len(TAGS))) == TAGS


async def test_a_server_without_links_is_asked_by_last() -> None:
    async with FakeRegistry(habits.page_size(10, link="same")) as fake:
        fill(fake, TAGS[:20])
        fake.fault("GET", "/tags/list", without_link, times=None)
        assert await tags_of(fake, tags_per_page=10) == TAGS[:20]


async def without_link(exchange: Exchange) -> web.StreamResponse:
    response = await exchange.proceed()
    response.headers.popall("Link", None)
    return response


async def test_a_listing_that_is_cut_off_without_a_link_is_an_error() -> None:
    async def first_ones(exchange: Exchange) -> web.StreamResponse:
        return web.json_response({"name": "app", "tags": TAGS[: int(exchange.request.query["n"])]})

    async with FakeRegistry() as fake:
        fake.fault("GET", "/tags/list", first_ones, times=None)
        error = await fails(fake, Corrupt, tags_per_page=10)
        assert "breaks off" in error.cause


async def test_a_full_last_page_of_a_server_with_links_is_the_end() -> None:
    async with FakeRegistry(habits.page_size(10)) as fake:
        fill(fake, TAGS[:20])
        assert await tags_of(fake, tags_per_page=10) == TAGS[:20]


async def test_a_page_size_that_is_refused_is_left_out_from_then_on() -> None:
    async with FakeRegistry() as fake:
        fill(fake)
        fake.fault("GET", "n=1000", faults.refuse(400, "PAGINATION_NUMBER_INVALID"), times=None)
        async with registry_site(fake.url) as site:
            assert await collect(site.repository("app").tags()) == TAGS
            assert await collect(site.repository("app").tags()) == TAGS
        assert fake.count("GET", "n=1000") == 1


async def test_no_page_size_is_asked_for_where_none_is_configured() -> None:
    async with FakeRegistry() as fake:
        fill(fake)
        assert await tags_of(fake, tags_per_page=0) == TAGS
        assert fake.find("GET", "/tags/list")[0].query == ""


async def test_no_accept_of_manifests_is_sent() -> None:
    async with FakeRegistry(habits.artifactory()) as fake:
        fill(fake)
        assert await tags_of(fake) == TAGS


async def test_tags_may_be_null_or_left_out() -> None:
    for body in ('{"name": "app", "tags": null}', '{"name": "app"}', '{"name": "app", "tags": []}'):
        async with FakeRegistry() as fake:
            fake.fault("GET", "/tags/list", faults.answer(200, body))
            assert await tags_of(fake) == []


async def test_a_map_of_manifests_beside_the_tags_does_no_harm() -> None:
    async with FakeRegistry() as fake:
        manifests = {"sha256:0": {"imageSizeBytes": "12", "tag": ["a"], "timeCreatedMs": "1"}}
        fake.fault("GET", "/tags/list", page(["a"], manifest=manifests, child=["sub"]))
        assert await tags_of(fake) == ["a"]


# --- what tags are ---


async def test_tags_on_two_pages_are_told_once() -> None:
    async with FakeRegistry() as fake:
        fake.fault("GET", "/tags/list", page(["a", "b"], "/v2/app/tags/list?last=a"))
        fake.fault("GET", "/tags/list", page(["b", "c", "c"]))
        assert await tags_of(fake) == ["a", "b", "c"]


async def test_odd_tags_are_left_out_with_a_warning_and_spoil_nothing() -> None:
    seen: list[Event] = []
    async with FakeRegistry() as fake:
        fake.fault("GET", "/tags/list", page(["good", "no/tag", "", None, 7, "-x", "x" * 129, "Fine_1.2-3"]))
        assert await tags_of(fake, seen=seen) == ["good", "Fine_1.2-3"]
    warnings = [event for event in seen if isinstance(event, Warned)]
    assert len(warnings) == 1
    assert warnings[0].site == "there"
    assert "6 skipped" in warnings[0].text
    assert "'no/tag'" in warnings[0].text
    assert len(warnings[0].text) < 1000


# --- what is an error ---


async def test_a_missing_repository_is_not_an_empty_one() -> None:
    async with FakeRegistry() as fake:
        await fails(fake, NotFound)
        assert fake.count("GET", "/tags/list") == 1


async def test_a_page_that_leads_to_itself_is_an_error() -> None:
    async with FakeRegistry(habits.page_size(10, link="same")) as fake:
        fill(fake)
        error = await fails(fake, Corrupt)
        assert "repeats" in error.cause
        assert fake.count("GET", "/tags/list") <= 3


async def test_pages_that_lead_in_a_circle_are_an_error() -> None:
    async with FakeRegistry() as fake:
        for tag, link in (("a", "b"), ("b", "c"), ("c", "b")):
            fake.fault("GET", "/tags/list", page([tag], f"/v2/app/tags/list?last={link}"))
        assert "circle" in (await fails(fake, Corrupt)).cause


async def test_empty_pages_without_end_are_an_error() -> None:
    async def empty(exchange: Exchange) -> web.StreamResponse:
        number = len(exchange.fake.requests)
        headers = {"Link": f'</v2/app/tags/list?page={number}>; rel="next"'}
        return web.json_response({"name": "app", "tags": []}, headers=headers)

    async with FakeRegistry() as fake:
        fake.fault("GET", "/tags/list", empty, times=None)
        assert "repeats" in (await fails(fake, Corrupt)).cause


async def test_of_a_link_to_another_host_path_and_query_are_asked_of_the_registry_itself() -> None:
    """Behind proxies a registry writes its inner host into its Links."""
    async with FakeRegistry(habits.page_size(10, link="foreign")) as fake:
        fill(fake)
        assert sorted(await tags_of(fake)) == TAGS


REFUSALS_OF_N = [(status, False) for status in (400, 404, 405, 406, 413, 422, 500, 502)] + [(200, True)]


@pytest.mark.parametrize(("status", "html"), REFUSALS_OF_N)
async def test_a_page_size_refused_in_any_way_is_left_out_once(status: int, *, html: bool) -> None:
    refuses = habits.answers(lambda request: "n" in request.query, status, html=html)
    async with FakeRegistry(refuses) as fake:
        fill(fake)
        assert sorted(await tags_of(fake)) == TAGS
        assert [entry.query for entry in fake.find("GET", "/tags/list")] == ["n=1000", ""]


@pytest.mark.parametrize("body", ["", "[]", '{"tags": 3}', '{"repositories": ["a"]}', '{"tags": ["a"'])
async def test_what_is_no_listing_is_an_error(body: str) -> None:
    async with FakeRegistry() as fake:
        fake.fault("GET", "/tags/list", faults.answer(200, body))
        await fails(fake, Corrupt)


async def test_a_page_without_end_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "MAX_PAGE_BYTES", 200)
    async with FakeRegistry() as fake:
        fill(fake)
        await fails(fake, Corrupt)


async def test_more_tags_than_fit_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "MAX_NAMES", 20)
    async with FakeRegistry() as fake:
        fill(fake)
        await fails(fake, Corrupt)


async def test_longer_names_than_fit_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "MAX_NAME_BYTES", 50)
    async with FakeRegistry() as fake:
        fill(fake)
        await fails(fake, Corrupt)


async def test_a_page_of_a_million_empty_lists_is_refused_before_it_is_decoded() -> None:
    async with FakeRegistry() as fake:
        fill(fake)
        fake.fault(
            "GET", "/tags/list", faults.answer(200, '{"name":"app","tags":[' + "[]," * 1_000_000 + "[]]}")
        )
        error = await fails(fake, Corrupt)
    assert "more than 1000000 entries" in str(error)


async def test_one_tag_pages_without_end_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "FREE_PAGES", 10)
    asked = 0

    async def endless(exchange: Exchange) -> web.StreamResponse:
        nonlocal asked
        asked += 1
        link = {"Link": f'</v2/app/tags/list?last=t{asked}>; rel="next"'}
        return web.json_response({"name": "app", "tags": [f"t{asked}"]}, headers=link)

    async with FakeRegistry() as fake:
        fill(fake)
        fake.fault("GET", "/tags/list", endless, times=None)
        error = await fails(fake, Corrupt)
    assert "does not end: 11 pages with 10 names" in str(error)
    assert asked == 10


async def test_a_later_page_that_fails_fails_the_listing() -> None:
    async with FakeRegistry(habits.page_size(10)) as fake:
        fill(fake)
        fake.fault("GET", "last=", faults.answer(501))
        with pytest.raises(SiteError) as raised:
            await tags_of(fake)
        assert isinstance(raised.value, Unsupported | Unavailable)


# --- zot: the tag that the next page begins after is deleted meanwhile ---


def delete(tag: str) -> Action:
    async def act(exchange: Exchange) -> web.StreamResponse:
        exchange.fake.store.content("app").tags.pop(tag)
        return await exchange.proceed()

    return act


async def test_a_vanished_last_tag_restarts_the_listing_once() -> None:
    async with FakeRegistry(habits.last_must_exist(), habits.page_size(10)) as fake:
        fill(fake)
        fake.fault("GET", "last=v009", delete("v009"))
        assert await tags_of(fake) == TAGS  # v009 was told before it went; the rest is there, once


async def test_a_listing_that_cannot_be_held_on_to_fails() -> None:
    async with FakeRegistry(habits.last_must_exist(), habits.page_size(10)) as fake:
        fill(fake)
        fake.fault("GET", "last=v009", delete("v009"))
        fake.fault("GET", "last=v010", delete("v010"))
        await fails(fake, NotFound)


# --- repositories ---


async def test_repositories_are_listed_over_pages() -> None:
    async with FakeRegistry(habits.page_size(2)) as fake:
        for name in ("a", "b/c", "d", "e/f/g", "h"):
            fake.store.put_blob(name, b"")
        async with registry_site(fake.url) as site:
            assert await collect(site.repositories()) == ["a", "b/c", "d", "e/f/g", "h"]


async def test_an_empty_catalog_is_empty() -> None:
    async with FakeRegistry() as fake:
        fake.fault("GET", "_catalog", faults.answer(200, '{"repositories": null}'))
        async with registry_site(fake.url) as site:
            assert await collect(site.repositories()) == []


async def test_odd_repositories_are_left_out_with_a_warning() -> None:
    seen: list[Event] = []
    async with FakeRegistry() as fake:
        fake.fault("GET", "_catalog", faults.answer(200, '{"repositories": ["fine", "No", "a//b", 3]}'))
        async with registry_site(fake.url, seen=seen) as site:
            assert await collect(site.repositories()) == ["fine"]
    assert [event.text for event in seen if isinstance(event, Warned)] == [
        "list repositories: 3 skipped, invalid names: 'No', 'a//b', 3"
    ]


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405])
async def test_a_registry_without_a_catalog_says_what_to_do_and_is_not_asked_again(status: int) -> None:
    async with FakeRegistry(habits.no_catalog(status)) as fake:
        async with registry_site(fake.url) as site:
            asked = 0
            for turn in range(2):
                with pytest.raises(Unsupported, match="name the repositories in the rule"):
                    await collect(site.repositories())
                asked = asked if turn else fake.count("GET", "_catalog")
        assert fake.count("GET", "_catalog") == asked > 0
        async with registry_site(fake.url, {"catalog": False}) as site:
            with pytest.raises(Unsupported):
                await collect(site.repositories())
        assert fake.count("GET", "_catalog") == asked


async def test_a_catalog_that_breaks_off_is_not_a_missing_catalog() -> None:
    async with FakeRegistry(habits.page_size(2)) as fake:
        for name in ("a", "b", "c"):
            fake.store.put_blob(name, b"")
        fake.fault("GET", "last=", faults.answer(403))
        async with registry_site(fake.url) as site:
            with pytest.raises(SiteError) as raised:
                await collect(site.repositories())
            assert not isinstance(raised.value, Unsupported)
            assert await collect(site.repositories())  # asked again


async def test_wrong_credentials_are_not_a_missing_catalog() -> None:
    auth = Bearer({"u": "p"})
    async with FakeRegistry(auth=auth) as fake, registry_site(fake.url, user="u", password="wrong") as site:
        with pytest.raises(AuthFailed):
            await collect(site.repositories())


# --- the Link header ---


@pytest.mark.parametrize(
    ("header", "target"),
    [
        ('</a>; rel="next"', "/a"),
        ("</a>; rel=next", "/a"),
        ('</a>;rel="next"', "/a"),
        ('</a> ; title="x, y; z" ; REL="Next"', "/a"),
        ('</a?x=1,2;3>; rel="prev last next"', "/a?x=1,2;3"),
        ('</b>; rel="previous", </a>; rel="next"', "/a"),
        ('</b>; rel="nextish"', None),
        ("</a>", None),
        ("", None),
        ("next", None),
    ],
)
def test_the_next_link_is_found(header: str, target: str | None) -> None:
    assert next_link([header]) == target


@given(st.lists(st.text(max_size=200), max_size=3))
def test_no_link_header_breaks_the_reading(headers: list[str]) -> None:
    target = next_link(headers)
    assert target is None or any(f"<{target}>" in header for header in headers)


@given(st.text(st.characters(exclude_characters="<>", codec="ascii", exclude_categories=["C"]), max_size=50))
def test_a_link_round_trips_whatever_its_target(target: str) -> None:
    other = '<x>; rel="previous"'
    assert next_link([f'{other}, <{target}>; rel="next"']) == target
